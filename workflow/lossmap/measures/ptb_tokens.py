"""Penn Treebank tokens of English captions, the same as published CIDEr is computed on, without Java.

Fitted to what the published tokeniser does with several million short strings. Its oddities are kept, for scores
compare only if the tokens do: brackets stay ("-lrb-"), and so does "?!".
"""

import re
import unicodedata

# Characters beyond ASCII, by code point (A-B is a range). Accents and vowel signs that go on with a word:
_JOINING = """2C2-2C5 2D2-2DF 2E5-2EB 2ED 2EF-36F 375 378-379 384-385 3F6 483-487 55A-55F 591-5BD 5BF 5C1-5C2 5C4-5C5
5C7 615-61A 64B-65E 670 6D6-6E4 6E7-6ED 6FD-6FE 70F 711 730-74C 7A6-7B0 7EB-7F3 900-903 93C 93E-94E 951-955 962-963
981-983 9BC 9BE-9C4 9C7-9C8 9CB-9CD 9D7 9E2-9E3 A01-A03 A3C A3E-A4F A81-A83 ABC ABE-ACF B82 BBE-BC2 BC6-BC8 BCA-BCD
C01-C03 C3E-C56 D3E-D44 D46-D48 E31 E34-E3A E47-E4E EB1 EB4-EBC EC8-ECD 1885-1886"""
# Signs that are tokens. Whatever is neither these nor letter nor digit, such as emoji, only ends a token.
_SIGNS = """80 A1-A3 A4-A9 AC AE-B4 B6-B9 BC-BF D7 F7 37E 387 589 5BE 5C0 5C3 5C6 5F3-5F4 600-603 606-60C 614 61B
61E-61F 66A 66D 6D4 700-70D 7F6-7F8 964-965 E3F E4F 1FBD 2016-2017 201A 201E-2023 2030-2038 203B 203E-2042 2044 2070
2074-207E 2080-208E 20A0 20A4 20AC 2100-2101 2103-2106 2108-2109 2114 2116-2118 211E-2123 2125 2127 2129 212E 213A-213B
2140-2144 214A-214D 214F 2153-215E 2190-2BFF 3001-3002 3012 30FB FF01-FF0F FF1A-FF20 FF3B-FF40 FF5B-FF65 FFE0-FFE1
FFE5-FFE6"""

# Abbreviations, which keep their period: before a name; perhaps at the end of a sentence; the same, but words unless
# capitalised; only before a number. Then what ends a file's name, and how sentences begin.
_BEFORE_NAME = """adj adm adv alex assoc asst atty attys ave brig capt cf cie cmdr col comdr cpl dept det dr drs elec
ens ft gen gov govs hon insp invt jos lieut lt maj messrs mfg mlle mme mr mrs ms msgr mt mtg natl pfc ph pres prof profs
pvt rep reps rev sen sens sfc sgt spc st ste supt treas vs wm"""
_AT_END = """al ala apr ariz assn aug bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq est etc ext feb fla
fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon mont neb nev nov oct okla penn plc ppte ppty
pte ptes pty ptys rd rt sep sept seq sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo"""
_IF_CAPITAL = "ark az del ill la mass miss ore pa tex wash"
_BEFORE_NUMBER = "art ca fig figs no nos op pp prop"
_FILE_ENDINGS = """bat bmp c cgi class cpp dll doc docx exe gif gz h htm html jar java jpeg jpg mov mp3 pdf php pl png
ppt ps py sql tar txt wav x xml zip"""
_SENTENCE_STARTS = r"""a about according additionally after an and as at but earlier he her here however if in it last
many more mr\. ms\. now once one other our she since so some such that the their then there these they this we what when
while yet you"""
_SPLIT = "cannot gimme gonna gotta lemme wanna"  # into two words, the first of three letters


