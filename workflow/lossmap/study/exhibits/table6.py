"""How well patches are recovered by each network of the ladder (the paper's Table 6)."""

from lossmap.study.exhibits import table3
from lossmap.study.exhibits.table3 import COLUMNS, findings, page

__all__ = ["COLUMNS", "findings", "page"]
TITLE, TOPIC, PAPER = "Does another decoder recover more?", "loss", "Table 6"
ABOUT = """
**The same loss by network**: every network of the ladder, trained on the largest share of the images, for every
model. If networks differ, the loss is not the connector's alone."""
NOTE = table3.LOSSES.format(who="each network, trained on the largest share of the images,")


class Settings(table3.Settings):
    networks: list[str]


def needs(study):
    return table3.needs(study, "table6")


def table(settings, summaries):
    rows = table3.losses(summaries)
    rows = rows[rows["decoder"].isin(settings.networks)].reset_index(drop=True)
    return table3.reported(rows, "table6", ["decoder", "dataset"], settings.checkpoints)
