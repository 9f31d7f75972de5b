"""The definition of a study's file, and of tables' columns -> their pages in the documentation."""

from pathlib import Path

from lossmap.study.reference import columns_page, json_schema, settings_page


def run(*, folder: Path = Path("docs")) -> None:
    """Write settings.md and columns.md, for readers, and study.schema.json, for editors, into a folder."""
    (folder / "study.schema.json").write_text(json_schema(), encoding="utf-8")
    (folder / "settings.md").write_text(settings_page(), encoding="utf-8")
    (folder / "columns.md").write_text(columns_page(), encoding="utf-8")
