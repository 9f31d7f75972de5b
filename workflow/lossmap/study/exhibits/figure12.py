"""Captions of the images that lost most and least (the paper's Figure 12)."""

import pandas as pd

from lossmap.study.examples import case
from lossmap.study.exhibit import of_all
from lossmap.study.specs import Spec

TITLE, TOPIC, PAPER = "How are the images described that lost most and least?", "behaviour", "Figure 12"
ABOUT = """
**Captions of the images that lost most and least**, on {s.dataset}: for each model the image of highest and the image
of lowest loss (squared error of the best decoder, mean over patches), with the loss of each patch, the
generated caption, what people wrote, and CIDEr. One colour means one value in both rows of a model. Two images a
model show what such captions look like and prove nothing: Table 4 says how loss goes with CIDEr over all images,
given what could explain both."""
COLUMNS = (
    *("dataset", "model", "which", "rank", "of", "loss", "scored", "score"),
    *("image_id", "prediction", "decoder"),
)


class Settings(Spec):
    SECTIONS = ("figure12",)
    dataset: str


def needs(study):
    if "figure12" not in study:
        return {}
    return {"examples": of_all(study, "examples/{dataset}/{model}/captions.parquet", [study["figure12"]["dataset"]])}


def table(settings, examples):
    """A row per image that is shown."""
    return _shown(examples).rename(columns={"reconstructor": "decoder"})[[*COLUMNS]]


def _shown(examples):
    """For each model, the images of highest and lowest loss."""
    tables, ends = map(pd.read_parquet, examples), ("highest", "lowest")
    return pd.concat([case(chosen, None, which) for chosen in tables for which in ends], ignore_index=True)


def findings(table, settings):
    """Loss and CIDEr of each image that is shown."""
    return [
        f"- **{row.model}, {row.which} loss** (rank {row.rank} of {row.of} images): squared error {row.loss:.3f}, "
        f"CIDEr {row.score:.1f}."
        for row in table.itertuples()
    ]


def draw(table, settings, examples):
    from lossmap.figures.patch_maps import draw_captions
    from lossmap.study.example_pictures import picture

    rows = _shown(examples)
    return draw_captions(rows, [picture(row) for row in rows.itertuples()])
