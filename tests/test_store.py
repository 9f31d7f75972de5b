"""The store gives back what was written, and never anything else."""

import json
import os
import shutil

import numpy as np
import pytest
import xarray as xr

from lossmap.store import PartWriter, StoreError, iterate, open_store, write_index
from lossmap.store import writer as writer_module
from lossmap.store.files import CheckedFiles

PRE, POST = (4, 6), (2, 5)
HOW = {"model": "toy", "pre_grid": [2, 2], "post_grid": None, "key": {"checkpoint": "toy", "revision": None}}


def batch(rng, n):
    pre, post = rng.normal(size=(n, *PRE)), rng.normal(size=(n, *POST))
    box, size = np.tile([0.0, 0, 64, 64], (n, 1)), np.full((n, 2), 64)
    return {"pre": pre, "post": post, "pre_mean": pre.mean(1), "post_mean": post.mean(1), "box": box, "size": size}


def write(folder, counts=(5, 3), dtype="float16", how=HOW, batches=2, store_post=True):
    """A store of len(counts) parts. Returns the index and what went in."""
    rng, parts, given, first = np.random.default_rng(0), [], [], 0
    for n in counts:
        path = folder / f"toy/part-{first:06d}-{first + n:06d}.zarr"
        writer = PartWriter(path, [f"image-{first + i}" for i in range(n)], PRE, POST, dtype, how, store_post)
        whole = batch(rng, n)
        for rows in np.array_split(np.arange(n), batches):
            writer.append(**{name: values[rows] for name, values in whole.items()})
        writer.close()
        parts.append(path)
        given.append(whole)
        first += n
    write_index(parts, folder / "toy.json")
    return folder / "toy.json", {name: np.concatenate([g[name] for g in given]) for name in given[0]}


def test_values_come_back_in_the_stored_precision(tmp_path):
    index, given = write(tmp_path)
    dataset = open_store(index)
    assert (dataset["pre"].values == given["pre"].astype("float16")).all()
    assert (dataset["post"].values == given["post"].astype("float16")).all()
    assert (dataset["pre_mean"].values == given["pre_mean"].astype("float32")).all()
    assert dataset["image_id"].values.tolist() == [f"image-{i}" for i in range(8)]
    assert dataset["pre"].dims == ("image", "patch", "feature")
    assert dataset.attrs["pre_grid"] == [2, 2]


@pytest.mark.parametrize(
    "selection",
    [
        {"image": 6},
        {"image": slice(3, 7)},
        {"image": [7, 0, 5, 0]},
        {"image": slice(None, None, -2)},
        {"image": [6, 1], "patch": [3, 0], "feature": slice(1, 4)},
        {"image": 2, "patch": 1, "feature": [0, 5]},
        {"image": [], "patch": 0},
    ],
)
def test_any_selection_equals_that_of_the_array_in_memory(tmp_path, selection):
    index, given = write(tmp_path)
    dataset = open_store(index)
    memory = xr.DataArray(given["pre"].astype("float16"), dims=dataset["pre"].dims)
    assert (dataset["pre"].isel(selection).values == memory.isel(selection).values).all()


def test_blocks_follow_on_each_other(tmp_path):
    index, given = write(tmp_path)
    blocks = list(iterate(open_store(index), "post_mean", rows=3))
    assert [len(b) for b in blocks] == [3, 3, 2]
    assert (np.concatenate(blocks) == given["post_mean"].astype("float32")).all()


def test_a_part_opens_with_plain_xarray(tmp_path, recwarn):
    write(tmp_path)
    part = xr.open_zarr(tmp_path / "toy/part-000005-000008.zarr", chunks=None)
    assert part["image_id"].values.tolist() == ["image-5", "image-6", "image-7"]
    assert part["pre"].shape == (3, *PRE)
    assert "image_id" in part.coords
    assert not [str(w.message) for w in recwarn.list]


def test_several_shards_hold_what_one_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "CHUNK_BYTES", 100)
    monkeypatch.setattr(writer_module, "SHARD_BYTES", 200)
    monkeypatch.setattr(writer_module, "SHARDS", 1)
    index, given = write(tmp_path, counts=(23, 4), batches=5)
    assert len(list((tmp_path / "toy/part-000000-000023.zarr/pre/c").iterdir())) == 6
    assert (open_store(index)["pre"].values == given["pre"].astype("float16")).all()


