"""Caption tokens: what the published tokeniser was seen to make of hard strings, and its own word where Java is."""

import itertools
import shutil

import numpy as np
import pytest
from hard_captions import HARD

from lossmap.measures.cider import cider_d
from lossmap.measures.ptb_tokens import ptb_tokens
from lossmap.miniature.language import captions
from lossmap.miniature.scenes import digit_pool, draw_scene

SEEN = {
    "A man, riding a wave.": "a man riding a wave",
    "dogs; cats: birds! fish? -- none...": "dogs cats birds fish none",
    "": "",
    " . , ! ' \" - -- ... : ;": "",
    "it's the dogs' bowl, isn't it": "it 's the dogs bowl is n't it",
    "Cannot, gonna; cannots": "can not gon na cannots",
    "It’s “fine” – they’ll": "it 's fine they 'll",
    "'Tis the '90s, rock'n'roll": "'t is the '90s rock 'n' roll",
    "o'clock O'Brien's y'all ma'am": "o'clock o'brien 's y' all ma'am",
    "T-shirt two-and-a-half a- -b a--b": "t-shirt two-and-a-half a b a b",
    "Mr. Smith of the U.S. Navy, Inc.": "mr. smith of the u.s. navy inc.",
    "No. 5, no. Wash. the car and wash.": "no. 5 no wash. the car and wash",
    "$5.00 £5 €5 5¢ US$5 10%": "$ 5.00 # 5 $ 5 5 cents us$ 5 10 %",
    "1,000 at 12:30 p.m., 1/2 or ½, 6'2\"": "1,000 at 12:30 p.m. 1/2 or 1/2 6 2",
    "and/or a/b/c w/ 9/11/2001": "and/or a/b/c w / 9/11/2001",
    "(a) [b] {c} ?! !! ----- ---": "-lrb- a -rrb- -lsb- b -rsb- -lcb- c -rcb- ?! !! -----",
    "see http://a.com/b?c=d. or a.com/bc": "see http://a.com/b?c=d or a.com/bc",
    "me@a.co.uk @user #tag #1": "me@a.co.uk @user #tag # 1",
    ":) :-( <3 ^_^": ":-rrb- :--lrb- < 3 ^_^",
    "(555) 555-1234 555-1234": "-lrb-555-rrb- 555-1234 555-1234",
    "<b>bold</b> AT&amp;T &lt;": "<b> bold </b> at&t <",
    "café \U0001f600 東京 2×3 25°C": "café 東京 2 × 3 25 ° c",
    "One.Two end.) A. vitamin C. The": "one.two end -rrb- a. vitamin c the",
}


@pytest.mark.parametrize("caption", SEEN)
def test_tokens_are_those_of_the_published_tokeniser(caption):
    assert ptb_tokens(caption) == SEEN[caption].split()


def test_a_line_break_is_a_blank():
    assert ptb_tokens("a dog\nruns\r\naway") == ["a", "dog", "runs", "away"]


def test_punctuation_beside_a_word_adds_nothing():
    for mark in (",", ".", "!", "?", ";", ":", "...", " -", ' "', "'"):
        assert ptb_tokens(f"a red ball{mark} on grass{mark}") == ["a", "red", "ball", "on", "grass"]


def test_tokens_of_tokens_are_the_same():
    for caption in ("a man is n't here", "the dog 's -lrb- red -rrb- ball", "can not u.s. 5.00 %"):
        assert ptb_tokens(caption) == caption.split()


def test_a_long_run_of_anything_ends_soon():
    for unit in ("a-", "1/", "<a ", "x_", "a,", "http://", "a@", "a.b", "5 "):
        assert ptb_tokens(unit * 300)


@pytest.fixture(scope="module")
def published():
    """pycocoevalcap with its own tokeniser: (n captions) -> n token lists, with CIDEr's own cut at blanks."""
    if shutil.which("java") is None:
        pytest.skip("needs Java (a runtime, version 8 or newer)")
    tokenizer = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer", reason="needs pycocoevalcap")

    def tokens(strings):
        # One after each, so that none is tokenised by what the next begins with.
        apart = {i: [{"caption": string}, {"caption": "apart"}] for i, string in enumerate(strings)}
        found = tokenizer.PTBTokenizer().tokenize(apart)
        assert all(found[i][1] == "apart" for i in apart)
        return [found[i][0].split() for i in apart]

    return tokens


