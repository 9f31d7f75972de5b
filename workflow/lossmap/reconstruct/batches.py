"""Which images a network sees, and when: shuffled batches from a store of any size, and held-out images in order."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from lossmap.errors import LossmapError
from lossmap.measures.seeds import seed_for

RANGE = 256  # images read in one run: long reads, yet many ranges in a buffer; part of what a seed means
MEMORY = 2 << 30
ALONE = (0, 1)  # the first of one process


class Source(Protocol):
    """What a network learns from, by number of the image: `Pairs`, or a reader's material.

    index: what messages call it. ragged: whether images differ in length, so that batches are filled by target_counts
    (images,). image_bytes: memory that one takes, on average. load(images): inputs and targets, in the order asked.
    blocks(images, size): the same, some at a time.
    """

    index: Any

    @property
    def ragged(self) -> bool: ...

    @property
    def target_counts(self) -> np.ndarray: ...

    @property
    def image_bytes(self) -> int: ...

    def load(self, images: np.ndarray) -> tuple[Any, Any]: ...

    def blocks(self, images: np.ndarray, size: int | None = None) -> Iterator[Any]: ...


class Batches:
    """Shuffled batches of a training set; those of an epoch follow from images, batch, seed, buffer and epoch alone.

    The images are cut into fixed ranges. An epoch takes the ranges in random order, shuffles what fills a buffer, and
    cuts it into batches; images that don't fill a last batch are left out of that epoch. How the store is cut into
    parts plays no role, nor does it whether all pairs lie in memory or are read when they are due.

    Where images differ in layout, a batch has as many patches as `batch` images have on average, as nearly as whole
    images can: so that no batch takes much more memory than others, and each counts alike. There are as many batches
    in an epoch as if images were all alike.

    Parameters: pairs, of the training set's store; images (n,), sorted numbers of the images to train on; batch,
        images in one; buffer, images shuffled together; memory, bytes: pairs that need no more, in float32, are all
        held in memory, else a buffer is, and the next, which is read in the meantime. part (i, of): this process takes
        the i-th slice of every batch.
    Raises: LossmapError if a batch has more images than there are, or fewer than there are processes.
    """

    def __init__(
        self,
        pairs: Source,
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
        self.patches = pairs.target_counts[images] if pairs.ragged else None
        self.held = pairs.load(images) if pairs.image_bytes * len(images) <= memory else None

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.images) // self.batch

    def order(self, epoch: int) -> Any:
        """(batches, images of this process in each): positions in `images`; of ragged pairs a list of arrays."""
        rng = np.random.default_rng(seed_for(self.seed, "batches", str(epoch)))
        ranges = np.split(np.arange(len(self.images)), range(RANGE, len(self.images), RANGE))
        order = np.concatenate([ranges[i] for i in rng.permutation(len(ranges))])
        for first in range(0, len(order), self.buffer * self.batch):
            rng.shuffle(order[first : first + self.buffer * self.batch])
        if self.patches is not None:
            part, of = self.part
            return [np.array_split(batch, of)[part] for batch in np.split(order, self._ends(order))[:-1]]
        order = order[: len(self) * self.batch].reshape(len(self), self.batch)
        return np.array_split(order, self.part[1], axis=1)[self.part[0]]

    def _ends(self, order: np.ndarray) -> list[int]:
        """Where in a shuffled order each batch of ragged pairs ends, such that all have about as many patches."""
        assert self.patches is not None
        patches = self.patches[order]
        middles = np.cumsum(patches) - patches / 2
        budget, least = self.batch * self.patches.mean(), self.part[1]
        ends, end = [], 0
        for number, wanted in enumerate(np.searchsorted(middles, budget * np.arange(1, len(self) + 1)), start=1):
            # An image for each process, in this batch and in those that follow, even where one fills several budgets.
            end = min(max(int(wanted), end + least), len(order) - least * (len(self) - number))
            ends.append(end)
        return ends

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """Batches `start` and later of an epoch: post (b, tokens, width) and pre (b, patches, features)."""
        return self.steps(epoch * len(self) + start, (epoch + 1) * len(self))

    def steps(self, start: int, stop: int) -> Iterator[Any]:
        """The same for the steps `start` to `stop` (exclusive) of a training, counted over all epochs."""
        for rows, values in _one_ahead(self._read, self._buffers(start, stop)):
            for batch in rows:
                yield tuple(side[batch] for side in values)

    def _buffers(self, start: int, stop: int) -> Iterator[Any]:
        """These steps' rows of `order`, as many at once as share a buffer."""
        while start < stop:
            epoch, first = divmod(start, len(self))
            last = min((first // self.buffer + 1) * self.buffer, len(self), first + stop - start)
            yield self.order(epoch)[first:last]
            start += last - first

    def _read(self, order: Any) -> tuple[Any, tuple[Any, Any]]:
        """Pairs in memory, and in which of their rows each batch lies; those that are read are read in order."""
        if self.held is not None:
            return order, self.held
        if self.patches is not None:
            positions = np.sort(np.concatenate(order))
            return [np.searchsorted(positions, one) for one in order], self.pairs.load(self.images[positions])
        positions = np.sort(order, axis=None)
        return np.searchsorted(positions, order), self.pairs.load(self.images[positions])


class HeldOut:
    """Held-out pairs in order, this process's share of them, `size` images at a time; see `Batches`.

    Raises: LossmapError if there are fewer images than processes.
    """

    def __init__(
        self, pairs: Source, images: np.ndarray, size: int, memory: int = MEMORY, part: tuple[int, int] = ALONE
    ):
        if len(images) < part[1]:
            raise LossmapError(
                f"{pairs.index}: {len(images)} held-out images can't be shared by {part[1]} processes. Start fewer, or"
                " hold out more."
            )
        self.pairs, self.images, self.size = pairs, np.array_split(images, part[1])[part[0]], size
        self.held = pairs.load(self.images) if pairs.image_bytes * len(images) <= memory else None

    def __iter__(self) -> Iterator[Any]:
        if self.held is None:
            yield from self.pairs.blocks(self.images, self.size)
        else:
            yield from zip(*(values.split(self.size) for values in self.held), strict=True)


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
