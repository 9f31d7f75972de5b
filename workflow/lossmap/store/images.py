"""Embeddings image by image, whether or not all images of a Dataset have the same layout.

Images that are all seen alike make a Dataset with pre (image, patch, feature) and post (image, token, feature_out).
Others make a ragged one: pre (patch, feature) and post (token, feature_out), the images one after another, and where
each one's rows begin: patch_offset, token_offset, view_offset and span_offset (bound), one more than there are images,
as in CSR. view_shape (view, view_field), view_box (view, edge) and span_shape (span, span_field) are the fields
of `layouts.ViewShape`, its box, and the fields of `layouts.Span`, as numbers.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from lossmap.store.format import CHUNK_BYTES, DIMENSIONS
from lossmap.store.layouts import KINDS, Layout, Shape, Span, ViewShape, one_view

# Of a ragged Dataset, beside pre, post, their means and size.
LAYOUT_DIMENSIONS = {
    "patch_offset": ("bound",),
    "token_offset": ("bound",),
    "view_offset": ("bound",),
    "span_offset": ("bound",),
    "view_shape": ("view", "view_field"),
    "view_box": ("view", "edge"),
    "span_shape": ("span", "span_field"),
}
RAGGED = {"pre": ("patch", "feature"), "post": ("token", "feature_out")} | LAYOUT_DIMENSIONS
RAGGED_DIMENSIONS = RAGGED | {name: DIMENSIONS[name] for name in ("pre_mean", "post_mean", "size")}  # all of a part
GAP = 16  # images that are read in passing, at most, to reach the next one


class Alike(NamedTuple):
    """Images of one shape: positions, which of those that were asked for."""

    positions: np.ndarray
    shape: Shape


class Images:
    """Where each image lies in a Dataset of embeddings.

    ragged: whether images differ in layout.  shapes: those that occur.  kinds (n,): each image's, a number of them.
    """

    def __init__(self, dataset: xr.Dataset):
        self.dataset, self.ragged = dataset, is_ragged(dataset)
        self.n = dataset.sizes["image"]
        if not self.ragged:
            about, patches, tokens = dataset.attrs, dataset.sizes["patch"], dataset.sizes["token"]
            self.shapes = [one_view(about["pre_grid"], about["post_grid"], patches, tokens)]
            self.kinds = np.zeros(self.n, dtype=np.int64)
            return
        self.offsets = {name: dataset[name].values for name in LAYOUT_DIMENSIONS if name.endswith("_offset")}
        self._views, self._spans = dataset["view_shape"].values, dataset["span_shape"].values
        self.shapes, self.kinds = self._distinct()

    def __len__(self) -> int:
        return self.n

    def shape(self, image: int) -> Shape:
        return self.shapes[self.kinds[image]]

    def layout(self, image: int) -> Layout:
        """Raises: KeyError if the embeddings say nothing of sizes and boxes, as those of `from_arrays`."""
        width, height = (int(side) for side in self.dataset["size"][image].values)
        if self.ragged:
            first, stop = self.offsets["view_offset"][image : image + 2]
            boxes = self.dataset["view_box"][first:stop].values
        else:
            boxes = self.dataset["box"][image : image + 1].values
        return Layout(width, height, self.shape(image), tuple(tuple(box) for box in boxes.astype(float).tolist()))

    def alike(self, images: Sequence[int] | np.ndarray) -> list[Alike]:
        """Images by shape, in the order in which shapes first occur among them."""
        kinds = self.kinds[np.asarray(images, dtype=np.int64)]
        first = sorted(np.unique(kinds, return_index=True)[1])
        return [Alike(np.flatnonzero(kinds == kinds[i]), self.shapes[kinds[i]]) for i in first]

    def read(self, name: str, images: Sequence[int] | np.ndarray) -> np.ndarray:
        """pre or post of images of one shape, in any order, as stored: (images, rows, features).

        They are read in runs: Zarr reads whole chunks, and picks scattered rows from them slowly.
        Raises: ValueError if there are none, or they are of several shapes.
        """
        images = np.asarray(images, dtype=np.int64)
        if len(kinds := np.unique(self.kinds[images])) != 1:
            raise ValueError(f"images of {len(kinds)} shapes are asked for; wanted one: see alike")
        wanted, place = np.unique(images, return_inverse=True)
        found = [self._run(name, run) for run in self._runs(name, wanted)]
        if len(found) == 1 and (np.diff(images) == 1).all():
            return found[0]
        return np.concatenate(found)[place]

    def rows(self, name: str, images: Sequence[int] | np.ndarray) -> np.ndarray:
        """pre or post of images of any shapes, in any order, one image after another: (rows, features), as stored.

        Of ragged embeddings. Read in runs, as by `read`, whatever the shapes: in native resolution each image may have
        a shape of its own, and a chunk holds many.
        """
        images = np.asarray(images, dtype=np.int64)
        array, offsets = self.dataset[name], self.offsets[f"{RAGGED[name][0]}_offset"]
        wanted = np.unique(images)
        runs = self._runs(name, wanted)
        found = [array[offsets[run[0]] : offsets[run[-1] + 1]].values for run in runs]
        if len(found) == 1 and (np.diff(images) == 1).all():
            return found[0]
        before = np.cumsum([0, *(len(values) for values in found[:-1])])
        starts = [offsets[run] - offsets[run[0]] + first for run, first in zip(runs, before, strict=True)]
        lengths = offsets[images + 1] - offsets[images]
        return np.concatenate(found)[spread(np.concatenate(starts)[np.searchsorted(wanted, images)], lengths)]

    def _runs(self, name: str, images: np.ndarray) -> list[np.ndarray]:
        """Sorted images, those together that lie close to each other."""
        gap = min(GAP, max(1, CHUNK_BYTES // max(1, self.dataset[name].nbytes // self.n)))
        return np.split(images, np.flatnonzero(np.diff(images) > gap) + 1)

    def _run(self, name: str, run: np.ndarray) -> np.ndarray:
        """pre or post of such a run, of images of one shape."""
        array, first, stop = self.dataset[name], run[0], run[-1] + 1
        if not self.ragged:
            return array[first:stop].values[run - first]
        offsets = self.offsets[f"{RAGGED[name][0]}_offset"]
        values = array[offsets[first] : offsets[stop]].values
        rows = offsets[first + 1] - offsets[first]
        if len(values) == rows * len(run):  # nothing of another shape in between
            return values.reshape(len(run), rows, -1)
        starts = offsets[run] - offsets[first]
        return values[starts[:, None] + np.arange(rows)]

    def _distinct(self) -> tuple[list[Shape], np.ndarray]:
        known: dict[tuple[bytes, bytes], int] = {}
        kinds = np.empty(self.n, dtype=np.int64)
        shapes: list[Shape] = []
        views, spans = self.offsets["view_offset"], self.offsets["span_offset"]
        for image in range(self.n):
            view, span = self._views[views[image] : views[image + 1]], self._spans[spans[image] : spans[image + 1]]
            key = view.tobytes(), span.tobytes()
            if key not in known:
                known[key] = len(shapes)
                shapes.append(_shape(view, span))
            kinds[image] = known[key]
        return shapes, kinds


def is_ragged(dataset: xr.Dataset) -> bool:
    """Whether images differ in layout, so that pre and post have no axis of images."""
    return "patch_offset" in dataset


def spread(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Numbers of the rows of runs, one run after another: starts[i], starts[i] + 1, ..., lengths[i] of them."""
    return np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())


