"""Strings on which tokenisers differ, written for this purpose."""

HARD = r"""
A man's dog can't sit: it's "here", (really) in the U.S.
The dogs' bowls aren't full, and the cat's won't be either.
She'd've said they'll, we've, I'm, you're; he DOESN'T. DON'T!
It’s a dog’s life – “don’t” ask ‘why’ — they’ll’ve gone…
'Tis the '90s: rock'n'roll, rock 'n' roll, the 1980's and '60s-style hats from '65
cannot gonna wanna gotta lemme gimme, but cannots and gonnabe; Cannot!
o'clock O'Brien's d'Artagnan l'eau c'mon ma'am y'all li'l ol' nor'easter e'er 'em 'cause 'til fishin' singin'
jack-o'-lantern will-o'-the-wisp mother-in-law's two-and-a-half x-ray T-shirt -- a-b --- -c d- pre-1990 non-U.S.
A 3-year-old, 6'2" tall, 5 ft. 10 in., 1/2 mile, 2 1/2 hours, 1 1/2-inch, ½ cup, 1½ cups, 3⁄4
Mr. and Mrs. Smith vs. Dr. No. at St. Mary's Ave., Inc. etc. e.g. this, i.e. that, a.k.a. p.m.
No. 5 has no. 5 but no. The no.
He works at Apple Inc. He left Jan. 5 for Wash. and they wash. It was vitamin C. The end.
The plane lands at 5:30 p.m., 5:30pm, 17:30. Gate C. 12:30:45
$5.00, US$5, A$3, £5, €5,50, 99¢, ¥100, 5€, 10%, 100 %, $1,000,000.00
1,000 1,00 10.5 .5 -5 +5.5 1,2,3 1.2.3.4 5. 5, 5-6 5–6 2x4 4x4's 1st 22nd 1990s #1 #12 No.1
12/25/2014 2014-12-25 25-12-14 1/2/3/4 9/11 24/7 and/or his/her w/ b/w w/o a/b/c/d
call 555-1234, (555) 555-1234, +1 800 555 1234 or 555.555.1234
see http://www.example.com/a_b?c=d#e. or www.example.com, example.com/index.html, example.org's
mail a.b+c@example.co.uk or @user_1 #hashtag #tag_two #3d a#b
a sign reading "STOP"! and 'GO', ``quoted'' and `single'
wait...what?! no!! yes??? hmm.... ok.. ok . . . fine ?! ! ?
the (red [blue {green}]) <b>bold</b> <unk> <br /> <3 &amp; &lt; &quot;x&quot; AT&amp;T AT&T R&B Q&A rhythm & blues
:) :-) ;-) :( :D =) :'( ^_^ -_- (^_^) <3 :P :/ 8) xD
❤ and ★★☆ ✓ → ←
café naïve jalapeño Zoë's Ångström œuvre Straße İstanbul Ελλάς Москва 東京 서울 日本語の文 שלום مرحبا
cafe_au_lait a_b __init__ _x x_ * ** *** ~ ~5 = == + ++ | || \ \\ ^ % @ # & _ / //
C++ C# F# A+ B- a+b 1+1=2 x^2 m² H₂O 25°C 72° F © ® ™ ± × ÷ µm № 5
-LRB- -rrb- -- ... ; : , . ! ? '' `` ' " - –
.
...
?!
""
'
( )
a
A.
I
ALL CAPS IN THE U.S.A. AND UK'S BBC
One.Two three.Four five . Six .seven eight.
end."next 'end.' (end.) end.) "end."
version 1.2.3-beta file.txt image_001.jpg photo.JPG 5.jpg notes.tar.gz Node.js e.g.this
don´t dont don`t it`s o`clock ain´t
he said: "it's 5 o'clock, isn't it?" -- 'no,' she said
Nike's "Just do it." McDonald's M&M's Dunkin' Donuts Toys'R'Us Macy's, Wendy's; Lay's: Levi's!
a man in a wheel-chair , holding a tennis racquet .
3 dogs,2 cats;1 bird:0 fish
$ 5 # 1 @ home % off & more
x,y x, y x ,y x , y
1,x x,1 1.x x.1 1:x x:1 1-x x-1 1/x x/1 1'x x'1
""".strip("\n").split("\n")
HARD += [
    "",
    " leading and trailing ",
    "two  spaces,\ta tab",
    "no\u00a0break, wide\u3000blank, zero\u200bwidth, soft\u00adhyphen, byte\ufefforder",
    "non\u2011breaking, true\u2010hyphen, minus \u22125, en\u2013dash, em\u2014dash, bar\u2015end",
    "cafe\u0301 with a loose accent, a man\u2019s \u201cword\u201d, \u00ab quoi \u00bb, \u2039x\u203a, \u201elow\u201c",
    "\U0001f600 a smiling face \U0001f600\U0001f44d\U0001f3fd, a \u2764\ufe0f, flags \U0001f1fa\U0001f1f8",
]