def _letters(category):
    """Inside of a [...] that matches a Unicode category."""
    codes = (code for code in range(0x10000) if unicodedata.category(chr(code)).startswith(category))
    return _table(" ".join(f"{code:x}" for code in codes))


def _table(codes):
    """Inside of a [...] that matches a list of code points."""
    ranges = []
    for entry in codes.split():
        first, _, last = entry.partition("-")
        if ranges and int(first, 16) == ranges[-1][1] + 1:
            ranges[-1][1] = int(last or first, 16)
        else:
            ranges.append([int(first, 16), int(last or first, 16)])
    return "".join(f"\\u{first:04x}-\\u{last:04x}" for first, last in ranges)


def _any(words):
    return f"(?i:{'|'.join(words.split())})"


def _any_capitalised(words):
    return f"(?:{'|'.join(f'{word[0].upper()}(?i:{word[1:]})' for word in words.split())})"


_A, _N = _letters("L"), _letters("Nd")
_L = _A + _table(_JOINING)
_CURLED = "(?:[\u2019\x92]|&apos;)"
_APOSTROPHE = f"(?:'|{_CURLED})"
_QUOTE = f"(?:['`\u2018\x91\u201b]|{_CURLED})"
_CLITIC = "(?i:[dms]|ll|re|ve)"
_WORD = f"(?:[{_L}][{_L}{_N}]*|[{_N}][{_A}{_N}]*)"
_DOTTED = f"(?:[{_L}][{_L}{_N}]*(?:[.!?][{_L}][{_L}{_N}]*)+)"
_PART = f"(?:[DLOdlo]{_QUOTE}[{_A}{_N}])?[{_A}{_N}]+"
_PARTS = f"(?:{_PART}(?:[-_\u058a\u2010\u2011]{_PART})*)"
_HYPHENED = r"(?:[A-Za-z0-9][A-Za-z0-9.,]*(?:-(?:(?:[A-Za-z]\.){2,}|[A-Za-z0-9]+))+)"
_SIDE = "[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"  # of a slash
_NAME = "[A-Za-z][A-Za-z0-9_:.-]*"
_TAG = rf"<(?:{_NAME}(?: +{_NAME}(?: *= *(?:'[^']*'|\"[^\"]*\"))?)* */?|/{_NAME}|[!?][A-Za-z-][^>]*) *>"
_NEVER = r'"<>|(){}'  # in an address
_PATH = rf"(?:/[^ \t\n\"<>|()]+[^ \t\n.,!?{_NEVER}-])?"