def layout_arrays(layouts: Iterable[Layout]) -> dict[str, np.ndarray]:
    """What a ragged Dataset says of the layouts of its images: the arrays of `LAYOUT_DIMENSIONS`, and size."""
    layouts = list(layouts)
    views = [view for layout in layouts for view in layout.shape.views]
    spans = [span for layout in layouts for span in layout.shape.spans]
    counts = {
        "patch_offset": [layout.shape.patches for layout in layouts],
        "token_offset": [layout.shape.tokens for layout in layouts],
        "view_offset": [len(layout.shape.views) for layout in layouts],
        "span_offset": [len(layout.shape.spans) for layout in layouts],
    }
    offsets = {name: np.concatenate([[0], np.cumsum(each, dtype=np.int64)]) for name, each in counts.items()}
    shapes = [(view.rows, view.cols, KINDS.index(view.kind), view.extra) for view in views]
    fields = [(s.rows, s.cols, s.first, *s.tiles, s.merge, s.top, s.left, s.newline) for s in spans]
    return offsets | {
        "view_shape": np.array(shapes, dtype=np.int32).reshape(-1, 4),
        "view_box": np.array([box for layout in layouts for box in layout.boxes], dtype=np.float32).reshape(-1, 4),
        "span_shape": np.array(fields, dtype=np.int32).reshape(-1, 9),
        "size": np.array([(layout.width, layout.height) for layout in layouts], dtype=np.int32).reshape(-1, 2),
    }


def _shape(views: np.ndarray, spans: np.ndarray) -> Shape:
    return Shape(
        tuple(ViewShape(rows, cols, KINDS[kind], extra) for rows, cols, kind, extra in views.tolist()),
        tuple(
            Span(rows, cols, first, (high, wide), merge, top, left, newline)
            for rows, cols, first, high, wide, merge, top, left, newline in spans.tolist()
        ),
    )
