"""The store of patch losses gives back what was written, and never anything else."""

import errno
import json
import os

import numpy as np
import pytest
import xarray as xr
from test_store_faults import failing

from lossmap.store import StoreError, patch_losses
from lossmap.store.patch_losses import LOSSES, PatchLossWriter, open_patch_losses

DECODERS, GRID, N = ["ridge", "mlp-small"], (2, 3), 7


def losses(n=N):
    rng = np.random.default_rng(0)
    given = {name: rng.normal(size=(len(DECODERS), n, 6)) for name in LOSSES}
    return given | {"pre_norm": rng.normal(size=(n, 6))}


def write(path, given, batch=3):
    ids = [f"image-{i}" for i in range(N)]
    writer = PatchLossWriter(path, DECODERS, ids, GRID, {"best": "ridge", "provenance": {"seed": 0}})
    for start in range(0, given["pre_norm"].shape[0], batch):
        writer.append(**{name: values[..., start : start + batch, :] for name, values in given.items()})
    writer.close()
    return path


@pytest.fixture
def store(tmp_path):
    return write(tmp_path / "toy.zarr", losses())


def test_values_come_back_with_their_names(store):
    dataset = open_patch_losses(store)
    for name, values in losses().items():
        assert (dataset[name].values == values.reshape(*values.shape[:-1], *GRID).astype("float32")).all()
    assert dataset["squared_error"].dims == ("reconstructor", "image", "row", "col")
    assert dataset["pre_norm"].dims == ("image", "row", "col")
    assert dataset["image_id"].values.tolist() == [f"image-{i}" for i in range(N)]
    assert dataset["squared_error"].sel(reconstructor="mlp-small").shape == (N, *GRID)
    assert dataset.attrs == {"best": "ridge", "provenance": {"seed": 0}, "pre_grid": [2, 3]}


def test_patches_are_in_raster_order(store):
    given = losses()["cosine_error"][1, 4]
    assert open_patch_losses(store)["cosine_error"][1, 4, 1, 2] == np.float32(given[5])


def test_it_opens_with_plain_xarray(store):
    dataset = xr.open_zarr(store, chunks=None)
    assert dataset["squared_error"].sel(reconstructor="ridge").shape == (N, *GRID)
    assert "image_id" in dataset.coords


def test_batches_and_chunks_leave_no_trace(tmp_path, store, monkeypatch):
    write(tmp_path / "whole.zarr", losses(), batch=N)
    assert json.loads((tmp_path / "whole.zarr/zarr.json").read_text()) == json.loads((store / "zarr.json").read_text())
    monkeypatch.setattr(patch_losses, "CHUNK_BYTES", 2 * 4 * 6)  # two images
    write(tmp_path / "pieces.zarr", losses())
    assert len([f for f in (tmp_path / "pieces.zarr/pre_norm/c").rglob("*") if f.is_file()]) == 4
    assert open_patch_losses(tmp_path / "pieces.zarr").equals(open_patch_losses(store))


def test_a_store_of_zeros_has_all_its_files(tmp_path):
    zeros = {name: np.zeros_like(values) for name, values in losses().items()}
    path = write(tmp_path / "zero.zarr", zeros)
    next(f for f in (path / "pre_norm/c").rglob("*") if f.is_file()).unlink()
    with pytest.raises(
        StoreError, match=r"pre_norm/c.*: this file of the store is missing; .* Delete .*zero.zarr and run again"
    ):
        open_patch_losses(path)


@pytest.mark.parametrize("name", [*LOSSES, "pre_norm", "image_id"])
def test_one_changed_byte_is_found(store, name):
    file = next(f for f in (store / name / "c").rglob("*") if f.is_file())
    content = bytearray(file.read_bytes())
    content[1] ^= 1
    file.write_bytes(content)
    held = "the image ids" if name == "image_id" else "images image-0 to image-6"
    with pytest.raises(StoreError, match=rf"{name}/c.*: {held} can't be trusted: the file was changed after"):
        open_patch_losses(store)


@pytest.mark.parametrize("name", [*LOSSES, "pre_norm"])
def test_a_file_cut_short_is_named(store, name):
    file = next(f for f in (store / name / "c").rglob("*") if f.is_file())
    os.truncate(file, file.stat().st_size - 3)
    with pytest.raises(StoreError, match=rf"{name}/c.*: \d+ bytes, \d+ were written; it holds images image-0 to"):
        open_patch_losses(store)


