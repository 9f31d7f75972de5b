"""How well patches are recovered from the connector's output, on images with questions (the paper's Table 9)."""

from lossmap.study.exhibits import table3
from lossmap.study.exhibits.table3 import BEST, COLUMNS, NOTE, Settings, findings, page, table

__all__ = ["COLUMNS", "NOTE", "Settings", "findings", "page", "table"]
TITLE, TOPIC, PAPER = "How well are patches recovered, on images with questions?", "loss", "Table 9"
ABOUT = "**How well patches can be recovered from the connector's output**, on images with questions." + BEST


def needs(study):
    return table3.needs(study, "table9")
