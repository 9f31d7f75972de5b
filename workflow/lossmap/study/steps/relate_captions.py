"""Caption scores, patch losses -> how an image's loss goes with the CIDEr of its caption."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from lossmap.errors import LossmapError
from lossmap.measures.correlation import rank_residuals
from lossmap.measures.relations import (
    LOSSES,
    difference_of_means,
    quarters,
    relate,
    spearman_rho,
)
from lossmap.measures.seeds import seed_for
from lossmap.measures.statistics import bootstrap_mean
from lossmap.store.patch_losses import ImageLosses, open_patch_losses
from lossmap.study.specs import RelateCaptions


def run(*, scores: Path, patch_loss: Path, maps: Path, losses: Path, relations: Path, spec: RelateCaptions) -> None:
    """Put each image's loss beside its caption's CIDEr, and relate the two: one row per loss.

    patch_loss: means per image (Parquet), of which those of the best reconstructor count. maps: values per patch, of
    which the norms before the connector are read: what is called partial holds their mean constant, and the number of
    words of the references: images with more to see take more words, lose more and score less.

    spec: dataset, model, permutations, confidence, resamples, seed.
    """
    scored, lost = pd.read_parquet(scores), pd.read_parquet(patch_loss)
    lost = lost[lost["best"]]
    missing = sorted(set(scored["image_id"]) - set(lost["image_id"]))
    if missing:
        raise LossmapError.listing(
            f"{scores}: {len(missing)} of {len(scored)} captions have no loss in {patch_loss}:",
            [f"image {image}" for image in missing],
            "The two were made from different images: delete both and run again.",
        )
    patches = ImageLosses(open_patch_losses(maps))
    norms = pd.Series(patches.means("pre_norm"), patches.image_ids)
    columns = ["image_id", "reconstructor", *LOSSES, "norm_difference"]
    table = scored.merge(lost[columns], on="image_id", validate="one_to_one")
    table["pre_norm"] = table["image_id"].map(norms)
    table.drop(columns="text").to_parquet(losses, index=False)

    seed = seed_for(spec.seed, "relate_captions", spec.dataset, spec.model)
    how = {"resamples": spec.resamples, "confidence": spec.confidence, "seed": seed}
    same = {"dataset": spec.dataset, "model": spec.model, "reconstructor": lost["reconstructor"].iloc[0]}
    same |= {"unscored": len(lost) - len(table), "empty": int((table["text"].str.strip() == "").sum())}
    same |= _with_bounds("cider", table["cider"], how)
    same |= {"cider_std": table["cider"].std(ddof=0), "cider_paper_convention": table["cider_raw"].mean()}
    rows = []
    for loss in LOSSES:
        found = _relation(table, loss, how, spec.permutations) | _quarters(table, loss, how, spec.permutations)
        rows.append({**same, "loss_kind": loss, **found})
    pd.DataFrame(rows).to_parquet(relations, index=False)


def _relation(table: pd.DataFrame, loss: str, how: dict, permutations: int) -> dict:
    """Rank correlation of one loss with CIDEr, and in the paper's convention: CIDEr on raw strings."""
    controls, score = _controls(table), table["cider"]
    row = asdict(relate(table[loss], score, controls, permutations=permutations, **how))
    is_norm = loss == "absolute_norm_difference"
    for name, given in (("raw_rho_signed", ()), ("partial_rho_signed", controls)):
        row[name] = spearman_rho(table["norm_difference"], score, given) if is_norm else np.nan
    return row | {"raw_rho_paper_convention": spearman_rho(table[loss], table["cider_raw"])}


def _controls(table: pd.DataFrame) -> list[pd.Series]:
    return [table["pre_norm"], table["reference_words"]]


def _quarters(table: pd.DataFrame, loss: str, how: dict, permutations: int) -> dict:
    """Mean CIDEr of the quarters of the images with the highest and the lowest loss, and lowest less highest.

    Partial: the quarters of what norm and words leave of the loss. A regression within the raw quarters would not do:
    being chosen by loss, they hardly have a norm in common.
    """
    enough = len(table) >= 4
    cider, none = table["cider"].to_numpy(), (np.empty(0, int),) * 2
    highest, lowest = quarters(table[loss]) if enough else none
    given = quarters(rank_residuals(table[loss], _controls(table))) if enough else none
    row = {"quarter": len(highest)}
    for kind, (most, least) in (("raw", (highest, lowest)), ("partial", given)):
        gain = asdict(difference_of_means(cider[least], cider[most], permutations=permutations, **how))
        row |= {f"{kind}_{name.replace('difference', 'gain')}": value for name, value in gain.items()}
    for name, images in (("cider_high_loss", highest), ("cider_low_loss", lowest)):
        row |= _with_bounds(name, table["cider"].iloc[images], how)
        row[f"{name}_paper_convention"] = table["cider_raw"].iloc[images].mean()
    return row


def _with_bounds(name: str, values: pd.Series, how: dict) -> dict:
    """A mean with its bootstrap interval as three columns; nan where there are no values."""
    found = bootstrap_mean(values, **how) if len(values) else (np.nan,) * 3
    return dict(zip((name, f"{name}_low", f"{name}_high"), found, strict=True))
