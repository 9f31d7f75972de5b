"""Ladders of all models -> what each rung leaves unexplained, and whose fault it is: the connector's, or not."""

from pathlib import Path

import numpy as np
import pandas as pd

from lossmap.measures.seeds import seed_for
from lossmap.reconstruct.ladder import Ladder
from lossmap.reconstruct.verdict import Interval, Verdict, percent, percent_within, points, points_within, sentences
from lossmap.study.tables import marked, with_interval, write_csv, write_html

LADDER_NOTE = (
    "What each reconstructor (rung) leaves of the embeddings before the connector, standardised with the training "
    "set's statistics, on images that trained nothing: through the model's own connector and through controls. FVU: "
    "fraction of variance unexplained, squared error over variance summed over images; 1 is predicting the mean. "
    "Share: percentage of the training images used. Known: what theory says the best linear reconstruction leaves, on "
    "the training images. Best: the lowest held-out error at the largest share, chosen without the images of this "
    "table. Networks add to ridge, whose parameters are not counted among theirs, and begin as it; learning rate: of "
    "their first stage. Not converged: the held-out error still fell when the limit of passes was reached, or never "
    "fell below ridge at a learning rate that the study sets: no evidence, so never the best. In brackets: bootstrap "
    "interval over images."
)
VERDICT_NOTE = (
    "Unexplained: share of the variance that the best reconstructor leaves after the model's connector; an upper bound "
    "of what is lost there, for a better reconstructor can only lower it. Unexplained there: the same for the hardest "
    "of the controls from which nothing is lost, so the reconstructor's weakness on a map of that kind. Difference: "
    "what is put down to the connector, in percentage points; an estimate, which holds if the connector's map is no "
    "harder to undo than the control's. Linear compression: what the ladder leaves of the leading principal components "
    "of each block of patches, as many numbers as the connector puts out or fewer. Place alone: of another image's "
    "output. Settled: all networks converged, and neither twice the parameters nor twice the images promises to lower "
    "the connector's or the control's share by more than {tolerance}, by a power law through the last two points of "
    "each curve. Ten times the ladder: from what ten times the parameters and images would leave, by the same curves, "
    "to the upper end of what is left now; 0 where the ladder has no such curve. Ladders of more or fewer images and "
    "networks should agree within this range. Every feature counts alike, whatever the language model makes of it. In "
    "brackets: bootstrap interval over images, the same images on both sides of a difference; it does not cover "
    "another training run, nor a larger ladder."
)


def run(
    *,
    ladders: list[Path],
    near_copies: Path,
    ladder_csv: Path,
    ladder_html: Path,
    csv: Path,
    html: Path,
    finding: Path,
    spec: dict,
) -> None:
    """Summarise every model's ladder, and judge its connector.

    near_copies: the images that are near-copies of training images (see check_training_images): where there are any,
    the verdict's share is given without them too. spec: settled_within, a fall of FVU that still counts; confidence,
    resamples, seed.
    """
    tables, verdicts, copied = [], [], []
    copies = pd.read_parquet(near_copies)
    for path in ladders:
        rows = pd.read_parquet(path)
        seed = seed_for(spec["seed"], "judge_connector", rows["dataset"][0], rows["model"][0])
        ladder = Ladder(rows, path, spec["resamples"], spec["confidence"], seed)
        tables.append(ladder.table)
        verdicts.append(ladder.verdict(spec["settled_within"]))
        of_training = rows["image_id"].isin(copies.loc[copies["dataset"] == ladder.dataset, "image_id"])
        rest = None
        if of_training.any() and not of_training.all():
            rest = Ladder(rows[~of_training], path, spec["resamples"], spec["confidence"], seed)
            rest = rest.verdict(spec["settled_within"]).own.fvu
        copied.append((rows.loc[of_training, "image_id"].nunique(), rest))
    table = pd.concat(tables, ignore_index=True)
    write_csv(table, ladder_csv)
    write_html(_readable(table), ladder_html, "The ladder: what each reconstructor leaves unexplained", LADDER_NOTE)
    beside = [{"near_copies": count} | _flat("own_without_near_copies", rest) for count, rest in copied]
    write_csv(pd.DataFrame([_row(verdict) | row for verdict, row in zip(verdicts, beside, strict=True)]), csv)
    page = pd.DataFrame([_cells(verdict) for verdict in verdicts])
    note = VERDICT_NOTE.format(tolerance=points(spec["settled_within"]))
    write_html(page, html, "Verdict: the connector's loss, or the reconstructor's weakness", note)
    pairs = zip(verdicts, copied, strict=True)
    lines = [f"- {sentences(verdict)}{_without(verdict, *its)}" for verdict, its in pairs]
    brackets = f"In brackets: {spec['confidence']:.0%} bootstrap interval over images."
    finding.write_text("\n".join([*lines, "", brackets, ""]))


def _without(verdict: Verdict, near_copies: int, rest: Interval | None) -> str:
    if not near_copies:
        return ""
    known = f" {near_copies:,} of the {verdict.images:,} images are near-copies of training images"
    return f"{known}; without them {percent_within(rest)} is left." if rest else f"{known}."


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
    row["lost_low"], row["lost_high"] = verdict.lost
    row["beyond_low"], row["beyond_high"] = verdict.beyond if verdict.hardest else (np.nan, np.nan)
    row["falls"] = "; ".join(f"{f.connector} by {f.by}: {f.start} to {f.end}" for f in verdict.falls)
    row["unfinished"] = "; ".join(f"{each.connector}: {each.network}" for each in verdict.unfinished)
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
        "ten times the ladder": f"{percent(verdict.lost[0])} to {percent(verdict.lost[1])}",
        "difference there": hardest and "{:.1f} to {:.1f} points".format(*(100 * share for share in verdict.beyond)),
        "place alone": position and percent(position.fvu.value),
        "settled": verdict.settled,
    }


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """The ladder with intervals beside their values."""
    columns = {name: table[name] for name in ("model", "connector")} | {"rung": marked(table, "rung")}
    columns |= {name: table[name] for name in ("share", "parameters")}
    for title, name in (("FVU", "fvu"), ("squared error", "mse"), ("cosine error", "cosine_error")):
        columns[title] = with_interval(table, name, f"{name}_low", f"{name}_high", 3)
    columns |= {"known": table["known_fvu"], "held-out error": table["held_out_error"]}
    columns["learning rate"] = table["learning_rate"].map("{:g}".format, na_action="ignore")
    columns["passes"] = table["passes"].map("{:.1f}".format, na_action="ignore")
    return pd.DataFrame(columns | {"best": table["best"].map({True: "best", False: ""})})
