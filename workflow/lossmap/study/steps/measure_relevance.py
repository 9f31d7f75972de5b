"""Questions with answer masks, embedding store -> how much of each patch the answer covers, as the model sees it."""

from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from lossmap.data.images import ImageError, load_mask
from lossmap.errors import LossmapError
from lossmap.measures.coverage import patch_coverage
from lossmap.store.images import Images
from lossmap.store.index import open_store
from lossmap.store.layouts import Layout
from lossmap.store.patch_losses import targets


def run(*, questions: Path, embeddings: Path, relevance: Path) -> None:
    """Lay each question's answer mask on the patches of its image, through the model's own resizing and cropping.

    One row per question: covered, the share of each patch's area that the mask covers, in raster order, view by view;
    mask_area, the share of the whole image that it covers. A mask of which the model sees nothing is kept, and covers 0
    everywhere. Where images differ in layout, covered is NaN for rows of pre that are not reconstructed: those without
    a place, and those that no token stands for.
    """
    asked = pd.read_parquet(questions)
    store = open_store(embeddings)
    read = {name: store[name].load() for name in ("box", "view_box", "size") if name in store}
    images = Images(store.assign(read))
    row_of = {image: row for row, image in enumerate(store["image_id"].values.tolist())}
    problems, covered, areas = [], [], []
    for entry in tqdm(asked.itertuples(), total=len(asked), desc="laying masks on patches", mininterval=1):
        row = row_of.get(entry.image_id)
        try:
            if row is None:
                raise ImageError(f"its image {entry.image_id} is not in {embeddings}. Extract again.")
            if pd.isna(entry.mask_path):
                raise ImageError("has no answer mask. Add one, or leave its dataset out.")
            mask = load_mask(entry.mask_path)
            layout = images.layout(row)
            if mask.shape != (layout.height, layout.width):
                size = f"{layout.width} x {layout.height}"
                found = f"{entry.mask_path}: is {mask.shape[1]} x {mask.shape[0]}, its image {size}"
                raise ImageError(f"{found}, upright by EXIF. Give the mask that belongs to the image.")
        except ImageError as problem:
            problems.append(f"question {entry.question_id}: {problem}")
            continue
        # The store's boxes are float32: further digits mean nothing, and would tip a share that equals a threshold.
        covered.append(_coverage(mask, layout, images.ragged).round(6))
        areas.append(mask.mean())
    if problems:
        raise LossmapError.listing(
            f"{questions}: {len(problems)} of {len(asked)} questions have no answer mask that can be used:",
            problems,
            "Mend these entries and run again.",
        )
    ids = asked[["question_id", "image_id"]]
    ids.assign(covered=covered, mask_area=np.array(areas, dtype=np.float64)).to_parquet(relevance, index=False)


def _coverage(mask: np.ndarray, layout: Layout, ragged: bool) -> np.ndarray:
    """(patches,): share of each patch, by row of pre, that a mask covers."""
    found = np.full(layout.shape.patches, np.nan)
    for view, start, box in zip(layout.shape.views, layout.shape.starts, layout.boxes, strict=True):
        grid = view.rows, view.cols
        found[start : start + view.rows * view.cols] = patch_coverage(mask, box, grid).ravel()
    if ragged:
        found[~targets(layout.shape)] = np.nan
    return found
