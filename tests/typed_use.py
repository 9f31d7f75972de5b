"""A user's module: every public name, with the type that it has there. `make types` checks it; nothing runs it."""

from pathlib import Path
from typing import assert_type

import numpy as np
import torch
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from numpy.typing import NDArray
from PIL import Image

import lossmap
from lossmap.measures.procrustes import Alignment, Procrustes
from lossmap.measures.result import Measured
from lossmap.measures.statistics import MeanInterval
from lossmap.reconstruct.evaluation import Reconstructor
from lossmap.reconstruct.ladder import Ladder
from lossmap.reconstruct.trained import Trained
from lossmap.reconstruct.verdict import Interval, Reached, Verdict
from lossmap.vlm.loading import VisionSide


def models(loaded: torch.nn.Module, processor: object) -> VisionSide:
    try:
        model = lossmap.open_model("workflow/zoo/llava", image_size=None, dtype="bfloat16", device="cpu")
        lossmap.open_model(Path("folder"), revision="0" * 40)
    except lossmap.LossmapError as error:
        assert_type(error, lossmap.LossmapError)
        model = lossmap.open_model(loaded, processor)
    assert_type(model.pre_grid, tuple[int, int] | None)
    assert_type(model.post_grid, tuple[int, int] | None)
    assert_type(model.checkpoint, str | None)
    assert_type(model.device, torch.device)
    return model


def embeddings(model: VisionSide, array: NDArray[np.uint8]) -> xr.Dataset:
    pictures = lossmap.miniature_images(300, seed=1)
    assert_type(pictures, list[Image.Image])
    assert_type(lossmap.embed(model, pictures), xr.Dataset)
    lossmap.embed(model, array)
    lossmap.embed(model, "image.png", dtype="float16", threads=2)
    lossmap.embed(model, [Path("image.png"), pictures[0], array], image_ids=["a", "b", "c"], store="folder/store.json")
    assert_type(lossmap.open_embeddings(Path("folder/store.json"), device="cpu"), xr.Dataset)
    vectors, lists = torch.zeros(9, 4), [[0.5, 1.0], [1.0, 0.0]]
    lossmap.select_images(lossmap.from_arrays(vectors, vectors), [0])
    lossmap.from_arrays(lists, vectors, pre_grid=(1, 1), post_grid=[1, 1], image_ids=range(9))
    return lossmap.from_arrays(np.zeros((9, 4, 3)), np.zeros((9, 2)))


def measures(found: xr.Dataset, before: NDArray[np.float32], after: torch.Tensor) -> None:
    overlap = lossmap.neighbour_overlap(found, k=5, metric="cosine", equal="count", permutations=0)
    assert_type(overlap, Measured)
    assert_type(lossmap.neighbour_overlap(before, after), Measured)
    assert_type((overlap.value, overlap.n, overlap.p), tuple[float, int, float | None])
    assert_type(overlap.interval, MeanInterval)
    assert_type(overlap.interval.low, float)
    assert_type(overlap.per_item, NDArray[np.float64] | None)
    aligned = lossmap.procrustes(found, rng=np.random.default_rng(0))
    assert_type(aligned, Procrustes)
    assert_type(lossmap.procrustes(before, after, resamples=100), Procrustes)
    assert_type(aligned.error, Measured)
    assert_type(aligned.unexplained, dict[str, Measured])
    assert_type(aligned.alignment, Alignment)
    assert_type(aligned.alignment.errors, NDArray[np.float64])
    assert_type(lossmap.cka(found), Measured)
    assert_type(lossmap.cka([[1.0], [2.0], [4.0], [3.0]], before, confidence=0.9), Measured)


def reconstruction(found: xr.Dataset, pre: NDArray[np.float32], post: torch.Tensor) -> None:
    trained = lossmap.train_reconstructor((pre, post), "ridge", training={"epochs": 5}, device="cpu")
    assert_type(trained, Trained)
    lossmap.train_reconstructor(found, {"kind": "mlp", "widths": [64]}, held_out=0.1)
    assert_type(trained.reconstructor, Reconstructor)
    assert_type(trained.reconstruct(post), NDArray[np.float32])
    trained.save("folder")
    read = lossmap.open_reconstructor("folder", "ridge", share=50)
    assert_type(read, Trained)
    losses = lossmap.patch_losses(read, found, resamples=100)
    assert_type(losses, xr.Dataset)
    lossmap.patch_losses(read, (pre, post))
    axes = lossmap.draw_patch_losses("image.png", losses.isel(image=0), plt.figure().add_subplot())
    assert_type(axes, Axes)
    lossmap.draw_patch_losses(np.zeros((8, 8, 3), np.uint8), pre, highest=2)


def ladder(found: xr.Dataset, other: xr.Dataset, pre: NDArray[np.float32], post: NDArray[np.float16]) -> None:
    whole = lossmap.run_ladder(
        found,
        other,
        networks={"mlp": {"kind": "mlp", "widths": [64], "dropout": 0}},
        controls={"rotation": {"kind": "rotation", "networks": "all"}},
        shares=[50, 100],
    )
    assert_type(whole, Ladder)
    assert_type(lossmap.run_ladder((pre, post)), Ladder)
    verdict = whole.verdict(tolerance=0.02)
    assert_type(verdict, Verdict)
    assert_type(verdict.own, Reached)
    assert_type(verdict.own.fvu.low, float)
    assert_type(verdict.difference, Interval | None)
    assert_type(verdict.lost, tuple[float, float])
