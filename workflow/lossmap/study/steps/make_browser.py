"""Chosen examples -> the loss browser."""

import base64
import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from lossmap.data.images import load_image, load_mask
from lossmap.errors import LossmapError
from lossmap.figures.browser import LOSSES, browser_page, packed, packed_mask
from lossmap.measures.coverage import region_means
from lossmap.store.layouts import Layout
from lossmap.study.example_losses import layout_of
from lossmap.study.specs import MakeBrowser

SAME = ("model", "dataset", "task", "chosen_by", "prediction", "reconstructor")  # in table and page
LARGEST, SMALLEST = 640, 64  # side of an image on the page, in pixels


def run(*, examples: list[Path], page: Path, spec: MakeBrowser) -> None:
    """Make one page of all examples, their images and their loss maps. It opens from disk, without a network.

    Images are made small enough, down to 64 pixels, that the page stays below its limit of size; the log says where
    even then it does not.

    spec: study, most (examples on the page), megabytes (of the page, at most).
    """
    rows = [row for table in examples for row in pd.read_parquet(table).itertuples()]
    if len(rows) > spec.most:
        raise LossmapError(
            f"{page}: {len(rows)} examples in {len(examples)} tables, at most {spec.most} are shown. Ask for fewer "
            "datasets or models."
        )
    photos = {row.path: row.sha256 for row in rows}
    shown = [_shown(row, list(photos).index(row.path)) for row in rows]
    limit = int(spec.megabytes * 1e6)
    room = limit - len(browser_page(spec.study, [], shown)) - 100 * len(photos)
    images = [_photo(path, sha256, max(1, room // len(photos))) for path, sha256 in photos.items()]
    text = browser_page(spec.study, images, shown)
    if len(text.encode()) > limit:  # maps of many patches: the page is right, and nothing is left out for its size
        print(
            f"{page}: has {len(text.encode()) / 1e6:.1f} MB, more than browser: megabytes: {limit / 1e6:.1f}, with"
            f" images of {SMALLEST} pixels. Ask for fewer examples.",
            file=sys.stderr,
        )
    page.write_text(text, encoding="utf-8")


def _shown(row, image: int) -> dict:
    """One example, as `browser_page` wants it."""
    relevant = None if row.relevant is None else np.asarray(row.relevant, bool)
    references = pd.Series(list(row.references)).value_counts(sort=False).sort_values(ascending=False, kind="stable")
    masked = isinstance(row.mask_path, str)
    size = [int(row.width), int(row.height)]
    return {
        **{name: getattr(row, name) for name in SAME},
        "id": row.image_id,
        "question_id": row.question_id if isinstance(row.question_id, str) else None,
        "image": image,
        "size": size,
        **_places(layout_of(row)),
        "question": next((text for text in (row.question, row.prompt) if isinstance(text, str)), None),
        "options": None if row.options is None else list(row.options),
        "references": [[text, int(count)] for text, count in references.items()],
        "score": float(row.score) if row.scored else None,
        "scored": row.scored,
        "outcome": row.outcome,
        "rank": int(row.rank),
        "of": int(row.of),
        "means": [_means(getattr(row, name), relevant) for name in LOSSES],
        "maps": [packed(getattr(row, name), "float32") for name in LOSSES],
        "covered": None if relevant is None else packed(_percent(row.covered), "uint8"),
        "mask": packed_mask(load_mask(row.mask_path), *size) if masked else None,
    }


def _places(layout: Layout) -> dict:
    """Where the patches lie: box and grid of the only view, or views."""
    shape = layout.shape
    each = [
        {"box": list(box), "grid": [view.rows, view.cols], "kind": view.kind, "start": start}
        for view, start, box in zip(shape.views, shape.starts, layout.boxes, strict=True)
    ]
    if len(each) == 1 and not each[0]["start"]:
        return {name: each[0][name] for name in ("box", "grid")}
    return {"views": each}


def _percent(covered: np.ndarray) -> np.ndarray:
    """Of each patch that has a loss; 0 for the others, of which nothing is shown."""
    return np.nan_to_num(100 * np.asarray(covered)).round()


def _means(values: np.ndarray, relevant: np.ndarray | None) -> list[float | None]:
    """Mean absolute value in the answer's patches, in the others, and in all; None for a region without patches."""
    size = np.abs(np.asarray(values, float))
    measured = ~np.isnan(size)
    size, relevant = size[measured], relevant if relevant is None else relevant[measured]
    none, every = np.zeros(size.shape, bool), np.ones(size.shape, bool)
    regions = (none, none, every) if relevant is None else (relevant, ~relevant, every)
    means = region_means(np.stack([size] * 3), np.stack(regions))
    return [None if np.isnan(mean) else float(mean) for mean in means]


def _photo(path: str, sha256: str, room: int) -> str:
    """An image as a data URI of at most `room` bytes, unless even a tiny one is larger."""
    image, side = load_image(path, sha256), LARGEST
    while True:
        small, held = image.copy(), io.BytesIO()
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        small.save(held, "WEBP", quality=85)
        text = "data:image/webp;base64," + base64.b64encode(held.getvalue()).decode()
        if len(text) <= room or side <= SMALLEST:
            return text
        side = max(SMALLEST, int(0.9 * max(small.size) * (room / len(text)) ** 0.5))
