"""Captions in reStructuredText: what is shown, and what it says."""

import re
from types import ModuleType

import pandas as pd

from lossmap.study.specs import Spec

POPULATION = "In brackets: {:.0%} interval for the population of which the images are a sample."
BOOTSTRAP = "In brackets: {:.0%} bootstrap interval over images."


def caption(module: ModuleType, table: pd.DataFrame, settings: Spec) -> str:
    """The caption of an exhibit, as the report and its page show it."""
    about = " ".join(module.ABOUT.format(s=settings).split())
    return "\n".join([_plain(about), "", *map(_plain, module.findings(table, settings)), ""])


def html_of(text: str) -> str:
    """A caption as HTML: its paragraphs and lists, without a document around them."""
    from docutils.core import publish_parts

    how = {"file_insertion_enabled": False, "raw_enabled": False, "initial_header_level": 2}
    return publish_parts(text, writer="html5", settings_overrides=how)["body"]


def _plain(line: str) -> str:
    """A line in which names that end in an underscore are no references."""
    parts = re.split(r"(``.*?``)", line)
    return "".join(part if part.startswith("``") else re.sub(r"(?<=\w)_(?=\W|$)", r"\\_", part) for part in parts)


def findings_of(text: str) -> str:
    """A caption's findings, a line each: without its first paragraph, which says what is shown, and without details."""
    lines = text.partition("\n\n")[2].splitlines()
    kept = [line for line in lines if not line.startswith(" ")]
    if not any("[" in line for line in kept):
        kept = [line for line in kept if not line.startswith("In brackets: ")]
    return "\n".join(line for i, line in enumerate(kept) if line or (i and kept[i - 1])).strip()