def test_an_eighth_of_a_small_part_is_on_the_disk_before_the_rest_is_embedded(tmp_path, monkeypatch):
    image_bytes = 2 * int(np.prod(PRE))
    monkeypatch.setattr(writer_module, "CHUNK_BYTES", image_bytes)
    writer = PartWriter(tmp_path / "part.zarr", [f"image-{i}" for i in range(24)], PRE, POST, "float16", HOW)
    rng, written = np.random.default_rng(0), []
    for _ in range(4):
        writer.append(**batch(rng, 6))
        written.append(len(list(writer.partial.glob("pre/c/*/0/0"))))
    assert written == [2, 4, 6, 8]
    writer.close()
    assert len(list((tmp_path / "part.zarr").glob("pre/c/*/0/0"))) == 8


def test_same_embeddings_same_digest(tmp_path):
    first, _ = write(tmp_path / "a")
    second, _ = write(tmp_path / "b", batches=1)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("name", ["pre", "post", "pre_mean", "post_mean", "box", "image_id"])
def test_one_changed_byte_is_found_and_its_images_named(tmp_path, name):
    index, _ = write(tmp_path)
    file = next(f for f in sorted((tmp_path / "toy/part-000005-000008.zarr" / name / "c").rglob("*")) if f.is_file())
    content = bytearray(file.read_bytes())
    content[1] ^= 1
    file.write_bytes(content)
    wanted = "image ids" if name == "image_id" else "images image-5 to image-7"
    with pytest.raises(
        StoreError, match=f"part-000005-000008.zarr/{name}/c.*{wanted} can't be trusted.*Delete .*zarr and"
    ):
        open_store(index)[name].values  # noqa: B018


def test_a_changed_description_of_an_array_is_found(tmp_path):
    index, _ = write(tmp_path)
    file = tmp_path / "toy/part-000005-000008.zarr/pre/zarr.json"
    file.write_text(file.read_text().replace('"fill_value": 0.0', '"fill_value": 1.0'))
    with pytest.raises(StoreError, match=r"pre/zarr\.json: .* the file was changed"):
        open_store(index)


def test_a_file_cut_short_is_named(tmp_path):
    index, _ = write(tmp_path)
    file = tmp_path / "toy/part-000000-000005.zarr/post/c/0/0/0"
    os.truncate(file, file.stat().st_size - 7)
    with pytest.raises(StoreError, match="post/c/0/0/0: .* bytes, .* were written.*Delete .*part-000000-000005"):
        open_store(index)


def test_a_lost_file_and_a_lost_part_are_named(tmp_path):
    index, _ = write(tmp_path)
    (tmp_path / "toy/part-000000-000005.zarr/pre/c/0/0/0").unlink()
    with pytest.raises(StoreError, match="pre/c/0/0/0: this file of the store is missing"):
        open_store(index)
    shutil.rmtree(tmp_path / "toy/part-000000-000005.zarr")
    with pytest.raises(StoreError, match="part-000000-000005.zarr: this part of the store is missing"):
        open_store(index)


def test_a_part_of_another_store_is_refused(tmp_path):
    index, _ = write(tmp_path / "a")
    write(tmp_path / "b", dtype="float32")
    shutil.rmtree(tmp_path / "a/toy/part-000000-000005.zarr")
    shutil.copytree(tmp_path / "b/toy/part-000000-000005.zarr", tmp_path / "a/toy/part-000000-000005.zarr")
    with pytest.raises(StoreError, match="not the part that was indexed"):
        open_store(index)


