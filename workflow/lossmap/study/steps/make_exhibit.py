"""Measures -> a table or figure of the study: CSV, page, caption, figures. See `lossmap.study.exhibit`."""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import pandas as pd

from lossmap.study.captions import caption, findings_of, html_of
from lossmap.study.exhibit import Exhibit, kind_of, load
from lossmap.study.specs import MakeExhibit
from lossmap.study.tables import cells, how_seen, write_csv, write_page


def run(name: str, /, *, results: Path, inputs: list[str], settings: dict, spec: MakeExhibit) -> None:
    """Make one exhibit.

    name: of the exhibit, such as figure3. results: folder of the study; what is made goes to its tables/ and figures/.
    inputs: what the exhibit is made of, as NAME=PATH, several of a name where it takes several. settings: of the
    exhibit's own kind. spec: how figures look, and how models see images.
    """
    files: dict[str, list[str]] = {}
    for given in inputs:
        label, _, path = given.partition("=")
        files.setdefault(label, []).append(path)
    module = load(kind_of(name))
    exhibit = Exhibit(name, module, files, module.Settings.model_validate(settings))
    made = {ending: [Path(path) for path in paths] for ending, paths in exhibit.outputs(results.as_posix()).items()}
    for output in chain.from_iterable(made.values()):
        output.parent.mkdir(parents=True, exist_ok=True)
    read = {label: [Path(path) for path in paths] for label, paths in files.items()}
    table = module.table(exhibit.settings, **read)
    text = caption(module, table, exhibit.settings, spec.sequence_alone)
    write_csv(table, made["csv"][0])
    made["rst"][0].write_text(text, encoding="utf-8")
    if exhibit.has_page:
        shown = (
            module.page(table, exhibit.settings) if hasattr(module, "page") else pd.DataFrame(cells(table, module.PAGE))
        )
        note = module.NOTE.format(s=exhibit.settings)
        write_page(
            shown, made["html"][0], module.TITLE, html_of(findings_of(text)), html_of(text), note, how_seen(spec.views)
        )
    if exhibit.figures:
        _draw(exhibit, table, read, spec, zip(exhibit.figures, made["pdf"], made["png"], strict=True))


def _draw(exhibit: Exhibit, table: pd.DataFrame, read: dict, look: MakeExhibit, outputs: Iterable[tuple]) -> None:
    from lossmap.figures.style import rename, save, use_style

    use_style(look.palette)
    drawn = exhibit.module.draw(table, exhibit.settings, **read)
    figures = drawn if isinstance(drawn, dict) else {exhibit.name: drawn}
    for name, pdf, png in outputs:
        figure = figures[name]
        figure.set_size_inches(figure.get_size_inches() * look.scale)
        rename(figure, look.names)
        save(figure, pdf, png)