# The longest match is the next token, the first of equals. Where a pattern has a group, the group is the token, and the
# rest must follow it and counts for the length.
_SPELT = [
    # words
    rf"(?i:{'|'.join(f'({word[:3]}){word[3:]}' for word in _SPLIT.split())}|('t)(?:is|was))",
    _WORD,
    rf"({_WORD}|{_DOTTED}){_APOSTROPHE}{_CLITIC}",
    rf"(?i:([a-z]*[a-mo-z])?n{_QUOTE}t)",
    rf"'{_CLITIC}(?![A-Za-z])|{_CURLED}{_CLITIC}",
    _PARTS,
    _DOTTED,
    rf"((?:{_any(_AT_END)}|{_any_capitalised(_IF_CAPITAL)})\.)(?s:..)",
    rf"{_SIDE}(?:\\?/{_SIDE}){{1,2}}",
    _HYPHENED,
    rf"{_WORD}(?:\.{_WORD})*\.{_any(_FILE_ENDINGS)}(?![^\s.,!?])",
    r"[A-Z]+(?:(?:[+&]|&(?i:amp);)[A-Z]+)+|[cC]\+\+|[CFcf]#",
    # words with apostrophes
    rf"(?i:[djl]|ol|dunkin|somethin){_APOSTROPHE}|([yY]{_APOSTROPHE})[{_L}]",
    rf"[A-HJ-XZdlno]{_QUOTE}[{_A}]{{2,}}|[oO]{_QUOTE}[oO]",
    rf"[{_A}]+[AEIOUYaeiouy]{_QUOTE}[A-Zaeiou][{_A}]*",
    rf"(?i:c{_APOSTROPHE}mon|cont{_APOSTROPHE}d\.|e{_APOSTROPHE}er|ev{_APOSTROPHE}ry|li{_APOSTROPHE}l)",
    rf"(?i:nat{_APOSTROPHE}l|nor{_APOSTROPHE}easter|s{_APOSTROPHE}mores)",
    rf"(?i:{_APOSTROPHE}n{_APOSTROPHE}|{_CURLED}n|{_APOSTROPHE}(?:cause|em|till?|[2-9]0s))",
    rf"(?:'[nN]|{_APOSTROPHE}[0-9]{{2}})(?!\S)",
    # abbreviations
    rf"{_any(_BEFORE_NAME)}\.",
    rf"({_any(_BEFORE_NUMBER)}\.)\s?[0-9]",
    r"(?:[A-Za-z]\.)+",
    rf"([A-Za-z])\.\s+(?:{_any_capitalised(_SENTENCE_STARTS)}|{_TAG})\s",
    rf"((?:{_WORD}|{_PARTS}|{_DOTTED}|{_HYPHENED})\.)[,;:]",
    # numbers: decimals and times, dates, fractions, telephone numbers; and what stands before money
    rf"[-+]?[{_N}]*(?:[.,:\u066b\u066c][{_N}]+)+|[-+][{_N}]+",
    r"[0-9]{1,2}[-/][0-9]{1,2}[-/][0-9]{2,4}",
    r"(?:[0-9]{1,4}[- \xa0])?[0-9]{1,4}(?:\\?/|\u2044)[0-9]{1,4}",
    r"(?:\([0-9]{2,3}\)[ \xa0]?|(?:\+\+?)?(?:[0-9]{2,4}[- \xa0]){1,2})[0-9]{3,4}[- \xa0]?[0-9]{3,5}",
    r"(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}",
    r"[A-Z]+\$",
    # addresses, tags, names after a sign
    rf"(?i:https?)://[^ \t\n{_NEVER}]+[^ \t\n.,!?{_NEVER}-]",
    rf"(?i:www)\.(?:[^ \t\n.,!?{_NEVER}]+\.)+[A-Za-z]{{2,4}}{_PATH}",
    rf"(?:[^ \t\n!`'$,-_{_NEVER}]+\.)+(?i:com|edu|net|org){_PATH}",  # nor capitals nor digits: from "," to "_"
    rf"<?[A-Za-z0-9][^\s{_NEVER}]*@(?:[^\s.{_NEVER}]+\.)*[^\s.{_NEVER}]+>?",
    rf"@[A-Za-z_][A-Za-z0-9_]*|#[{_L}]+",
    _TAG,
    r"&(?i:amp|apos|cdq|gt|ht|lr|lt|md|mdash|nbsp|ndash|odq|quot|ur);|&#[0-9]+;",
    # brackets as they are written, smileys, signs
    r"-(?i:[lr][crs]b)-",
    r"[<>]?[:;=][-'*o]?[()@DOP[\\\]dp{|](?![A-Za-z0-9])",
    r"['<=>^x~-]_['<=>^x~-]|\(['<=>^x~-][_.]?['<=>^x~-]\)",
    r"-{2,}|\.{3,5}|\.(?:[ \xa0]\.){2,4}|[?!]{2,}|_{2,}|\*{2,}|#{2,}|@{2,}|<<|>>|(?:\\\*)+",
    r"''|(?:&apos;){2}|[`\u2018\u2019\u201a-\u201f\u2039\u203a\xab\xbb\x91-\x94]{2}",
    r"[\u207a\u207b\u208a\u208b]?(?:[\u2070\xb9\xb2\xb3\u2074-\u2079]+|[\u2080-\u2089]+)",
    rf"[!-~{_L}{_N}{_table(_SIGNS)}]",
]
_PATTERNS = [re.compile(pattern) for pattern in _SPELT]

