"""Which examples are shown: chosen by rule from all that were scored, never by hand."""

import numpy as np
import pandas as pd

# The cases of Figures 1 and 7: what the paper shows first, then its opposite, then the two that speak against it.
CASES = (("wrong", "highest"), ("right", "lowest"), ("right", "highest"), ("wrong", "lowest"))


def choose(candidates: pd.DataFrame, number: int) -> pd.DataFrame:
    """Examples spread over right and wrong, and over the whole range of loss.

    Right and wrong answers get half of the places each; places that one can't fill go to the other. Within each,
    examples stand at evenly spaced ranks of loss, the highest and the lowest among them. Where nothing is right or
    wrong (captions), all form one group. Equal losses keep the order of the candidates. Nothing is drawn at random.

    Parameters: candidates with columns loss (the one to rank by, finite) and outcome ("right", "wrong", or None for
    all); number, how many at most, from 4, so that both ends of both groups are among them.
    Returns: the chosen rows, wrong (or all) before right, from the highest loss to the lowest, with rank (1 = highest
    loss of its group) and of (size of the group).
    Raises: ValueError if number is less than 4, there is no candidate, or a loss is not finite (the first is named).
    """
    finite = np.isfinite(candidates["loss"].to_numpy(float))
    if number < 4 or not len(finite):
        raise ValueError(f"{number} of {len(finite)} candidates can't be chosen; wanted at least 4 of at least 1")
    if not finite.all():
        raise ValueError(f"loss: {(~finite).sum()} are not finite; the first is row {finite.argmin()}")
    right = candidates["outcome"].eq("right").to_numpy(bool)
    wrong, right = candidates[~right], candidates[right]
    share = min(len(wrong), max(number - number // 2, number - len(right)))
    parts = [_spread(wrong, share), _spread(right, min(len(right), number - share))]
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def _spread(group: pd.DataFrame, number: int) -> pd.DataFrame:
    order = np.argsort(-group["loss"].to_numpy(float), kind="stable")
    ranks = np.linspace(0, len(group) - 1, number).round().astype(int)  # steps of 1 at least: no rank comes twice
    return group.iloc[order[ranks]].assign(rank=ranks + 1, of=len(group))


def case(chosen: pd.DataFrame, outcome: str | None, which: str) -> pd.DataFrame:
    """The example of highest or lowest loss among right or wrong answers, or among all if outcome is None.

    chosen: from `choose`; which: "highest" or "lowest".
    Returns: one row, with column which; none where there is no such answer, or only one, which is then the highest.
    """
    rows = chosen if outcome is None else chosen[chosen["outcome"] == outcome]
    rank = 1 if which == "highest" else rows["of"].where(rows["of"] > 1)
    return rows[rows["rank"] == rank].assign(which=which)


def worst_patches(values: np.ndarray, number: int = 10) -> np.ndarray:
    """Raster numbers of the patches of largest absolute value, the largest first; equal ones in raster order."""
    return np.argsort(-np.abs(np.ravel(values)), kind="stable")[:number]
