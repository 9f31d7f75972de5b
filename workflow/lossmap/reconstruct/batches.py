"""Which images a network sees, and when: shuffled batches from a store of any size, and held-out images in order."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from torch import Tensor

from lossmap.errors import LossmapError
from lossmap.measures.seeds import seed_for
from lossmap.reconstruct.pairs import Pairs

RANGE = 256  # images read in one run: long reads, yet many ranges in a buffer; part of what a seed means
MEMORY = 2 << 30
ALONE = (0, 1)  # the first of one process


class Batches:
    """Shuffled batches of a training set; those of an epoch follow from images, batch, seed, buffer and epoch alone.

    The images are cut into fixed ranges. An epoch takes the ranges in random order, shuffles what fills a buffer, and
    cuts it into batches; images that don't fill a last batch are left out of that epoch. How the store is cut into
    parts plays no role, nor does it whether all pairs lie in memory or are read when they are due.

    Parameters: pairs, of the training set's store; images (n,), sorted numbers of the images to train on; batch,
        images in one; buffer, images shuffled together; memory, bytes: pairs that need no more, in float32, are all
        held in memory, else a buffer is, and the next, which is read in the meantime. part (i, of): this process takes
        the i-th slice of every batch.
    Raises: LossmapError if a batch has more images than there are, or fewer than there are processes.
    """

    def __init__(
        self,
        pairs: Pairs,
        images: np.ndarray,
        batch: int,
        seed: int,
        buffer: int = 4096,
        memory: int = MEMORY,
        part: tuple[int, int] = ALONE,
    ):
        if len(images) < batch:
            raise LossmapError(
                f"{pairs.index}: {len(images)} training images are fewer than one batch of {batch}. Set batch to at"
                f" most {len(images)}, or train on more images (a larger share)."
            )
        if batch < part[1]:
            raise LossmapError(f"A batch of {batch} can't be shared by {part[1]} processes. Start fewer, or raise it.")
        self.pairs, self.images, self.batch, self.seed, self.part = pairs, images, batch, seed, part
        self.buffer = max(1, buffer // batch)  # in batches
        self.held = _load(pairs, images) if pair_bytes(pairs) * len(images) <= memory else None

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.images) // self.batch

    def order(self, epoch: int) -> np.ndarray:
        """(batches, images of this process in each): positions in `images`."""
        rng = np.random.default_rng(seed_for(self.seed, "batches", str(epoch)))
        ranges = np.split(np.arange(len(self.images)), range(RANGE, len(self.images), RANGE))
        order = np.concatenate([ranges[i] for i in rng.permutation(len(ranges))])
        for first in range(0, len(order), self.buffer * self.batch):
            rng.shuffle(order[first : first + self.buffer * self.batch])
        order = order[: len(self) * self.batch].reshape(len(self), self.batch)
        return np.array_split(order, self.part[1], axis=1)[self.part[0]]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches `start` and later of an epoch: post (b, tokens, width) and pre (b, patches, features)."""
        return self.steps(epoch * len(self) + start, (epoch + 1) * len(self))

    def steps(self, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The same for the steps `start` to `stop` (exclusive) of a training, counted over all epochs."""
        for rows, values in _one_ahead(self._read, self._buffers(start, stop)):
            for batch in rows:
                yield tuple(side[batch] for side in values)

    def _buffers(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """These steps' rows of `order`, as many at once as share a buffer."""
        while start < stop:
            epoch, first = divmod(start, len(self))
            last = min((first // self.buffer + 1) * self.buffer, len(self), first + stop - start)
            yield self.order(epoch)[first:last]
            start += last - first

    def _read(self, order: np.ndarray) -> tuple[np.ndarray, tuple[Tensor, Tensor]]:
        """Pairs in memory, and in which of their rows each batch lies; those that are read are read in order."""
        if self.held is not None:
            return order, self.held
        positions = np.sort(order, axis=None)
        return np.searchsorted(positions, order), _load(self.pairs, self.images[positions])


class HeldOut:
    """Held-out pairs in order, this process's share of them, `size` images at a time; see `Batches`.

    Raises: LossmapError if there are fewer images than processes.
    """

    def __init__(
        self, pairs: Pairs, images: np.ndarray, size: int, memory: int = MEMORY, part: tuple[int, int] = ALONE
    ):
        if len(images) < part[1]:
            raise LossmapError(
                f"{pairs.index}: {len(images)} held-out images can't be shared by {part[1]} processes. Start fewer, or"
                " hold out more."
            )
        self.pairs, self.images, self.size = pairs, np.array_split(images, part[1])[part[0]], size
        self.held = _load(pairs, self.images) if pair_bytes(pairs) * len(images) <= memory else None

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.held is None:
            yield from self.pairs.blocks(self.images, self.size)
        else:
            yield from zip(*(values.split(self.size) for values in self.held), strict=True)


def pair_bytes(pairs: Pairs) -> int:
    """Memory that post and pre of one image take in float32."""
    return 4 * (int(np.prod(pairs.pre_shape)) + int(np.prod(pairs.post_shape)))


def _one_ahead(read: Callable, items: Iterable) -> Iterator:
    """read(item) of each in turn; while one is used, the next is read in another thread."""
    with ThreadPoolExecutor(1) as reader:
        coming = None
        for item in items:
            following = reader.submit(read, item)
            if coming is not None:
                yield coming.result()
            coming = following
        if coming is not None:
            yield coming.result()


def _load(pairs: Pairs, images: np.ndarray) -> tuple[Tensor, Tensor]:
    """All these pairs in memory, read in blocks, so that what reading needs on the side stays small."""
    first = 0
    for inputs, targets in pairs.blocks(images):
        if len(inputs) == len(images):
            return inputs, targets
        if first == 0:
            post, pre = (values.new_empty(len(images), *values.shape[1:]) for values in (inputs, targets))
        post[first : first + len(inputs)], pre[first : first + len(targets)] = inputs, targets
        first += len(inputs)
    return post, pre
