"""Embeddings of two models -> patches before the connector that are equal, on disk once."""

import json
from pathlib import Path

from lossmap.store.sharing import share_pre


def run(*, base: Path, tuned: Path, report: Path) -> None:
    """Keep equal files of pre of two models' embeddings of a dataset on disk once, and write how many there are.

    base, tuned: indexes. report: a JSON file with bytes, of pre of the tuned model, and equal, how many of them are in
    files equal to the base model's: all where both towers, and what they are shown, are the same. What was freed
    depends on the file system and is said on the console alone.
    """
    found = share_pre(base, tuned)
    print(f"{tuned}: {found.shared} of {found.bytes} bytes before the connector are on disk once, with {base}")
    report.write_text(json.dumps({"bytes": found.bytes, "equal": found.equal}) + "\n")
