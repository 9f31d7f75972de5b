"""A published dataset -> its manifest: three tables and a summary. Everything is checked before anything is written."""

import sys
from pathlib import Path

from lossmap.data.formats import read
from lossmap.data.manifest import write_digests, write_manifest
from lossmap.data.near_copies import write_thumbnails
from lossmap.study.specs import ReadDataset


def run(
    *,
    images: Path,
    captions: Path,
    questions: Path,
    summary: Path,
    thumbnails: Path,
    digests: Path,
    spec: ReadDataset,
    threads: int = 1,
) -> None:
    """Read a dataset in its published format, check every image, and write its manifest.

    images, captions, questions (Parquet), summary (JSON), thumbnails (Parquet) and digests (text, a line an image):
    the files to write. spec: the dataset's entry in the study. threads: how many processes decode images. What was left
    out and which images are equal is said in the log and on the console.
    """
    manifest = read(spec.model_dump(), workers=threads)
    write_thumbnails(thumbnails, manifest.images["image_id"].tolist(), manifest.thumbnails)
    write_manifest(manifest, images=images, captions=captions, questions=questions, summary=summary)
    write_digests(manifest, digests)
    for note in manifest.notes():
        for stream in (sys.stdout, sys.stderr):
            print(f"{summary.parent.name}: {note}.", file=stream)
