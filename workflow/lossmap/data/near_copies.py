"""Copies of images that were encoded anew or resized, found by thumbnails and then by a closer look."""

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lossmap.data.images import THUMBNAIL_SIDE, load_image, thumbnail

# Root mean square difference of two thumbnails, of 255. Copies encoded anew (JPEG quality 30 to 95) or resized (0.5 to
# 2 times) differ by 0.3 to 5; of two million pairs of miniature scenes, digits on plain grounds, the nearest by 7.0.
NEAR = 6.0
CANDIDATES = 5  # nearest training images that are compared pixel by pixel
CLOSER_SIDE = 32
# Variance of the difference at that size, as a share of the image's own. The same copies: 0.01 to 0.36; unrelated
# images whose thumbnails are alike, as pages of text: about 2.
SHARE = 0.5
FLAT = 1.0  # added to the image's own: a plain one has none, and rounding alone makes a difference
BYTES = 3 * THUMBNAIL_SIDE**2


class Pictures(NamedTuple):
    """A dataset's images. image_ids, paths and digests (SHA-256 of the files): lists; thumbnails: (n, 192) float32."""

    image_ids: list[str]
    paths: list[str]
    digests: list[str]
    thumbnails: np.ndarray


def write_thumbnails(path: Path, image_ids: list[str], thumbnails: list[bytes]) -> None:
    """Write a table of image_id and thumbnail. The same images give the same bytes."""
    columns = [pa.array(image_ids, pa.string()), pa.array(thumbnails, pa.binary(BYTES))]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns, names=["image_id", "thumbnail"]), path)


def read_pictures(images: Path) -> Pictures:
    """The images of a manifest, with the thumbnails beside it. images: its images.parquet."""
    rows = pd.read_parquet(images, columns=["image_id", "path", "sha256"])
    stored = pq.read_table(images.with_name("thumbnails.parquet"))["thumbnail"].to_pylist()
    values = np.frombuffer(b"".join(stored), dtype=np.uint8).reshape(-1, BYTES)
    image_ids, paths, digests = (rows[name].tolist() for name in rows)
    return Pictures(image_ids, paths, digests, values.astype(np.float32))


def near_copies(training: Pictures, evaluated: Pictures) -> pd.DataFrame:
    """The evaluated images of which the training images hold a near-copy: the same picture, encoded anew or resized.

    Candidates are the training images with the nearest thumbnails, up to NEAR; both are then compared at 32 x 32
    pixels. A crop or a mirror image is none; the next frame of a film may be one.
    Returns: image_id, training_image_id, and share: the variance of their difference as a share of the image's own. One
        row an image, with the training image that is nearest by share, in the order of the evaluated images.
    Raises: ImageError if a candidate's file is gone or has changed.
    """
    look = functools.lru_cache(maxsize=4096)(_look)
    rows = []
    for i, candidates in _candidates(training.thumbnails, evaluated.thumbnails):
        image = look(evaluated.paths[i], evaluated.digests[i])
        shares = [_share(image, look(training.paths[j], training.digests[j])) for j in candidates]
        best = int(np.argmin(shares))
        if shares[best] <= SHARE:
            rows.append((evaluated.image_ids[i], training.image_ids[candidates[best]], shares[best]))
    columns = {"image_id": "str", "training_image_id": "str", "share": "float64"}
    return pd.DataFrame(rows, columns=list(columns)).astype(columns)


def _candidates(training: np.ndarray, evaluated: np.ndarray, block: int = 256):
    """Yields (row of evaluated, rows of training with the nearest thumbnails, nearest first) where there are any."""
    centre = np.float32(127.5)  # small numbers: squares lose no digit that matters
    training, evaluated = training - centre, evaluated - centre
    squares = (training**2).sum(axis=1)
    for start in range(0, len(evaluated), block):
        rows = evaluated[start : start + block]
        distances = squares - 2 * rows @ training.T + (rows**2).sum(axis=1)[:, None]
        near = distances <= NEAR**2 * training.shape[1]
        for i in np.flatnonzero(near.any(axis=1)):
            columns = np.flatnonzero(near[i])
            yield start + int(i), columns[np.argsort(distances[i, columns], kind="stable")][:CANDIDATES].tolist()


def _look(path: str, sha256: str) -> np.ndarray:
    pixels = np.frombuffer(thumbnail(load_image(path, sha256), CLOSER_SIDE), dtype=np.uint8)
    return pixels.reshape(-1, 3).astype(np.float64)


def _share(image: np.ndarray, other: np.ndarray) -> float:
    """Variance over pixels, summed over channels: of the difference, as a share of the image's own."""
    return float((image - other).var(axis=0).sum() / (image.var(axis=0).sum() + FLAT))
