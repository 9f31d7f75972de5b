"""What a study may ask of a model's views, and the tiling that this makes of its image processor's settings.

`view` of a model is "processor": what the model's own processor does; "square": one square view of every image, as the
paper has it; or some of the processor's own limits, as {"max_pixels": 1003520} or {"tiles": 4}, the rest as it is.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from lossmap.errors import LossmapError
from lossmap.vlm.views import AnyRes, Bounded, Longest, Native, PanAndScan, Split, Tiles, Tiling

Limits = Mapping[str, int]
View = str | Limits
PROCESSOR, SQUARE = "processor", "square"
LARGEST_TILE = 364  # of Idefics3 and SmolVLM, where their settings are silent


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


def native(fit: _Fit) -> Tiling:
    least, most = fit.limit("min_pixels", "shortest_edge"), fit.limit("max_pixels", "longest_edge")
    return Native(**fit.pieces, unit=fit.unit, least=min(least, most), most=most)


def longest(fit: _Fit) -> Tiling:
    return Longest(**fit.pieces, unit=fit.unit, longest=fit.limit("longest_edge", "longest_edge"))


def bounded(fit: _Fit) -> Tiling:
    edges = {name: fit.limit(f"{name}_edge", f"{name}_edge") for name in ("shortest", "longest")}
    quarters = fit.limits["tiles"] >= 4 if "tiles" in fit.limits else bool(fit.settings.get("do_image_splitting"))
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


def split(fit: _Fit) -> Tiling | None:
    side = (fit.settings.get("max_image_size") or {}).get("longest_edge", LARGEST_TILE)
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


# How processors cut images: what makes the tiling of their settings, and the limits that a study may set.
WAYS: dict[str, tuple[Callable[[_Fit], Tiling | None], tuple[str, ...]]] = {
    "native": (native, ("min_pixels", "max_pixels")),
    "longest": (longest, ("longest_edge",)),
    "bounded": (bounded, ("shortest_edge", "longest_edge", "tiles")),
    "any_resolution": (any_resolution, ("tiles",)),
    "tiles": (tiles, ("tiles",)),
    "split": (split, ("tiles",)),
    "pan_and_scan": (pan_and_scan, ("tiles",)),
}


def tiling_of(
    where: str, way: str | None, settings: dict, config: Any, view: View, pieces: dict[str, Any]
) -> Tiling | None:
    """The tiling that a view asks for; None where every image is seen in one view of one shape.

    Parameters: where, what messages call the checkpoint; way, of the family, one of `WAYS`, None where its processor
        always makes one view of one shape; settings, the image processor's; config, the model's; view, see above;
        pieces, patch, merge and latents of `Tiling`.
    Raises: LossmapError if the view asks for what the family's processor doesn't know, or settings are missing.
    """
    if view == SQUARE:
        return None
    limits: Limits = {} if view == PROCESSOR or isinstance(view, str) else view
    known = WAYS[way][1] if way else ()
    if unknown := [name for name in limits if name not in known]:
        choices = f"it knows {', '.join(known)}" if known else "it makes one view of one size, so that there are none"
        raise LossmapError(
            f"{where}: view asks for {unknown[0]}, which its image processor has no limit of; {choices}. Mend the"
            " model's view, or write processor or square."
        )
    if way is None:
        return None
    if small := [name for name, value in limits.items() if value < 1]:
        raise LossmapError(f"{where}: view: {small[0]} is {limits[small[0]]}; wanted 1 or more.")
    try:
        return WAYS[way][0](_Fit(settings, config, limits, pieces))
    except KeyError as missing:
        raise LossmapError(
            f"{where}: its image processor's settings lack {missing}, by which it cuts images (size is"
            f" {settings.get('size')}). Copy them from where the model comes from, or set view: square."
        ) from None