# Most of a caption is words between blanks, perhaps with a comma or period, which need no search.
_PLAIN = re.compile(r"\s*([A-Za-z]+)([,.]?)(?!\S)")
_NOT_PLAIN = {*" ".join((_BEFORE_NAME, _AT_END, _IF_CAPITAL, _BEFORE_NUMBER, _SPLIT)).split()}

# How a token is written in the list, and which are not.
_WRITTEN = {
    **{"[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-", "&amp;": "&", "&lt;": "<", "&gt;": ">"},
    **{"\u20ac": "$", "\xa4": "$", "\u20a0": "$", "\x80": "$", "\xa3": "#", "\xa2": "cents"},
    **{"\xbc": "1/4", "\xbd": "1/2", "\xbe": "3/4", "\u2153": "1/3", "\u2154": "2/3"},
}
_STRAIGHT = {
    **dict.fromkeys(map(ord, "\u2018\u2039\u201b\x91"), "`"),
    **dict.fromkeys(map(ord, "\u2019\u203a\x92"), "'"),
    **dict.fromkeys(map(ord, "\u201c\xab\x93"), "``"),
    **dict.fromkeys(map(ord, "\u201d\xbb\x94"), "''"),
}
_STRAIGHTENED = re.compile(rf"n{_QUOTE}t|{_CURLED}{_CLITIC}|(?:&apos;)+|[^\w\s]{{2}}")
_DROPPED = re.compile(r"[.?!,:;\"`'-]|''|``|-{2,4}|\.[ \xa0.]+|&(?:md|mdash|nbsp|ndash|quot);")


def ptb_tokens(caption):
    """Lower-case Penn Treebank tokens of a caption, without punctuation.

    Parameters: caption, a string. A line break in it is a blank.
    Returns: list of strings without blanks; empty where there is nothing but punctuation.
    Source: what pycocoevalcap 1.2 hands to its scorers: the PTBTokenizer of Stanford CoreNLP 3.4.1, lower-cased, less a
    list of punctuation tokens. There are four differences. A caption's tokens do not depend on the next caption (there,
    "no." at the end keeps its period if a number begins the next one). A line break in a caption does not move the
    captions after it to other images. Letters and digits younger than Unicode 6.2 count. Soft hyphens go first of all.
    """
    text = caption.replace("\xad", "")
    tokens, place, stop = [], 0, len(text)
    text += "\n\n"  # some patterns look at what comes next
    while place < stop:
        plain = _PLAIN.match(text, place)
        if plain and (word := plain[1].lower()) not in _NOT_PLAIN and not (len(word) == 1 and plain[2] == "."):
            tokens.append(word)
            place = plain.end()
        elif (end := _token_end(text, place)) > place:
            tokens += _written(text[place:end].lower())
            place = end
        else:
            place += 1  # a blank, or a character that is no token
    return tokens


def _token_end(text, start):
    longest = end = start
    for pattern in _PATTERNS:
        found = pattern.match(text, start)
        if found and found.end() > longest:
            longest, end = found.end(), found.end(found.lastindex or 0)
    return end


def _written(token):
    """Nothing for punctuation, several tokens where a blank is inside, else one."""
    if _STRAIGHTENED.fullmatch(token):
        token = token.replace("&apos;", "'").translate(_STRAIGHT)
    if _DROPPED.fullmatch(token):
        return []
    if "&amp;" in token and token.replace("&amp;", "").isalpha():  # AT&amp;T, but no address
        token = token.replace("&amp;", "&")
    if not (token.startswith("<") and token.endswith(">")):
        token = token.replace("(", "-lrb-").replace(")", "-rrb-")
    return _WRITTEN.get(token, token).split()
