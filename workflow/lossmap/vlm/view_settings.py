"""The tiling that a view makes of an image processor's settings: one way of cutting for each kind of processor."""

import math
from collections.abc import Callable
from typing import Any

from lossmap.errors import LossmapError
from lossmap.vlm.canvas import Canvas
from lossmap.vlm.input_size import LARGEST_TILE
from lossmap.vlm.slices import Slices
from lossmap.vlm.view_limits import SQUARE, Limits, View, view_problem
from lossmap.vlm.views import (
    AnyRes,
    Bounded,
    Budget,
    Longest,
    LongestInPatches,
    Native,
    NativeFrames,
    PanAndScan,
    Split,
    Tiles,
    Tiling,
)
from lossmap.vlm.whole_first import WholeFirst


class _Fit:
    """What a tiling is made of. pieces: patch, merge and latents of `Tiling`."""

    def __init__(self, settings: dict, config: Any, limits: Limits, pieces: dict[str, Any]):
        self.settings, self.config, self.limits, self.pieces = settings, config, limits, pieces
        self.size = {key: value for key, value in (settings.get("size") or {}).items() if value is not None}

    def limit(self, name: str, otherwise: str) -> int:
        return self.limits.get(name, self.size[otherwise])

    @property
    def unit(self) -> int:
        return self.pieces["patch"] * self.pieces["merge"]


def native(fit: _Fit) -> Native:
    least, most = fit.limit("min_pixels", "shortest_edge"), fit.limit("max_pixels", "longest_edge")
    return Native(**fit.pieces, unit=fit.unit, least=min(least, most), most=most)


def native_frames(fit: _Fit) -> Tiling:
    frames = fit.settings.get("temporal_patch_size", 2)
    given = native(fit)
    return NativeFrames(**vars(given), frames=frames)


def longest(fit: _Fit) -> Tiling:
    return Longest(**fit.pieces, unit=fit.unit, longest=fit.limit("longest_edge", "longest_edge"))


def longest_in_patches(fit: _Fit) -> Tiling:
    unit = fit.settings["patch_size"]
    side = unit if isinstance(unit, int) else unit["height"]
    return LongestInPatches(**fit.pieces, unit=side, longest=fit.limit("longest_edge", "longest_edge"))


def budget(fit: _Fit) -> Tiling:
    tokens = fit.limits.get("max_soft_tokens", fit.settings["max_soft_tokens"])
    return Budget(**fit.pieces, tokens=tokens)


def bounded(fit: _Fit) -> Tiling | None:
    edges = {name: fit.limit(f"{name}_edge", f"{name}_edge") for name in ("shortest", "longest")}
    quarters = fit.limits["tiles"] >= 4 if "tiles" in fit.limits else bool(fit.settings.get("do_image_splitting"))
    if edges["shortest"] >= edges["longest"] and not quarters:
        return None  # a square, whatever the image
    return Bounded(**fit.pieces, **edges, quarters=quarters)


def any_resolution(fit: _Fit) -> Tiling:
    crop, size = fit.settings.get("crop_size") or {}, fit.size
    side = crop.get("height") or size.get("height") or size["shortest_edge"]
    given = [(int(height), int(width)) for height, width in fit.settings["image_grid_pinpoints"]]
    most = fit.limits.get("tiles", math.inf)
    resolutions = tuple(one for one in given if one[0] * one[1] <= most * side**2)
    if not resolutions:
        fewest = min(height * width for height, width in given) // side**2
        raise LossmapError(f"view: tiles is {most}; its image processor makes {fewest} at least. Ask for as many.")
    limit = str(getattr(fit.config, "vision_aspect_ratio", "")).removeprefix("anyres_max_")
    return AnyRes(**fit.pieces, side=side, resolutions=resolutions, most=int(limit) if limit.isdigit() else None)


def tiles(fit: _Fit) -> Tiling:
    most = fit.limits.get("tiles", fit.settings.get("max_patches", 12))
    fewest = min(fit.settings.get("min_patches", 1), most)
    return Tiles(**fit.pieces, size=(fit.size["height"], fit.size["width"]), fewest=fewest, most=most)


def whole_first(fit: _Fit) -> Tiling | None:
    if "tiles" not in fit.limits and not fit.settings.get("crop_to_patches"):
        return None
    return WholeFirst(**vars(tiles(fit)), covering=fit.settings.get("use_covering_area_grid", True))


def slices(fit: _Fit) -> Tiling:
    sliced = "tiles" in fit.limits or fit.settings.get("slice_mode", True)
    most = fit.limits.get("tiles", fit.settings["max_slice_nums"]) if sliced else 1
    return Slices(**fit.pieces, side=fit.settings["scale_resolution"], most=most)


def split(fit: _Fit) -> Tiling | None:
    side = (fit.settings.get("max_image_size") or {}).get("longest_edge", LARGEST_TILE["longest_edge"])
    if "tiles" in fit.limits:
        return Split(**fit.pieces, longest=math.isqrt(fit.limits["tiles"]) * side, side=side)
    if not fit.settings.get("do_image_splitting", True):
        return None
    return Split(**fit.pieces, longest=fit.size["longest_edge"], side=side)


def pan_and_scan(fit: _Fit) -> Tiling | None:
    settings = fit.settings
    most = fit.limits.get("tiles", settings.get("pan_and_scan_max_num_crops") or 4)
    if most < 2 or not ("tiles" in fit.limits or settings.get("do_pan_and_scan")):
        return None
    return PanAndScan(
        **fit.pieces,
        size=(fit.size["height"], fit.size["width"]),
        smallest=settings.get("pan_and_scan_min_crop_size") or 256,
        most=most,
        long=settings.get("pan_and_scan_min_ratio_to_activate") or 1.2,
    )


def canvas(fit: _Fit) -> Tiling:
    return Canvas(**fit.pieces, side=fit.size["height"], most=fit.settings["max_image_tiles"])


WAYS: dict[str, Callable[[_Fit], Tiling | None]] = {
    "native": native,
    "native_frames": native_frames,
    "longest": longest,
    "longest_in_patches": longest_in_patches,
    "budget": budget,
    "bounded": bounded,
    "any_resolution": any_resolution,
    "tiles": tiles,
    "whole_first": whole_first,
    "slices": slices,
    "split": split,
    "pan_and_scan": pan_and_scan,
    "canvas": canvas,
}


def tiling_of(
    where: str, way: str | None, settings: dict, config: Any, view: View, pieces: dict[str, Any]
) -> Tiling | None:
    """The tiling that a view asks for; None where every image is seen in one view of one shape.

    Parameters: where, what messages call the checkpoint; way, of the family, one of `WAYS`, None where its processor
        always makes one view of one shape; settings, the image processor's; config, the model's; view, see
        `view_limits`; pieces, patch, merge and latents of `Tiling`.
    Raises: LossmapError if the view asks for what the family's processor doesn't know, or settings are missing.
    """
    if problem := view_problem(where, way, view):
        raise LossmapError(problem)
    if view == SQUARE or way is None:
        return None
    limits: Limits = {} if isinstance(view, str) else view
    try:
        return WAYS[way](_Fit(settings, config, limits, pieces))
    except KeyError as missing:
        raise LossmapError(
            f"{where}: its image processor's settings lack {missing}, by which it cuts images (size is"
            f" {settings.get('size')}). Copy them from where the model comes from, or set view: square."
        ) from None
