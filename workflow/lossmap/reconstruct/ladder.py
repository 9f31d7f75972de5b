"""One model's ladder in numbers: what each decoder leaves of each connector, where it still falls, and the verdict."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lossmap.errors import LossmapError
from lossmap.measures.unexplained import Growth, growth, unexplained, unexplained_difference
from lossmap.reconstruct.specs import LINEAR
from lossmap.reconstruct.verdict import Fall, Interval, Reached, Unfinished, Untested, Verdict

FURTHER = 10  # times the parameters and images: so far curves are followed beyond the ladder
LEARNED = 0.01  # of FVU: a network that ends no further below ridge has learned nothing beyond it
PER_IMAGE = ["image_id", "squared_error", "cosine_error", "variance"]


class Ladder:
    """What every decoder, trained on every share, leaves of every connector.

    table: a row for each of them, as measure_ladder names them, with n, the number of images, and mse, fvu and
    cosine_error with their intervals (<name>_low, <name>_high); best: whether it is its connector's decoder with the
    lowest held-out error at the largest share, of those that converged: others are no evidence. dataset, model: names.
    errors and variances: (images, rows of table).

    Parameters: rows, of `measure_ladder`; path, where they came from; resamples, confidence and seed of intervals.
    Raises: LossmapError if the rows are not of the same images throughout.
    """

    def __init__(self, rows: pd.DataFrame, path: Path | str, resamples: int, confidence: float, seed: int):
        groups = [group for _, group in rows.groupby(["connector", "decoder", "share"], sort=False)]
        ids = groups[0]["image_id"].tolist()
        for group in groups:
            if group["image_id"].tolist() != ids:
                first = group.iloc[0]
                raise LossmapError(
                    f"{path}: {first['connector']}, {first['decoder']}-{first['share']} is not on the images of the "
                    f"others. Delete {path} and run again."
                )
        values = {name: np.column_stack([group[name] for group in groups]) for name in PER_IMAGE[1:]}
        self.errors, self.variances = values["squared_error"], values["variance"]
        self.how = {"resamples": resamples, "confidence": confidence, "seed": seed}
        first = pd.concat([group.iloc[:1] for group in groups], ignore_index=True)
        self.dataset, self.model = first["dataset"][0], first["model"][0]
        self.table = first.drop(columns=PER_IMAGE).assign(n=len(ids))
        over = {"fvu": self.variances, "mse": np.ones_like(self.variances)}
        over["cosine_error"] = over["mse"]
        for name, variances in over.items():
            errors = values["cosine_error"] if name == "cosine_error" else self.errors
            found = np.column_stack(unexplained(errors, variances, **self.how))
            self.table[[name, f"{name}_low", f"{name}_high"]] = found
        self.table["best"] = self.table.index.isin([self.best(name) for name in self.table["connector"].unique()])

    def evidence(self, connector: str) -> pd.DataFrame:
        """The rows of a connector that converged."""
        return self.table[(self.table["connector"] == connector) & self.table["converged"]]

    def best(self, connector: str) -> int:
        """The row of a connector's lowest held-out error at the largest share."""
        rows = self.evidence(connector)
        return int(rows.loc[rows["share"] == rows["share"].max(), "held_out_error"].idxmin())

    def reached(self, row: int) -> Reached:
        """A row of the table, as the verdict takes it."""
        at = self.table.loc[row]
        fvu = Interval(*(float(at[name]) for name in ("fvu", "fvu_low", "fvu_high")))
        return Reached(
            at["connector"], at["decoder"], fvu, int(at["post_numbers"]), self.reach(at["connector"], FURTHER)
        )

    def difference(self, row: int, other: int) -> Interval:
        """FVU of one row less that of another, with its interval, paired over images."""
        found = unexplained_difference(self.errors[:, row], self.errors[:, other], self.variances[:, row], **self.how)
        return Interval(*(float(value) for value in found))

    def falls(self, connector: str, tolerance: float) -> list[Fall]:
        """Curves that may yet end below the best: each architecture over its sizes, each decoder over its shares.

        Of several that fall in one of these ways, the one that ends lowest stands for them.
        """
        rows, best = self.evidence(connector), self.table.loc[self.best(connector), "fvu"]
        found = []
        for by, curves in (("capacity", _capacities(rows)), ("data", _shares(rows))):
            falling = [curve for curve in curves if _growth(curve, by).falls(best, tolerance)]
            if falling:
                curve = min(falling, key=lambda curve: curve["fvu"].iloc[-1])
                before, after = curve.iloc[-2:].to_dict("records")
                start, end = before["decoder"], after["decoder"]
                if by == "data":
                    start, end = (f"{row['decoder']} at {row['share']}% of the images" for row in (before, after))
                grown = _growth(curve, by)
                needed = grown.needed(tolerance)
                found.append(Fall(connector, by, start, end, before["fvu"], after["fvu"], needed, grown.at(needed)))
        return found

    def learned(self, connector: str) -> bool:
        """Whether a network is known to learn from so many images what no linear decoder recovers: on this connector,
        or on a lossless control. Where none does, flat curves say nothing of what more images would bring."""
        lossless = self.table.loc[self.table["lossless"], "connector"].unique()
        return any(self._below_ridge(name) > LEARNED for name in {connector, *lossless})

    def _below_ridge(self, connector: str) -> float:
        """How far the best network ends below ridge at the largest share, in FVU; nan without networks."""
        rows = self.evidence(connector)
        last = rows[rows["share"] == rows["share"].max()]
        networks = last[~last["decoder"].isin(LINEAR)]
        return float(last.loc[last["decoder"] == "ridge", "fvu"].min() - networks["fvu"].min())

    def reach(self, connector: str, factor: float) -> float:
        """FVU that the best would leave with `factor` times the parameters and images, if its curves went on.

        0 where it has no curve by one of them, or no network has learned: then nothing is known. Networks of one kind
        stand for another as to their size; as to images, only what is built like the best: ridge stops learning where
        a network begins to.
        """
        rows, best = self.evidence(connector), self.table.loc[self.best(connector)]
        value = float(best["fvu"])
        if not self.learned(connector):
            return 0.0
        for by, curves in (("capacity", _capacities(rows)), ("data", _shares(rows))):
            alike = [curve for curve in curves if curve["architecture"].iloc[0] == best["architecture"]]
            own = [curve for curve in alike if by == "data" and curve["decoder"].iloc[0] == best["decoder"]]
            mine = own or alike or (curves if by == "capacity" else [])
            if not mine:
                return 0.0
            value *= factor ** -max(_growth(curve, by).exponent for curve in mine)
        return value

    def untested(self, connector: str, tolerance: float) -> list[Untested]:
        """What would have to be tried on a connector of which the ladder leaves more than the tolerance."""
        if self.table.loc[self.best(connector), "fvu"] <= tolerance:
            return []
        rows = self.evidence(connector)
        ways = (("capacity", _capacities), ("data", _shares))
        lacks = [Untested(connector, by) for by, curves in ways if not curves(rows)]
        if not rows["decoder"].isin(LINEAR).all() and not self.learned(connector):
            lacks.append(Untested(connector, "learning"))
        return lacks

    def unfinished(self, connector: str, tolerance: float) -> list[Unfinished]:
        """The networks of a connector that have not converged."""
        rows = self.table[(self.table["connector"] == connector) & ~self.table["converged"]]
        return [
            Unfinished(
                connector, f"{row.decoder} at {row.share}% of the images", row.passes, self._passes(row, tolerance)
            )
            for row in rows.itertuples()
        ]

    def _passes(self, row: Any, tolerance: float) -> float:
        """How many times its passes a network needs by its own curve; nan if it never fell, so that it has none."""
        curve = growth([0.5, 1], [row.halfway_error, row.held_out_error])
        return max(curve.needed(tolerance), 2.0) if curve.exponent else math.nan

    def verdict(self, tolerance: float = 0.01) -> Verdict:
        """The model's connector against its controls, each by its best decoder; print it to read it in words.

        tolerance: a fall of FVU, by twice the network or twice the images, that still counts."""
        best = self.table[self.table["best"]]
        own = best.index[best["kind"] == "own"][0]
        told: dict[str, Any] = {
            "own": self.reached(own),
            "pre_numbers": int(best.loc[own, "pre_numbers"]),
            "tolerance": tolerance,
        }
        lossless = best[best["lossless"]]
        if len(lossless):
            hardest = lossless["held_out_error"].idxmax()
            told["lossless"] = tuple(self.reached(row) for row in lossless.index)
            told["hardest"], told["difference"] = self.reached(hardest), self.difference(own, hardest)
        linear = best[(best["kind"] == "pca") & ~best["lossless"]]
        linear = linear[linear["post_numbers"] <= best.loc[own, "post_numbers"]]
        if len(linear):
            row = linear["post_numbers"].idxmax()  # of several sizes, the one nearest to the connector's output
            told["linear"], told["linear_difference"] = self.reached(row), self.difference(own, row)
        for name, kind in (("position", "other_image"), ("nothing", "other_image_and_patch")):
            for row in best.index[best["kind"] == kind][:1]:
                told[name] = self.reached(row)
        judged = [told[name].connector for name in ("own", "hardest") if name in told]
        for name in ("falls", "untested", "unfinished"):
            told[name] = tuple(each for connector in judged for each in getattr(self, name)(connector, tolerance))
        return Verdict(self.model, self.dataset, len(self.errors), **told)


def _capacities(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """At the largest share, the networks of each architecture that has several sizes, smallest first."""
    rows = rows[rows["share"] == rows["share"].max()].sort_values(["parameters", "fvu"])
    curves = [curve.drop_duplicates("parameters") for _, curve in rows.groupby("architecture", sort=False)]
    return [curve for curve in curves if len(curve) > 1]


def _shares(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Each decoder on growing shares of the training images, where there are several."""
    curves = [curve.sort_values("share") for _, curve in rows.groupby("decoder", sort=False)]
    return [curve for curve in curves if len(curve) > 1]


def _growth(curve: pd.DataFrame, by: str) -> Growth:
    """FVU over parameters ("capacity") or over images ("data")."""
    return growth(curve["parameters" if by == "capacity" else "share"], curve["fvu"])
