"""Measures -> a table or figure of the study: CSV, page, caption, figures. See `lossmap.study.exhibit`."""

from pathlib import Path

import pandas as pd

from lossmap.study.captions import caption, findings_of, html_of
from lossmap.study.exhibit import figure_names, kind_of, load
from lossmap.study.specs import MakeExhibit
from lossmap.study.tables import cells, write_csv, write_page


def run(name: str, /, *, results: Path, inputs: list[str], settings: dict, spec: MakeExhibit) -> None:
    """Make one exhibit.

    name: of the exhibit, such as figure3. results: folder of the study; what is made goes to its tables/ and figures/.
    inputs: what the exhibit is made of, as NAME=PATH, several of a name where it takes several. settings: of the
    exhibit's own kind. spec: how figures look.
    """
    module = load(kind_of(name))
    checked = module.Settings.model_validate(settings)
    files: dict[str, list[Path]] = {}
    for given in inputs:
        label, _, path = given.partition("=")
        files.setdefault(label, []).append(Path(path))
    table = module.table(checked, **files)
    base = results / "tables" / name
    base.parent.mkdir(parents=True, exist_ok=True)
    write_csv(table, base.with_name(f"{name}.csv"))
    text = caption(module, table, checked)
    base.with_name(f"{name}.rst").write_text(text, encoding="utf-8")
    if hasattr(module, "page") or hasattr(module, "PAGE"):
        shown = module.page(table, checked) if hasattr(module, "page") else pd.DataFrame(cells(table, module.PAGE))
        note = module.NOTE.format(s=checked)
        write_page(shown, base.with_name(f"{name}.html"), module.TITLE, html_of(findings_of(text)), html_of(text), note)
    if figure_names(module, name, checked):
        _draw(module, name, table, checked, files, spec, results / "figures")


def _draw(module, name, table, settings, files, look, folder) -> None:
    from lossmap.figures.style import rename, save, use_style

    use_style(look.palette)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = module.draw(table, settings, **files)
    for one, figure in (drawn if isinstance(drawn, dict) else {name: drawn}).items():
        figure.set_size_inches(figure.get_size_inches() * look.scale)
        rename(figure, look.names)
        save(figure, folder / f"{one}.pdf", folder / f"{one}.png")
