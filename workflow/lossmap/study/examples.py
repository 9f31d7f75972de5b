"""Which examples are shown: chosen by rule from all that were scored, never by hand."""

import hashlib

import numpy as np
import pandas as pd

from lossmap.study.derived import EXAMPLES

# The cases of Figures 1 and 7: what the paper shows first, then its opposite, then the two that speak against it.
CASES = (("wrong", "highest"), ("right", "lowest"), ("right", "highest"), ("wrong", "lowest"))


def choose(candidates: pd.DataFrame, number: int, ids: str | None = None) -> pd.DataFrame:
    """Examples spread over right and wrong, and over the whole range of loss, and some the same for every model.

    Right and wrong answers get half of the places each; places that one can't fill go to the other. Within each,
    examples stand at evenly spaced ranks of loss, the highest and the lowest among them. Where nothing is right or
    wrong (captions), all form one group. Equal losses keep the order of the candidates. Nothing is drawn at random.

    With ids, half of the places beyond the first four go to candidates that come first in the order of the SHA-256
    digests of their ids, which no model, loss or score enters, among those that have no place yet. So the first of that
    order are chosen for every model that has them, and models can be compared on the same images.

    Parameters: candidates with columns loss (the one to rank by, finite) and outcome ("right", "wrong", or None for
    all); number, how many at most, from 4, so that both ends of both groups are among them; ids, a column.
    Returns: the chosen rows, wrong (or all) before right, from the highest loss to the lowest, with rank (1 = highest
    loss of its group), of (size of the group) and chosen_by ("loss" or "id").
    Raises: ValueError if number is less than 4, there is no candidate, or a loss is not finite (the first is named).
    """
    finite = np.isfinite(candidates["loss"].to_numpy(float))
    if number < 4 or not len(finite):
        raise ValueError(f"{number} of {len(finite)} candidates can't be chosen; wanted at least 4 of at least 1")
    if not finite.all():
        raise ValueError(f"loss: {(~finite).sum()} are not finite; the first is row {finite.argmin()}")
    right = candidates["outcome"].eq("right").to_numpy(bool)
    wrong, right = _ranked(candidates[~right]), _ranked(candidates[right])
    ranked = pd.concat([part for part in (wrong, right) if len(part)], ignore_index=True)
    places = number if ids is None else number - (number - EXAMPLES) // 2
    share = min(len(wrong), max(places - places // 2, places - len(right)))
    by_loss = np.concatenate(
        [_spread(len(wrong), share), len(wrong) + _spread(len(right), min(len(right), places - share))]
    )
    chosen = pd.Series("loss", by_loss)
    if ids is not None:
        digests = [hashlib.sha256(str(each).encode()).hexdigest() for each in ranked[ids]]
        by_id = np.argsort(digests, kind="stable")
        by_id = by_id[~np.isin(by_id, by_loss)][: number - len(by_loss)]
        chosen = pd.concat([chosen, pd.Series("id", by_id)]).sort_index()
    return ranked.loc[chosen.index].assign(chosen_by=chosen).reset_index(drop=True)


def _ranked(group: pd.DataFrame) -> pd.DataFrame:
    order = np.argsort(-group["loss"].to_numpy(float), kind="stable")
    return group.iloc[order].assign(rank=np.arange(len(group)) + 1, of=len(group))


def _spread(size: int, number: int) -> np.ndarray:
    return np.linspace(0, size - 1, number).round().astype(int)  # steps of 1 at least: no rank comes twice


def case(chosen: pd.DataFrame, outcome: str | None, which: str) -> pd.DataFrame:
    """The example of highest or lowest loss among right or wrong answers, or among all if outcome is None.

    chosen: from `choose`; which: "highest" or "lowest".
    Returns: one row, with column which; none where there is no such answer, or only one, which is then the highest.
    """
    rows = chosen if outcome is None else chosen[chosen["outcome"] == outcome]
    rank = 1 if which == "highest" else rows["of"].where(rows["of"] > 1)
    return rows[rows["rank"] == rank].assign(which=which)


def worst_patches(values: np.ndarray, number: int = 10) -> np.ndarray:
    """Numbers of the patches of largest absolute value, the largest first; equal ones in order. NaN is none."""
    flat = np.abs(np.ravel(values))
    return np.argsort(-flat, kind="stable")[: min(number, len(flat) - np.isnan(flat).sum())]
