"""Captions in reStructuredText: what is shown, and what it says."""

import re
from collections.abc import Sequence
from types import ModuleType

import pandas as pd

from lossmap.study.specs import Spec

POPULATION = "In brackets: {:.0%} interval for the population of which the images are a sample."
BOOTSTRAP = "In brackets: {:.0%} bootstrap interval over images."


def caption(module: ModuleType, table: pd.DataFrame, settings: Spec, sequence_alone: Sequence[str] = ()) -> str:
    """The caption of an exhibit, as the report and its page show it. sequence_alone: see `about_receives`."""
    about = " ".join([*module.ABOUT.format(s=settings).split(), *about_receives(sequence_alone).split()])
    return "\n".join([_plain(about), "", *map(_plain, module.findings(table, settings)), ""])


def about_receives(sequence_alone: Sequence[str]) -> str:
    """What is said wherever numbers stand of models of which less is measured than their language model receives; ""
    where there are none. sequence_alone: their names."""
    if not sequence_alone:
        return ""
    return (
        f"Of {', '.join(sequence_alone)}, the merger's input and output alone are measured (receives: sequence), which"
        " is less than the language model receives; of other models with DeepStack, all that theirs receives."
    )


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
