"""A store without post gives the post that the connector makes of its pre, and nothing else."""

import json

import numpy as np
import pytest
import xarray as xr
from test_store import HOW, POST, PRE, batch, write

from lossmap.store import PartWriter, StoreError, open_store, write_index
from lossmap.store import rows as rows_module

CONNECTOR = np.random.default_rng(1).normal(size=(PRE[1], POST[1]))


def connect(pre):
    """The toy model's connector: pairs of patches become a token."""
    return pre.astype("float64").reshape(len(pre), *POST[:1], 2, PRE[1]).mean(axis=2) @ CONNECTOR


def without_post(folder, **how):
    index, given = write(folder, store_post=False, **how)
    return index, connect(given["pre"].astype(how.get("dtype", "float16")))


def test_post_is_not_on_disk_and_its_shape_is_known(tmp_path):
    index, given = write(tmp_path, store_post=False)
    assert not list((tmp_path / "toy").glob("*/post"))
    dataset = open_store(index)
    assert dataset.attrs["post"] == {"shape": list(POST), "dtype": "float16", "stored": False}
    assert json.loads(index.read_text())["post"] == dataset.attrs["post"]
    assert dataset["post"].shape == (8, *POST)
    assert dataset["post"].dims == ("image", "token", "feature_out")
    assert dataset["post"].dtype == np.float16
    assert (dataset["post_mean"].values == given["post_mean"].astype("float32")).all()
    with pytest.raises(StoreError, match=r"toy.json: post is not stored \(store_post: false\).*recompute="):
        dataset["post"][0].values  # noqa: B018
    assert open_store(write(tmp_path / "whole")[0]).attrs["post"]["stored"] is True


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    "selection", [{}, {"image": 6}, {"image": [7, 0, 5, 0]}, {"image": slice(3, 7), "token": 1}, {"image": []}]
)
def test_post_is_recomputed_from_the_pre_that_is_asked_for(tmp_path, selection, dtype):
    index, post = without_post(tmp_path, dtype=dtype)
    dataset = open_store(index, recompute=connect)
    wanted = xr.DataArray(post.astype(dtype), dims=dataset["post"].dims).isel(selection)
    found = dataset["post"].isel(selection)
    assert found.dtype == dtype
    assert (found.values == wanted.values).all()


def test_post_is_recomputed_in_blocks(tmp_path, monkeypatch):
    index, post = without_post(tmp_path)
    monkeypatch.setattr(rows_module, "RECOMPUTED_BYTES", 3 * 2 * (np.prod(PRE) + np.prod(POST)))
    asked = []
    dataset = open_store(index, recompute=lambda pre: asked.append(pre) or connect(pre))
    assert asked == []
    assert (dataset["post"].values == post.astype("float16")).all()
    assert [pre.shape for pre in asked] == [(3, *PRE), (3, *PRE), (2, *PRE)]
    assert all(pre.dtype == np.float16 for pre in asked)


def test_a_connector_of_another_model_is_refused(tmp_path):
    index, _ = without_post(tmp_path)
    with pytest.raises(StoreError, match=r"recomputed with the shape \(8, 2, 4\), wanted \(8, 2, 5\)"):
        open_store(index, recompute=lambda pre: connect(pre)[..., :4])["post"].values  # noqa: B018
    broken = open_store(index, recompute=lambda pre: connect(pre) * np.where(pre[:, :1, :1] == pre[-2, 0, 0], 1e9, 1))
    with pytest.raises(StoreError, match="post of image image-6, recomputed, is not finite in float16"):
        broken["post"][1:].values  # noqa: B018


def test_a_stored_post_is_not_recomputed(tmp_path):
    index, given = write(tmp_path)
    dataset = open_store(index, recompute=lambda pre: 1 / 0)
    assert (dataset["post"].values == given["post"].astype("float16")).all()


def test_post_that_is_not_stored_is_checked_all_the_same(tmp_path):
    writer = PartWriter(tmp_path / "p.zarr", ["a", "b", "c"], PRE, POST, "float16", HOW, store_post=False)
    rows = batch(np.random.default_rng(0), 3)
    rows["post"][1, 0, 0] = 1e6
    with np.errstate(over="ignore"), pytest.raises(StoreError, match="post of image b holds a value beyond the range"):
        writer.append(**rows)


def test_parts_with_and_without_post_are_not_joined(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b", store_post=False)
    with pytest.raises(StoreError, match="not made in the same way: post differ"):
        write_index(
            [tmp_path / "a/toy/part-000000-000005.zarr", tmp_path / "b/toy/part-000005-000008.zarr"],
            tmp_path / "both.json",
        )
