"""The manifest: what a dataset holds, in three tables and a small summary, the same for every format."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lossmap.data.contents import count_contents
from lossmap.errors import LossmapError

_TEXT, _TEXTS = pa.string(), pa.list_(pa.string())
SCHEMAS = {
    "images": pa.schema(
        [
            pa.field("image_id", _TEXT, nullable=False),  # unique
            pa.field(
                "path", _TEXT, nullable=False
            ),  # the image folder as the entry gives it, then the file's path in it
            pa.field("label", _TEXT),  # where classes exist
            pa.field("width", pa.int64(), nullable=False),  # in pixels, after EXIF orientation
            pa.field("height", pa.int64(), nullable=False),
            pa.field("sha256", _TEXT, nullable=False),  # of the file's bytes
            pa.field("pixels_sha256", _TEXT, nullable=False),  # of the upright RGB pixels: equal in equal pictures
        ]
    ),
    "captions": pa.schema(
        [pa.field("image_id", _TEXT, nullable=False), pa.field("caption", _TEXT, nullable=False)],
    ),
    "questions": pa.schema(
        [
            pa.field("question_id", _TEXT, nullable=False),  # unique
            pa.field("image_id", _TEXT, nullable=False),
            pa.field("question", _TEXT, nullable=False),
            pa.field("answers", _TEXTS, nullable=False),  # every annotator's; of multiple choice, the right option
            pa.field("options", _TEXTS),  # multiple choice only
            pa.field("answer_index", pa.int64()),  # the right option, from 0
            pa.field("category", _TEXT),  # question type, where the format has types
            pa.field("mask_path", _TEXT),  # white where the answer is seen
        ]
    ),
}
_DTYPES = {_TEXT: "str", _TEXTS: "object", pa.int64(): "int64"}

SHOWN = 10  # groups of equal images, and images of a group, that a summary names
LONG = 50  # long side over short, beyond which a shape is told in the summary; models refuse it from 200 or more


@dataclass
class Manifest:
    """Three tables with the columns of SCHEMAS, images in annotation order.

    format: the dataset's. left_out: what the format's own rules, and the choice of images, leave out, as counts by
    reason. thumbnails: of each image, where it was just read (see lossmap.data.near_copies).
    """

    images: pd.DataFrame
    captions: pd.DataFrame
    questions: pd.DataFrame
    format: str
    left_out: dict[str, int] = field(default_factory=dict)
    thumbnails: list[bytes] = field(default_factory=list)

    def summary(self) -> dict:
        """Counts, format, and a digest of the image ids in order: what the workflow must know first."""
        ids = json.dumps(self.images["image_id"].tolist())
        groups = self.equal_groups()
        contents = count_contents(
            self.images[["image_id", "label"]].itertuples(index=False, name=None),
            self.captions["image_id"],
            self.questions[["question_id", "question", "answers", "options", "mask_path"]].itertuples(
                index=False, name=None
            ),
        )
        pictures = Counter(self.images["pixels_sha256"])
        return {
            "format": self.format,
            **contents,
            "equal_images": sum(len(group) - 1 for group in groups),
            "equal_groups": [group[:SHOWN] for group in groups[:SHOWN]],
            # Pictures that differ; those that one image alone holds; images that hold the most frequent one.
            "pictures": len(pictures),
            "single_pictures": sum(times == 1 for times in pictures.values()),
            "same_picture": max(pictures.values(), default=0),
            "long_shapes": self._long_shapes(),
            "image_ids_sha256": hashlib.sha256(ids.encode()).hexdigest(),
            "left_out": self.left_out,
        }

    def equal_groups(self) -> list[list[str]]:
        """Ids of the images whose pixels are equal, a list for each such picture, in annotation order."""
        equal = self.images[self.images["pixels_sha256"].duplicated(keep=False)]
        return [group.tolist() for _, group in equal.groupby("pixels_sha256", sort=False)["image_id"]]

    def notes(self) -> list[str]:
        """What whoever reads a dataset should know and no count of images says, a line each: what was left out, and
        which images are equal."""
        lines = [f"{count} {what} left out" for what, count in self.left_out.items() if count]
        groups = self.equal_groups()
        if groups:
            equal = sum(len(group) - 1 for group in groups)
            first = ", ".join(f"{group[0]} = {group[1]}" for group in groups[:SHOWN])
            more = ", ..." if len(groups) > SHOWN else ""
            lines.append(f"{equal} of {len(self.images)} images equal an earlier one, pixel by pixel: {first}{more}")
        return lines

    def _long_shapes(self) -> list[list]:
        """Path, width and height of images so long and thin that a model may not take them."""
        sides = self.images[["width", "height"]]
        long = self.images[sides.max(axis=1) > LONG * sides.min(axis=1)]
        return [list(row) for row in long[["path", "width", "height"]].itertuples(index=False, name=None)]


def make_table(name: str, rows: list) -> pd.DataFrame:
    """Rows (tuples in column order) as the table `name` of SCHEMAS, with its dtypes also when there are none."""
    schema = SCHEMAS[name]
    frame = pd.DataFrame(rows, columns=schema.names, dtype=object)
    return frame.astype({column.name: _dtype(column) for column in schema})


def write_manifest(manifest: Manifest, *, images: Path, captions: Path, questions: Path, summary: Path) -> None:
    """Write the three tables as Parquet and the summary as JSON. The same manifest gives the same bytes."""
    for name, path in (("images", images), ("captions", captions), ("questions", questions)):
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pandas(getattr(manifest, name), schema=SCHEMAS[name], preserve_index=False)
        pq.write_table(table.replace_schema_metadata(None), path)
    summary.parent.mkdir(parents=True, exist_ok=True)
    summary.write_text(json.dumps(manifest.summary(), indent=2) + "\n", encoding="utf-8")


def write_digests(manifest: Manifest, path: Path) -> None:
    """Write a line for each image in order: a SHA-256 of its id and its file's bytes. Whoever reads some of the images
    learns from their lines alone whether they are the same as before."""
    rows = manifest.images[["image_id", "sha256"]].itertuples(index=False, name=None)
    lines = [hashlib.sha256(json.dumps(row).encode()).hexdigest() + "\n" for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """The manifest in a dataset's results folder.

    Raises: LossmapError if a file is missing, damaged, or of another run than the others.
    """
    folder = Path(folder)
    path = folder / "manifest.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        name, left_out = summary["format"], summary["left_out"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _unreadable(path, error) from None
    tables = {name: read_table(folder / f"{name}.parquet", name) for name in SCHEMAS}
    manifest = Manifest(**tables, format=name, left_out=left_out)
    if manifest.summary() != summary:
        raise LossmapError(f"{path}: does not describe the tables beside it. Run read_dataset again.")
    return manifest


def read_table(path: Path, name: str) -> pd.DataFrame:
    """One table of a manifest: name is "images", "captions" or "questions". List cells are Python lists, or None.

    Raises: LossmapError if the file is missing, damaged, or has other columns.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from None
    if not table.schema.equals(SCHEMAS[name]):
        wanted = ", ".join(SCHEMAS[name].names)
        raise LossmapError(
            f"{path}: has the columns {', '.join(table.column_names)}; wanted {wanted}. Run read_dataset again."
        )
    lists = {c.name: pd.Series(table[c.name].to_pylist(), dtype=object) for c in SCHEMAS[name] if c.type == _TEXTS}
    frame = table.to_pandas(ignore_metadata=True).assign(**lists)
    return frame.astype({column.name: _dtype(column) for column in SCHEMAS[name]})


def _dtype(column: pa.Field) -> str:
    return "Int64" if column.nullable and column.type == pa.int64() else _DTYPES[column.type]


def _unreadable(path: Path, error: Exception) -> LossmapError:
    found = "does not exist" if isinstance(error, FileNotFoundError) else f"can't be read as a manifest ({error})"
    return LossmapError(f"{path}: {found}. Run read_dataset again.")
