"""Images -> pixel inputs of several views, or of the image's own shape, as the model's own image processor makes them.

As `preprocessing.Preprocessor`, in two halves: `prepare` cuts bytes, in worker processes; `normalise` rescales,
normalises and lays out on the device.
"""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from lossmap.store.layouts import Layout
from lossmap.vlm.canvas import Canvas
from lossmap.vlm.pixels import framed, in_tiles, packed, patchified, placed_patches, standardised
from lossmap.vlm.views import Budget, Cut, Tiling

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TiledPreprocessor:
    """How one model makes pixel inputs of images that it sees in views. Small and picklable.

    tiling: which views. resample: Pillow's filter number. scale, mean, std: byte -> (byte * scale - mean) / std.
    inputs: what the model takes. frames: Qwen's temporal patch size. many: whether pixel_values has an axis of views.
    cell: see `Preprocessor`.
    """

    tiling: Tiling
    resample: int
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    inputs: tuple[str, ...]
    frames: int = 1
    many: bool = False
    cell: int = 1

    def layout(self, width: int, height: int) -> Layout:
        """How an image of this width and height lies in the embeddings. Raises: LossmapError as `Tiling.cuts`."""
        return self.tiling.layout(width, height)

    def told(self) -> dict[str, Any]:
        """What embeddings keep of it, JSON."""
        return asdict(self) | {"tiling": {"kind": type(self.tiling).__name__, **asdict(self.tiling)}}

    def alike(self, sizes: list[tuple[int, int]]) -> list[list[int]]:
        """Positions of images (width, height) whose views have the same sizes and the same layout, in order."""
        groups: dict[Any, list[int]] = {}
        for i, (width, height) in enumerate(sizes):
            cuts = tuple(cut.size for cut in self.tiling.cuts(width, height))
            groups.setdefault((cuts, self.layout(width, height).shape), []).append(i)
        return list(groups.values())

    def prepare(self, images: list[Image.Image]) -> dict[str, "torch.Tensor"]:
        """Cut images that are alike. Run it in worker processes.

        Parameters: images, decoded, RGB, upright.
        Returns: "view 0", "view 1", ...: (images, height, width, 3) uint8; "sizes": (images, 2), height and width.
        """
        import torch

        pictures = [_pictures(image, self.tiling.cuts(*image.size), self.resample) for image in images]
        batch = {
            f"view {i}": torch.from_numpy(np.stack([np.asarray(picture) for picture in view]))
            for i, view in enumerate(zip(*pictures, strict=True))
        }
        return batch | {"sizes": torch.tensor([(image.height, image.width) for image in images])}

    def normalise(
        self, batch: dict[str, "torch.Tensor"], device: "str | torch.device" = "cpu", dtype: "torch.dtype | None" = None
    ) -> dict[str, "torch.Tensor"]:
        """Rescale, normalise and lay out what `prepare` gave: the arguments of the model's `get_image_features`.

        Parameters: batch, from `prepare`; device, where to; dtype, of pixel_values, float32 unless given.
        """
        import torch

        how = self.scale, self.mean, self.std, device, dtype
        views = [standardised(values, *how) for name, values in batch.items() if name.startswith("view ")]
        n, _, height, width = views[0].shape
        if "image_grid_thw" in self.inputs:
            patch = self.tiling.patch
            grid = torch.tensor([[1, height // patch, width // patch]], device=views[0].device).repeat(n, 1)
            return {
                "pixel_values": patchified(views[0], patch, self.tiling.merge, self.frames),
                "image_grid_thw": grid,
            }
        if isinstance(self.tiling, Budget):
            patches, places = placed_patches(views[0], self.tiling.patch, self.tiling.patches)
            return {"pixel_values": patches, "image_position_ids": places}
        if isinstance(self.tiling, Canvas):
            numbers = [self.tiling.number(wide, high) for high, wide in batch["sizes"].tolist()]
            return dict(zip(self.inputs, in_tiles(views, self.tiling.most, numbers), strict=True))
        if "target_sizes" in self.inputs:
            values, grids = packed(views, self.tiling.patch // self.cell)
            return {"pixel_values": values, "target_sizes": grids}
        if "pixel_attention_mask" in self.inputs:
            values, mask = framed(views)
            return {"pixel_values": values, "pixel_attention_mask": mask}
        values = torch.stack(views, 1)  # all of one size
        if not self.many:
            values = values.flatten(0, 1)
        if "image_sizes" not in self.inputs:
            return {"pixel_values": values}
        sizes = batch["sizes"] if self.many else torch.tensor([[height, width]]).repeat(n, 1)
        return {"pixel_values": values, "image_sizes": sizes.to(values.device)}


def _pictures(image: Image.Image, cuts: list[Cut], resample: int) -> list[Image.Image]:
    """The views of an image, as bytes. What several views are cut of is made once."""
    made: dict[Any, Image.Image] = {}
    pictures = []
    for cut in cuts:
        key = cut.region, cut.sizes, cut.canvas, cut.corner
        if key not in made:
            whole = cut.region == (0, 0, image.width, image.height)
            picture = image if whole else image.crop(cut.region)
            for height, width in cut.sizes:
                picture = picture.resize((width, height), resample)
            if cut.canvas != cut.sizes[-1]:
                canvas = Image.new("RGB", (cut.canvas[1], cut.canvas[0]))
                canvas.paste(picture, cut.corner)
                picture = canvas
            made[key] = picture
        pictures.append(made[key] if cut.size == cut.canvas else made[key].crop(cut.window))
    return pictures
