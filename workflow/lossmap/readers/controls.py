"""Connectors that learn nothing, for readers: what a learned one should beat."""

import numpy as np

from lossmap.store.layouts import Shape, Span


def control_tokens(shape: Shape, kind: str, seed: int) -> np.ndarray:
    """(tokens, g) rows of pre of an image of this shape: each token is the mean of g of them.

    Parameters: kind, "pooling": 2 x 2 patches of each view, without an odd last row or column; "random_tokens": single
        patches, drawn at random by the seed, as many as the learned connector puts out, or all.
    Source: VTC-Bench, arXiv:2510.07143, finds that plain down-sampling beats many ways to leave tokens out.
    """
    if kind == "pooling":
        spans = [
            Span(view.rows // 2, view.cols // 2, first=number, merge=2)
            for number, view in enumerate(shape.views)
            if min(view.rows, view.cols) > 1
        ]
        return Shape(shape.views, tuple(spans)).blocks.patches
    starts = zip(shape.views, shape.starts, strict=True)
    placed = np.concatenate([start + np.arange(view.rows * view.cols) for view, start in starts])
    return np.sort(np.random.default_rng(seed).permutation(placed)[: shape.tokens])[:, None]
