"""What the writers and the readers of stores share."""

import hashlib
import json
from pathlib import Path

from lossmap.errors import LossmapError

FORMAT = "lossmap-embeddings/2"  # all images of one layout
RAGGED_FORMAT = "lossmap-embeddings/3"  # images that differ in layout, see images.py
ROOT = "zarr.json"  # describes a Zarr group
# Chosen by tests/bench/bench_store.py, with 1.2 MB an image. Chunks of 1 MB read a whole part at 0.7 of the speed of
# 4 MB, those of 16 MB read 32 random images at 0.65 of it.
CHUNK_BYTES = 4 << 20
PROVENANCE = "provenance.json"  # of a part, beside its arrays
DIMENSIONS = {
    "pre": ("image", "patch", "feature"),
    "post": ("image", "token", "feature_out"),
    "pre_mean": ("image", "feature"),
    "post_mean": ("image", "feature_out"),
    "box": ("image", "edge"),
    "size": ("image", "side"),
}


_FOR_READERS = ("code", "device", "torch", "transformers")


class StoreError(LossmapError):
    """A store that can't be trusted, or can't be written. found: what is wrong; remedy: what to do."""

    def __init__(self, found: str, remedy: str = ""):
        super().__init__(f"{found} {remedy}".rstrip())
        self.found = found


def remedy(*paths: Path) -> str:
    return f"Delete {' and '.join(map(str, paths))} and run again: what is missing is made anew, and nothing else."


def with_key(described: dict) -> dict:
    """What a part or an index says of itself, with its key. Earlier versions of Lossmap kept key and provenance as one,
    in which the key is what is neither code nor software."""
    if "key" in described or "provenance" not in described:
        return described
    key = {name: value for name, value in described["provenance"].items() if name not in _FOR_READERS}
    return {name: value for name, value in described.items() if name != "provenance"} | {"key": key}


def read_json(path: Path) -> tuple[dict, bytes]:
    """A JSON object, and the bytes of its file. Raises StoreError if it is none."""
    try:
        data = path.read_bytes()
        content = json.loads(data)
    except (ValueError, OSError) as fault:
        raise StoreError(f"{path}: can't be read ({fault}).", remedy(path)) from fault
    if not isinstance(content, dict):
        raise StoreError(f"{path}: holds no JSON object.", remedy(path))
    return content, data


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def description_digest(content: dict) -> str:
    """Digest of what a group's zarr.json says but for this digest."""
    attributes = {key: value for key, value in content["attributes"].items() if key != "digest"}
    return sha256(json.dumps({**content, "attributes": attributes}, sort_keys=True).encode())
