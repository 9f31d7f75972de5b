"""How connectors cut a grid of patches into blocks, one for each token, and whether it can be cut. It loads nothing."""

import math
from collections.abc import Sequence

from lossmap.errors import LossmapError

OF_STORE = ("own", "other_image", "other_image_and_patch")  # kinds whose post is that of the store
Grid = Sequence[int]  # rows, columns


def sides_of_blocks(kind: str, pre_grid: Grid, post_grid: Grid | None, tokens: int) -> list[tuple[int, int]] | None:
    """(tokens, patches per token) along the rows and along the columns of the patch grid; None where tokens have no
    place.

    Parameters: kind, of the connector; pre_grid, post_grid (None where the model's tokens have no place) and tokens,
        of the model's connector.
    Raises: LossmapError if the grid can't be cut so.
    """
    if kind in OF_STORE and post_grid is None:
        return None
    if kind == "pooling":
        wanted: Grid = [side // 2 for side in pre_grid]
    else:
        wanted = _token_grid(kind, pre_grid, tokens) if post_grid is None else post_grid
    sides = []
    for patches, count in zip(pre_grid, wanted, strict=True):
        if count < 1 or patches % count or (kind == "pooling" and patches != 2 * count):
            blocks = "2 x 2" if kind == "pooling" else f"{' x '.join(map(str, wanted))} equal"
            raise LossmapError(
                f"Connector {kind}: a grid of {' x '.join(map(str, pre_grid))} patches can't be cut into {blocks} "
                "blocks. Leave this connector out for this model."
            )
        sides.append((count, patches // count))
    return sides


def components_per_patch(rank: int | None, pre_shape: tuple[int, int], post_shape: tuple[int, int]) -> int:
    """Of the control pca: its rank, by default such that it gives as many numbers as the model's connector.

    Parameters: pre_shape (patches, features), post_shape (tokens, features) of the model.
    Raises: LossmapError if that is none of 1 to the features of a patch.
    """
    patches, features = pre_shape
    rank = rank or min(features, post_shape[0] * post_shape[1] // patches)
    if not 1 <= rank <= features:
        raise LossmapError(f"Control pca: rank is {rank}; wanted 1 to {features}, the features of a patch.")
    return rank


def _token_grid(kind: str, pre_grid: Grid, tokens: int) -> Grid:
    """(rows, columns) of tokens without a place, such that blocks are as square as the grid allows."""
    rows, columns = pre_grid
    grids = [(r, tokens // r) for r in range(1, tokens + 1) if not (tokens % r or rows % r or columns % (tokens // r))]
    if not grids:
        raise LossmapError(
            f"Control {kind}: {rows} x {columns} patches can't be cut into {tokens} equal blocks, one for each token "
            "of the model's connector. Leave this control out for this model."
        )
    return min(grids, key=lambda grid: abs(math.log(rows / grid[0]) - math.log(columns / grid[1])))
