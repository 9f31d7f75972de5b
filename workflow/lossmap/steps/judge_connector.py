"""Ladders of all models -> what each rung leaves unexplained, and whose fault it is: the connector's, or not."""

from pathlib import Path

import numpy as np
import pandas as pd

from lossmap.ladder import Ladder
from lossmap.seeds import seed_for
from lossmap.tables import with_interval, write_csv, write_html
from lossmap.verdict import Interval, Verdict, percent, percent_within, points, points_within, sentences

LADDER_NOTE = (
    "What each reconstructor (rung) leaves of the embeddings before the connector, standardised with the training "
    "set's statistics, on images that trained nothing: through the model's own connector and through controls. FVU: "
    "fraction of variance unexplained, squared error over variance summed over images; 1 is predicting the mean. "
    "Share: percentage of the training images used. Known: what theory says the best linear reconstruction leaves, on "
    "the training images. Best: the lowest held-out error at the largest share, chosen without the images of this "
    "table. In brackets: bootstrap interval over images."
)
VERDICT_NOTE = (
    "Unexplained: share of the variance that the best reconstructor leaves after the model's connector; an upper bound "
    "of what is lost there, for a better reconstructor can only lower it. Unexplained there: the same for the hardest "
    "of the controls from which nothing is lost, so the reconstructor's weakness on a map of that kind. Difference: "
    "what is put down to the connector, in percentage points; an estimate, which holds if the connector's map is no "
    "harder to undo than the control's. Linear compression: what the ladder leaves of the leading principal components "
    "of each block of patches, as many numbers as the connector puts out or fewer. Place alone: of another image's "
    "output. Settled: neither in capacity nor in data did the last step lower the connector's or the control's share "
    "by more than {tolerance}, where one more such step would end below the best. Every feature counts alike, "
    "whatever the language model makes of it. In brackets: bootstrap interval over images, the same images on both "
    "sides of a difference; it does not cover another training run."
)


def run(
    *, ladders: list[Path], ladder_csv: Path, ladder_html: Path, csv: Path, html: Path, finding: Path, spec: dict
) -> None:
    """Summarise every model's ladder, and judge its connector.

    spec: settled_within, a fall of FVU that still counts; confidence, resamples, seed.
    """
    tables, verdicts = [], []
    for path in ladders:
        rows = pd.read_parquet(path)
        seed = seed_for(spec["seed"], "judge_connector", rows["dataset"][0], rows["model"][0])
        ladder = Ladder(rows, path, spec["resamples"], spec["confidence"], seed)
        tables.append(ladder.table)
        verdicts.append(ladder.verdict(spec["settled_within"]))
    table = pd.concat(tables, ignore_index=True)
    write_csv(table, ladder_csv)
    write_html(_readable(table), ladder_html, "The ladder: what each reconstructor leaves unexplained", LADDER_NOTE)
    write_csv(pd.DataFrame([_row(verdict) for verdict in verdicts]), csv)
    page = pd.DataFrame([_cells(verdict) for verdict in verdicts])
    note = VERDICT_NOTE.format(tolerance=points(spec["settled_within"]))
    write_html(page, html, "Verdict: the connector's loss, or the reconstructor's weakness", note)
    lines = [f"- {sentences(verdict)}" for verdict in verdicts]
    brackets = f"In brackets: {spec['confidence']:.0%} bootstrap interval over images."
    finding.write_text("\n".join([*lines, "", brackets, ""]))


def _row(verdict: Verdict) -> dict:
    """The verdict as a row of numbers, shares of 1."""
    row = {"model": verdict.model, "dataset": verdict.dataset, "n": verdict.images}
    row |= {"settled": verdict.settled, "pre_numbers": verdict.pre_numbers}
    for name in ("own", "hardest", "linear", "position", "nothing"):
        reached = getattr(verdict, name)
        row |= {f"{name}_{key}": reached and getattr(reached, key) for key in ("connector", "rung", "numbers")}
        row |= _flat(name, reached and reached.fvu)
    for name in ("difference", "linear_difference"):
        row |= _flat(name, getattr(verdict, name))
    row["falls"] = "; ".join(f"{f.connector} by {f.by}: {f.start} to {f.end}" for f in verdict.falls)
    return row | {"untested": "; ".join(f"{lack.connector} by {lack.by}" for lack in verdict.untested)}


def _flat(name: str, interval: Interval | None) -> dict:
    values = (interval.value, interval.low, interval.high) if interval else (np.nan,) * 3
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _cells(verdict: Verdict) -> dict:
    """The verdict as a row to read, in percent."""
    hardest, linear, position = verdict.hardest, verdict.linear, verdict.position
    return {
        "model": verdict.model,
        "images": verdict.images,
        "unexplained": percent_within(verdict.own.fvu),
        "by": verdict.own.rung,
        "hardest lossless control": hardest and f"{hardest.connector}, by {hardest.rung}",
        "unexplained there": hardest and percent_within(hardest.fvu),
        "difference": verdict.difference and points_within(verdict.difference),
        "numbers, in to out": f"{verdict.pre_numbers:,} to {verdict.own.numbers:,}",
        "linear compression": linear and percent_within(linear.fvu),
        "connector less linear": verdict.linear_difference and points_within(verdict.linear_difference),
        "place alone": position and percent(position.fvu.value),
        "settled": verdict.settled,
    }


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """The ladder with intervals beside their values."""
    columns = {name: table[name] for name in ("model", "connector", "rung", "share", "parameters")}
    for title, name in (("FVU", "fvu"), ("squared error", "mse"), ("cosine error", "cosine_error")):
        columns[title] = with_interval(table, name, f"{name}_low", f"{name}_high", 3)
    columns |= {"known": table["known_fvu"], "held-out error": table["held_out_error"]}
    return pd.DataFrame(columns | {"best": table["best"].map({True: "best", False: ""})})
