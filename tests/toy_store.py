"""A small embedding store whose every number is known: smooth images with features that depend on each other."""

import numpy as np

from lossmap.store import PartWriter, write_index

GRID, FEATURES = (4, 4), 6  # pre: 16 patches of 6 features
TOKENS, WIDTH = 4, 8  # post: 4 tokens of 8 features


def embeddings(n=600, seed=0):
    """pre (n, 16, 6) with places, neighbours and features that correlate; post (n, 4, 8), a bent random map of it."""
    rng = np.random.default_rng(seed)
    smooth = rng.normal(size=(n, 2, 2, 4)).repeat(2, axis=1).repeat(2, axis=2)
    latent = smooth + 0.7 * rng.normal(size=(n, *GRID, 4)) + rng.normal(size=(1, *GRID, 4))
    pre = latent.reshape(n, 16, 4) @ rng.normal(size=(4, FEATURES)) + 0.3 * rng.normal(size=(n, 16, FEATURES)) + 5
    blocks = pre.reshape(n, 2, 2, 2, 2, FEATURES).transpose(0, 1, 3, 2, 4, 5).reshape(n, TOKENS, 4 * FEATURES)
    return pre, np.tanh(blocks @ rng.normal(size=(4 * FEATURES, WIDTH)) / 20) * 3 + 1


def write_store(index, pre, post, parts=(), pre_grid=GRID, post_grid=(2, 2), dtype="float16", store_post=True, made=()):
    """Write arrays as a store, cut into parts before the given images; made, the provenance of each part, if any.
    Returns the index."""
    how = {"model": "toy", "pre_grid": list(pre_grid), "post_grid": post_grid and list(post_grid), "key": {}}
    paths = []
    for number, rows in enumerate(np.split(np.arange(len(pre)), list(parts))):
        paths.append(index.parent / f"{index.stem}/part-{rows[0]:06d}-{rows[-1] + 1:06d}.zarr")
        ids = [f"image-{i}" for i in rows]
        writer = PartWriter(
            paths[-1], ids, pre.shape[1:], post.shape[1:], dtype, how, store_post, made[number] if made else None
        )
        box, size = np.tile([0.0, 0, 8, 8], (len(rows), 1)), np.full((len(rows), 2), 8)
        means = {"pre_mean": pre[rows].mean(1), "post_mean": post[rows].mean(1)}
        writer.append(pre=pre[rows], post=post[rows], box=box, size=size, **means)
        writer.close()
    write_index(paths, index)
    return index
