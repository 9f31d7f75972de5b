"""The definition of a study's file -> its JSON Schema and its page in the documentation."""

from pathlib import Path

from lossmap.study.reference import json_schema, page


def run(*, folder: Path = Path("docs")) -> None:
    """Write study.schema.json, for editors, and settings.md, for readers, into a folder."""
    (folder / "study.schema.json").write_text(json_schema(), encoding="utf-8")
    (folder / "settings.md").write_text(page(), encoding="utf-8")
