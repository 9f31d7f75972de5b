"""What was measured of two models -> how they differ, on the same images."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from lossmap.errors import LossmapError
from lossmap.measures.overlap import ranking_overlap
from lossmap.measures.resampling import ratio_interval
from lossmap.measures.seeds import seed_for
from lossmap.measures.unexplained import unexplained_difference
from lossmap.study.neighbour_lists import STAGES, read_lists
from lossmap.study.specs import CompareModels

COPIES = "other images are copies in the one than in the other"
SCORES = {"captions": "cider", "answers": "accuracy", "choices": "accuracy"}


def run(
    *,
    table: Path,
    spec: CompareModels,
    shared: list[Path],
    lists: list[Path] | None = None,
    losses: list[Path] | None = None,
    captions: list[Path] | None = None,
    answers: list[Path] | None = None,
    choices: list[Path] | None = None,
) -> None:
    """Measure the paired differences, tuned less base, of two models, with intervals over images.

    lists (neighbours), losses (of patches, of each image), captions, answers, choices (scores): files in pairs, the
    base model's first, a pair for each dataset that spec names under the same key, in its order. shared: what share_pre
    found, a file for each dataset of spec.shared. table: a row for each dataset, measure, metric and k. equal_pre:
    share of the bytes before the connector that both models have in common; where it is 1, the towers are the same, and
    what differs is due to the connector or, in scores, to the language model.

    spec: base, tuned, shared, lists, losses, captions, answers, choices (datasets), k, metrics, confidence, resamples,
    seed.
    """
    equal = {name: _equal_share(path) for name, path in zip(spec.shared, shared, strict=True)}
    rows = []
    for dataset, pair in _pairs(spec.lists, lists):
        rows += [{"dataset": dataset, **row} for row in _overlaps(*map(read_lists, pair), spec)]
    for dataset, pair in _pairs(spec.losses, losses):
        rows.append({"dataset": dataset, **_loss(pair, dataset, spec)})
    for kind, files in (("captions", captions), ("answers", answers), ("choices", choices)):
        for dataset, pair in _pairs(getattr(spec, kind), files):
            rows.append({"dataset": dataset, **_score(pair, kind, dataset, spec)})
    models = {"base": spec.base, "tuned": spec.tuned}
    frame = pd.DataFrame([{**models, **row, "equal_pre": equal[row["dataset"]]} for row in rows])
    frame.astype({"k": "Int64"}).to_parquet(table, index=False)


def _pairs(datasets: list[str], files: list[Path] | None):
    files = files or []
    return zip(datasets, zip(files[::2], files[1::2], strict=True), strict=True)


def _equal_share(path: Path) -> float:
    found = json.loads(path.read_text())
    return found["equal"] / found["bytes"]


def _row(measure: str, n: int, values: tuple[float, float], interval, metric=None, k=None, reason=None) -> dict:
    base, tuned = map(float, values)
    difference, low, high = map(float, interval)
    place = {"measure": measure, "metric": metric, "k": k, "n": n}
    found = {"value_base": base, "value_tuned": tuned, "difference": difference, "low": low, "high": high}
    return {**place, **found, "reason": reason}


def _overlaps(base, tuned, spec: CompareModels):
    """A row for each metric and k. Both models rank the same images, or nothing can be paired."""
    same = base.image_ids.tolist() == tuned.image_ids.tolist()
    for metric in spec.metrics:
        for k in spec.k:
            each = [
                ranking_overlap(*(lists.rankings[metric, stage] for stage in STAGES), k, parts=True)
                for lists in (base, tuned)
            ]
            means = each[0].values.mean(), each[1].values.mean()
            interval = (each[1] - each[0]).interval(spec.confidence, bounds=(-1, 1)) if same else [np.nan] * 3
            yield _row("overlap", len(base.image_ids), means, interval, metric, k, None if same else COPIES)


def _loss(pair: tuple[Path, Path], dataset: str, spec: CompareModels) -> dict:
    """FVU of each model's best reconstructor: ratios of sums, of the same images in each resample."""
    base, tuned = (frame[frame["best"]] for frame in map(pd.read_parquet, pair))
    both = _beside(base, tuned, "image_id", pair)
    errors, variances = ([both[f"{name}{end}"] for end in ("", "_tuned")] for name in ("squared_error", "variance"))
    values = [error.sum() / variance.sum() for error, variance in zip(errors, variances, strict=True)]
    seed = seed_for(spec.seed, "compare_models", dataset, "loss")
    how = {"resamples": spec.resamples, "confidence": spec.confidence, "seed": seed}
    found = unexplained_difference(errors[1], errors[0], variances[1], other_variances=variances[0], **how)
    return _row("FVU", len(both), values, found)


def _score(pair: tuple[Path, Path], kind: str, dataset: str, spec: CompareModels) -> dict:
    """Mean score of all questions, or captions; images are drawn, each with all its questions."""
    column, frames = SCORES[kind], list(map(pd.read_parquet, pair))
    key = "image_id" if kind == "captions" else "question_id"
    both = _beside(*frames, key, pair)
    change = (both[f"{column}_tuned"] - both[column]).groupby(both["image_id"], sort=False).agg(["sum", "size"])
    seed = seed_for(spec.seed, "compare_models", dataset, kind)
    found = ratio_interval(change["sum"], change["size"], spec.resamples, spec.confidence, seed)
    measure = "cider" if kind == "captions" else frames[0]["score"].iloc[0]
    return _row(measure, len(change), (both[column].mean(), both[f"{column}_tuned"].mean()), found)


def _beside(base: pd.DataFrame, tuned: pd.DataFrame, key: str, pair: tuple[Path, Path]) -> pd.DataFrame:
    """Rows of both by key, the tuned model's columns with _tuned. Raises LossmapError where one lacks a row."""
    missing = set(base[key]) ^ set(tuned[key])
    if missing:
        raise LossmapError(
            f"{pair[0]} and {pair[1]} are not of the same dataset as it is now: {key} {min(missing)} is in one alone. "
            "Delete the older of the two and run again."
        )
    return base.merge(tuned, on=key, suffixes=("", "_tuned"), validate="one_to_one")
