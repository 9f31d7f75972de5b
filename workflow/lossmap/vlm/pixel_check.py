"""Whether Lossmap makes the pixels that a checkpoint's own image processor makes, tried on a few images.

An image processor's settings may ask for anything: margins, crops, offsets, tiles. Rather than trust that all are
known, three images go through both, each time a preprocessor is read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image

from lossmap.errors import LossmapError
from lossmap.vlm.families import Family

if TYPE_CHECKING:
    from lossmap.vlm.preprocessing import CornerPreprocessor, Preprocessor
    from lossmap.vlm.tiled import TiledPreprocessor

TOLERANCE = 1e-5  # of a standard deviation, or of the value where that is larger; a grey level is some 1e-2
# Settings that `Preprocessor` follows, that change nothing about one RGB image, or that ask for further views.
FOLLOWED = {
    *("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "do_normalize"),
    *("image_mean", "image_std", "do_convert_rgb", "patch_size", "temporal_patch_size", "merge_size", "max_image_size"),
    *("crop_to_patches", "min_patches", "max_patches", "do_image_splitting", "return_row_col_info", "data_format"),
    *("do_pan_and_scan", "image_grid_pinpoints", "default_to_square", "input_data_format", "return_tensors"),
    *("image_processor_type", "processor_class", "image_seq_length", "num_image_tokens", "device", "disable_grouping"),
    *("max_image_tiles", "do_pad", "min_size", "background_color", "max_soft_tokens", "pooling_kernel_size"),
    *("use_covering_area_grid", "scale_resolution", "downsample_mode", "slice_mode", "max_slice_nums", "use_image_id"),
    *("pan_and_scan_min_crop_size", "pan_and_scan_max_num_crops", "pan_and_scan_min_ratio_to_activate"),
}


VIEWED = ((97, 61), (40, 90), (31, 33))  # width and height of the images that are tried on views


def check_pixels(where: str, processor: Any, family: Family, preprocessor: "Preprocessor") -> None:
    """Put a wide, a tiny and a large image through both, at a cost of some 0.05 s for an input of 336 pixels.

    Parameters: where, what messages call the checkpoint; processor, its own image processor, asked for one view of the
        whole image; family; preprocessor, read from its settings.
    Raises: LossmapError if the results differ by more than `TOLERANCE`, or the processor fails.
    """
    for image in _probes(preprocessor, family):
        with _named(where, image):
            ours = preprocessor.normalise(preprocessor.prepare([image]))
            theirs = _one_view(processor, family, preprocessor, image)
        _compare(where, processor, image, ours, theirs)


def check_views(where: str, processor: Any, family: Family, preprocessor: "TiledPreprocessor") -> None:
    """The same of a preprocessor that makes the processor's own views: wide, tall and small images.

    Raises: as `check_pixels`; and where the processor makes another number of views.
    """
    for width, height in VIEWED:
        image = _noise(width, height)
        with _named(where, image):
            ours = preprocessor.normalise(preprocessor.prepare([image]))
            theirs = own_views(processor, family, preprocessor, [image])
        _compare(where, processor, image, ours, theirs)


def own_views(processor: Any, family: Family, preprocessor: "TiledPreprocessor", images: list[Image.Image]) -> dict:
    """What a processor makes of images by its own settings, but for those limits that the tiling has of a study."""
    asked = preprocessor.tiling.asked()
    apart = {"pixel_attention_mask", "aspect_ratio_mask"} & set(family.inputs)  # else all are one sample's
    nested = [[image] for image in images] if apart else images
    return outputs(processor(nested, return_tensors="pt", **asked))


def outputs(made: Any) -> dict:
    """What an image processor gave, by name; of Idefics it is pixel_values alone, and Video-LLaVA calls them
    otherwise."""
    if not hasattr(made, "keys"):
        return {"pixel_values": made}
    return {{"pixel_values_images": "pixel_values"}.get(name, name): values for name, values in made.items()}


@contextmanager
def _named(where: str, image: Image.Image) -> Iterator[None]:
    """Whatever a processor's settings lead it to, in words."""
    try:
        yield
    except Exception as error:
        raise LossmapError(
            f"{where}: its image processor's settings fail on {_shape(image)} ({type(error).__name__}: {error})."
            " Copy them from where the model comes from."
        ) from None


