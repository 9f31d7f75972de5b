"""VQA accuracy: hand counts, a literal slow version, the official normalisation with its oddities, every error."""

import itertools

import numpy as np
import pytest

from lossmap.measures.vqa_accuracy import (
    equal_answers,
    normalise_answer,
    normalise_as_paper,
    simple_vqa_accuracy,
    vqa_accuracy,
    vqa_match,
)


@pytest.mark.parametrize(("equal", "expected"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (9, 1), (10, 1)])
def test_of_ten_answers(equal, expected):
    assert vqa_accuracy(equal, 10) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(("equal", "expected"), [(0, 0), (1, 1 / 3), (2, 2 / 3), (3, 1), (10, 1)])
def test_the_simple_rule(equal, expected):
    assert simple_vqa_accuracy(equal, 10) == expected


@pytest.mark.parametrize("answers", [1, 2, 3, 4, 5, 10, 13])
def test_leaving_out_each_by_position(answers):
    """The rule, word by word: leave out each annotator, whatever was said, and count the others."""
    for equal in range(answers + 1):
        said = ["yes"] * equal + ["no"] * (answers - equal)
        each = []
        for i in range(answers):
            others = said[:i] + said[i + 1 :]
            each.append(min(others.count("yes") / 3, 1))
        assert vqa_accuracy(equal, answers) == pytest.approx(np.mean(each), abs=1e-15)


def test_full_agreement_is_right_from_four_answers_on():
    assert [vqa_accuracy(n, n) for n in (1, 2, 3, 4, 50)] == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])


def test_more_equal_answers_never_score_less_and_leaving_out_never_scores_more():
    for answers in range(1, 15):
        official = [vqa_accuracy(equal, answers) for equal in range(answers + 1)]
        assert official == sorted(official)
        simple = [simple_vqa_accuracy(equal, answers) for equal in range(answers + 1)]
        assert all(0 <= o <= s <= 1 for o, s in zip(official, simple, strict=True))


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("Red", "red"),
        ("  the Red\tball\n", "red ball"),
        ("A cat and an owl", "cat and owl"),
        ("two", "2"),
        ("None", "0"),
        ("ten of eleven", "10 of eleven"),
        ("dont", "don't"),
        ("IM", "im"),  # the official list has it as "Im", which no lower-case word is
        ("couldntve", "couldntve"),  # two apostrophes missing: not in the list
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("oclock", "o'clock"),
        ("somebody'd", "somebodyd"),
        ("its", "its"),
        ("t-shirt", "t shirt"),
        ("t -shirt", "t shirt"),
        ("t- shirt", "t shirt"),
        ("a-b c- d", "ab c d"),  # beside a blank once: deleted everywhere
        ("yes, it is", "yes it is"),
        ("red,blue", "red blue"),
        ("1,000", "1000"),
        ("1,000 red/blue", "1000 redblue"),  # a comma in a number: all marks are deleted
        ("5:30", "5:30"),
        ("it's", "it's"),
        ("Yes.", "yes"),
        ("3.5", "3.5"),
        ("3.", "3"),
        ("u.s.", "us"),
        (".5", ".5"),
        ("." * 33 + "a", ".a"),  # the first 32 periods only
        ("what?!", "what"),
        ("(left) [right]", "left right"),
        ("the", ""),
        ("", ""),
        ("caf\u00e9", "caf\u00e9"),
    ],
)
def test_official_normalisation(answer, normal):
    assert normalise_answer(answer) == normal


def slow_normalise(answer):
    """The same rule letter by letter, with the few contractions that the strings below can hold."""
    text = "".join(" " if c in "\n\t" else c for c in answer).strip()
    beside_blank = {a + b for a, b in itertools.pairwise(text) if " " in (a, b)}
    number = any(a.isdigit() and b == "," and c.isdigit() for a, b, c in zip(text, text[1:], text[2:], strict=False))
    kept = ""
    for c in text:
        if c not in ';/[]"{}()=+\\_-><@`,?!':
            kept += c
        elif not number and not {c + " ", " " + c} & beside_blank:
            kept += " "
    periods = [i for i, c in enumerate(kept) if c == "." and not kept[i + 1 : i + 2].isdigit()]
    words = "".join(c for i, c in enumerate(kept) if i not in periods[:32]).lower().split()
    digits = {"none": "0", "two": "2", "ten": "10"}
    known = {"dont": "don't", "whats": "what's", "youd've": "you'd've", "you'dve": "you'd've"}
    words = [digits.get(word, word) for word in words]
    return " ".join(known.get(word, word) for word in words if word not in ("a", "an", "the"))


def test_a_literal_slow_version_agrees():
    rng = np.random.default_rng(0)
    pieces = [*";/[]\"{}()=+\\_-><@`,?!.:'", " ", " ", " ", "\n", "1", "22", "B", "x"]
    pieces += ["the ", " a ", "An ", " two", "None", "ten", " dont ", "Whats ", " youd've", "you'dve"]
    seen = ["".join(rng.choice(pieces, rng.integers(0, 9))) for _ in range(5000)]
    seen += ["." * 40, "a." * 40]
    for said in seen:
        assert normalise_answer(said) == slow_normalise(said), said
    for _ in range(500):
        answers, said = [str(answer) for answer in rng.choice(seen[:30], 10)], str(rng.choice(seen[:30]))
        each = []
        for i in range(10):
            others = [slow_normalise(answer) for j, answer in enumerate(answers) if j != i]
            each.append(min(others.count(slow_normalise(said)) / 3, 1))
        expected = np.mean(each) if said.strip() else 0
        assert vqa_accuracy(equal_answers(said, answers), 10) == pytest.approx(expected, abs=1e-12)


def test_both_sides_are_normalised():
    assert equal_answers("Two", ["2", "two", "the two.", "three"]) == 3
    assert equal_answers("Red", ["red"] * 10) == 10  # also where all annotators typed the same


def test_an_empty_answer_equals_nothing():
    assert equal_answers("", ["the", ".", "a"]) == 0
    assert equal_answers(" \n", ["the"] * 10) == 0
    assert equal_answers("the", ["a", "an"]) == 2


def test_every_error_says_what_was_wanted():
    with pytest.raises(ValueError, match="there are no answers"):
        equal_answers("red", [])
    for score in (vqa_accuracy, simple_vqa_accuracy):
        for equal, answers in ((0, 0), (-1, 10), (11, 10)):
            with pytest.raises(
                ValueError, match=f"{equal} of {answers} answers are equal; wanted 0 to all of at least one"
            ):
                score(equal, answers)


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        (" The  Red\tCar. ", "the red car"),
        ("Two", "two"),
        ("1,000", "1000"),
        ("red, green", "red green"),
        ("and/or", "and or"),
        ("007", "7"),
        ("007.", "007"),  # the period goes last
        ("3.5", "3.5"),
        ("left-hand", "left-hand"),
        ("...", ""),
    ],
)
def test_normalisation_as_the_papers_code(answer, normal):
    assert normalise_as_paper(answer) == normal
    assert equal_answers("x " + answer, ["x " + answer.upper()], normalise_as_paper) == 1


def test_exact_match_asks_for_any_one_annotator():
    assert [vqa_match(equal, 10) for equal in (0, 1, 4, 10)] == [0, 1, 1, 1]
    assert (vqa_match(0, 1), vqa_match(1, 1)) == (0, 1)
    assert all(vqa_match(equal, n) >= vqa_accuracy(equal, n) for n in range(1, 12) for equal in range(n + 1))
    with pytest.raises(ValueError, match="2 of 1 answers are equal"):
        vqa_match(2, 1)
