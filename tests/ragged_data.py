"""Ragged embeddings in memory: images of several layouts, through connectors of which everything is known."""

import numpy as np
import xarray as xr

from lossmap.store.images import RAGGED, layout_arrays
from lossmap.store.layouts import Layout, Shape, Span, ViewShape, one_view

FEATURES, WIDTH = 6, 8
# Two grids of native resolution, 2 x 2 patches a token; and a thumbnail with 1 x 2 tiles, of whose joined 4 x 8 patches
# the outer columns have no token (as after unpadding), with a line end after each row and a separator in between.
WIDE, HIGH = one_view((4, 6), (2, 3)), one_view((6, 2), (3, 1))
EACH = one_view((2, 5), (2, 5))
TILED = Shape(
    (ViewShape(4, 4), ViewShape(4, 4, "tile"), ViewShape(4, 4, "tile")),
    (Span(4, 4), Span(1, 0), Span(4, 6, first=1, tiles=(1, 2), left=1, newline=1)),
)
# Latents of each view, and a class token before the patches of the first.
LATENTS = Shape((ViewShape(4, 6, extra=1),), (Span(5, 0),))
TILED_LATENTS = Shape((ViewShape(3, 5), ViewShape(4, 4, "tile"), ViewShape(2, 4, "tile")), (Span(5, 0),) * 3)


def dataset(shapes, pre, post, seed=0):
    """A ragged Dataset of images of these shapes: pre (patches, d) and post (tokens, d2), all images together."""
    layouts = [Layout(80, 60, shape, ((0.0, 0.0, 80.0, 60.0),) * len(shape.views)) for shape in shapes]
    arrays = layout_arrays(layouts)
    variables = {name: (dimensions, arrays[name]) for name, dimensions in RAGGED.items() if name in arrays}
    variables["size"] = ("image", "side"), arrays["size"]
    for name, values, axis in (("pre", pre, "feature"), ("post", post, "feature_out")):
        values = np.asarray(values, dtype=np.float32)
        variables[name] = RAGGED[name], values
        cuts = arrays[f"{'patch' if name == 'pre' else 'token'}_offset"][1:-1]
        variables[f"{name}_mean"] = ("image", axis), np.stack([rows.mean(0) for rows in np.split(values, cuts)])
    ids = [f"image-{i}" for i in range(len(shapes))]
    return xr.Dataset(variables, {"image_id": ("image", ids)}, {"pre_grid": None, "post_grid": None, "key": {}})


def mixed(shapes, n):
    """n of these shapes, in an order that repeats in no short period."""
    return [shapes[i] for i in np.random.default_rng(5).integers(0, len(shapes), n)]


def patches_of(shapes, seed=0):
    """pre (sum of patches, FEATURES)."""
    return 2 + np.random.default_rng(seed).normal(size=(sum(shape.patches for shape in shapes), FEATURES))


def through(shapes, pre, function, line=0.5):
    """post in which each token that has a place is a function of its patches, (t, g * d); others are a constant."""
    posts, row = [], 0
    for shape in shapes:
        tokens, patches = shape.blocks
        made = function(pre[row : row + shape.patches][patches].reshape(len(tokens), -1))
        post = np.full((shape.tokens, made.shape[1]), line)
        post[tokens] = made
        posts.append(post)
        row += shape.patches
    return np.concatenate(posts)


def identity(shapes, seed=0):
    """Each token is its patches, turned."""
    pre = patches_of(shapes, seed)
    width = FEATURES * shapes[0].blocks.patches.shape[1]
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(width, width)))[0]
    return dataset(shapes, pre, through(shapes, pre, lambda block: block @ turn))


def lossy(shapes, seed=0):
    """Each token is a bent random map of its patches."""
    pre = patches_of(shapes, seed)
    matrix = np.random.default_rng(2).normal(size=(FEATURES * shapes[0].blocks.patches.shape[1], WIDTH))
    return dataset(shapes, pre, through(shapes, pre, lambda block: np.tanh((block - 2) @ matrix / 5)))


def latents(shapes, seed=0, noise=0.05):
    """Tokens without a place, each a random map of the mean patch of its view, and pre that varies with its place.
    noise: what is added to tokens."""
    rng, draw = np.random.default_rng(seed), np.random.default_rng(3)
    mixing, slope = draw.normal(size=(5, FEATURES, WIDTH)), draw.normal(size=(2, FEATURES))
    pres, posts = [], []
    for shape in shapes:
        for view in shape.views:
            level = rng.normal(size=FEATURES)
            y, x = np.mgrid[: view.rows, : view.cols]
            place = np.stack([(y + 0.5) / view.rows, (x + 0.5) / view.cols], -1).reshape(-1, 2)
            rows = level * (1 + place[:, :1]) + place @ slope + 0.05 * rng.normal(size=(len(place), FEATURES))
            pres += [np.full((view.extra, FEATURES), 50.0), rows]
            posts.append(level @ mixing + noise * rng.normal(size=(5, WIDTH)))
    return dataset(shapes, np.concatenate(pres), np.concatenate(posts))
