"""A published dataset -> its manifest: three tables and a summary. Everything is checked before anything is written."""

from pathlib import Path

from lossmap.data.formats import read
from lossmap.data.manifest import write_manifest


def run(*, images: Path, captions: Path, questions: Path, summary: Path, spec: dict, threads: int = 1) -> None:
    """Read a dataset in its published format, check every image, and write its manifest.

    images, captions, questions (Parquet) and summary (JSON): the files to write. spec: the dataset's entry in
    the study's file. threads: how many processes decode images.
    """
    manifest = read(spec, workers=threads)
    write_manifest(manifest, images=images, captions=captions, questions=questions, summary=summary)
