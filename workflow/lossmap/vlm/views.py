"""Which views a model's own image processor makes of an image, and which tokens are made of them.

A `Tiling` is one way of cutting; each says, from an image's width and height alone, how every view's pixels are made
(`Cut`). Pixels and boxes follow from the same cuts, and `pixel_check` compares the pixels with the processor's. None of
this needs torch or transformers, so that a plan can count tokens.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

from lossmap.errors import LossmapError
from lossmap.store.layouts import Box, Layout, Shape, Span, ViewShape
from lossmap.vlm.input_size import ASPECT_OF_QWEN

Size = tuple[int, int]  # height, width
LARGEST_OF_IDEFICS3 = 4096  # pixels of an edge, before an image is split
BOTH_WAYS = 1.1  # how far LLaVA-OneVision's tokens may exceed their number along each side before they are resampled


class Cut(NamedTuple):
    """How one view's pixels are made.

    region: left, top, right, bottom of the part of the image that is taken. sizes: to which it is resized, one after
    another. canvas: the black picture that it then lies on; corner: its left and top there. window: left, top, right,
    bottom of what is kept of the canvas.
    """

    region: tuple[int, int, int, int]
    sizes: tuple[Size, ...]
    canvas: Size
    corner: tuple[int, int]
    window: tuple[int, int, int, int]
    kind: str = "whole"

    @property
    def size(self) -> Size:
        """Of the view, in pixels."""
        left, top, right, bottom = self.window
        return bottom - top, right - left

    def box(self, rows: int, cols: int, patch: int) -> Box:
        """What rows x cols patches of the view, from its top left corner on, cover of the original image."""
        left, top, right, bottom = self.region
        high, wide = self.sizes[-1]
        x, y = ((right - left) / wide, (bottom - top) / high)
        begin = self.window[0] - self.corner[0], self.window[1] - self.corner[1]
        return (
            left + begin[0] * x,
            top + begin[1] * y,
            left + (begin[0] + cols * patch) * x,
            top + (begin[1] + rows * patch) * y,
        )


@dataclass(frozen=True)
class Tiling(ABC):
    """One way of cutting images into views.

    patch: side of a patch in pixels. merge: patches of a token along each side. latents: tokens of a view where they
    have no place, else None. extra: rows of pre before the patches of each view.
    """

    extra: ClassVar[int] = 0

    patch: int
    merge: int
    latents: int | None

    @abstractmethod
    def cuts(self, width: int, height: int) -> list[Cut]:
        """The views of an image, in the order in which the tower is given them.

        Raises: LossmapError if images of such a shape can't be seen.
        """

    @abstractmethod
    def asked(self) -> dict[str, Any]:
        """What an image processor of the family is to be asked for, so that it makes these views."""

    def spans(self, width: int, height: int, views: list[ViewShape]) -> list[Span]:
        """The tokens of these views, in post's order."""
        if self.latents is not None:
            return [Span(self.latents, 0, first=i) for i in range(len(views))]
        m = self.merge
        return [Span(view.rows // m, view.cols // m, first=i, merge=m) for i, view in enumerate(views)]

    def layout(self, width: int, height: int) -> Layout:
        """Of an image of this width and height."""
        return _layout(self, width, height)


@dataclass(frozen=True)
class Native(Tiling):
    """One view of the image's own shape, its sides multiples of `unit`, of least to most pixels (Qwen)."""

    unit: int
    least: int
    most: int

    def asked(self) -> dict[str, Any]:
        return {"size": {"shortest_edge": self.least, "longest_edge": self.most}}

    def cuts(self, width: int, height: int) -> list[Cut]:
        return [stretched(width, height, self._size(width, height, (height, width), 1))]

    def _size(self, width: int, height: int, given: Size, frames: int) -> Size:
        """That whose sides are the nearest multiples of `unit` to those of a given one, within the limits on the pixels
        of so many frames."""
        if max(given) > ASPECT_OF_QWEN * min(given):
            raise LossmapError(
                f"An image of {width} x {height} pixels: shapes up to {ASPECT_OF_QWEN}:1 are taken. Crop it, or take it"
                " out of the dataset."
            )
        u = self.unit
        high, wide = (round(side / u) * u for side in given)
        if frames * high * wide > self.most:
            shrink = math.sqrt(frames * given[0] * given[1] / self.most)
            high, wide = (max(u, math.floor(side / shrink / u) * u) for side in given)
        elif frames * high * wide < self.least:
            grow = math.sqrt(self.least / (frames * given[0] * given[1]))
            high, wide = (math.ceil(side * grow / u) * u for side in given)
        return high, wide


@dataclass(frozen=True)
class NativeFrames(Native):
    """The same, of an image whose shorter side is first raised to `unit`; a still image counts as `frames` equal ones
    (GLM)."""

    frames: int

    def cuts(self, width: int, height: int) -> list[Cut]:
        high, wide = height, width
        if min(high, wide) < self.unit:
            scale = max(self.unit / high, self.unit / wide)
            high, wide = int(high * scale), int(wide * scale)
        return [stretched(width, height, self._size(width, height, (high, wide), self.frames))]


@dataclass(frozen=True)
class Longest(Tiling):
    """One view of the image's own shape, made smaller where an edge is longer than `longest`, then stretched up to
    multiples of `unit` (Mistral 3)."""

    unit: int
    longest: int

    def asked(self) -> dict[str, Any]:
        return {"size": {"longest_edge": self.longest}, "patch_size": {"height": self.unit, "width": self.unit}}

    def cuts(self, width: int, height: int) -> list[Cut]:
        size = self._size(width, height)
        if size == (self.unit, self.unit):
            raise LossmapError(
                f"An image of {width} x {height} pixels makes one token, with which transformers' model fails. Take it"
                " out of the dataset."
            )
        return [stretched(width, height, size)]

    def _size(self, width: int, height: int) -> Size:
        ratio = max(width, height) / self.longest
        high, wide = (math.floor(side / ratio) if ratio > 1 else side for side in (height, width))
        if not high or not wide:
            raise LossmapError(
                f"An image of {width} x {height} pixels: scaled to {self.longest} along the longer side, nothing is"
                " left of the other. Crop it, or take it out of the dataset."
            )
        return -(-high // self.unit) * self.unit, -(-wide // self.unit) * self.unit


@dataclass(frozen=True)
class LongestInPatches(Longest):
    """The same with a unit of one patch, so that a last row or column of patches may be in no token (LightOnOCR)."""

    def cuts(self, width: int, height: int) -> list[Cut]:
        size = self._size(width, height)
        if min(size) < self.patch * self.merge:
            raise LossmapError(
                f"An image of {width} x {height} pixels is too narrow for a token of {self.merge} x {self.merge}"
                " patches. Crop it, or take it out of the dataset."
            )
        return [stretched(width, height, size)]


@dataclass(frozen=True)
class Budget(Tiling):
    """One view of the image's own shape, scaled up or down to as many tokens as it may make, then stretched down to
    whole tokens (Gemma 4).

    tokens: the most of an image.
    """

    tokens: int

    def asked(self) -> dict[str, Any]:
        return {"max_soft_tokens": self.tokens}

    @property
    def patches(self) -> int:
        """To which an image's patches are padded."""
        return self.tokens * self.merge**2

    def cuts(self, width: int, height: int) -> list[Cut]:
        unit = self.patch * self.merge
        scale = math.sqrt(self.patches * self.patch**2 / (height * width))
        rows, cols = (math.floor(scale * side / unit) for side in (height, width))
        if not rows:
            rows, cols = 1, min(math.floor(width / height), self.tokens)
        elif not cols:
            rows, cols = min(math.floor(height / width), self.tokens), 1
        return [stretched(width, height, (rows * unit, cols * unit))]


@dataclass(frozen=True)
class AnyRes(Tiling):
    """The whole image, stretched to a square; then tiles of the image, scaled into that of `resolutions` (height,
    width) that suits it best, between margins. The tiles' tokens are one raster, less the margins, each row of them
    followed by a line end (LLaVA-NeXT, LLaVA-OneVision).

    side: of the square and of a tile, in pixels. most: tiles whose tokens are kept as they are; of more,
    LLaVA-OneVision resamples them; None: any number.
    """

    side: int
    resolutions: tuple[Size, ...]
    most: int | None

    def asked(self) -> dict[str, Any]:
        return {"image_grid_pinpoints": [list(size) for size in self.resolutions]}

    def cuts(self, width: int, height: int) -> list[Cut]:
        canvas = self._resolution(width, height)
        across, down = canvas[1] / width, canvas[0] / height
        if across < down:
            size = (min(math.ceil(height * across), canvas[0]), canvas[1])
        else:
            size = (canvas[0], min(math.ceil(width * down), canvas[1]))
        corner = (canvas[1] - size[1]) // 2, (canvas[0] - size[0]) // 2
        whole = (0, 0, width, height)
        tiles = [
            Cut(whole, (size,), canvas, corner, (x, y, x + self.side, y + self.side), "tile")
            for y in range(0, canvas[0], self.side)
            for x in range(0, canvas[1], self.side)
        ]
        return [stretched(width, height, (self.side, self.side)), *tiles]

    def spans(self, width: int, height: int, views: list[ViewShape]) -> list[Span]:
        canvas = self._resolution(width, height)
        tiles = canvas[0] // self.side, canvas[1] // self.side
        per_tile = views[0].rows
        rows, cols = tiles[0] * views[1].rows, tiles[1] * views[1].cols
        top = left = 0
        if width / height > cols / rows:
            top = (rows - int(round(height * (cols / width), 7))) // 2
        else:
            left = (cols - int(round(width * (rows / height), 7))) // 2
        rows, cols = rows - 2 * top, cols - 2 * left
        if self.most and math.sqrt(rows * cols / (self.most * per_tile**2)) > BOTH_WAYS:
            raise LossmapError(
                f"An image of {width} x {height} pixels: its {rows} x {cols} tokens would be resampled by the model to"
                f" those of {self.most} tiles, so that tokens don't stand for patches any more, which Lossmap does not"
                f" support. Set the model's view to {{tiles: {self.most}}}."
            )
        return [
            Span(views[0].rows, views[0].cols),
            Span(rows, cols, first=1, tiles=tiles, top=top, left=left, newline=1),
        ]

    def _resolution(self, width: int, height: int) -> Size:
        """That which shows most of the image's pixels, and of these the one with the smallest margins."""

        def shown(size: Size) -> int:
            scale = min(size[1] / width, size[0] / height)
            return min(int(width * scale) * int(height * scale), width * height)

        return max(self.resolutions, key=lambda size: (shown(size), shown(size) - size[0] * size[1]))


@dataclass(frozen=True)
class Tiles(Tiling):
    """Equal tiles of the image stretched to a grid of them, its shape the nearest to the image's; then, where there are
    several, the whole image, stretched to one (InternVL, Aya Vision).

    size: of a tile in pixels. fewest, most: of tiles.
    """

    size: Size
    fewest: int
    most: int

    def asked(self) -> dict[str, Any]:
        return {"crop_to_patches": True, "min_patches": self.fewest, "max_patches": self.most}

    def cuts(self, width: int, height: int) -> list[Cut]:
        high, wide = self.size
        cols, rows = self._grid(width, height) if self.most > 1 else (1, 1)
        whole = stretched(width, height, self.size)
        if cols * rows == 1:
            return [whole]
        canvas = (high * rows, wide * cols)
        return [*grid_of_tiles(width, height, (canvas,), self.size), whole]

    def _grid(self, width: int, height: int) -> tuple[int, int]:
        """Columns and rows. Of grids of the same shape, the largest whose tiles hold less than twice the image's
        pixels."""
        numbers = range(1, self.most + 1)
        grids = [(c, r) for c in numbers for r in numbers if self.fewest <= c * r <= self.most]
        best, least = (1, 1), math.inf
        for grid in sorted(grids, key=lambda grid: grid[0] * grid[1]):
            off = abs(width / height - grid[0] / grid[1])
            fills = width * height > 0.5 * self.size[0] * self.size[1] * grid[0] * grid[1]
            if off < least or (off == least and fills):
                best, least = grid, off
        return best


@dataclass(frozen=True)
class Split(Tiling):
    """The image scaled to `longest` along its longer edge and stretched up to multiples of `side`, in tiles of that
    side; then all of it, stretched to one tile (Idefics3, SmolVLM)."""

    longest: int
    side: int

    def asked(self) -> dict[str, Any]:
        return {"do_image_splitting": True, "size": {"longest_edge": self.longest}}

    def cuts(self, width: int, height: int) -> list[Cut]:
        first = along(width, height, self.longest, even=True)
        if max(first) > LARGEST_OF_IDEFICS3:
            first = along(first[1], first[0], LARGEST_OF_IDEFICS3, even=False)
        high, wide = first
        aspect, s = wide / high, self.side
        if wide >= high:
            wide = math.ceil(wide / s) * s
            high = math.ceil(int(wide / aspect) / s) * s
        else:
            high = math.ceil(high / s) * s
            wide = math.ceil(int(high * aspect) / s) * s
        sizes = (first, (high, wide))
        if high <= s and wide <= s:
            return [stretched(width, height, *sizes)]
        tiles = grid_of_tiles(width, height, sizes, (s, s))
        return [*tiles, stretched(width, height, *sizes, (s, s))]


@dataclass(frozen=True)
class Bounded(Tiling):
    """The image in its own shape, each edge raised to `shortest` and the longer one brought down to `longest`; before
    it, where `quarters` are asked for, each quarter likewise (Idefics2)."""

    shortest: int
    longest: int
    quarters: bool

    def asked(self) -> dict[str, Any]:
        size = {"shortest_edge": self.shortest, "longest_edge": self.longest}
        return {"size": size, "do_image_splitting": self.quarters}

    def cuts(self, width: int, height: int) -> list[Cut]:
        x, y = width // 2, height // 2
        regions = [(0, 0, width, height, "whole")]
        if self.quarters:
            if not x or not y:
                raise LossmapError(
                    f"An image of {width} x {height} pixels can't be cut into quarters, as the model's processor does."
                    " Take it out of the dataset, or set the model's view to {tiles: 1}."
                )
            corners = ((0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height))
            regions = [(*corner, "tile") for corner in corners] + regions
        return [self._cut(*region) for region in regions]

    def _cut(self, left: int, top: int, right: int, bottom: int, kind: str) -> Cut:
        width, height = right - left, bottom - top
        high, wide = height, width
        if max(width, height) > self.longest:
            high, wide = along(width, height, self.longest, even=False)
        size = max(high, self.shortest), max(wide, self.shortest)
        return Cut((left, top, right, bottom), (size,), size, (0, 0), (0, 0, size[1], size[0]), kind)


@dataclass(frozen=True)
class PanAndScan(Tiling):
    """The whole image, stretched; then, where it is long, equal parts along the longer edge (Gemma 3).

    size: of a view in pixels. smallest: of a part's edges, in pixels of the image. most: parts. long: from which ratio
    of the edges on.
    """

    size: Size
    smallest: int
    most: int
    long: float

    def asked(self) -> dict[str, Any]:
        return {
            "do_pan_and_scan": True,
            "pan_and_scan_min_crop_size": self.smallest,
            "pan_and_scan_max_num_crops": self.most,
            "pan_and_scan_min_ratio_to_activate": self.long,
        }

    def cuts(self, width: int, height: int) -> list[Cut]:
        return [
            self._cut((0, 0, width, height), "whole"),
            *(self._cut(part, "tile") for part in self._parts(width, height)),
        ]

    def _parts(self, width: int, height: int) -> list[tuple[int, int, int, int]]:
        longer, shorter = max(width, height), min(width, height)
        if longer / shorter < self.long:
            return []
        count = min(math.floor(longer / self.smallest), math.floor(longer / shorter + 0.5))
        count = min(self.most, max(2, count))
        step = math.ceil(longer / count)
        if min(step, shorter) < self.smallest:
            return []
        ends = [(i * step, min((i + 1) * step, longer)) for i in range(count)]
        if width >= height:
            return [(begin, 0, end, height) for begin, end in ends]
        return [(0, begin, width, end) for begin, end in ends]

    def _cut(self, region: tuple[int, int, int, int], kind: str) -> Cut:
        return Cut(region, (self.size,), self.size, (0, 0), (0, 0, self.size[1], self.size[0]), kind)


@lru_cache(maxsize=4096)
def _layout(tiling: Tiling, width: int, height: int) -> Layout:
    """See `Tiling.layout`; kept, since it is asked for several times of each image."""
    cuts, patch = tiling.cuts(width, height), tiling.patch
    views = [ViewShape(cut.size[0] // patch, cut.size[1] // patch, cut.kind, tiling.extra) for cut in cuts]
    boxes = tuple(cut.box(view.rows, view.cols, patch) for cut, view in zip(cuts, views, strict=True))
    return Layout(width, height, Shape(tuple(views), tuple(tiling.spans(width, height, views))), boxes)


def stretched(width: int, height: int, *sizes: Size) -> Cut:
    """All of an image."""
    high, wide = sizes[-1]
    return Cut((0, 0, width, height), sizes, sizes[-1], (0, 0), (0, 0, wide, high))


def grid_of_tiles(width: int, height: int, sizes: tuple[Size, ...], tile: Size) -> list[Cut]:
    """An image resized to the last of `sizes`, in tiles, in raster order."""
    (high, wide), canvas = tile, sizes[-1]
    return [
        Cut((0, 0, width, height), sizes, canvas, (0, 0), (x, y, x + wide, y + high), "tile")
        for y in range(0, canvas[0], high)
        for x in range(0, canvas[1], wide)
    ]


def along(width: int, height: int, side: int, even: bool) -> Size:
    """(height, width) of an image scaled to `side` along its longer edge, the other edge truncated and, where asked,
    made even."""
    aspect = width / height
    if width >= height:
        wide, high = side, int(side / aspect)
        high += high % 2 if even else 0
    else:
        wide, high = int(side * aspect), side
        wide += wide % 2 if even else 0
    return max(high, 1), max(wide, 1)
