"""Patch losses, images -> loss maps: what was lost where, on the images that lost most, a median amount, and least."""

from pathlib import Path

import numpy as np
import pandas as pd

from lossmap.figures.patch_maps import draw_loss_maps
from lossmap.figures.style import save, use_style
from lossmap.study.example_losses import best_losses, seen_boxes
from lossmap.study.example_pictures import picture


def run(
    *,
    images: Path,
    patch_loss: list[Path],
    embeddings: list[Path],
    pdf: list[Path],
    png: list[Path],
    finding: Path,
    spec: dict,
) -> None:
    """Draw, for each model, the images of highest, median and lowest loss of one dataset, with the loss of each patch.

    patch_loss, embeddings, pdf, png: one per model, in one order. The loss is the squared error of the best
    reconstructor; an image's is the mean over its patches. finding: the same in sentences.
    spec: models, in that order.
    """
    use_style()
    files, lines = pd.read_parquet(images).set_index("image_id"), []
    for losses, store, model, *outputs in zip(patch_loss, embeddings, spec["models"], pdf, png, strict=True):
        shown = _chosen(losses, store, files).assign(model=model)
        save(draw_loss_maps(shown, [picture(row) for row in shown.itertuples()]), *outputs)
        each = "; ".join(f"{row.which} {row.loss:.3f} (image {row.image_id})" for row in shown.itertuples())
        lines.append(f"- **{model}**, {len(files):,} images, by {shown['reconstructor'].iloc[0]}: {each}.\n")
    finding.write_text("".join(lines))


def _chosen(patch_loss: Path, embeddings: Path, files: pd.DataFrame) -> pd.DataFrame:
    """A row for each image that is shown; of equal losses, the first image of the dataset."""
    ids, losses, best, grid = best_losses(patch_loss)
    boxes = seen_boxes(embeddings, patch_loss, grid)
    values = losses["squared_error"]
    loss = values.mean(axis=1, dtype=float)
    order = np.argsort(-loss, kind="stable")
    ranks = {"highest": 0, "median": (len(order) - 1) // 2, "lowest": len(order) - 1}
    ranks = {which: rank for which, rank in ranks.items() if which == "highest" or rank > 0}  # of one or two images
    rows = order[list(ranks.values())]
    return pd.DataFrame(
        {
            "which": list(ranks),
            "rank": [rank + 1 for rank in ranks.values()],
            "of": len(order),
            "image_id": ids[rows],
            "loss": loss[rows],
            "squared_error": list(values[rows]),
            "reconstructor": best,
            "grid": [grid] * len(rows),
            "box": boxes[ids[rows]].to_list(),
            "mask_path": None,
            **{name: files.loc[ids[rows], name].to_numpy() for name in ("path", "sha256", "width", "height")},
        }
    )