def _compare(where: str, processor: Any, image: Image.Image, ours: dict, theirs: dict) -> None:
    for name in sorted(ours.keys() & theirs.keys()):
        found, wanted = ours[name], theirs[name].to(ours[name].dtype)
        if found.shape != wanted.shape or not found.allclose(wanted, rtol=TOLERANCE, atol=TOLERANCE):
            settings = processor.to_dict()
            unknown = [f"{key}: {value}" for key, value in settings.items() if key not in FOLLOWED and value]
            asked = f"by {', '.join(unknown)}" if unknown else "by its class, or by settings unlike config.json's"
            raise LossmapError(
                f"{where}: its image processor, {settings.get('image_processor_type')}, makes other {name}"
                f" of {_shape(image)} than Lossmap does: {asked}, which Lossmap does not support. Use a"
                " checkpoint without."
            )


def _shape(image: Image.Image) -> str:
    return f"an image of {image.width} x {image.height} pixels"


def _noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def _probes(preprocessor: "Preprocessor", family: Family) -> list[Image.Image]:
    height, width = preprocessor.input_size
    rng = np.random.default_rng(0)
    sizes = [(width // 2 + 1, height // 3 + 1), (29, 5), (width + width // 4, height + height // 2)]
    if _is_given_squares(family):
        sizes = sizes[:1]  # what shape the square came from, the processor doesn't see
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]


def _is_given_squares(family: Family) -> bool:
    """Qwen and Mistral keep an image's shape, so that Lossmap gives them squares; Idefics2 can be asked for one."""
    return family.view == "any" and "pixel_attention_mask" not in family.inputs


def _one_view(processor: Any, family: Family, preprocessor: "Preprocessor", image: Image.Image) -> dict:
    """What the processor makes of an image, asked for one view of all of it, and of those sides that Lossmap gives it
    where its family takes any."""
    side = preprocessor.input_size[0]
    asked: dict[str, Any] = {"crop_to_patches": False, "do_pan_and_scan": False, "do_image_splitting": False}
    if family.view == "base":
        asked["image_grid_pinpoints"] = [[side, side]]  # few tiles: they aren't looked at
    elif family.view == "corner":
        asked["max_image_tiles"] = 1
    elif family.view == "longest":
        asked |= {"size": {"longest_edge": side}, "max_image_size": {"longest_edge": side}}
    elif "pixel_attention_mask" in family.inputs:
        asked["size"] = {"shortest_edge": side, "longest_edge": side}
    elif _is_given_squares(family):
        image = image.resize((side, side), preprocessor.resample)
        frames = preprocessor.frames if family.own_view == "native_frames" else 1
        pixels = side * side * frames if "image_grid_thw" in family.inputs else side
        asked["size"] = {"shortest_edge": pixels, "longest_edge": pixels}
        if family.own_view == "slices":
            asked = {"do_resize": False, "slice_mode": False}
        if family.own_view == "budget":
            asked = {"do_resize": False}
        if "image_sizes" in family.inputs:
            asked["size"] = {"longest_edge": side}
    from torch import nn

    known = {key: value for key, value in asked.items() if hasattr(processor, key)}
    nested = [[image]] if "pixel_attention_mask" in family.inputs else [image]
    made = outputs(processor(nested, return_tensors="pt", **known))
    pixels = made["pixel_values"]
    if family.view == "base":  # the first of its views is the whole image; sizes are the original's
        return {"pixel_values": pixels[:, :1]}
    if family.view == "corner":  # the empty tiles that follow weren't asked for
        tiles = cast("CornerPreprocessor", preprocessor).tiles
        return {"pixel_values": nn.functional.pad(pixels, (0, 0, 0, 0, 0, 0, 0, tiles - 1))}
    if family.own_view == "budget":  # Lossmap doesn't pad squares, all of one size
        patches = preprocessor.grid[0] * preprocessor.grid[1]
        return {name: made[name][:, :patches] for name in family.inputs}
    return made
