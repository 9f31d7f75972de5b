"""Ladders of all models -> what each decoder leaves unexplained, and whose fault it is: the connector's, or not."""

from pathlib import Path

import numpy as np
import pandas as pd

from lossmap.measures.seeds import seed_for
from lossmap.reconstruct.ladder import Ladder
from lossmap.reconstruct.verdict import Interval, Reached, Verdict, details, summary
from lossmap.study.specs import JudgeConnector

NAMES = {
    "share": "training_share",
    "kind": "connector_kind",
    "pre_numbers": "pre_dimensions",
    "post_numbers": "post_dimensions",
}


def run(*, ladders: list[Path], near_copies: Path, ladder: Path, verdict: Path, spec: JudgeConnector) -> None:
    """Summarise every model's ladder, and judge its connector.

    near_copies: the images that are near-copies of training images (see check_training_images): where there are any,
    the verdict's share is given without them too. ladder: table, a row per connector, decoder and share of the training
    images. verdict: table, a row per model, with its words.
    """
    tables, verdicts = [], []
    copies = pd.read_parquet(near_copies)
    for path in ladders:
        rows = pd.read_parquet(path)
        how = spec.resamples, spec.confidence
        seed = seed_for(spec.seed, "judge_connector", rows["dataset"][0], rows["model"][0])
        whole = Ladder(rows, path, *how, seed)
        tables.append(whole.table)
        of_training = rows["image_id"].isin(copies.loc[copies["dataset"] == whole.dataset, "image_id"])
        rest = None
        if of_training.any() and not of_training.all():
            rest = Ladder(rows[~of_training], path, *how, seed).verdict(spec.settled_within).own.fvu
        row = _row(whole.verdict(spec.settled_within)) | {"near_copies": rows.loc[of_training, "image_id"].nunique()}
        verdicts.append(row | _flat("model_connector_fvu_without_near_copies", rest))
    table = pd.concat(tables, ignore_index=True).rename(columns=NAMES)
    table.assign(training_share=table["training_share"] / 100).to_parquet(ladder, index=False)
    pd.DataFrame(verdicts).to_parquet(verdict, index=False)


def _row(verdict: Verdict) -> dict:
    """The verdict as a row of numbers, shares of 1, and in words."""
    row = {"dataset": verdict.dataset, "n": verdict.images, "model": verdict.model}
    row |= {"summary": summary(verdict), "settled": verdict.settled, "pre_dimensions": verdict.pre_numbers}
    row |= _reached("model_connector", verdict.own)
    row |= _reached("matched_control", verdict.hardest) | _flat("matched_control_difference", verdict.difference)
    row |= _reached("linear_compression", verdict.linear)
    row |= _flat("linear_compression_difference", verdict.linear_difference)
    row |= _reached("position_control", verdict.position) | _reached("upper_control", verdict.nothing)
    row["extrapolated_fvu_low"], row["extrapolated_fvu_high"] = verdict.lost
    beyond = verdict.beyond if verdict.hardest else (np.nan, np.nan)
    row["extrapolated_difference_low"], row["extrapolated_difference_high"] = beyond
    names = {verdict.own.connector: "model's connector"}
    for name, items, text in (
        ("falls", verdict.falls, lambda fall: f" by {fall.by}: {fall.start} to {fall.end}"),
        ("not_converged", verdict.unfinished, lambda network: f": {network.network}"),
        ("untested", verdict.untested, lambda lack: f" by {lack.by}"),
    ):
        row[name] = "; ".join(names.get(one.connector, one.connector) + text(one) for one in items)
    return row | {"details": details(verdict)}


def _reached(name: str, reached: Reached | None) -> dict:
    about = {"name": "connector", "decoder": "decoder", "dimensions": "numbers"}
    row = {f"{name}_{key}": reached and getattr(reached, field) for key, field in about.items()}
    return row | _flat(f"{name}_fvu", None if reached is None else reached.fvu)


def _flat(name: str, interval: Interval | None) -> dict:
    values = (interval.value, interval.low, interval.high) if interval else (np.nan,) * 3
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
