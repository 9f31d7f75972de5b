"""CIDEr-D: by hand, theorems, a slow version from the formula, pycocoevalcap's scorer, every error."""

import math
from collections import Counter

import numpy as np
import pytest

from lossmap.measures.cider import cider_d


def split(*captions):
    return [caption.split() for caption in captions]


def slow_cider_d(candidates, references):
    """From the formula, one n-gram at a time."""
    scores = []

    def grams(tokens, n):
        return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))

    for candidate, several in zip(candidates, references, strict=True):
        total = 0.0
        for reference in several:
            d = len(candidate) - len(reference)
            for n in (1, 2, 3, 4):

                def idf(gram, n=n):
                    having = sum(any(gram in grams(r, n) for r in image) for image in references)
                    return math.log(len(references) / max(having, 1))

                mine = {g: c * idf(g) for g, c in grams(candidate, n).items()}
                theirs = {g: c * idf(g) for g, c in grams(reference, n).items()}
                norms = math.hypot(*mine.values()) * math.hypot(*theirs.values())
                if norms > 0:
                    product = sum(min(mine.get(g, 0), w) * w for g, w in theirs.items())
                    total += product / norms * math.exp(-(d**2) / 72)
        scores.append(10 / 4 * total / len(several))
    return np.array(scores)


def random_split(seed, images=6, words=8, longest=9):
    rng = np.random.default_rng(seed)

    def caption():
        return [f"w{i}" for i in rng.integers(0, words, rng.integers(0, longest + 1))]

    references = [[caption() for _ in range(rng.integers(1, 5))] for _ in range(images)]
    return [caption() for _ in range(images)], references


def test_by_hand():
    references = [split("a red dog", "a dog"), split("a cat")]
    # "a" is in both images and weighs nothing; every other n-gram is in one and weighs log 2.
    # "red dog" and "a red dog": words red, dog of red, dog: 1; pairs "red dog" of "a red", "red dog": 1 / sqrt 2;
    # lengths differ by 1. "red dog" and "a dog": dog of red, dog: 1 / sqrt 2; no pair; equal lengths.
    first = (1 + 1 / math.sqrt(2)) * math.exp(-1 / 72)
    second = 1 / math.sqrt(2)
    expected = [10 / 4 * (first + second) / 2, 10 / 4 * 2]
    np.testing.assert_allclose(cider_d(split("red dog", "a cat"), references), expected, rtol=1e-14)


def test_a_caption_like_its_only_reference_scores_ten_if_it_has_four_words():
    references = [[["a", "red", "dog", "runs"]], [["two", "cats", "sleep"]], [["one", "bird"]], [["fish"]]]
    np.testing.assert_allclose(cider_d([several[0] for several in references], references), [10, 7.5, 5, 2.5])


def test_a_caption_scores_zero_without_words_or_shared_words():
    references = [split("a red dog runs"), split("two cats sleep well"), split("a bird")]
    assert cider_d([[], split("a red dog")[0], ["fish"]], references).tolist() == [0, 0, 0]


def test_words_of_all_images_weigh_nothing():
    references = [split("a dog"), split("a cat"), split("a bird")]
    assert cider_d([["a"], ["a", "a"], ["bird"]], references).tolist() == pytest.approx([0, 0, 2.5 * math.exp(-1 / 72)])
    assert cider_d([["a", "dog"]], [split("a dog")]).tolist() == [0]


def test_saying_it_twice_gains_nothing():
    references = [split("red dog on green grass"), split("two cats"), split("bird")]
    once = cider_d([*split("red dog on green grass"), [], []], references)[0]
    twice = cider_d([*split("red dog on green grass red dog on green grass"), [], []], references)[0]
    assert once == pytest.approx(10)
    assert twice < once * math.exp(-(5**2) / 72)


@pytest.mark.parametrize("more", [1, 3, 9])
def test_length_is_punished_by_a_gaussian(more):
    references = [split("red dog on green grass"), split("cat"), split("bird")]
    base = cider_d([*split("red dog"), [], []], references)[0] / math.exp(-(3**2) / 72)
    padded = ["red", "dog", *["cat"] * more]  # unknown to the reference
    slow = slow_cider_d([padded, [], []], references)[0]
    score = cider_d([padded, [], []], references)[0]
    assert score == pytest.approx(slow, rel=1e-12)
    assert score < base


@pytest.mark.parametrize("seed", range(20))
def test_a_slow_version_agrees(seed):
    candidates, references = random_split(seed, images=1 + seed % 7)
    np.testing.assert_allclose(cider_d(candidates, references), slow_cider_d(candidates, references), atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_pycocoevalcaps_scorer_agrees(seed):
    scorer = pytest.importorskip("pycocoevalcap.cider.cider", reason="needs pycocoevalcap").Cider()
    candidates, references = random_split(seed, images=80, words=30, longest=14)
    total, each = scorer.compute_score(
        {i: [" ".join(reference) for reference in several] for i, several in enumerate(references)},
        {i: [" ".join(candidate)] for i, candidate in enumerate(candidates)},
    )
    scores = cider_d(candidates, references)
    np.testing.assert_allclose(scores, each, rtol=0, atol=1e-12)
    assert scores.mean() == pytest.approx(total, abs=1e-12)


def test_order_of_images_and_references_does_not_matter():
    candidates, references = random_split(3, images=40, words=20)
    scores = cider_d(candidates, references)
    order = np.random.default_rng(0).permutation(40)
    turned = cider_d([candidates[i] for i in order], [references[i][::-1] for i in order])
    np.testing.assert_allclose(turned, scores[order], atol=1e-12)


def test_a_part_of_a_split_scores_differently():
    candidates, references = random_split(3, images=40, words=20)
    whole, part = cider_d(candidates, references), cider_d(candidates[:20], references[:20])
    assert np.abs(whole[:20] - part).max() > 0.1


def test_every_error_says_what_was_wanted():
    references = [split("a dog"), split("a cat")]
    with pytest.raises(ValueError, match="there are 1 candidates and references of 2 images"):
        cider_d(split("a dog"), references)
    with pytest.raises(ValueError, match="there are no images"):
        cider_d([], [])
    with pytest.raises(ValueError, match="image 1: has no reference"):
        cider_d(split("a dog", "a cat"), [references[0], []])
    for candidates, several in (
        (["a dog", ["a"]], references),
        (split("a", "b"), [["a dog"], split("a cat")]),
        (split("a", "b"), ["a dog", split("a cat")]),
    ):
        with pytest.raises(ValueError, match="image 0: a caption is a string; wanted a list of tokens"):
            cider_d(candidates, several)
