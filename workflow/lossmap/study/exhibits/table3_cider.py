"""CIDEr of the captions that models generate (the lower half of the paper's Table 3)."""

import pandas as pd

from lossmap.study.captions import BOOTSTRAP
from lossmap.study.exhibit import of_all
from lossmap.study.paper import beside
from lossmap.study.relation_tables import described
from lossmap.study.specs import WithConfidence
from lossmap.study.tables import interval, read_all

# Images of the splits on which the paper reports: its numbers stand beside ours of a whole split only.
PAPER_IMAGES = {"coco-karpathy": 5000, "flickr30k": 1000}
OF_ALL_IMAGES = ["cider", "cider_low", "cider_high", "cider_std", "cider_paper_convention"]
TITLE, TOPIC, PAPER = "How good are the captions?", "behaviour", "Table 3, lower half"
ABOUT = """
**How good are the captions?** CIDEr of greedy captions, made from the very embeddings whose loss is measured, on each
dataset. Document frequencies come from the references of the whole split; an empty caption scores 0."""
COLUMNS = ("dataset", "model", "n", "unscored", "empty", "cider")
PAGE = ["dataset", "model", "cider", "cider_std", "cider_reported", "cider_paper_convention", "n", "unscored", "empty"]
NOTE = (
    "CIDEr-D x 100 of greedy captions against all references, PTB tokenisation: mean over images with bootstrap "
    "interval, and standard deviation. Unscored: images with a loss but without a scored caption. Empty: captions "
    "without a word, which score 0. Paper's convention: raw strings, not tokenised. Reported: the paper's value, where "
    "the study has its model and dataset."
)


class Settings(WithConfidence):
    checkpoints: dict[str, str]


def needs(study):
    datasets = described(study)
    return datasets and {"relations": of_all(study, "scores/{dataset}/{model}/caption_relations.parquet", datasets)}


def table(settings, relations):
    """A row per dataset and model."""
    rows = read_all(relations)[["dataset", "model", "n", "unscored", "empty", *OF_ALL_IMAGES]]
    rows = rows.drop_duplicates(["dataset", "model"], ignore_index=True)
    return beside_whole_splits(rows, "table3_table9", ["cider"], settings.checkpoints)


def beside_whole_splits(table: pd.DataFrame, reported: str, values: list[str], checkpoints: dict) -> pd.DataFrame:
    """The table with the paper's values, nan where ours is of another dataset or of a part of it."""
    table = beside(table, reported, ["dataset"], values, checkpoints)
    theirs = table["n"] == table["dataset"].map(PAPER_IMAGES)
    table.loc[~theirs, [f"{name}_reported" for name in values]] = float("nan")
    return table


def findings(table, settings):
    """CIDEr with interval, a line per model and dataset."""
    lines = [
        f"- **{row['model']}** on {row['dataset']}: CIDEr {interval(row, 'cider', 1)} over {row['n']} images."
        for _, row in table.iterrows()
    ]
    return [*lines, "", BOOTSTRAP.format(settings.confidence)]
