"""Index of an embedding store -> whether every byte of the store is what was written."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from lossmap.store import StoreError, open_store
from lossmap.store.checking import makers, parts_of, strangers
from lossmap.store.parts import Part


def run(index: Path, /, *, threads: int = 4) -> None:
    """Compare every byte of an embedding store with the digests that were taken when it was written.

    index: embeddings/<dataset>/<model>.json. threads: files that are read at once. Prints what was read, or lists every
    file that is damaged, missing or does not belong, with the images that it holds, and ends with status 1. Where parts
    were made by different code or software, says which: they belong together all the same, for their keys agree.
    """
    start = time.perf_counter()
    parts, problems = parts_of(index)
    files = [(part, name) for part in parts for name in part.files]
    total = sum(part.files[name].size for part, name in files)
    with (
        tqdm(total=total, unit="B", unit_scale=True, desc="verify") as progress,
        ThreadPoolExecutor(threads) as pool,
    ):
        for (part, name), found in zip(files, pool.map(lambda file: Part.problem(*file), files), strict=True):
            problems += [found] if found else []
            progress.update(part.files[name].size)
    problems += [problem for part in parts for problem in strangers(part)]
    if problems:
        raise StoreError.listing(
            f"{index}: this store is not what was written:",
            problems,
            f"Delete {index} and the parts (.zarr) that are damaged or lack files, and run again: they are made anew, "
            "and nothing else. Delete a file that does not belong, or move it away.",
        )
    open_store(index)  # what the index says of its parts
    by_maker = makers(parts)
    seconds = time.perf_counter() - start
    print(f"{index}: {len(parts)} parts, {len(files)} files, {total} bytes are what was written ", end="")
    print(f"({seconds:.1f} s, {total / 1e6 / seconds:.0f} MB/s).")
    if len(by_maker) > 1:
        print("For information: its parts were made by different code or software, with equal keys.")
        for made, parts in by_maker:
            how = ", ".join(f"{name} {value}" for name, value in sorted(made.items())) or "unknown"
            print(f"  - {how}: {len(parts)} parts, the first is {parts[0].path.name}")