def test_parts_made_in_different_ways_are_not_joined(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b", how={**HOW, "model": "other"})
    with pytest.raises(StoreError, match="not made in the same way: model differ"):
        write_index(
            [tmp_path / "a/toy/part-000000-000005.zarr", tmp_path / "b/toy/part-000005-000008.zarr"],
            tmp_path / "both.json",
        )


def test_what_differs_between_keys_is_named(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b", how={**HOW, "key": {**HOW["key"], "version": 2}})
    paths = [tmp_path / "a/toy/part-000000-000005.zarr", tmp_path / "b/toy/part-000005-000008.zarr"]
    with pytest.raises(StoreError, match="not made in the same way: key: version differ.*Delete the older"):
        write_index(paths, tmp_path / "both.json")


def test_an_image_in_two_parts_is_named(tmp_path):
    write(tmp_path)
    part = tmp_path / "toy/part-000000-000005.zarr"
    with pytest.raises(StoreError, match="Image image-0 is in .* and in "):
        write_index([part, part], tmp_path / "twice.json")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_names_its_image(tmp_path, value):
    writer = PartWriter(tmp_path / "p.zarr", ["a", "b", "c"], PRE, POST, "float16", HOW)
    rows = batch(np.random.default_rng(0), 3)
    rows["post"][1, 0, 0] = value
    rows["post_mean"] = rows["post"].mean(1)
    with pytest.raises(StoreError, match="post of image b is not finite.*compute_dtype"):
        writer.append(**rows)


def test_a_value_too_large_for_half_precision_says_so(tmp_path):
    writer = PartWriter(tmp_path / "p.zarr", ["a", "b", "c"], PRE, POST, "float16", HOW)
    rows = batch(np.random.default_rng(0), 3)
    rows["pre"][2, 1, 3] = 1e5
    with (
        np.errstate(over="ignore"),
        pytest.raises(StoreError, match="pre of image c holds a value beyond the range of float16.*dtype: float32"),
    ):
        writer.append(**rows)


def test_a_part_with_too_few_images_is_not_finished(tmp_path):
    writer = PartWriter(tmp_path / "p.zarr", ["a", "b", "c"], PRE, POST, "float16", HOW)
    writer.append(**batch(np.random.default_rng(0), 2))
    with pytest.raises(StoreError, match="2 images were embedded, 3 were expected"):
        writer.close()
    with pytest.raises(StoreError, match=r"p\.zarr/zarr\.json: can't be read"):
        write_index([tmp_path / "p.zarr"], tmp_path / "p.json")


@pytest.mark.parametrize("content", ["", "{", "[]", json.dumps({"format": "something else"})])
def test_a_damaged_index_is_named(tmp_path, content):
    (tmp_path / "toy.json").write_text(content)
    with pytest.raises(StoreError, match=r"toy\.json: "):
        open_store(tmp_path / "toy.json")


def test_exchanged_arrays_of_one_part_are_found(tmp_path):
    shape = (4, 5), (4, 5)
    writer = PartWriter(tmp_path / "toy/p.zarr", ["a", "b"], *shape, "float16", HOW)
    rng = np.random.default_rng(0)
    pre, post = rng.normal(size=(2, 2, 4, 5))
    box, size = np.zeros((2, 4)), np.zeros((2, 2))
    writer.append(pre=pre, post=post, pre_mean=pre.mean(1), post_mean=post.mean(1), box=box, size=size)
    writer.close()
    write_index([tmp_path / "toy/p.zarr"], tmp_path / "toy.json")
    shutil.copy(tmp_path / "toy/p.zarr/post/c/0/0/0", tmp_path / "toy/p.zarr/pre/c/0/0/0")
    with pytest.raises(StoreError, match="pre/c/0/0/0: images a to b can't be trusted"):
        open_store(tmp_path / "toy.json")["pre"].values  # noqa: B018


def test_an_unfinished_part_does_not_stand_in_its_place(tmp_path):
    writer = PartWriter(tmp_path / "p.zarr", ["a", "b", "c"], PRE, POST, "float16", HOW)
    writer.append(**batch(np.random.default_rng(0), 2))
    assert not (tmp_path / "p.zarr").exists()
    again = PartWriter(tmp_path / "p.zarr", ["a", "b", "c"], PRE, POST, "float16", HOW)
    again.append(**batch(np.random.default_rng(0), 3))
    again.close()
    assert [path.name for path in tmp_path.iterdir()] == ["p.zarr"]


@pytest.mark.parametrize("change", [{"pre_grid": [1, 4]}, {"images": 7}, {"arrays": {}}, {"key": {}}])
def test_an_edited_index_is_found(tmp_path, change):
    index, _ = write(tmp_path)
    index.write_text(json.dumps(json.loads(index.read_text()) | change))
    with pytest.raises(StoreError, match=f"{next(iter(change))} differ.* from what the parts say"):
        open_store(index)


@pytest.mark.parametrize("change", [{"parts": None}, {"parts": []}, {"parts": [3]}, {"parts": [{"path": "x"}]}])
def test_an_index_without_parts_is_named(tmp_path, change):
    index, _ = write(tmp_path)
    index.write_text(json.dumps(json.loads(index.read_text()) | change))
    with pytest.raises(StoreError, match=r"toy\.json: this is no whole index"):
        open_store(index)


def test_an_index_of_an_older_format_says_extract_again(tmp_path):
    index, _ = write(tmp_path)
    index.write_text(index.read_text().replace("lossmap-embeddings/2", "lossmap-embeddings/1"))
    with pytest.raises(
        StoreError, match=r"of format lossmap-embeddings/1; .* Extract again: delete .*toy.json and .*toy,"
    ):
        open_store(index)


def test_a_part_of_an_older_format_is_not_indexed(tmp_path):
    write(tmp_path)
    root = tmp_path / "toy/part-000000-000005.zarr/zarr.json"
    root.write_text(root.read_text().replace("lossmap-embeddings/2", "lossmap-embeddings/1"))
    with pytest.raises(StoreError, match="000005.zarr: its format is lossmap-embeddings/1, wanted .*/2. Delete"):
        write_index([root.parent], tmp_path / "toy.json")


def small_chunks(monkeypatch, images_in_a_shard=4):
    """One image of pre in a chunk."""
    image_bytes = 2 * int(np.prod(PRE))
    monkeypatch.setattr(writer_module, "CHUNK_BYTES", image_bytes)
    monkeypatch.setattr(writer_module, "SHARD_BYTES", images_in_a_shard * image_bytes)
    monkeypatch.setattr(writer_module, "SHARDS", 1)
    return image_bytes


def test_only_the_chunk_that_is_read_is_checked_and_named(tmp_path, monkeypatch):
    image_bytes = small_chunks(monkeypatch)
    index, given = write(tmp_path)
    shard = tmp_path / "toy/part-000000-000005.zarr/pre/c/0/0/0"
    content = bytearray(shard.read_bytes())
    content[2 * image_bytes] ^= 1
    shard.write_bytes(content)
    dataset = open_store(index)
    assert (dataset["pre"][[0, 1, 3, 4]].values == given["pre"][[0, 1, 3, 4]].astype("float16")).all()
    with pytest.raises(StoreError, match="pre/c/0/0/0: image image-2 can't be trusted"):
        dataset["pre"][1:3].values  # noqa: B018
    with pytest.raises(StoreError, match="pre/c/0/0/0: image image-2 can't be trusted"):
        dataset["pre"].values  # noqa: B018


def test_few_images_are_read_without_the_rest_of_their_shard(tmp_path, monkeypatch):
    small_chunks(monkeypatch, images_in_a_shard=50)
    index, _ = write(tmp_path, counts=(50,))
    dataset, read = open_store(index), []
    plain = CheckedFiles.read
    monkeypatch.setattr(
        CheckedFiles, "read", lambda self, *a: read.append((a[0], len(data := plain(self, *a)))) or data
    )
    dataset["pre"][[7, 31]].values  # noqa: B018
    images = [size for name, size in read if name == "pre/c/0/0/0"]
    assert sum(images) < 2 * 2 * int(np.prod(PRE)) + 50 * 16 + 5  # two chunks, and where the chunks are


def test_a_file_that_changes_after_it_was_read_is_found(tmp_path):
    index, _ = write(tmp_path)
    dataset = open_store(index)
    dataset["pre"][0].values  # noqa: B018
    file = tmp_path / "toy/part-000000-000005.zarr/pre/c/0/0/0"
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)
    with pytest.raises(StoreError, match="images image-0 to image-4 can't be trusted"):
        dataset["pre"][1].values  # noqa: B018
    file.unlink()
    with pytest.raises(StoreError, match="pre/c/0/0/0: can't be read; it holds images image-0 to image-4"):
        dataset["pre"][1].values  # noqa: B018
