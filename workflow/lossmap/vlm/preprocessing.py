"""Images -> pixel inputs, as each model's own transformers image processor makes them, in two halves.

`Preprocessor.prepare` resizes and crops to bytes, in worker processes; `Preprocessor.normalise` rescales, normalises
and lays out on the device. Together they give what the image processor gives (`pixel_check` tries it), without its cost
for each image and with a quarter of the bytes to move. Sizes, margins, filter and normalisation are the image
processor's. A `Preprocessor` gives one square view of the whole image, a `TiledPreprocessor` the processor's own.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image

from lossmap.errors import LossmapError
from lossmap.vlm.canvas import fitted
from lossmap.vlm.checkpoints import resolve_checkpoint
from lossmap.vlm.families import read_family
from lossmap.vlm.geometry import ImageGeometry
from lossmap.vlm.input_size import input_size, patch_and_merge, read_settings
from lossmap.vlm.pixel_check import check_pixels, check_views
from lossmap.vlm.pixels import in_tiles, packed, patchified, placed_patches, standardised
from lossmap.vlm.resampling import resized_window
from lossmap.vlm.tiled import TiledPreprocessor
from lossmap.vlm.view_limits import SQUARE, View
from lossmap.vlm.view_settings import tiling_of
from lossmap.vlm.views import along

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Preprocessor:
    """How one model makes pixel inputs of images. Small and picklable.

    view: see `Family`. size: (height, width) to resize to, or the length of the shortest edge. crop: (height, width) of
    the centre crop, or None. pad: colour of the margins that make an image square before all else, or None: no margins.
    resample: Pillow's filter number. scale, mean, std: byte -> (byte * scale - mean) / std. inputs: what the model
    takes. patch: side of a patch in pixels. merge, frames: Qwen's merge and temporal patch size. cell: patches
    along each side that the tower makes one of, whose side `patch` then is.
    """

    view: str
    size: tuple[int, int] | int
    crop: tuple[int, int] | None
    resample: int
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    inputs: tuple[str, ...]
    patch: int
    merge: int = 1
    frames: int = 1
    pad: tuple[int, int, int] | None = None
    cell: int = 1

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the model's input, in pixels."""
        return self.crop or cast("tuple[int, int]", self.size)  # a number alone comes with a crop

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, cols) of patches."""
        height, width = self.input_size
        return height // self.patch, width // self.patch

    def prepare(self, images: list[Image.Image]) -> dict[str, "torch.Tensor"]:
        """Resize and crop. Run it in worker processes.

        Parameters: images, decoded, RGB, upright.
        Returns: {"pixels": (images, height, width, 3) uint8}.
        Raises: ValueError if an image isn't RGB.
        """
        import torch

        pixels = np.empty((len(images), *self.input_size, 3), dtype=np.uint8)
        for i, image in enumerate(images):
            if image.mode != "RGB":
                raise ValueError(f"image {i} of the batch has mode {image.mode}, not RGB: decode it with load_image")
            pixels[i] = np.asarray(self._seen(image))
        return {"pixels": torch.from_numpy(pixels)}

    def normalise(
        self, batch: dict[str, "torch.Tensor"], device: "str | torch.device" = "cpu", dtype: "torch.dtype | None" = None
    ) -> dict[str, "torch.Tensor"]:
        """Rescale, normalise and lay out what `prepare` gave: the arguments of the model's `get_image_features`.

        Parameters: batch, from `prepare`; device, where to; dtype, of pixel_values, float32 unless given.
        Returns: pixel_values and whatever else the family takes, on the device, equal to its image processor's.
        """
        import torch

        values = standardised(batch["pixels"], self.scale, self.mean, self.std, device, dtype)
        n, _, height, width = values.shape
        extra = {}
        if "image_grid_thw" in self.inputs:
            values = patchified(values, self.patch, self.merge, self.frames)
            extra["image_grid_thw"] = torch.tensor([[1, *self.grid]], device=values.device).repeat(n, 1)
        elif "target_sizes" in self.inputs:
            values, extra["target_sizes"] = packed([values], self.patch // self.cell)
        elif "image_position_ids" in self.inputs:
            values, extra["image_position_ids"] = placed_patches(values, self.patch)
        elif "pixel_attention_mask" in self.inputs:
            values = values.unsqueeze(1)
            extra["pixel_attention_mask"] = torch.ones((n, 1, height, width), dtype=torch.int64, device=values.device)
        elif "image_sizes" in self.inputs:
            extra["image_sizes"] = torch.tensor([[height, width]], device=values.device).repeat(n, 1)
        if self.view == "base":
            values = values.unsqueeze(1)
        return {"pixel_values": values.contiguous(), **extra}

    def alike(self, sizes: list[tuple[int, int]]) -> list[list[int]]:
        """Positions of images that are alike: all."""
        return [list(range(len(sizes)))]

    def told(self) -> dict[str, Any]:
        """What embeddings keep of it, JSON."""
        return asdict(self)

    def geometry(self, width: int, height: int) -> ImageGeometry:
        """Where the patches lie on an original image of this width and height, in pixels.

        A last strip that is narrower than a patch isn't seen by the model, and isn't in the box.
        """
        (wide, high), (x, y) = self._canvas(width, height)
        resized_height, resized_width = self._sizes(wide, high)[-1]
        left, top, _, _ = self._window(resized_width, resized_height)
        right, bottom = left + self.grid[1] * self.patch, top + self.grid[0] * self.patch
        box = (
            left * wide / resized_width - x,
            top * high / resized_height - y,
            right * wide / resized_width - x,
            bottom * high / resized_height - y,
        )
        return ImageGeometry(width, height, box, *self.grid)

    def _seen(self, image: Image.Image) -> Image.Image:
        """The model's input, as bytes."""
        canvas, corner = self._canvas(*image.size)
        *before, (height, width) = self._sizes(*canvas)
        for rows, cols in before:
            image = image.resize((cols, rows), self.resample)
            canvas = image.size
        window = self._window(width, height)
        return resized_window(image, canvas, corner, self.pad or (0, 0, 0), (width, height), self.resample, window)

    def _canvas(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Width and height of an image with its margins, and left and top of the image there."""
        if self.pad is None:
            return (width, height), (0, 0)
        side = max(width, height)
        return (side, side), ((side - width) // 2, (side - height) // 2)

    def _sizes(self, width: int, height: int) -> list[tuple[int, int]]:
        """The (height, width) that an image is resized to, one after another, rounded as the processor rounds."""
        if isinstance(self.size, int):
            short, long = sorted((width, height))
            longer = int(self.size * long / short)
            return [(longer, self.size) if width <= height else (self.size, longer)]
        if self.view == "longest":
            return [along(width, height, self.size[0], even=True), self.size]
        return [self.size]

    def _window(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom of what is kept of the resized image; outside it where the crop is larger."""
        if not self.crop:
            return 0, 0, width, height
        left, top = (width - self.crop[1]) // 2, (height - self.crop[0]) // 2
        return left, top, left + self.crop[1], top + self.crop[0]


@dataclass(frozen=True)
class PaddedPreprocessor(Preprocessor):
    """The same of an image that is resized along its longer side and lies in the middle of a square of the colour `pad`
    (DeepSeek-VL, Janus). least: pixels of a side of the resized image."""

    least: int = 1

    def geometry(self, width: int, height: int) -> ImageGeometry:
        (high, wide), (left, top) = self._placed(width, height)
        x, y = width / wide, height / high
        rows, cols = self.grid
        right, bottom = cols * self.patch - left, rows * self.patch - top
        return ImageGeometry(width, height, (-left * x, -top * y, right * x, bottom * y), rows, cols)

    def _seen(self, image: Image.Image) -> Image.Image:
        (high, wide), corner = self._placed(*image.size)
        height, width = self.input_size
        square = Image.new("RGB", (width, height), self.pad or (0, 0, 0))
        square.paste(image.resize((wide, high), self.resample), corner)
        return square

    def _placed(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """(height, width) that an image is resized to, and left and top of it in the square."""
        side = self.input_size[0]
        scale = side / max(width, height)
        high, wide = (max(round(one * scale), self.least) for one in (height, width))
        return (high, wide), ((side - wide) // 2, (side - high) // 2)


@dataclass(frozen=True)
class CornerPreprocessor(PaddedPreprocessor):
    """The same of an image that lies top left in the square (Llama 3.2 Vision, of one tile). tiles: that the tower is
    given, all but the first empty."""

    tiles: int = 1

    def normalise(self, batch, device="cpu", dtype=None):
        square = super().normalise(batch, device, dtype)["pixel_values"]
        return dict(zip(self.inputs, in_tiles([square], self.tiles, [1] * len(square)), strict=True))

    def _placed(self, width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
        return fitted(width, height, self.input_size, self.input_size[0]), (0, 0)


def load_preprocessor(
    checkpoint: str | Path, revision: str | None = None, image_size: int | None = None, view: View = SQUARE
) -> Preprocessor | TiledPreprocessor:
    """The preprocessor of a checkpoint.

    Parameters: checkpoint and revision, see `resolve_checkpoint`; image_size, side of the model's square input in
        pixels: needed by families that take any size, unless the checkpoint fixes one; the others take only their own;
        view, see `view_limits`.
    Returns: a TiledPreprocessor where the view has the processor cut images, or keep their shapes.
    Raises: LossmapError if the model's input has no size that it takes (`input_size`); if it knows no such view
        (`tiling_of`); if the image processor makes other pixels (`check_pixels`); as resolve_checkpoint.
    """
    return read_preprocessor(resolve_checkpoint(checkpoint, revision), image_size, checkpoint, view)


def read_preprocessor(
    folder: Path, image_size: int | None = None, called: str | Path | None = None, view: View = SQUARE
) -> Preprocessor | TiledPreprocessor:
    """`load_preprocessor` of a folder that may lack weights. called: what messages call the checkpoint."""
    import transformers
    from transformers import AutoConfig, AutoImageProcessor

    model_type, family = read_family(folder)
    where = f"{called or folder} ({model_type})"
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(folder, **local)
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil", config=config, **local)
    except Exception as error:  # transformers raises whatever the files lead it to
        raise LossmapError(
            f"{where}: transformers can't load its configuration or its image processor, with Pillow and without code"
            f" of the checkpoint's own ({type(error).__name__}: {' '.join(str(error).split())}). Copy the files from"
            " where the model comes from, or use another checkpoint."
        ) from None
    settings = processor.to_dict()
    named = read_settings(folder).get("image_processor_type", "").removesuffix("Fast")
    # Of a name that it doesn't know, as older checkpoints have some, transformers takes the family's everywhere.
    if named not in ("", settings["image_processor_type"]) and hasattr(transformers, named):
        raise LossmapError(
            f"{where}: its image processor is {named}, which transformers has for torchvision only; Lossmap uses"
            " Pillow. Use a checkpoint with another."
        )
    red, green, blue = _three(processor.image_mean) if processor.image_mean else (0.0, 0.0, 0.0)
    shared: dict[str, Any] = {
        "resample": int(processor.resample),
        "scale": float(processor.rescale_factor) if processor.do_rescale else 1.0,
        "mean": (red, green, blue) if processor.do_normalize else (0.0, 0.0, 0.0),
        "std": _three(processor.image_std) if processor.do_normalize else (1.0, 1.0, 1.0),
        "inputs": family.inputs,
        "cell": family.cell(config) if family.cell else 1,
        "frames": getattr(config.vision_config, "temporal_patch_size", 1) if "image_grid_thw" in family.inputs else 1,
    }
    patch, merge = patch_and_merge(where, family, config, settings)
    pieces = {"patch": patch, "merge": merge, "latents": family.latents(config) if family.latents else None}
    tiling = tiling_of(where, family.own_view, settings, config, view, pieces)
    if tiling:
        if image_size:
            raise LossmapError(
                f"{where}: image_size is of a square view, and the model's view is {view}. Leave one of them out."
            )
        tiled = TiledPreprocessor(tiling=tiling, **shared, many=family.view == "base")
        check_views(where, processor, family, tiled)
        return tiled
    found = input_size(where, family, config, settings, image_size)
    padded, corner = family.view == "padded", family.view == "corner"
    pad = (int(red * 255), int(green * 255), int(blue * 255)) if found.pad or padded else None
    shared |= {"view": family.view, "size": found.size, "crop": found.crop, "patch": patch, "merge": merge, "pad": pad}
    preprocessor = Preprocessor(**shared)
    if padded:
        preprocessor = PaddedPreprocessor(**shared, least=settings["min_size"])
    if corner:
        preprocessor = CornerPreprocessor(**shared, tiles=settings["max_image_tiles"])
    check_pixels(where, processor, family, preprocessor)
    return preprocessor


def _three(value) -> tuple[float, float, float]:
    """A setting of each colour, given as three numbers or as one for all."""
    red, green, blue = (value,) * 3 if isinstance(value, int | float) else value
    return float(red), float(green), float(blue)
