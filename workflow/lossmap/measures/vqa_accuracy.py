"""VQA accuracy and exact match: whether annotators gave the same answer, after the official normalisation."""

import re
from functools import lru_cache

ENOUGH = 3  # others who gave the answer make it right
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_ARTICLES = ("a", "an", "the")
_NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6"}
_NUMBERS |= {"seven": "7", "eight": "8", "nine": "9", "ten": "10"}
_FULL = """
'ow's'at 'twas ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've
must've mustn't needn't not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd've
somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
that's there'd there'd've there're there's they'd they'd've they'll they're they've wasn't we'd've we've weren't
what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
why's won't would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""
# An apostrophe that was left out is put back, if it is the only one. The last entry is an oddity of the official list.
_CONTRACTIONS = {
    form[:place] + form[place + 1 :]: form
    for form in _FULL.split()
    for place, letter in enumerate(form)
    if letter == "'"
} | {"somebody'd": "somebodyd"}


@lru_cache(2**16)
def normalise_answer(answer):
    """An answer as the official evaluation compares it.

    Line breaks and tabs are blanks. A punctuation mark is deleted wherever it occurs if it stands beside a blank
    anywhere, or if a comma stands between two digits anywhere; else it becomes a blank. A period is deleted unless a
    digit follows (the first 32 of them). Then lower case; number words up to ten are digits, "none" is 0; articles are
    left out; contractions get their apostrophe back; words are joined by single blanks.

    Parameters: answer, a string. Returns: a string, empty where nothing is left, as of "the".
    Source: VQAEval of github.com/GT-Vision-Lab/VQA, March 2021, with its oddities: ":" and "'" stay, and "1,000" is
    "1000", but "1, 2" is "1 2".
    """
    answer = answer.replace("\n", " ").replace("\t", " ").strip()
    in_number = re.search(r"\d,\d", answer)
    text = answer
    for mark in _PUNCTUATION:
        beside_blank = f"{mark} " in answer or f" {mark}" in answer
        text = text.replace(mark, "" if beside_blank or in_number else " ")
    text = re.sub(r"\.(?!\d)", "", text, count=32)
    words = [_NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


@lru_cache(2**16)
def normalise_as_paper(answer):
    """An answer as the paper's code compares it: number words, articles and most punctuation stay.

    Lower case, one blank between words, no commas, slashes as blanks, whole numbers without leading zeros, no periods
    at either end.

    Parameters: answer, a string. Returns: a string, perhaps empty.
    Source: Li et al. 2025, arXiv:2509.11986, released code, scripts/vis_vizwizgvqa.ipynb.
    """
    text = " ".join(answer.lower().split()).replace(",", "").replace("/", " ")
    return str(int(text)) if text.isdecimal() else text.strip(".").strip()


def equal_answers(prediction, answers, normalise=normalise_answer):
    """How many of the annotators' answers equal the prediction, both normalised.

    Parameters: prediction, a string. answers, a list of one or more strings, one per annotator. normalise, string ->
        string.
    Returns: an integer. 0 for a prediction of blanks alone, even if an answer normalises to nothing.
    Raises: ValueError if there are no answers.
    """
    if len(answers) == 0:
        raise ValueError("there are no answers")
    said = normalise(prediction)
    return sum(normalise(answer) == said for answer in answers) if prediction.strip() else 0


def vqa_accuracy(equal, answers):
    """Official VQA accuracy: the mean, over leaving out each annotator in turn, of min(equal answers left / 3, 1).

    Leaving out is by position: of two annotators who gave the same answer, one stays.

    Parameters: equal, how many of the answers equal the prediction; answers, how many there are, at least 1 (VQA: 10).
    Returns: float in [0, 1]. Of ten answers, 1, 2, 3 and 4 equal ones give 0.3, 0.6, 0.9 and 1. Any other number works
        alike, but of fewer than four answers even full agreement is not 1, for it is at most (answers - 1) / 3.
    Raises: ValueError if equal is not in 0 to answers.
    Source: Antol et al. 2015, arXiv:1505.00468, and visualqa.org/evaluation.html. The official code normalises
        nothing where all annotators typed the very same string; here both sides always are, so that "Red" is right
        where all said "red".
    """
    _check(equal, answers)
    left_out_equal = equal * min((equal - 1) / ENOUGH, 1)
    left_out_other = (answers - equal) * min(equal / ENOUGH, 1)
    return (left_out_equal + left_out_other) / answers


def vqa_match(equal, answers):
    """Exact match: 1 if the prediction equals any annotator's answer, else 0. Arguments as vqa_accuracy.

    For answers of one annotator, or of fewer than four. Of several it is never less than the share of annotators who
    gave the answer, nor than VQA accuracy, so that the two don't compare.
    """
    _check(equal, answers)
    return float(equal > 0)


def simple_vqa_accuracy(equal, answers):
    """VQA accuracy by the simple rule, min(equal answers / 3, 1), with nobody left out. Arguments as vqa_accuracy."""
    _check(equal, answers)
    return min(equal / ENOUGH, 1.0)


def _check(equal, answers):
    if answers < 1 or not 0 <= equal <= answers:
        raise ValueError(f"{equal} of {answers} answers are equal; wanted 0 to all of at least one")
