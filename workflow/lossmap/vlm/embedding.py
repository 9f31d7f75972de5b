"""From image files to embeddings before and after the connector, many at a time."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from lossmap.data.images import load_image
from lossmap.errors import LossmapError
from lossmap.vlm.loading import VisionSide
from lossmap.vlm.preprocessing import Preprocessor


@dataclass(frozen=True)
class Batches(Dataset):
    """Batches of prepared images, in order. A fault is returned, not raised, so that its message stays as it is."""

    preprocessor: Preprocessor
    paths: list[str]
    sha256: list[str]
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.paths) // self.batch_size)

    def __getitem__(self, i: int):
        rows = slice(i * self.batch_size, (i + 1) * self.batch_size)
        try:
            images = [load_image(*pair) for pair in zip(self.paths[rows], self.sha256[rows], strict=True)]
            return self.preprocessor.prepare(images), [image.size for image in images]
        except LossmapError as error:
            return error


def embed_images(
    vision: VisionSide, batches: Batches, dtype: torch.dtype, threads: int
) -> Iterator[dict[str, np.ndarray]]:
    """Embed images batch by batch.

    On the CPU each thread takes whole batches, from the files to the embeddings, on one core: nothing waits for
    anything, and the values do not depend on the number of threads. For a GPU, worker processes decode and resize ahead
    of it.

    Parameters: vision, the model's vision side; batches, the images; dtype, what pre and post are rounded
    to; threads, at least 1, how many threads, or for a GPU worker processes.
    Yields: per batch pre (b, patches, features), post (b, tokens, features_out), their means over patches and tokens
    taken in float32 before rounding, box (b, 4): left, top, right, bottom of the model's input in pixels of the
    original image, size (b, 2): width and height of the original after EXIF orientation.
    Raises: LossmapError naming the image that can't be read or has changed since the manifest was made.
    """
    if vision.device.type == "cpu":
        yield from _in_order(lambda i: _embed(vision, batches, batches[i], dtype), len(batches), threads)
        return
    loader = DataLoader(batches, batch_size=None, num_workers=threads, prefetch_factor=4, pin_memory=True)
    for batch in loader:
        yield _embed(vision, batches, batch, dtype)


def _embed(vision, batches, batch, dtype):
    if isinstance(batch, LossmapError):
        raise batch
    pixels, sizes = batch
    pre, post = vision.embed(batches.preprocessor.normalise(pixels, vision.device, vision.dtype))
    geometries = [batches.preprocessor.geometry(width, height) for width, height in sizes]
    arrays = {
        "pre": pre.to(dtype),
        "post": post.to(dtype),
        "pre_mean": pre.mean(1, dtype=torch.float32),
        "post_mean": post.mean(1, dtype=torch.float32),
    }
    return {name: values.cpu().numpy() for name, values in arrays.items()} | {
        "box": np.array([geometry.box for geometry in geometries], dtype="float32"),
        "size": np.array(sizes, dtype="int32"),
    }


def _in_order(work, count, threads):
    """work(0), work(1), ..., work(count - 1), computed by threads of one core each, at most two a thread in memory."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        waiting = deque()
        for i in range(count):
            waiting.append(pool.submit(work, i))
            if len(waiting) == 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)  # a part of the setting is shared by all threads