def study_captions(images, seed=0):
    """Five captions of each of some scenes, in the words of the miniature datasets."""
    rng, pool = np.random.default_rng(seed), digit_pool("training")
    return [captions(draw_scene(rng, pool), rng) for _ in range(images)]


@pytest.mark.java
def test_java_agrees_on_hard_strings(published):
    for string, tokens in zip(HARD, published(HARD), strict=True):
        assert ptb_tokens(string) == tokens, string


@pytest.mark.java
@pytest.mark.parametrize("letters", ["aA1.-/,", "abnst'O", "a1$%&#@", 'a <>/="', ":;-)(Dx", "5/ -(1."])
def test_java_agrees_on_every_short_string(published, letters):
    strings = ["".join(signs) for n in (1, 2, 3, 4) for signs in itertools.product(letters, repeat=n)]
    wrong = [s for s, tokens in zip(strings, published(strings), strict=True) if ptb_tokens(s) != tokens]
    assert not wrong


@pytest.mark.java
def test_java_agrees_on_strings_put_together_at_random(published):
    rng = np.random.default_rng(0)
    pieces = sorted({piece for string in HARD for piece in string.split(" ") if piece})
    gaps = rng.choice([" ", " ", " ", ""], size=(2000, 6))
    strings = ["".join(np.char.add(rng.choice(pieces, 6), row)) for row in gaps]
    wrong = [s for s, tokens in zip(strings, published(strings), strict=True) if ptb_tokens(s) != tokens]
    assert not wrong


@pytest.mark.java
def test_what_differs_on_purpose(published):
    tokenizer = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer").PTBTokenizer()
    found = tokenizer.tokenize({0: [{"caption": "it says no."}], 1: [{"caption": "5 dogs"}]})
    assert found[0] == ["it says no."]  # by what the next caption begins with
    assert ptb_tokens("it says no.") == ["it", "says", "no"] == published(["it says no."])[0]
    found = tokenizer.tokenize({0: [{"caption": "a dog\rruns"}], 1: [{"caption": "a cat"}]})
    assert found == {0: ["a dog"], 1: ["runs"]}  # the cat is lost
    assert ptb_tokens("a dog\rruns") == ["a", "dog", "runs"]
    young = "\ua7ae"  # a Latin letter of Unicode 9
    assert published([f"x {young}"])[0] == ["x"]
    assert ptb_tokens(f"x {young}") == ["x", young.lower()]
    assert published(["can\xadnot"])[0] == ["cannot"]
    assert ptb_tokens("can\xadnot") == ["can", "not"]


@pytest.mark.java
@pytest.mark.parametrize("split", ["study", "hard"])
def test_cider_is_pycocoevalcaps(published, split):
    scorer = pytest.importorskip("pycocoevalcap.cider.cider").Cider()
    rng = np.random.default_rng(1)
    if split == "study":
        references = study_captions(120)
    else:
        references = [list(rng.choice(HARD, rng.integers(1, 6))) for _ in range(120)]
    said = [several[0] if i % 3 else rng.choice(references[i - 1]) for i, several in enumerate(references)]
    said[::10] = ["", ".", "a", "A red four, isn't it?"] * 3
    flat = published([caption for several in references for caption in several])
    cuts = np.cumsum([len(several) for several in references])[:-1]
    their_references = {
        i: [" ".join(tokens) for tokens in several]
        for i, several in enumerate(map(list, np.split(np.array(flat, object), cuts)))
    }
    their_candidates = {i: [" ".join(tokens)] for i, tokens in enumerate(published(said))}
    total, each = scorer.compute_score(their_references, their_candidates)
    ours = cider_d(list(map(ptb_tokens, said)), [list(map(ptb_tokens, several)) for several in references])
    np.testing.assert_allclose(ours, each, rtol=0, atol=1e-6)
    assert ours.mean() == pytest.approx(total, abs=1e-6)
    assert (ours > 0).sum() > 60
