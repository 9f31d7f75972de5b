"""Which patches were lost in right and in wrong answers of another model (the paper's Figure 7)."""

from lossmap.study.exhibits import figure1
from lossmap.study.exhibits.figure1 import ABOUT, COLUMNS, draw, findings, table

__all__ = ["ABOUT", "COLUMNS", "draw", "findings", "table"]
TITLE, TOPIC, PAPER = "Which patches were lost, and what was answered, by another model?", "behaviour", "Figure 7"


class Settings(figure1.Settings):
    SECTIONS = ("figure7",)


def needs(study):
    return figure1.needs(study, "figure7")
