"""Images -> pixel inputs, as each model's own transformers image processor makes them, in two halves.

`Preprocessor.prepare` resizes and crops to bytes, in worker processes; `Preprocessor.normalise` rescales, normalises
and lays out on the device. Together they give what the image processor gives (tests compare all families), without its
cost for each image and with a quarter of the bytes to move. Sizes, filter and normalisation are the image processor's.
Always one view of the whole image: no tiles, no splitting, no pan and scan.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from lossmap.errors import LossmapError
from lossmap.vlm.checkpoints import resolve_checkpoint
from lossmap.vlm.families import read_family
from lossmap.vlm.geometry import ImageGeometry

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Preprocessor:
    """How one model makes pixel inputs of images. Small and picklable.

    view: see `Family`. size: (height, width) to resize to, or the length of the shortest edge. crop: (height, width) of
    the centre crop, or None. resample: Pillow's filter number. scale, mean, std: byte -> (byte * scale - mean) / std.
    inputs: what the model takes. patch: side of a patch in pixels. merge, frames: Qwen's merge and temporal patch size.
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

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the model's input, in pixels."""
        return self.crop or self.size

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
            for height, width in self._sizes(image.width, image.height):
                image = image.resize((width, height), self.resample)
            if self.crop:
                left, top = self._corner(image.width, image.height)
                image = image.crop((left, top, left + self.crop[1], top + self.crop[0]))
            pixels[i] = image
        return {"pixels": torch.from_numpy(pixels)}

    def normalise(
        self, batch: dict[str, "torch.Tensor"], device: "str | torch.device" = "cpu", dtype: "torch.dtype | None" = None
    ) -> dict[str, "torch.Tensor"]:
        """Rescale, normalise and lay out what `prepare` gave: the arguments of the model's `get_image_features`.

        Parameters: batch, from `prepare`; device, where to; dtype, of pixel_values, float32 unless given.
        Returns: pixel_values and whatever else the family takes, on the device, equal to its image processor's.
        """
        import torch

        pixels = batch["pixels"].to(device, non_blocking=True).permute(0, 3, 1, 2).to(torch.float32)
        mean, std = (torch.tensor(v, device=pixels.device).view(3, 1, 1) for v in (self.mean, self.std))
        values = (pixels.mul_(self.scale).sub_(mean).div_(std)).to(dtype or torch.float32)
        n, _, height, width = values.shape
        extra = {}
        if "image_grid_thw" in self.inputs:
            values = self._patchify(values)
            extra["image_grid_thw"] = torch.tensor([[1, *self.grid]], device=values.device).repeat(n, 1)
        elif "pixel_attention_mask" in self.inputs:
            values = values.unsqueeze(1)
            extra["pixel_attention_mask"] = torch.ones((n, 1, height, width), dtype=torch.int64, device=values.device)
        elif "image_sizes" in self.inputs:
            extra["image_sizes"] = torch.tensor([[height, width]], device=values.device).repeat(n, 1)
        if self.view == "base":
            values = values.unsqueeze(1)
        return {"pixel_values": values.contiguous(), **extra}

    def geometry(self, width: int, height: int) -> ImageGeometry:
        """Where the patches lie on an original image of this width and height, in pixels.

        A last strip that is narrower than a patch isn't seen by the model, and isn't in the box.
        """
        resized_height, resized_width = self._sizes(width, height)[-1]
        left, top = self._corner(resized_width, resized_height) if self.crop else (0, 0)
        right, bottom = left + self.grid[1] * self.patch, top + self.grid[0] * self.patch
        box = (
            left * width / resized_width,
            top * height / resized_height,
            right * width / resized_width,
            bottom * height / resized_height,
        )
        return ImageGeometry(width, height, box, *self.grid)

    def _sizes(self, width: int, height: int) -> list[tuple[int, int]]:
        """The (height, width) that an image is resized to, one after another, rounded as the processor rounds."""
        if isinstance(self.size, int):
            short, long = sorted((width, height))
            longer = int(self.size * long / short)
            return [(longer, self.size) if width <= height else (self.size, longer)]
        if self.view == "longest":
            return [_along_longest(width, height, self.size[0]), self.size]
        return [self.size]

    def _corner(self, width: int, height: int) -> tuple[int, int]:
        """Left and top of the centre crop in the resized image; negative where it's padded."""
        return (width - self.crop[1]) // 2, (height - self.crop[0]) // 2

    def _patchify(self, values: "torch.Tensor") -> "torch.Tensor":
        """(n, 3, height, width) -> (n * patches, 3 * frames * patch * patch), patches in merge blocks; a still image is
        `frames` equal frames."""
        n = len(values)
        (rows, cols), m, p = self.grid, self.merge, self.patch
        blocks = values.reshape(n, 3, rows // m, m, p, cols // m, m, p).permute(0, 2, 5, 3, 6, 1, 4, 7)
        blocks = blocks.unsqueeze(6).expand(*blocks.shape[:6], self.frames, p, p)
        return blocks.reshape(n * rows * cols, -1)


def load_preprocessor(
    checkpoint: str | Path, revision: str | None = None, image_size: int | None = None
) -> Preprocessor:
    """The preprocessor of a checkpoint.

    Parameters: checkpoint and revision, see `resolve_checkpoint`; image_size, side of the model's square input in
        pixels: needed by families that take any size, unless the checkpoint fixes one; the others take only their own.
    Raises: LossmapError if image_size is missing, isn't a multiple of the patch (and merge) size, or differs from the
        only one that the model takes; if the processor's settings lead to no fixed input size; as resolve_checkpoint.
    """
    return read_preprocessor(resolve_checkpoint(checkpoint, revision), image_size, checkpoint)


def read_preprocessor(folder: Path, image_size: int | None = None, called: str | Path | None = None) -> Preprocessor:
    """`load_preprocessor` of a folder that may lack weights. called: what messages call the checkpoint."""
    from transformers import AutoConfig, AutoImageProcessor

    model_type, family = read_family(folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    processor = AutoImageProcessor.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, backend="pil", config=config
    )
    where = f"{called or folder} ({model_type})"
    patch = _square(config.vision_config.patch_size)
    merge = family.merge(config) if family.merge else 1
    size = _setting(processor, "size")
    crop = None
    if not processor.do_resize:
        raise LossmapError(
            f"{where}: its image processor says do_resize: false, so inputs have no fixed size. Set it true."
        )
    if family.view in ("any", "longest"):
        side = image_size or _own_side(family.view, size, _setting(processor, "max_image_size"), patch, processor)
        if side is None:
            raise LossmapError(
                f"{where}: takes images of any size. Set the model's image_size to the side of the square that every"
                f" image is resized to, a multiple of {patch * merge}, say {336 // (patch * merge) * patch * merge}."
            )
        if side < patch * merge or side % (patch * merge):
            below = max(side // (patch * merge), 1) * patch * merge
            raise LossmapError(
                f"{where}: image_size {side} is not a multiple of {patch * merge}, the side of"
                f" {'a patch' if merge == 1 else f'{merge} x {merge} patches'}."
                f" Take {below} or {below + patch * merge}."
            )
        resize = (side, side)
    else:
        resize, crop = _fixed(processor, size, family.view)
        given = crop or resize
        if not isinstance(given, tuple):
            raise LossmapError(
                f"{where}: its image processor's size is {size} without a centre crop, so inputs have no fixed"
                " size. Use a checkpoint with do_center_crop, or with size as height and width."
            )
        if image_size and given != (image_size, image_size):
            raise LossmapError(
                f"{where}: takes inputs of {given[1]} x {given[0]} pixels only, but image_size is {image_size}. Leave"
                " image_size out."
            )
    return Preprocessor(
        view=family.view,
        size=resize,
        crop=crop,
        resample=int(processor.resample),
        scale=float(processor.rescale_factor) if processor.do_rescale else 1.0,
        mean=tuple(map(float, processor.image_mean)) if processor.do_normalize else (0.0, 0.0, 0.0),
        std=tuple(map(float, processor.image_std)) if processor.do_normalize else (1.0, 1.0, 1.0),
        inputs=family.inputs,
        patch=patch,
        merge=merge,
        frames=getattr(config.vision_config, "temporal_patch_size", 1) if "image_grid_thw" in family.inputs else 1,
    )


def _setting(processor, name: str) -> dict[str, int]:
    value = getattr(processor, name, None)
    return {k: v for k, v in dict(value).items() if v is not None} if value else {}


def _square(size) -> int:
    """A patch size given as one number or as two equal ones."""
    return int(size if isinstance(size, int) else size[0])


def _fixed(processor, size: dict[str, int], view: str) -> tuple[tuple[int, int] | int | None, tuple[int, int] | None]:
    """What a family of fixed input size resizes to, and crops to; None for what the settings don't say."""
    if "shortest_edge" in size:
        resize = (size["shortest_edge"],) * 2 if view == "base" else size["shortest_edge"]
    elif {"height", "width"} <= set(size):
        resize = (size["height"], size["width"])
    else:
        return None, None
    crop = _setting(processor, "crop_size")
    if getattr(processor, "do_center_crop", None) and crop and (crop["height"], crop["width"]) != resize:
        return resize, (crop["height"], crop["width"])
    return resize, None


def _own_side(view: str, size: dict[str, int], largest: dict[str, int], patch: int, processor) -> int | None:
    """The side that a checkpoint of a family that takes any size fixes, if it does."""
    if view == "longest":
        return largest.get("longest_edge")
    shortest, longest = size.get("shortest_edge"), size.get("longest_edge")
    if shortest is None or shortest != longest:
        return None
    if hasattr(processor, "merge_size"):  # Qwen counts pixels, not edges
        side = round(shortest**0.5)
        return side if side**2 == shortest else None
    return shortest


def _along_longest(width: int, height: int, side: int) -> tuple[int, int]:
    """(height, width) of an image scaled to `side` along its longer edge, the other edge truncated and made even."""
    aspect = width / height
    if width >= height:
        new_width, new_height = side, int(side / aspect)
        new_height += new_height % 2
    else:
        new_width, new_height = int(side * aspect), side
        new_width += new_width % 2
    return max(new_height, 1), max(new_width, 1)
