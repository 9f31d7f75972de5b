"""Answer scores, masks on patches, patch losses -> how the loss where the answer lies goes with answering right."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lossmap.errors import LossmapError
from lossmap.measures.coverage import region_means
from lossmap.measures.relations import (
    LOSSES,
    WITHIN,
    difference_of_means,
    partial_difference,
    relate,
    spearman_rho,
)
from lossmap.measures.seeds import seed_for
from lossmap.measures.statistics import bootstrap_mean
from lossmap.store.patch_losses import ImageLosses, open_patch_losses
from lossmap.study.specs import RelateAnswers

VALUES = ("squared_error", "norm_difference", "cosine_error", "pre_norm", "absolute_norm_difference")
REGIONS = ("relevant", "irrelevant")


def run(*, scores: Path, relevance: Path, patch_loss: Path, losses: Path, relations: Path, spec: RelateAnswers) -> None:
    """Average each question's patch losses over relevant and over irrelevant patches, and relate them to its accuracy.

    A patch is relevant if the answer mask covers at least `threshold` of its area. patch_loss: values per patch, of
    which those of the best reconstructor count. losses: one row per question and region; relations: one row per region
    and loss. What is called partial holds the patches' mean norm before the connector and the mask's area constant.
    Where an image has several views, the patches of all of them count, each by itself.

    spec: dataset, model, threshold, right (accuracy from which an answer counts as right), permutations, confidence,
    resamples, seed.
    """
    table, reconstructor = _by_region(scores, relevance, patch_loss, spec.threshold)
    table.to_parquet(losses, index=False)
    same: dict[str, Any] = {"dataset": spec.dataset, "model": spec.model, "reconstructor": reconstructor}
    same |= {"threshold": spec.threshold, "right_from": spec.right}
    same["scored"] = table["score"].iloc[0]
    same["unscored"] = len(pd.read_parquet(relevance, columns=["question_id"])) - table["question_id"].nunique()
    rows = []
    for region, every in table.groupby("region", sort=False):
        kept = every[every["patches"] > 0]
        counts = {"questions": len(every), "without_patches": len(every) - len(kept)}
        counts["mask_not_seen"] = int((every["mask_seen"] == 0).sum())
        place = {**same, "region": region}
        rows += [{**place, "loss_kind": loss, **counts, **_relation(kept, loss, spec)} for loss in LOSSES]
    pd.DataFrame(rows).to_parquet(relations, index=False)


def _by_region(scores: Path, relevance: Path, patch_loss: Path, threshold: float) -> tuple[pd.DataFrame, str]:
    """One row per question and region, and the name of the reconstructor."""
    scored, masks = pd.read_parquet(scores), pd.read_parquet(relevance)
    maps = open_patch_losses(patch_loss)
    row_of = {image: row for row, image in enumerate(maps["image_id"].values.tolist())}
    _refuse_missing(scored, {*masks["question_id"]}, "question_id", scores, f"answer mask in {relevance}")
    _refuse_missing(scored, row_of, "image_id", scores, f"loss in {patch_loss}")
    best = maps.attrs["best"]
    losses = ImageLosses(maps.sel(reconstructor=best))
    rows = np.array([row_of[image] for image in scored["image_id"]], dtype=np.int64)
    table = scored[["question_id", "image_id", "score", "accuracy", "accuracy_simple"]].merge(
        masks.drop(columns="image_id"), on="question_id", how="left", validate="one_to_one"
    )
    covered = table.pop("covered").to_list()
    for part, row in zip(covered, rows, strict=True):
        if len(part) != (wanted := losses.shapes[losses.kinds[row]].patches):
            has = wanted if losses.ragged else " x ".join(map(str, maps.attrs["pre_grid"]))
            raise LossmapError(
                f"{relevance}: {len(part)} patches an image, but {patch_loss} has {has}. They were"
                " made with different inputs: delete both and run again."
            )
    found = {name: {column: np.full(len(table), np.nan) for column in ("patches", *VALUES)} for name in REGIONS}
    seen = np.empty(len(table))
    for positions, shape in losses.alike(rows):
        share = np.stack([covered[position] for position in positions])
        share = share if (counted := losses.targets(shape)).all() else share.compress(counted, axis=1)
        seen[positions] = share.mean(axis=1)
        regions = dict(zip(REGIONS, (share >= threshold, share < threshold), strict=True))
        for value in VALUES:
            each = losses.of_targets(value.removeprefix("absolute_"), rows[positions])
            each = np.abs(each) if value.startswith("absolute_") else each
            for name, region in regions.items():
                found[name][value][positions] = region_means(each, region)
                found[name]["patches"][positions] = region.sum(axis=1)
    table["mask_seen"] = seen
    sides = [table.assign(region=name, **columns).astype({"patches": int}) for name, columns in found.items()]
    within = table.assign(region=WITHIN, patches=np.minimum(*(side["patches"] for side in sides)))
    within[[*VALUES]] = sides[0][[*VALUES]] - sides[1][[*VALUES]]
    return pd.concat([*sides, within], ignore_index=True), best


def _refuse_missing(scored: pd.DataFrame, known, column: str, scores: Path, what: str) -> None:
    """Raises LossmapError if an answer lacks what it is related to: nothing is left out silently."""
    missing = [entry for entry in scored.itertuples() if getattr(entry, column) not in known]
    if missing:
        raise LossmapError.listing(
            f"{scores}: {len(missing)} of {len(scored)} answers have no {what}:",
            [f"question {entry.question_id}, image {entry.image_id}" for entry in missing],
            "The two were made from different questions: delete both and run again.",
        )


def _relation(table: pd.DataFrame, loss: str, spec: RelateAnswers) -> dict:
    """One loss in one region against accuracy: rank correlation, and right against wrong answers."""
    seed = seed_for(spec.seed, "relate_answers", spec.dataset, spec.model)
    how: dict[str, Any] = {"resamples": spec.resamples, "confidence": spec.confidence, "seed": seed}
    controls, score = [table["pre_norm"], table["mask_area"]], table["accuracy"]
    row = asdict(relate(table[loss], score, controls, permutations=spec.permutations, **how))
    row = {"questions_used": row.pop("n"), **row}
    is_norm = loss == "absolute_norm_difference"
    for name, given in (("raw_rho_signed", ()), ("partial_rho_signed", controls)):
        row[name] = spearman_rho(table["norm_difference"], score, given) if is_norm else np.nan
    simple = table["accuracy_simple"]  # which exact match has not
    row["raw_rho_paper_convention"] = spearman_rho(table[loss], simple) if simple.notna().all() else np.nan
    right = (table["accuracy"] >= spec.right).to_numpy()
    groups = {"right": table[loss].to_numpy()[right], "wrong": table[loss].to_numpy()[~right]}
    for name, group in groups.items():
        mean = bootstrap_mean(group, **how) if len(group) else (np.nan,) * 3
        row |= {
            name: len(group),
            **dict(zip((f"loss_{name}", f"loss_{name}_low", f"loss_{name}_high"), mean, strict=True)),
        }
    how["permutations"] = spec.permutations
    partial = partial_difference(table[loss], right, controls, **how)
    kinds = {"raw": difference_of_means(*groups.values(), **how), "partial": partial}
    return row | {f"{kind}_{name}": value for kind, one in kinds.items() for name, value in asdict(one).items()}
