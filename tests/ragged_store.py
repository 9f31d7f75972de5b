"""Small ragged embeddings whose every number is known: images seen in one view, in tiles, and through queries."""

import numpy as np

from lossmap.store import write_index, write_part
from lossmap.store.layouts import Layout, Shape, Span, ViewShape, one_view

WIDTH, WIDTH_OUT = 6, 5  # features before and after the connector
HOW = {"model": "toy", "pre_grid": None, "post_grid": None, "key": {"checkpoint": "toy", "revision": None}}


def random_layout(rng):
    """One view with merged tokens, a whole view and unpadded tiles with newlines, or queries after a class token."""
    width, height = map(int, rng.integers(20, 2000, 2))
    match rng.integers(3):
        case 0:
            rows, cols = 2 * rng.integers(1, 5, 2)
            shape = one_view((int(rows), int(cols)), (int(rows) // 2, int(cols) // 2))
        case 1:
            high, wide = map(int, rng.integers(1, 4, 2))
            cut = int(rng.integers(0, 2))
            tiles = tuple(ViewShape(3, 3, "tile") for _ in range(high * wide))
            window = Span(3 * high - 2 * cut, 3 * wide, 1, (high, wide), top=cut, newline=1)
            shape = Shape((ViewShape(3, 3), *tiles), (Span(3, 3), window))
        case _:
            shape = Shape((ViewShape(*map(int, rng.integers(1, 6, 2)), extra=1),), (Span(4, 0),))
    edges = rng.uniform(0, 20, (len(shape.views), 4)).astype("float32") + np.float32([0, 0, 30, 30])
    return Layout(width, height, shape, tuple(tuple(box) for box in edges.astype(float).tolist()))


def connect(pre, shape):
    """The toy model's connector: (b, patches, WIDTH) -> (b, tokens, WIDTH_OUT), a random map of blocks' means."""
    mixing = np.random.default_rng(1).normal(size=(WIDTH, WIDTH_OUT))
    post = np.repeat(pre.astype("float64").mean(axis=1, keepdims=True), shape.tokens, axis=1)
    post += np.arange(shape.tokens)[:, None] / 10
    tokens, patches = shape.blocks
    if len(tokens):
        post[:, tokens] = pre.astype("float64")[:, patches].mean(axis=2)
    return post @ mixing


def images(layouts, seed=0, dtype="float16"):
    """pre and post of each image, lists of arrays."""
    rng = np.random.default_rng(seed)
    pre = [rng.normal(size=(layout.shape.patches, WIDTH)).astype(dtype) for layout in layouts]
    return pre, [connect(x[None], layout.shape)[0].astype(dtype) for x, layout in zip(pre, layouts, strict=True)]


def batches(layouts, pre, post, size=4):
    """What `embed_images` yields of these images."""
    for start in range(0, len(layouts), size):
        some = slice(start, start + size)
        yield {
            "pre": np.concatenate(pre[some]),
            "post": np.concatenate(post[some]),
            "pre_mean": np.stack([x.mean(0, dtype="float32") for x in pre[some]]),
            "post_mean": np.stack([x.mean(0, dtype="float32") for x in post[some]]),
            "layouts": layouts[some],
        }


def write_ragged(index, layouts, pre, post, parts=(), dtype="float16", store_post=True, size=4, how=HOW):
    """Write images as a store, cut into parts before the given images. Returns the index."""
    paths = []
    for rows in np.split(np.arange(len(layouts)), list(parts)):
        first, stop = int(rows[0]), int(rows[-1]) + 1
        paths.append(index.parent / f"{index.stem}/part-{first:06d}-{stop:06d}.zarr")
        some = slice(first, stop)
        ids = [f"image-{i}" for i in rows]
        write_part(batches(layouts[some], pre[some], post[some], size), paths[-1], ids, dtype, how, store_post)
    write_index(paths, index)
    return index
