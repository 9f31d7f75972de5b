"""The definition of a study's file, of tables' columns and of families -> their pages in the documentation."""

from pathlib import Path

from lossmap.study.reference import columns_page, families_page, json_schema, settings_page


def run(*, folder: Path = Path("docs")) -> None:
    """Write pages for readers, settings.md, columns.md, family-table.md, and study.schema.json, for editors."""
    (folder / "study.schema.json").write_text(json_schema(), encoding="utf-8")
    (folder / "settings.md").write_text(settings_page(), encoding="utf-8")
    (folder / "columns.md").write_text(columns_page(), encoding="utf-8")
    (folder / "family-table.md").write_text(families_page(), encoding="utf-8")
