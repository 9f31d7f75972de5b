"""Neighbour lists, images -> Figure 2."""

from pathlib import Path

import numpy as np
import pandas as pd

from lossmap.data.images import load_image
from lossmap.figures.query import neighbours_of_query
from lossmap.figures.style import save, use_style
from lossmap.measures.overlap import ranking_overlap
from lossmap.study.neighbour_lists import STAGES, read_lists


def run(*, lists: Path, images: Path, pdf: Path, png: Path, spec: dict) -> None:
    """Draw what the overlap ratio is on a typical query: the first whose overlap is nearest to the mean of all.

    spec: k, how many neighbours to show.
    """
    use_style()
    found = read_lists(lists)
    image_ids, rankings = found.image_ids, [found.rankings["euclidean", stage] for stage in STAGES]
    overlap = ranking_overlap(*rankings, spec["k"]).values
    before, after = (ranking.first(spec["k"]) for ranking in rankings)
    query = int(np.argmin(np.abs(overlap - overlap.mean())))
    files = pd.read_parquet(images).set_index("image_id")["path"]

    def picture(row: int) -> np.ndarray:
        return np.asarray(load_image(files[image_ids[row]]))

    rows = before[query], after[query]
    ids = tuple([str(image_ids[row]) for row in side] for side in rows)
    figure = neighbours_of_query(picture(query), *([picture(row) for row in side] for side in rows), ids)
    save(figure, pdf, png)
