"""The second half of preprocessing: bytes on the device -> the arguments of a model's `get_image_features`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def standardised(
    pixels: "Tensor",
    scale: float,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    device: "str | torch.device" = "cpu",
    dtype: "torch.dtype | None" = None,
) -> "Tensor":
    """(n, height, width, 3) uint8 -> (n, 3, height, width) on the device: (byte * scale - mean) / std, in float32, then
    rounded to dtype, float32 unless given."""
    import torch

    values = pixels.to(device, non_blocking=True).permute(0, 3, 1, 2).to(torch.float32)
    centre, spread = (torch.tensor(v, device=values.device).view(3, 1, 1) for v in (mean, std))
    return (values.mul_(scale).sub_(centre).div_(spread)).to(dtype or torch.float32)


def patchified(values: "Tensor", patch: int, merge: int, frames: int) -> "Tensor":
    """(n, 3, height, width) -> (n * patches, 3 * frames * patch * patch), patches in merge blocks; a still image is
    `frames` equal frames (Qwen)."""
    n, _, height, width = values.shape
    rows, cols, m, p = height // patch, width // patch, merge, patch
    blocks = values.reshape(n, 3, rows // m, m, p, cols // m, m, p).permute(0, 2, 5, 3, 6, 1, 4, 7)
    blocks = blocks.unsqueeze(6).expand(*blocks.shape[:6], frames, p, p)
    return blocks.reshape(n * rows * cols, -1)


def placed_patches(values: "Tensor", patch: int, length: int = 0) -> tuple["Tensor", "Tensor"]:
    """(n, 3, height, width) -> (n, patches, patch * patch * 3), in raster order, and each patch's column and row
    (n, patches, 2) int64; both padded to `length` patches, with zeros and with -1 (Gemma 4)."""
    import torch

    n, _, height, width = values.shape
    rows, cols = height // patch, width // patch
    patches = values.reshape(n, 3, rows, patch, cols, patch).permute(0, 2, 4, 3, 5, 1).reshape(n, rows * cols, -1)
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(cols)).flip(1).to(values.device)
    padding = (0, 0, 0, max(length - rows * cols, 0))
    places = torch.nn.functional.pad(places, padding, value=-1)
    return torch.nn.functional.pad(patches, padding), places.repeat(n, 1, 1)


def packed(views: Sequence["Tensor"], patch: int) -> tuple["Tensor", "Tensor"]:
    """Views (n, 3, height, width) of any sizes -> (1, 3, patch, patch * patches of all), the views of each image one
    after another, patches in raster order; rows and columns of patches of each (n * views, 2) int32 (MiniCPM-V)."""
    import torch

    rows = []
    for view in views:
        n, _, height, width = view.shape
        cells = view.reshape(n, 3, height // patch, patch, width // patch, patch).permute(0, 1, 3, 2, 4, 5)
        rows.append(cells.reshape(n, 3, patch, -1))
    values = torch.cat(rows, -1).permute(1, 2, 0, 3).flatten(2).unsqueeze(0)
    sizes = torch.tensor([(view.shape[2] // patch, view.shape[3] // patch) for view in views], dtype=torch.int32)
    return values, sizes.repeat(len(views[0]), 1).to(values.device)


def in_tiles(tiles: Sequence["Tensor"], most: int, numbers: Sequence[int]) -> tuple["Tensor", "Tensor", "Tensor"]:
    """Tiles (n, 3, side, side) of images with as many each, followed by empty ones (Llama 3.2 Vision).

    numbers: of each image's grid.
    Returns: (n, 1, most, 3, side, side); numbers (n, 1) int64; (n, 1, most) int64, 1 where a tile is.
    """
    import torch

    shown = torch.stack(list(tiles), 1)
    n, count = shown.shape[:2]
    values = torch.cat([shown, shown.new_zeros(n, most - count, *shown.shape[2:])], 1).unsqueeze(1)
    mask = (torch.arange(most, device=shown.device) < count).long().expand(n, 1, most)
    return values, torch.tensor(numbers, device=shown.device).reshape(n, 1), mask


def framed(views: Sequence["Tensor"]) -> tuple["Tensor", "Tensor"]:
    """Views (n, 3, height, width) of any sizes, top left in a frame that holds each, zeros around (Idefics).

    Returns: (n, views, 3, height, width); (n, views, height, width) int64, 1 where a view is.
    """
    import torch

    n = len(views[0])
    height, width = (max(view.shape[axis] for view in views) for axis in (2, 3))
    values = views[0].new_zeros((n, len(views), 3, height, width))
    mask = torch.zeros((n, len(views), height, width), dtype=torch.int64, device=values.device)
    for i, view in enumerate(views):
        values[:, i, :, : view.shape[2], : view.shape[3]] = view
        mask[:, i, : view.shape[2], : view.shape[3]] = 1
    return values, mask
