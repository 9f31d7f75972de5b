"""Queries and their nearest images before and after the connector (the paper's Figures 4 and 8 to 11)."""

from typing import Literal

from lossmap.study.columns import STAGES
from lossmap.study.exhibit import of_all
from lossmap.study.specs import Spec

EXAMPLES = ("highest", "median", "lowest")
TITLE, TOPIC, PAPER = "Which images are neighbours, before and after?", "neighbours", "Figures 4, 8 to 11"
ABOUT = """
**Queries and their {s.shown} nearest images**, before the connector over after it, by Euclidean distance of mean-
pooled embeddings, nearest first. For each model the queries of highest, median and lowest overlap (share of the {s.k}
nearest that are the same on both sides; of equal ones the first); no query was picked by hand. Blue, solid: a hit.
Orange, dashed: a miss. Black: the query. What a hit is stands above each figure: an image of the query's class, or
one that is among the {s.k} nearest on both sides."""
COLUMNS = ("dataset", "model", "which", "query", "overlap", "stage", "rank", "image_id", "hit")


class Settings(Spec):
    SECTIONS = ("galleries",)
    dataset: str
    models: list[str]
    k: int
    shown: int
    mark: Literal["class", "overlap"]

    @classmethod
    def of(cls, study, dataset):
        mark = "class" if dataset in study["retrieval"]["datasets"] else "overlap"
        return super().of(study, dataset=dataset, mark=mark)


def each(study):
    return [{"dataset": dataset} for dataset in study["galleries"]["datasets"]]


def figures(settings):
    return [f"galleries-{settings.dataset}-{model}" for model in settings.models]


def needs(study, dataset):
    lists = of_all(study, f"neighbours/{dataset}/{{model}}/lists.parquet")
    return {"lists": lists, "images": f"data/{dataset}/images.parquet"}


def table(settings, lists, images):
    """A row per neighbour that is shown."""
    import pandas as pd

    classes = pd.read_parquet(images[0]).set_index("image_id")["label"]
    each = zip(settings.models, lists, strict=True)
    return pd.DataFrame([row for model, path in each for row in _of_model(settings, model, path, classes)])


def _of_model(settings, model, path, classes):
    import numpy as np

    from lossmap.measures.overlap import ranking_overlap
    from lossmap.study.neighbour_lists import read_lists

    found = read_lists(path)
    rankings = [found.rankings["euclidean", stage] for stage in STAGES]
    overlap = ranking_overlap(*rankings, settings.k).values
    sides = [ranking.first(settings.k) for ranking in rankings]
    for which, query in zip(EXAMPLES, chosen(overlap), strict=True):
        for stage, side, other in zip(STAGES, sides, sides[::-1], strict=True):
            near, ids = side[query, : settings.shown], found.image_ids
            if settings.mark == "class":
                hits = classes.loc[ids[near]].to_numpy() == classes.loc[ids[query]]
            else:
                hits = np.isin(near, other[query])
            for rank, (image, hit) in enumerate(zip(ids[near], hits, strict=True), start=1):
                row = {"dataset": settings.dataset, "model": model, "which": which, "query": ids[query]}
                yield row | {
                    "overlap": overlap[query],
                    "stage": stage,
                    "rank": rank,
                    "image_id": image,
                    "hit": bool(hit),
                }


def chosen(overlap):
    """The queries of highest, median and lowest overlap; of equal ones, the first. Different images where there are.

    overlap: (n,). Returns: three row numbers.
    """
    import numpy as np

    order = np.argsort(-overlap, kind="stable")
    lowest = np.flatnonzero(overlap == overlap.min())
    last = lowest[0] if lowest[0] != order[0] else order[-1]
    return [int(order[0]), int(order[(len(order) - 1) // 2]), int(last)]


def findings(table, settings):
    """The overlap of the queries that are shown, a line per model."""
    lines = []
    for model, group in table.groupby("model", sort=False):
        shown = group.groupby("which", sort=False)["overlap"].first()
        lines.append(f"- **{model}**: " + ", ".join(f"{which} {value:.2f}" for which, value in shown.items()) + ".")
    return lines


def draw(table, settings, lists, images):
    import pandas as pd

    files = pd.read_parquet(images[0]).set_index("image_id")
    groups = table.groupby("model", sort=False)
    return {f"galleries-{settings.dataset}-{model}": _gallery(model, rows, settings, files) for model, rows in groups}


def _gallery(model, table, settings, files):
    import numpy as np

    from lossmap.data.images import load_image
    from lossmap.figures.galleries import Row, gallery

    def picture(image_id):
        return np.asarray(load_image(*files.loc[image_id, ["path", "sha256"]]))

    rows = []
    for which, group in table.groupby("which", sort=False):
        query = group["query"].iloc[0]
        about = [f"{which}: {group['overlap'].iloc[0]:.2f}", f"image {query}"]
        if settings.mark == "class":
            about.append(f"class {files.loc[query, 'label']}")
        sides = [group[group["stage"] == stage] for stage in STAGES]
        pictures = [[picture(image) for image in side["image_id"]] for side in sides]
        rows.append(Row(about, picture(query), *pictures, *(side["hit"].tolist() for side in sides)))
    legend = (
        ("same class", "other class") if settings.mark == "class" else ("nearest on both sides", "on one side only")
    )
    title = f"{model}: queries of highest, median and lowest overlap at k = {settings.k}, by Euclidean distance"
    return gallery(rows, title, legend)
