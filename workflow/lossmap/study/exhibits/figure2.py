"""What the k-NN overlap ratio counts, on one query of the study (the paper's Figure 2)."""

from lossmap.study.columns import STAGES
from lossmap.study.specs import Spec

TITLE, TOPIC, PAPER = "What does the overlap ratio count?", "neighbours", "Figure 2"
ABOUT = """
**What the k-NN overlap ratio counts**, on one image of {s.dataset} and {s.model}. Upper row: the {s.k} images nearest
to the query before the connector, nearest first; lower row: after it. The ratio is the share of images that stand in
both rows (blue, joined). The query is the first whose overlap is nearest to the mean of all images."""
COLUMNS = ("query", "stage", "rank", "image_id", "shared")


class Settings(Spec):
    SECTIONS = ("figure2",)
    dataset: str
    model: str
    k: int


def needs(study):
    if "figure2" not in study:
        return {}
    dataset, model = study["figure2"]["dataset"], study["figure2"]["model"]
    return {"lists": f"neighbours/{dataset}/{model}/lists.parquet", "images": f"data/{dataset}/images.parquet"}


def table(settings, lists, images):
    """A row per neighbour of the query, before and after."""
    import numpy as np
    import pandas as pd

    from lossmap.measures.overlap import ranking_overlap
    from lossmap.study.neighbour_lists import read_lists

    found = read_lists(lists[0])
    rankings = {stage: found.rankings["euclidean", stage] for stage in STAGES}
    overlap = ranking_overlap(*rankings.values(), settings.k).values
    query = int(np.argmin(np.abs(overlap - overlap.mean())))
    sides = {stage: found.image_ids[ranking.first(settings.k)[query]] for stage, ranking in rankings.items()}
    both = set(sides["pre"]) & set(sides["post"])
    return pd.DataFrame(
        {"query": found.image_ids[query], "stage": stage, "rank": rank, "image_id": image, "shared": image in both}
        for stage, side in sides.items()
        for rank, image in enumerate(side, start=1)
    )


def findings(table, settings):
    shared = table.loc[table["stage"] == "pre", "shared"].sum()
    return [f"Here {shared} of {settings.k} neighbours are preserved: an overlap of {shared / settings.k:.2f}."]


def draw(table, settings, lists, images):
    import numpy as np
    import pandas as pd

    from lossmap.data.images import load_image
    from lossmap.figures.query import neighbours_of_query

    files = pd.read_parquet(images[0]).set_index("image_id")

    def picture(image_id):
        return np.asarray(load_image(*files.loc[image_id, ["path", "sha256"]]))

    rows = [table.loc[table["stage"] == stage, "image_id"].astype(str).tolist() for stage in STAGES]
    pictures = [[picture(image) for image in side] for side in rows]
    return neighbours_of_query(picture(table["query"].iloc[0]), *pictures, tuple(rows))
