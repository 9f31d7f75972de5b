"""What an exhibit is: a table or figure of a study, described and made by one module of `lossmap.study.exhibits`.

Such a module has
    TITLE    the question that it answers, or what it shows, in a line
    TOPIC    one of TOPICS: where the report shows it
    PAPER    its counterpart in the paper, or None
    ABOUT    what is shown, in reStructuredText, with {fields} of its settings
    COLUMNS  the columns of its CSV file, by their names in `lossmap.study.columns`, without suffixes; names that only
             it has, it defines there (`columns.define`)
    Settings its settings, a `Spec`
    needs(study, ...)           the files that it is made of, below results/STUDY: name -> paths; {} if a study lacks it
    table(settings, **files)    what it shows, as a table of numbers and words: the CSV file
    findings(table, settings)   what that says: lines of reStructuredText, made of the numbers
and, where it wants them,
    HEADLINE its place among those of its topic whose findings and first figure stand in the summary of the study
    each(study)                 one exhibit for each of these values: a list of {"dataset": ...}, fields of its settings
    PAGE, NOTE                  the columns that its page shows, those that matter first, and what they mean
    page(table, settings)       what its page shows, where that is laid out otherwise
    draw(table, settings, **files)  its figure, or name -> figure
    figures(settings)           the names of its figures, where there are several

The Snakefile imports all of them, so that what is heavy (torch, scipy, matplotlib) is imported inside of functions.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

from lossmap.study import exhibits
from lossmap.study.specs import Spec

# What a reader asks, in this order.
TOPICS = {
    "examples": "1 Examples to browse",
    "loss": "2 What is lost?",
    "neighbours": "3 Do neighbours survive?",
    "behaviour": "4 Do answers and captions suffer?",
    "geometry": "5 How are embeddings moved?",
    "comparisons": "6 What did fine-tuning change?",
}


@dataclass(frozen=True)
class Exhibit:
    """An exhibit of one study. name: of its files; module: of `lossmap.study.exhibits`; inputs: name -> paths."""

    name: str
    module: ModuleType
    inputs: dict[str, list[str]]
    settings: Spec

    @property
    def has_page(self) -> bool:
        return hasattr(self.module, "page") or hasattr(self.module, "PAGE")

    @property
    def figures(self) -> list[str]:
        if hasattr(self.module, "figures"):
            return self.module.figures(self.settings)
        return [self.name] if hasattr(self.module, "draw") else []

    def title(self, name: str | None = None) -> str:
        """What it, or its figure of this name, shows, and of what, where there are several of its kind."""
        _, _, rest = (name or self.name).partition("-")
        return f"{self.module.TITLE} ({rest})" if rest else self.module.TITLE

    def outputs(self, top: str) -> dict[str, list[str]]:
        """Ending -> its files, in the folder of a study's results: table, caption, page and figures."""
        tables = ("csv", "rst", *["html"] * self.has_page)
        return {
            **{ending: [f"{top}/tables/{self.name}.{ending}"] for ending in tables},
            **{ending: [f"{top}/figures/{name}.{ending}" for name in self.figures] for ending in ("pdf", "png")},
        }

    @property
    def kind(self) -> str:
        """The name that calls it and its like: `snakemake galleries`."""
        return kind_of(self.name)


def kind_of(name: str) -> str:
    """The module of an exhibit's name: loss_maps-vizwiz is one of loss_maps."""
    return name.partition("-")[0]


def load(kind: str) -> ModuleType:
    """The module of an exhibit."""
    return importlib.import_module(f"{exhibits.__name__}.{kind}")


def kinds() -> list[str]:
    """All that there are, by topic, headlines first, and name."""

    def place(name: str) -> tuple[int, int, str]:
        module = load(name)
        return [*TOPICS].index(module.TOPIC), getattr(module, "HEADLINE", len(TOPICS)), name

    return sorted((module.name for module in pkgutil.iter_modules(exhibits.__path__)), key=place)


def exhibits_of(study: dict) -> Iterator[Exhibit]:
    """All exhibits of a study, by topic and name. study: as `check_study` returns it."""
    for kind in kinds():
        module = load(kind)
        for values in module.each(study) if hasattr(module, "each") else [{}]:
            needed = module.needs(study, **values)
            if needed:
                inputs = {name: [paths] if isinstance(paths, str) else list(paths) for name, paths in needed.items()}
                name = "-".join([kind, *values.values()])
                yield Exhibit(name, module, inputs, module.Settings.of(study, **values))


def of_all(study: dict, pattern: str, datasets: list[str] | None = None) -> list[str]:
    """A file of every dataset and model, such as "scores/{dataset}/{model}/answers.parquet"; without datasets, of every
    model."""
    return [
        pattern.format(dataset=dataset, model=model)
        for dataset in ([None] if datasets is None else datasets)
        for model in study["models"]
    ]
