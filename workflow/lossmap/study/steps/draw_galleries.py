"""Neighbour lists, images -> Figures 4 and 8 to 11: galleries of neighbours before and after the connector."""

from pathlib import Path

import numpy as np
import pandas as pd

from lossmap.data.images import load_image
from lossmap.figures.galleries import Row, gallery
from lossmap.figures.style import save, use_style
from lossmap.measures.overlap import ranking_overlap
from lossmap.study.neighbour_lists import STAGES, read_lists

EXAMPLES = ("highest", "median", "lowest")


def run(*, lists: list[Path], images: Path, pdf: list[Path], png: list[Path], spec: dict) -> None:
    """Draw, for each model, the queries of highest, median and lowest overlap, with their nearest images.

    lists, pdf, png: one per model, in one order. spec: models (in that order), k (of the overlap that ranks the
    queries), shown (how many neighbours), mark: "overlap", an image that is among the k nearest on both sides is a hit,
    or "class", one of the query's class is.
    """
    use_style()
    table = pd.read_parquet(images).set_index("image_id")
    for path, model, *outputs in zip(lists, spec["models"], pdf, png, strict=True):
        save(_of_model(path, model, table, spec), *outputs)


def _of_model(path: Path, model: str, table: pd.DataFrame, spec: dict):
    found = read_lists(path)
    image_ids, rankings = found.image_ids, [found.rankings["euclidean", stage] for stage in STAGES]
    overlap = ranking_overlap(*rankings, spec["k"]).values
    before, after = (ranking.first(spec["k"]) for ranking in rankings)
    classes = table["label"].loc[image_ids].to_numpy()
    rows = []
    for name, query in zip(EXAMPLES, chosen(overlap), strict=True):
        shown = [side[query, : spec["shown"]] for side in (before, after)]
        if spec["mark"] == "class":
            hits = [classes[side] == classes[query] for side in shown]
        else:
            hits = [np.isin(one, other[query, : spec["k"]]) for one, other in zip(shown, (after, before), strict=True)]
        pictures = [[_picture(table, image_ids[i]) for i in side] for side in shown]
        about = [f"{name}: {overlap[query]:.2f}", f"image {image_ids[query]}"]
        if spec["mark"] == "class":
            about.append(f"class {classes[query]}")
        rows.append(Row(about, _picture(table, image_ids[query]), *pictures, *(list(side) for side in hits)))
    legend = ("same class", "other class") if spec["mark"] == "class" else ("nearest on both sides", "on one side only")
    title = f"{model}: queries of highest, median and lowest overlap at k = {spec['k']}, by Euclidean distance"
    return gallery(rows, title, legend)


def chosen(overlap: np.ndarray) -> list[int]:
    """The queries of highest, median and lowest overlap; of equal ones, the first. Different images where there are."""
    order = np.argsort(-overlap, kind="stable")
    lowest = np.flatnonzero(overlap == overlap.min())
    last = lowest[0] if lowest[0] != order[0] else order[-1]
    return [int(order[0]), int(order[(len(order) - 1) // 2]), int(last)]


def _picture(table: pd.DataFrame, image_id: str) -> np.ndarray:
    row = table.loc[image_id]
    return np.asarray(load_image(row["path"], row["sha256"]))
