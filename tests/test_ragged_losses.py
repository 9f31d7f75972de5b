"""Patch losses of images that differ in layout: what was written comes back, and lies where it was seen."""

import json
import os

import numpy as np
import pytest
import xarray as xr
from ragged_study import (
    PLAIN,
    PLAIN_LAYOUT,
    TILED,
    TILED_BOXES,
    TILED_LAYOUT,
    layouts_of,
    of_image,
    ragged_dataset,
    ragged_losses,
    write_ragged,
)

from lossmap.store import StoreError, patch_losses
from lossmap.store.images import Images, layout_arrays
from lossmap.store.layouts import Layout, Shape, Span, ViewShape, one_view
from lossmap.store.maps import finest, places, view_maps, visible
from lossmap.store.patch_losses import (
    LOSSES,
    MEASURED,
    ImageLosses,
    PatchLossWriter,
    losses_in_memory,
    open_patch_losses,
    targets,
)

N = 7
IDS = [f"image-{i}" for i in range(N)]
LAYOUTS = layouts_of(N)
GIVEN = ragged_losses(LAYOUTS)


@pytest.fixture
def store(tmp_path):
    return write_ragged(tmp_path / "toy.zarr", IDS, LAYOUTS, GIVEN, batch=3)


def test_targets_are_what_a_token_stands_for():
    assert targets(PLAIN).tolist() == [False, True, True, True, True]  # a class token comes first
    rows = np.zeros((4, 4), bool)
    rows[1:3] = True
    assert targets(TILED).tolist() == [*[True] * 6, *rows.ravel().tolist() * 2]
    queries = Shape((ViewShape(2, 3, extra=1),), (Span(5, 0),))
    assert targets(queries).tolist() == [False, *[True] * 6]


def test_values_and_layouts_come_back(store):
    dataset = open_patch_losses(store)
    for name, values in GIVEN.items():
        np.testing.assert_array_equal(dataset[name].values, values.astype("float32"))
    assert dataset["squared_error"].dims == ("reconstructor", "patch")
    assert dataset["pre_norm"].dims == ("patch",)
    assert dataset["image_id"].values.tolist() == IDS
    assert dataset.attrs == {"best": "mlp", "pre_grid": None}
    for name, values in layout_arrays(LAYOUTS).items():
        np.testing.assert_array_equal(dataset[name].values, values)
    assert [Images(dataset).layout(i) for i in range(N)] == LAYOUTS
    assert json.loads((store / "zarr.json").read_text())["attributes"]["format"] == "lossmap-patch-losses/3"
    assert (
        xr.open_zarr(store, chunks=None)["squared_error"]
        .sel(reconstructor="mlp")
        .equals(dataset["squared_error"].sel(reconstructor="mlp"))
    )


def test_batches_and_chunks_leave_no_trace(tmp_path, store, monkeypatch):
    whole = write_ragged(tmp_path / "whole.zarr", IDS, LAYOUTS, GIVEN)
    for file in whole.rglob("*"):
        assert file.is_dir() or file.read_bytes() == (store / file.relative_to(whole)).read_bytes()
    monkeypatch.setattr(patch_losses, "CHUNK_BYTES", 4 * 50)  # patches
    pieces = write_ragged(tmp_path / "pieces.zarr", IDS, LAYOUTS, GIVEN, batch=2)
    assert len([f for f in (pieces / "pre_norm/c").rglob("*") if f.is_file()]) == 4  # of 5 x 38 + 2 x 5 patches
    assert open_patch_losses(pieces).equals(open_patch_losses(store))


def test_a_damaged_file_names_its_own_images(tmp_path, monkeypatch):
    monkeypatch.setattr(patch_losses, "CHUNK_BYTES", 4 * 50)
    for file, held in (
        ("squared_error/c/1/0", "images image-0 to image-2"),  # 38, 5 and 7 patches
        ("pre_norm/c/3", "images image-5 to image-6"),
        ("view_box/c/0/0", "images image-0 to image-6"),
        ("patch_offset/c/0", "where the rows of each image begin"),
        ("image_id/c/0", "the image ids"),
    ):
        path = write_ragged(tmp_path / "toy.zarr", IDS, LAYOUTS, GIVEN)
        content = bytearray((path / file).read_bytes())
        content[5] ^= 1
        (path / file).write_bytes(content)
        with pytest.raises(StoreError, match=rf"{file}: {held} can't be trusted: the file was changed after"):
            open_patch_losses(path)
        os.truncate(path / file, 3)
        with pytest.raises(StoreError, match=rf"{file}: 3 bytes, \d+ were written; it holds {held}\."):
            open_patch_losses(path)
        (path / file).unlink()
        with pytest.raises(StoreError, match=rf"{file}: this file of the store is missing; it holds {held}\."):
            open_patch_losses(path)
    path = write_ragged(tmp_path / "toy.zarr", IDS, LAYOUTS, GIVEN)
    root = path / "zarr.json"
    root.write_text(root.read_text().replace("lossmap-patch-losses/3", "lossmap-patch-losses/4"))
    with pytest.raises(StoreError, match="of format lossmap-patch-losses/4; .* reads lossmap-patch-losses/2 and"):
        open_patch_losses(path)


