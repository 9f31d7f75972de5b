"""How patches lie where they enter a connector.

First what a hook sees there -> the same numbers in raster order (`Family.to_raster`), then pre in raster order -> what
the connector takes (`Family.arguments`). All take pre, the model's configuration and the grid (rows, columns) of one
view. Importing it needs neither torch nor transformers.
"""

from lossmap.vlm import family_sizes as sizes


def raster(pre, config, grid):
    """(images * patches, features) already in raster order."""
    return pre


def pixel_shuffled(pre, config, grid):
    """Squares of s x s patches were concatenated along the features before the connector: take them apart again."""
    return _apart(pre, grid, sizes.inverse_ratio(config))


def strided(pre, config, grid):
    """Ovis2: the same."""
    return _apart(pre, grid, sizes.stride(config))


def merge_blocks(pre, config, grid):
    """Patches come in blocks of m x m, the blocks in raster order."""
    return _from_blocks(pre, config, grid, None)


def windows(pre, config, grid):
    """Patches come in blocks of m x m, and the blocks by attention window."""
    import torch
    from transformers.vision_utils import get_vision_window_index

    vision = config.vision_config
    thw = torch.tensor([[1, *grid]])
    order, _ = get_vision_window_index(thw, vision.spatial_merge_size, vision.window_size, vision.patch_size)
    return _from_blocks(pre, config, grid, order)


def squares_and_grids(pre, config, grid):
    """ERNIE: and frames, rows and columns of each image."""
    import torch

    return *squares_listed(pre, config, grid), torch.tensor([[1, *grid]] * len(pre), device=pre.device)


def maps(pre, config, grid):
    """(images, features, rows, columns)."""
    return pre.flatten(2).transpose(1, 2)


def unpadded(pre, config, grid):
    """Gemma 4: raster, then what pads an image to its budget of patches."""
    return pre[:, : grid[0] * grid[1]]


def map_blocks(pre, config, grid):
    """GLM: blocks of m x m as small maps, (blocks, features, m, m), in raster order."""
    return merge_blocks(maps(pre, config, grid), config, grid)


def _apart(pre, grid, s):
    (rows, cols), features = grid, pre.shape[-1] // s**2
    cells = pre.reshape(-1, rows // s, cols // s, s, s, features)
    return cells.permute(0, 1, 3, 2, 4, 5)


def _from_blocks(pre, config, grid, block_order):
    import torch

    (rows, cols), m = grid, config.vision_config.spatial_merge_size
    blocks = torch.arange(rows * cols).view(rows // m, m, cols // m, m).permute(0, 2, 1, 3).reshape(-1, m * m)
    position = (blocks if block_order is None else blocks[block_order]).flatten()  # row r of pre is this raster patch
    return pre.reshape(-1, rows * cols, pre.shape[-1])[:, position.argsort().to(pre.device)]


def as_it_is(pre, config, grid):
    return (pre,)


def spaced(pre, config, grid):
    """LLaVA: patches that don't follow on each other in memory, as where a tower cut its class token off. PyTorch then
    rounds between product and bias too, which in bfloat16 moves post by 4 thousandths."""
    features = pre.shape[2]
    held = pre.new_empty((*pre.shape[:2], features + 1))
    held[..., :features] = pre
    return (held[..., :features],)


def with_mask(pre, config, grid):
    """Idefics2: and which patches are no padding: all of them."""
    import torch

    return pre, torch.ones(pre.shape[:2], dtype=torch.bool, device=pre.device)


def with_sizes(pre, config, grid):
    """Mistral 3: all images in one list, and each one's size in pixels."""
    patch = config.vision_config.patch_size
    return pre.flatten(0, 1), [(grid[0] * patch, grid[1] * patch)] * len(pre)


def with_places(pre, config, grid):
    """And each patch's column and row, that none is padding, and the number of tokens."""
    import torch

    (rows, cols), (images, patches, _) = grid, pre.shape
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(cols)).flip(1).to(pre.device)
    padding = torch.zeros(images, patches, dtype=torch.bool, device=pre.device)
    return pre, places.expand(images, -1, -1), padding, patches // sizes.pooled_squares(config) ** 2


def squares_joined(pre, config, grid):
    """InternVL: the patches of each square side by side along the features."""
    return (_squares(pre, grid, sizes.inverse_ratio(config)).flatten(2),)


def squares_of_stride(pre, config, grid):
    """Ovis2: the same."""
    return (_squares(pre, grid, sizes.stride(config)).flatten(2),)


def squares_listed(pre, config, grid):
    """Qwen: all images in one list, square by square. A square's token depends on the square alone, so that it needs no
    windows and gives tokens in raster order."""
    return (_squares(pre, grid, sizes.spatial_merge(config)).flatten(0, 2),)


def as_maps(pre, config, grid):
    return (pre.transpose(1, 2).unflatten(2, grid),)


def squares_as_maps(pre, config, grid):
    m = sizes.spatial_merge(config)
    squares = _squares(pre, grid, m).flatten(0, 1)
    return (squares.transpose(1, 2).unflatten(2, (m, m)),)


def packed(pre, config, grid):
    """MiniCPM-V: all views in one row, and the grid of each."""
    import torch

    return pre.reshape(1, -1, pre.shape[-1]), torch.tensor([grid] * len(pre), device=pre.device)


def _squares(pre, grid, side):
    """(images, squares, side * side, features): patches by squares of side x side, squares in raster order."""
    (rows, cols), (images, _, features) = grid, pre.shape
    cells = pre.reshape(images, rows // side, side, cols // side, side, features).permute(0, 1, 3, 2, 4, 5)
    return cells.reshape(images, -1, side * side, features)
