"""Where the answers are lost that a model gets wrong: before the connector, at it, or in the language model."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lossmap.measures.resampling import image_counts, percentile_interval
from lossmap.measures.statistics import MeanInterval, check_resampling

SHARES = ("lost_before", "lost_at_connector", "not_used", "unread")
FEW = 10  # wrong answers of a kind, below which it is taken together with others of so few


class Outcomes(NamedTuple):
    """Of each question, true or false: model, whether the model answers it right; before and after, whether the best
    reader of what enters, of what leaves the connector does; guess, whether the reader of the question alone does."""

    model: NDArray[np.bool_]
    before: NDArray[np.bool_]
    after: NDArray[np.bool_]
    guess: NDArray[np.bool_]

    def counted(self) -> NDArray[np.float64]:
        """(questions, 9): what `_shares` is made of, added up."""
        wrong, right = ~self.model, self.model
        columns = [np.ones(len(wrong)), wrong, wrong & self.before, wrong & self.after, wrong & self.guess]
        columns += [right & self.after, right & self.guess, self.after, right]
        return np.column_stack(columns).astype(np.float64)


def where_lost(
    outcomes: Outcomes,
    images: ArrayLike,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int | Sequence[int] = 0,
    kinds: ArrayLike | None = None,
) -> dict[str, MeanInterval]:
    """What becomes of the answers that a model gets wrong, and of those that it gets right without evidence.

    A reader that knows a share k of some questions, and guesses the others as well as one that sees the question alone
    (a share g), is right in R = k + (1 - k) g of them. So k = (R - g) / (1 - g) is known, not guessed. Of the model's
    wrong answers, 1 - k before the connector is lost before it; k before less k after, at it; k after is there and not
    used: the three sum to 1. unread: 1 - k after, of the model's right answers: it had them from what readers
    don't read, or guessed better than they do. Few answers, or wrong ones that are guessed less well than others, give
    shares below 0 or above 1.

    Parameters: outcomes, of n questions; images (n,), the image of each, over which the bootstrap draws. kinds (n,), of
        questions that are guessed differently well: k is found for each, those of fewer than FEW wrong answers
        together, and weighed by their answers.
    Returns: lost_before, lost_at_connector and not_used, shares of the wrong answers; unread, of the right ones; the
        same as shares of all questions, all_lost_before, ...; model_accuracy, reader_accuracy, reader_advantage
        (reader's accuracy after the connector less the model's). MeanInterval each, of shares of 1; nan where
        undefined: without wrong answers, or where guessing gets all.
    Raises: ValueError if there are no questions, or lengths differ.
    """
    counted = outcomes.counted()
    _, image = np.unique(np.asarray(images), return_inverse=True)
    if len(image) != len(counted) or not len(counted):
        raise ValueError(f"{len(counted)} questions with {len(image)} images; wanted as many, and one at least")
    check_resampling(resamples, confidence)
    kind = _grouped(np.zeros(len(image)) if kinds is None else np.asarray(kinds), ~outcomes.model)
    shape = image.max() + 1, kind.max() + 1, counted.shape[1]
    sums = np.zeros(shape)
    np.add.at(sums, (image, kind), counted)
    values, flat = _shares(sums.sum(axis=0)[None]), sums.reshape(len(sums), -1)
    drawn = [_shares((counts @ flat).reshape(-1, *shape[1:])) for counts in image_counts(len(sums), resamples, seed)]
    resampled = {name: np.concatenate([some[name] for some in drawn]) for name in values}
    return {name: percentile_interval(values[name][0], resampled[name], confidence) for name in values}


def _grouped(kinds: NDArray, wrong: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n,) numbers of kinds; 0: all of fewer than FEW wrong answers."""
    _, kind = np.unique(kinds, return_inverse=True)
    many = np.bincount(kind[wrong], minlength=kind.max() + 1) >= FEW
    return np.unique(np.where(many, 1 + np.arange(len(many)), 0)[kind], return_inverse=True)[1]


def known_share(right: ArrayLike, guessed: ArrayLike) -> NDArray[np.float64]:
    """Share of questions that are known, of those answered right and of those that guessing answers right; nan where
    guessing answers all."""
    right, guessed = np.asarray(right, dtype=np.float64), np.asarray(guessed, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(guessed < 1, (right - guessed) / (1 - guessed), np.nan)


def _shares(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Of sums (b, kinds, 9) of `Outcomes.counted`."""
    n, wrong, wrong_before, wrong_after, wrong_guess, right_after, right_guess, after, right = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        before = _over_kinds(known_share(wrong_before / wrong, wrong_guess / wrong), wrong)
        later = _over_kinds(known_share(wrong_after / wrong, wrong_guess / wrong), wrong)
        unread = 1 - _over_kinds(known_share(right_after / right, right_guess / right), right)
        n, wrong, after, right = (values.sum(axis=1) for values in (n, wrong, after, right))
        found = {"lost_before": 1 - before, "lost_at_connector": before - later, "not_used": later, "unread": unread}
        parts = {"lost_before": wrong, "lost_at_connector": wrong, "not_used": wrong, "unread": right}
        # Of nothing nothing is lost, whatever share it would be.
        whole = {f"all_{name}": np.where(parts[name] > 0, found[name] * parts[name] / n, 0) for name in SHARES}
        accuracies = {
            "model_accuracy": right / n,
            "reader_accuracy": after / n,
            "reader_advantage": (after - right) / n,
        }
    return found | whole | accuracies


def _over_kinds(known: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over kinds (b, kinds) by weight; kinds of which it is not defined are left out; nan if all are."""
    defined = ~np.isnan(known)
    weights = np.where(defined, weights, 0)
    return np.where(defined, known * weights, 0).sum(axis=1) / weights.sum(axis=1)