def test_only_what_is_no_target_is_nan_and_all_of_it(tmp_path):
    def changed(name, patch, value):
        values = {key: array.copy() for key, array in GIVEN.items()}
        values[name][..., patch] = value
        return values

    first = LAYOUTS[0].shape.patches
    for name, patch, value, message in (
        ("cosine_error", first + 2, np.nan, "cosine_error of reconstructor ridge of image image-1 is not finite"),
        ("pre_norm", 3, np.inf, "pre_norm of image image-0 is not finite"),
        ("squared_error", first, 1.0, "squared_error of reconstructor ridge of image image-1 is given of a patch that"),
        ("pre_norm", 6, np.inf, "pre_norm of image image-0 is given of a patch that no token stands for"),
    ):
        with pytest.raises(StoreError, match=message):
            write_ragged(tmp_path / "bad.zarr", IDS, LAYOUTS, changed(name, patch, value))
        assert not (tmp_path / "bad.zarr").exists()


def test_what_does_not_fit_its_layouts_is_refused(tmp_path):
    path = tmp_path / "bad.zarr"
    with pytest.raises(ValueError, match="patches, the number of all of them, is wanted"):
        PatchLossWriter(path, ["a"], ["b"], None, {})
    writer = PatchLossWriter(path, ["ridge", "mlp"], IDS, None, {}, patches=200)
    with pytest.raises(ValueError, match="append wants .* of the same images and layouts"):
        writer.append(**GIVEN)
    with pytest.raises(ValueError, match="the layouts have 38 patches, the losses 200"):
        writer.append(**GIVEN, layouts=LAYOUTS[:1])
    with pytest.raises(StoreError, match="0 images were measured, 7 were expected"):
        writer.close()
    writer = PatchLossWriter(path, ["ridge", "mlp"], IDS, None, {}, patches=201)
    writer.append(**GIVEN, layouts=LAYOUTS)
    with pytest.raises(StoreError, match="200 patches were measured, 201 were expected"):
        writer.close()


def test_losses_in_memory_are_those_of_the_store(store):
    embeddings = ragged_dataset(IDS, LAYOUTS)
    parts = [{name: values[:1] if name in LOSSES else values for name, values in GIVEN.items()}]
    found = losses_in_memory(parts, embeddings, {"reconstructor": "ridge"})
    opened = open_patch_losses(store).sel(reconstructor="ridge")
    assert found.attrs == {"pre_grid": None, "reconstructor": "ridge"}
    for name in (*MEASURED, *layout_arrays(LAYOUTS), "image_id"):
        np.testing.assert_array_equal(found[name].values, opened[name].values)


def test_losses_are_found_by_image(store):
    losses = ImageLosses(open_patch_losses(store).sel(reconstructor="mlp"))
    assert (len(losses), losses.ragged) == (N, True)
    error = GIVEN["squared_error"][1].astype("float32")
    for i in range(N):
        own = of_image(error, LAYOUTS, i)
        np.testing.assert_array_equal(losses.values("squared_error", i), own)
        assert losses.means("squared_error")[i] == pytest.approx(np.nanmean(own.astype(float)))
        assert losses.layout(i) == LAYOUTS[i]
    assert [(group.positions.tolist(), group.shape) for group in losses.alike([4, 0, 1])] == [
        ([0, 2], PLAIN),
        ([1], TILED),
    ]
    both = losses.of_targets("pre_norm", np.array([4, 1]))
    assert both.shape == (2, 4)
    np.testing.assert_array_equal(both[0], losses.values("pre_norm", 4)[1:])
    with pytest.raises(ValueError, match="images of several shapes are asked for"):
        losses.read("pre_norm", [0, 1])


