"""What layout and checks of an embedding store cost, on embeddings of a model in half precision.

    python tests/bench/bench_store.py [--quick] [--all]

Embeddings of the miniature LLaVA, put together to images of LLaVA-1.5's size (576 patches of 1,024 features, 1.2 MB).
All files lie in the page cache, and times are the processor's, of all threads: what a check costs as a share is at most
what is shown, for a disk adds to reading and nothing to checking. Each repeat measures every option, one right after
the other; shown are medians of the repeats' ratios and their range. Wanted: checks cost at most 20% of reading.
--all measures every combination of codec, chunk and shard; without it, one is varied at a time.
"""

import argparse
import hashlib
import itertools
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import google_crc32c
import numpy as np
import torch
import xarray as xr
import xxhash
import zarr
from PIL import Image
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from lossmap.miniature.datasets import write_miniature
from lossmap.store import PartWriter, open_store, write_index
from lossmap.store.writer import CHUNK_BYTES, SHARD_BYTES
from lossmap.study.steps import verify
from lossmap.vlm.loading import load_vision_side

ROOT = Path(__file__).parents[2]
PATCHES, FEATURES = 576, 1024
MB = 1 << 20
CODECS = {
    "none": None,
    "crc32c": Crc32cCodec(),
    "zstd": ZstdCodec(level=1),
    "blosc-lz4": BloscCodec(cname="lz4", shuffle="shuffle", typesize=2),
}
CHUNKS, SHARDS = (1, 4, 16), (0, 32, 128, 512)  # MB; shard 0: a file for each chunk
CHOSEN = ("none", CHUNK_BYTES // MB, SHARD_BYTES // MB)
DIGESTS = {
    "sha256": lambda data: hashlib.sha256(data).digest(),
    "blake2b": lambda data: hashlib.blake2b(data).digest(),
    "crc32c": google_crc32c.value,
    "xxh3_128": xxhash.xxh3_128_digest,
}


def embeddings(n: int) -> np.ndarray:
    """(n, 576, 1024) float16. What repeats lies tens of megabytes apart, where no codec sees it."""
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        write_miniature(Path(folder), 2025, {"coco-train": 2000})
        vision = load_vision_side(str(ROOT / "workflow/zoo/llava"))
        files = sorted(Path(folder, "coco-train/train2017").iterdir())
        pre = []
        for start in range(0, len(files), 100):
            batch = files[start : start + 100]
            prepared = vision.preprocessor.prepare([Image.open(file).convert("RGB") for file in batch])
            pre.append(vision.embed(vision.preprocessor.normalise(prepared, "cpu", torch.float32))[0].half().numpy())
    values = np.concatenate(pre).reshape(-1)
    images = values[: len(values) // (PATCHES * FEATURES) * PATCHES * FEATURES].reshape(-1, PATCHES, FEATURES)
    return np.tile(images, (-(-n // len(images)), 1, 1))[:n]


def blocks(n: int, size: int = 64) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def seconds(work, *arguments) -> float:
    start = time.process_time()
    work(*arguments)
    return time.process_time() - start


def create(path: Path, shape: tuple, codec: str, chunk_mb: int, shard_mb: int) -> zarr.Array:
    row = int(np.prod(shape[1:])) * 2
    chunk = max(1, chunk_mb * MB // row)
    shard = chunk * min(max(1, shard_mb * MB // (chunk * row)), -(-shape[0] // chunk))
    return zarr.create_array(
        path,
        shape=shape,
        dtype="float16",
        chunks=(chunk, *shape[1:]),
        shards=(shard, *shape[1:]) if shard_mb else None,
        compressors=CODECS[codec],
        overwrite=True,
        config={"write_empty_chunks": True},
    )


def write_all(array: zarr.Array, values: np.ndarray) -> None:
    rows = (array.shards or (16 * array.chunks[0],))[0]
    for block in blocks(len(values), rows):
        array[block] = values[block]


def read_all(array) -> None:
    for block in blocks(array.shape[0]):
        np.asarray(array[block])


def read_some(array, images: list[int]) -> None:
    for image in images:
        np.asarray(array[image : image + 1])


def layouts(all_of_them: bool) -> list[tuple]:
    grid = list(itertools.product(CODECS, CHUNKS, SHARDS))
    return [one for one in grid if all_of_them or sum(a != b for a, b in zip(one, CHOSEN, strict=True)) <= 1]


def show(name: str, *columns: tuple[list[float], str]) -> None:
    cells = [f"{statistics.median(v):{form}} [{min(v):{form}}, {max(v):{form}}]" for v, form in columns]
    print(f"{name:<28}" + "".join(f"{cell:>22}" for cell in cells), flush=True)


def bench_layouts(values: np.ndarray, folder: Path, repeats: int, all_of_them: bool) -> None:
    """Plain Zarr arrays. Speeds are told as shares of those of the chosen layout in the same repeat."""
    mb, rng, found = values.nbytes / 1e6, np.random.default_rng(0), {}
    for _ in range(repeats):
        images = rng.choice(len(values), 32, replace=False).tolist()
        for layout in layouts(all_of_them):
            path = folder / "layout.zarr"
            written = seconds(lambda layout=layout, path=path: write_all(create(path, values.shape, *layout), values))
            array = zarr.open_array(path, mode="r")
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / values.nbytes
            times = (written, seconds(read_all, array), seconds(read_some, array, images), size)
            found.setdefault(layout, []).append(times)
            shutil.rmtree(path)
    chosen = found[CHOSEN]
    write, read, some = (statistics.median(times[i] for times in chosen) for i in range(3))
    print(f"chosen: codec {CHOSEN[0]}, chunks of {CHOSEN[1]} MB, shards of {CHOSEN[2]} MB: ", end="")
    print(f"writes {mb / write:.0f} MB/s, reads {mb / read:.0f} MB/s, 32 images in {some * 1e3:.0f} ms")
    print(
        f"{'codec, chunk, shard (MB)':<28}" + "".join(f"{t:>22}" for t in ("writing", "reading", "32 images", "size"))
    )
    for layout, times in found.items():
        speeds = [([c[i] / t[i] for c, t in zip(chosen, times, strict=True)], ".2f") for i in range(3)]
        show("{} {} {}".format(*layout), *speeds, ([t[3] for t in times], ".3f"))


def bench_store(values: np.ndarray, folder: Path, repeats: int) -> None:
    """A store's own reading against the same arrays without checks; digests and verification against reading."""
    n, rng = len(values), np.random.default_rng(0)
    part, index = folder / "toy/part-0.zarr", folder / "toy.json"
    writer = PartWriter(part, [str(i) for i in range(n)], values.shape[1:], (1, 1), "float16", {})
    tiny = {"post": np.zeros((1, 1, 1)), "pre_mean": np.zeros((1, FEATURES)), "post_mean": np.zeros((1, 1))}
    for i in range(n):
        writer.append(pre=values[i : i + 1], box=np.zeros((1, 4)), size=np.zeros((1, 2)), **tiny)
    writer.close()
    write_index([part], index)
    checked = open_store(index)["pre"]
    plain = xr.open_dataset(part, engine="zarr", chunks=None, cache=False)["pre"]
    files = sorted(file for file in part.rglob("*") if file.is_file())
    whole, few, verified = [], [], []
    shares = {name: [] for name in DIGESTS}
    for _ in range(repeats):
        images = rng.choice(n, 32, replace=False).tolist()
        whole.append(cost(checked, plain, blocks(n)))
        few.append(cost(checked, plain, [slice(image, image + 1) for image in images]))
        reading = seconds(read_all, plain)
        for name, digest in DIGESTS.items():
            shares[name].append(digest_seconds(files, digest) / reading)
        verified.append(seconds(read_plainly, files) / seconds(quietly, verify.run, index))
    print(f"\n{'cost of checking, as a share':<28}{'of reading':>22}")
    show("a whole part", (whole, ".2f"))
    show("32 random images", (few, ".2f"))
    print(f"\n{'digest of each chunk':<28}{'of reading':>22}")
    for name, values in shares.items():
        show(name, (values, ".2f"))
    print("\nlossmap verify, speed as a share of reading the files in 4 threads:")
    show("verify", (verified, ".2f"))


def cost(checked, plain, selections: list[slice]) -> float:
    """What checked reading takes more than plain reading, as a share: one after the other for each selection."""
    times = {True: 0.0, False: 0.0}
    for i, rows in enumerate(selections):
        for first in (i % 2 == 0, i % 2 == 1):
            times[first] += seconds(lambda rows=rows, array=checked if first else plain: np.asarray(array[rows]))
    return times[True] / times[False] - 1


def digest_seconds(files: list[Path], digest) -> float:
    """Time of the digests alone, of memory that holds a file."""
    total = 0.0
    for file in files:
        data = np.frombuffer(file.read_bytes(), np.uint8)
        for start in range(0, len(data), CHUNK_BYTES):
            total += seconds(digest, data[start : start + CHUNK_BYTES])
    return total


def read_plainly(files: list[Path]) -> None:
    """All bytes of some files in 4 threads, as `lossmap verify` reads them."""

    def read(path):
        memory = memoryview(bytearray(CHUNK_BYTES))
        with path.open("rb", buffering=0) as file:
            while file.readinto(memory):
                pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, files))


def quietly(work, *arguments) -> None:
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        work(*arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer images and repeats")
    parser.add_argument("--all", action="store_true", help="every combination of codec, chunk and shard")
    parser.add_argument("--only", choices=("layouts", "store"))
    options = parser.parse_args()
    n, repeats = (128, 3) if options.quick else (384, 5)
    values = embeddings(n)
    print(f"{n} images, {values.nbytes / 1e6:.0f} MB, page cache warm, median of {repeats} repeats [min, max]")
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "store":
            bench_layouts(values, Path(folder), repeats, options.all)
        if options.only != "layouts":
            bench_store(values, Path(folder), repeats)


if __name__ == "__main__":
    main()
