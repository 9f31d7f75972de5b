"""Retrieval by class before and after the connector, by cosine (the paper's Table 8)."""

from lossmap.study.exhibits import table2
from lossmap.study.exhibits.table2 import ABOUT, COLUMNS, NOTE, findings, page, table

__all__ = ["ABOUT", "COLUMNS", "NOTE", "findings", "page", "table"]
TITLE, TOPIC, PAPER = "Does an image find its own class, by cosine?", "neighbours", "Table 8"


class Settings(table2.Settings):
    @classmethod
    def of(cls, study):
        return super().of(study, metric="cosine")


def needs(study):
    return table2.needs(study, metric="cosine")