def test_rectangular_losses_are_read_the_same_way():
    rng = np.random.default_rng(0)
    values = rng.random((5, 2, 3)).astype("float32")
    dataset = xr.Dataset(
        {name: (("image", "row", "col"), values + i) for i, name in enumerate(MEASURED)},
        {"image_id": ("image", list("abcde"))},
        {"pre_grid": [2, 3]},
    )
    losses = ImageLosses(dataset)
    assert np.array_equal(losses.of_targets("squared_error", [3, 1]), values[[3, 1]].reshape(2, 6))
    assert losses.means("squared_error") == pytest.approx(values.mean((1, 2)))
    with pytest.raises(ValueError, match="don't say where they lie: give embeddings"):
        losses.layout(0)
    embeddings = xr.Dataset(
        {
            "pre": (("image", "patch", "feature"), np.zeros((5, 6, 1))),
            "post": (("image", "token", "feature_out"), np.zeros((5, 6, 1))),
            "box": (("image", "edge"), np.arange(5)[:, None] + np.array([0, 0, 30, 20])),
            "size": (("image", "side"), np.full((5, 2), 40)),
        },
        {"image_id": ("image", list("edcba"))},  # another order
        {"pre_grid": [2, 3], "post_grid": [2, 3]},
    )
    losses = ImageLosses(dataset, embeddings)
    assert losses.layout(1).boxes == ((3.0, 3.0, 33.0, 23.0),)
    (only,) = losses.maps("squared_error", 1)
    assert (only.box, only.kind) == ((3.0, 3.0, 33.0, 23.0), "whole")
    assert np.array_equal(only.values, values[1])
    shown = losses.finest(1)
    assert np.array_equal(shown.patches, np.arange(6).reshape(2, 3))
    assert shown.x.tolist() == [3, 13, 23, 33]


# Maps


def shown_at(layout, x, y, seen=None):
    map_ = finest(layout, seen)
    return map_.patches[np.searchsorted(map_.y, y) - 1, np.searchsorted(map_.x, x) - 1]


def test_a_loss_in_a_tile_appears_at_its_pixels(store):
    losses = ImageLosses(open_patch_losses(store).sel(reconstructor="mlp"))
    maps = losses.maps("squared_error", 0)
    assert [(view.box, view.kind, view.values.shape) for view in maps] == [
        (TILED_BOXES[0], "whole", (2, 3)),
        (TILED_BOXES[1], "tile", (4, 4)),
        (TILED_BOXES[2], "tile", (4, 4)),
    ]
    assert np.isnan(maps[1].values[[0, 3]]).all()
    assert np.isfinite(maps[1].values[1:3]).all()
    wanted, map_ = targets(TILED), losses.finest(0)
    for x in range(60):
        for y in range(40):
            seen = [patch for patch in TILED_LAYOUT.patch_of_pixel(x, y) if wanted[patch]]
            row, col = (np.searchsorted(edges, at + 0.5, "right") - 1 for edges, at in ((map_.y, y), (map_.x, x)))
            found = map_.patches[row, col]
            assert found == seen[-1]  # the tile's, of which there is one between y = 5 and 35
            assert (found >= 6) == (5 <= y < 35)
    assert shown_at(TILED_LAYOUT, 50, 45, wanted) == -1  # padding
    assert shown_at(TILED_LAYOUT, 50, 45) == 22 + 3 * 4 + 2


def test_of_equal_patches_the_first_view_is_shown_and_of_others_the_smaller():
    two = Shape((ViewShape(1, 1), ViewShape(1, 1)), ())
    boxes = ((0.0, 0.0, 10.0, 10.0), (5.0, 0.0, 15.0, 10.0))
    assert [shown_at(Layout(15, 10, two, boxes), x, 5) for x in (2, 7, 12)] == [0, 0, 1]
    assert [shown_at(Layout(15, 10, two, boxes[::-1]), x, 5) for x in (2, 7, 12)] == [1, 0, 0]
    smaller = (boxes[0], (5.0, 0.0, 14.0, 10.0))
    assert [shown_at(Layout(15, 10, two, smaller), x, 5) for x in (2, 7, 12)] == [0, 1, 1]


def test_what_is_visible_is_what_lies_on_top():
    values = np.where(targets(TILED), np.arange(38.0), np.nan)
    shown = visible(TILED_LAYOUT, values)
    assert np.isnan(shown[:6]).all()  # the middles of the whole view's patches, at y = 10 and 30, lie below the tiles
    np.testing.assert_array_equal(shown[6:], values[6:])
    only = np.arange(5.0)
    assert visible(PLAIN_LAYOUT, only) is only


def test_places_name_view_row_and_column():
    found = places(PLAIN)
    assert [each.tolist() for each in found] == [[1, 2, 3, 4], [0] * 4, [0, 0, 1, 1], [0, 1, 0, 1]]
    found = places(TILED)
    assert found.patch.tolist() == list(range(38))
    assert found.view.tolist() == [0] * 6 + [1] * 16 + [2] * 16
    assert places(one_view((2, 2), None)).patch.tolist() == [0, 1, 2, 3]
    (first, *_) = view_maps(PLAIN_LAYOUT, np.arange(10).reshape(2, 5))
    assert first.values.tolist() == [[[1, 2], [3, 4]], [[6, 7], [8, 9]]]