@pytest.mark.parametrize("name", [*LOSSES, "pre_norm"])
def test_a_file_that_changes_or_is_lost_after_opening_is_found(store, monkeypatch, name):
    opened = open_patch_losses(store)
    file = next(f for f in (store / name / "c").rglob("*") if f.is_file())
    content = bytearray(file.read_bytes())
    content[1] ^= 1
    file.write_bytes(content)
    with pytest.raises(StoreError, match=rf"{name}/c.*: images image-0 to image-6 can't be trusted"):
        opened[name].values  # noqa: B018
    file.unlink()
    with pytest.raises(StoreError, match=rf"{name}/c.*: can't be read; it holds images image-0 to image-6"):
        opened[name].values  # noqa: B018


def test_a_damaged_chunk_names_its_own_images(tmp_path, monkeypatch):
    monkeypatch.setattr(patch_losses, "CHUNK_BYTES", 2 * 4 * 6)  # two images
    store = write(tmp_path / "pieces.zarr", losses())
    file = store / "cosine_error/c/1/2/0/0"
    file.write_bytes(bytes(len(file.read_bytes())))
    with pytest.raises(StoreError, match=r"cosine_error/c/1/2/0/0: images image-4 to image-5 can't be trusted"):
        open_patch_losses(store)


@pytest.mark.parametrize("after", [0, 4, 10, 14])
def test_a_full_disk_leaves_the_store_that_was_there_and_says_what_to_do(store, monkeypatch, after):
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    failing(monkeypatch, errno.ENOSPC, after)
    with pytest.raises(StoreError, match=r"^the disk is full: .*toy.zarr can't be written .*Free space .*run again"):
        write(store, losses())
    assert {path: path.read_bytes() for path in store.parent.rglob("*") if path.is_file()} == before


def test_a_store_of_an_older_version_says_which_option_makes_it_again(store):
    root = store / "zarr.json"
    root.write_text(root.read_text().replace("lossmap-patch-losses/2", "lossmap-patch-losses/1"))
    with pytest.raises(StoreError, match=r"toy.zarr: .* of format lossmap-patch-losses/1; .* --forcerun measure_patch"):
        open_patch_losses(store)
    assert (store / "pre_norm/c/0/0/0").is_file()


def test_a_changed_description_is_found(store):
    root = store / "zarr.json"
    root.write_text(root.read_text().replace('"best": "ridge"', '"best": "mlp-small"'))
    with pytest.raises(StoreError, match=r"zarr.json was changed"):
        open_patch_losses(store)


def test_what_is_no_finished_store_is_refused(tmp_path, store):
    with pytest.raises(StoreError, match="none.zarr: this is no finished store of patch losses"):
        open_patch_losses(tmp_path / "none.zarr")
    PatchLossWriter(tmp_path / "begun.zarr", DECODERS, ["a"], GRID, {})
    assert not (tmp_path / "begun.zarr").exists()
    with pytest.raises(StoreError, match="this is no finished store of patch losses"):
        open_patch_losses(tmp_path / ".begun.zarr.partial")
    content = json.loads((store / "zarr.json").read_text())
    content["attributes"]["format"] = "lossmap-embeddings/1"
    (store / "zarr.json").write_text(json.dumps(content))
    with pytest.raises(StoreError, match="format is 'lossmap-embeddings/1'; wanted 'lossmap-patch-losses/2'"):
        open_patch_losses(store)


def test_a_second_run_replaces_the_first(tmp_path, store):
    other = {name: values + 1 for name, values in losses().items()}
    write(store, other)
    assert open_patch_losses(store)["pre_norm"].values[0, 0, 0] == np.float32(other["pre_norm"][0, 0])


def test_a_loss_that_is_not_finite_is_named(tmp_path):
    given = losses()
    given["norm_difference"][1, 4, 2] = np.nan
    with pytest.raises(StoreError, match="norm_difference of reconstructor mlp-small of image image-4 is not finite"):
        write(tmp_path / "bad.zarr", given)
    given = losses()
    given["pre_norm"][5, 0] = np.inf
    with pytest.raises(StoreError, match="pre_norm of image image-5 is not finite"):
        write(tmp_path / "bad.zarr", given)
    assert not (tmp_path / "bad.zarr").exists()


def test_missing_images_and_arrays_are_an_error(tmp_path):
    given = losses(5)
    with pytest.raises(StoreError, match="5 images were measured, 7 were expected"):
        write(tmp_path / "short.zarr", given)
    writer = PatchLossWriter(tmp_path / "short.zarr", DECODERS, ["a"], GRID, {})
    with pytest.raises(ValueError, match="append wants .* of the same images"):
        writer.append(pre_norm=given["pre_norm"])
