"""Stores of images that differ in layout give back what was written, and never anything else."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from ragged_store import HOW, WIDTH, WIDTH_OUT, batches, connect, images, random_layout, write_ragged
from test_store import write
from test_store_faults import failing
from test_verify import flip

from lossmap.__main__ import main
from lossmap.errors import LossmapError
from lossmap.store import (
    Images,
    RaggedPartWriter,
    StoreError,
    as_embeddings,
    from_arrays,
    in_memory,
    iterate,
    open_store,
    write_index,
    write_part,
)
from lossmap.store import rows as rows_module
from lossmap.store import writer as writer_module
from lossmap.store.files import CheckedFiles
from lossmap.store.images import RAGGED_DIMENSIONS, is_ragged
from lossmap.store.layouts import Layout, Shape, Span, ViewShape
from lossmap.store.sharing import share_pre
from lossmap.vlm.stored import open_embeddings, with_patch_boxes

N, CUT = 23, 14
LAYOUTS = [random_layout(rng) for rng in [np.random.default_rng(3)] for _ in range(N)]
IDS = [f"image-{i}" for i in range(N)]
PRE, POST = images(LAYOUTS)
PARTS = "toy/part-000000-000014.zarr", "toy/part-000014-000023.zarr"
ROW_BYTES = 2 * WIDTH


@pytest.fixture
def small(monkeypatch):
    """Four patches of pre in a chunk, five chunks in a shard."""
    monkeypatch.setattr(writer_module, "CHUNK_BYTES", 4 * ROW_BYTES)
    monkeypatch.setattr(writer_module, "SHARD_BYTES", 20 * ROW_BYTES)
    monkeypatch.setattr(writer_module, "SHARDS", 1)


@pytest.fixture
def index(tmp_path):
    return write_ragged(tmp_path / "toy.json", LAYOUTS, PRE, POST, parts=[CUT])


def assert_images(dataset, layouts=LAYOUTS, pre=PRE, post=POST):
    found = Images(dataset)
    assert (len(found), found.ragged) == (len(layouts), True)
    for image, layout in enumerate(layouts):
        assert found.layout(image) == layout
        assert np.array_equal(found.read("pre", [image])[0], pre[image])
        assert np.array_equal(found.read("post", [image])[0], post[image])


def test_images_of_every_layout_come_back_over_several_parts(index):
    dataset = open_store(index)
    assert len({layout.shape for layout in LAYOUTS}) > 5
    assert is_ragged(dataset)
    assert_images(dataset)
    assert {name: dataset[name].dims for name in RAGGED_DIMENSIONS} == RAGGED_DIMENSIONS
    assert dataset["image_id"].values.tolist() == IDS
    assert all(dataset[name].dtype == np.int64 for name in dataset if str(name).endswith("_offset"))
    means = np.stack([x.mean(0, dtype="float32") for x in POST])
    assert np.array_equal(dataset["post_mean"].values, means)
    assert dataset.attrs["post"] == {"shape": [WIDTH_OUT], "dtype": "float16", "stored": True}
    assert dataset.attrs["pre_grid"] is None
    content = json.loads(index.read_text())
    assert content["format"] == "lossmap-embeddings/3"
    assert content["arrays"]["pre"] == {"shape": [WIDTH], "dtype": "float16"}


@pytest.mark.parametrize("seed", range(12))
def test_any_layouts_in_any_batches_and_parts_come_back(tmp_path, monkeypatch, seed):
    rng = np.random.default_rng(seed)
    n, chunk = int(rng.integers(1, 30)), int(rng.integers(1, 40)) * ROW_BYTES
    monkeypatch.setattr(writer_module, "CHUNK_BYTES", chunk)
    monkeypatch.setattr(writer_module, "SHARD_BYTES", chunk * int(rng.integers(1, 9)))
    layouts = [random_layout(rng) for _ in range(n)]
    pre, post = images(layouts, seed, "float32")
    parts = sorted(rng.choice(np.arange(1, n), min(n - 1, int(rng.integers(0, 4))), replace=False).tolist())
    how = {"parts": parts, "dtype": "float32"}
    index = write_ragged(tmp_path / "toy.json", layouts, pre, post, **how, size=int(rng.integers(1, 9)))
    dataset = open_store(index)
    assert_images(dataset, layouts, pre, post)
    whole = np.concatenate(post)
    rows = rng.integers(0, len(whole), 9)
    assert np.array_equal(dataset["post"][rows].values, whole[rows])
    assert np.array_equal(np.concatenate(list(iterate(dataset, "pre", 7))), np.concatenate(pre))
    bare = write_ragged(tmp_path / "bare.json", layouts, pre, post, **how, store_post=False)
    again = open_store(bare, recompute=connect)
    assert np.array_equal(again["post"].values, whole)
    assert np.array_equal(again["post"][rows].values, whole[rows])


def test_memory_holds_what_a_store_holds(index):
    stored, here = open_store(index), in_memory(batches(LAYOUTS, PRE, POST), IDS, HOW)
    for name in ("images", "image_ids_sha256"):
        del stored.attrs[name]
    xr.testing.assert_identical(stored.load(), here)
    assert as_embeddings(here) is here


def test_same_embeddings_same_bytes_whatever_the_batches(tmp_path, small):
    first = write_ragged(tmp_path / "a/toy.json", LAYOUTS, PRE, POST, parts=[CUT], size=1)
    second = write_ragged(tmp_path / "b/toy.json", LAYOUTS, PRE, POST, parts=[CUT], size=N)
    assert first.read_bytes() == second.read_bytes()


def test_arrays_grow_shard_by_shard_while_images_are_embedded(tmp_path, small):
    writer = RaggedPartWriter(tmp_path / "part.zarr", IDS, WIDTH, WIDTH_OUT, "float16", HOW)
    for number, batch in enumerate(batches(LAYOUTS, PRE, POST, size=1), start=1):
        writer.append(**batch)
        patches = sum(map(len, PRE[:number]))
        assert len(list(writer.partial.glob("pre/c/*/0"))) == patches // 20
        assert sum(map(len, writer.flat["pre"].growing.held if writer.flat["pre"].growing else [])) < 20
    writer.close()
    part = zarr.open_group(tmp_path / "part.zarr", mode="r")
    assert part["pre"].shape == (sum(map(len, PRE)), WIDTH)
    assert (part["pre"].chunks[0], part["pre"].shards[0]) == (4, 20)
    assert np.array_equal(part["pre"][:], np.concatenate(PRE))


def test_a_small_part_takes_no_more_room_than_it_needs(tmp_path, index):
    size = (tmp_path / PARTS[0] / "pre/c/0/0").stat().st_size
    assert size - sum(x.nbytes for x in PRE[:CUT]) < 32  # where its chunk lies


def test_a_part_opens_with_plain_xarray_and_one_image_is_read(tmp_path, index, recwarn):
    part = xr.open_zarr(tmp_path / PARTS[1], chunks=None)
    start, stop = part["patch_offset"][3:5].values
    assert np.array_equal(part["pre"][start:stop].values, PRE[CUT + 3])
    assert part["image_id"].values.tolist() == IDS[CUT:]
    assert part["span_shape"].dims == ("span", "span_field")
    assert_images(part, LAYOUTS[CUT:], PRE[CUT:], POST[CUT:])
    assert not [str(w.message) for w in recwarn.list]


def counted(monkeypatch):
    read, plain = [], CheckedFiles.read
    monkeypatch.setattr(
        CheckedFiles, "read", lambda self, *a: read.append((a[0], len(data := plain(self, *a)))) or data
    )
    return read


def test_few_images_of_a_large_part_are_read_without_the_others(tmp_path, monkeypatch):
    """Chunks of 40 patches, of some 4,000: those of three images, and where they lie in their shard."""
    monkeypatch.setattr(writer_module, "CHUNK_BYTES", 40 * ROW_BYTES)
    monkeypatch.setattr(writer_module, "SHARD_BYTES", 2000 * ROW_BYTES)
    layouts = LAYOUTS * 9
    pre, post = images(layouts)
    index = write_ragged(tmp_path / "toy.json", layouts, pre, post)
    found, read = Images(open_store(index)), counted(monkeypatch)
    assert sum(map(len, pre)) > 4000
    for image in (7, 100, 170):
        assert np.array_equal(found.read("pre", [image])[0], pre[image])
    size = sum(count for name, count in read if name.startswith("pre/"))
    chunks = sum(len(pre[image]) // 40 + 2 for image in (7, 100, 170))
    assert size <= chunks * 40 * ROW_BYTES + 3 * (50 * 16 + 4)
    assert {name.split("/")[0] for name, _ in read} == {"pre"}


# Faults


@pytest.mark.parametrize("name", sorted({*RAGGED_DIMENSIONS, "image_id"}))
def test_one_changed_byte_is_found_and_its_images_named(tmp_path, index, name):
    file = next(f for f in sorted((tmp_path / PARTS[1] / name / "c").rglob("*")) if f.is_file())
    flip(file, 1)
    wanted = "image ids" if name == "image_id" else "images image-14 to image-22"
    with pytest.raises(StoreError, match=f"part-000014-000023.zarr/{name}/c.*{wanted} can't be trusted.*Delete .*"):
        open_store(index)[name].values  # noqa: B018


@pytest.mark.parametrize(("name", "items"), [("pre", PRE), ("post", POST)])
def test_a_changed_chunk_names_the_images_that_it_holds(tmp_path, small, name, items):
    index = write_ragged(tmp_path / "toy.json", LAYOUTS, PRE, POST, parts=[CUT])
    rows = np.repeat(np.arange(CUT, N), list(map(len, items[CUT:])))
    chunk = writer_module.CHUNK_BYTES // (2 * items[0].shape[1])
    width = 2 * items[0].shape[1] * chunk
    for file in sorted((tmp_path / PARTS[1] / name / "c").glob("*/0"), key=lambda f: int(f.parent.name)):
        shard = int(file.parent.name) * zarr.open_group(tmp_path / PARTS[1])[name].shards[0]
        for place in range(0, len(rows[shard : shard + 20]) // chunk):
            held = rows[shard + place * chunk : shard + (place + 1) * chunk]
            flip(file, place * width)
            first, last = f"image-{held[0]}", f"image-{held[-1]}"
            wanted = f"image {first} can't" if first == last else f"images {first} to {last} can't"
            with pytest.raises(StoreError, match=f"{name}/c/{file.parent.name}/0: {wanted} be trusted"):
                open_store(index)[name].values  # noqa: B018
            flip(file, place * width)
    assert open_store(index)[name].shape == (sum(map(len, items)), items[0].shape[1])


def test_a_lost_file_and_a_lost_part_are_named(tmp_path, index):
    file = tmp_path / PARTS[0] / "pre/c/0/0"
    content = file.read_bytes()
    file.unlink()
    with pytest.raises(StoreError, match="pre/c/0/0: this file of the store is missing; .* image-0 to image-13"):
        open_store(index)
    file.write_bytes(content[:-1])
    with pytest.raises(StoreError, match="pre/c/0/0: .* bytes, .* were written; it holds images image-0 to image-13"):
        open_store(index)
    file.write_bytes(content)
    (tmp_path / PARTS[0]).rename(tmp_path / "aside")
    with pytest.raises(StoreError, match="000014.zarr: this part of the store is missing"):
        open_store(index)


def test_a_whole_store_is_verified_and_every_fault_is_listed(tmp_path, index, capsys):
    assert main(["verify", str(index)]) == 0
    assert "2 parts, " in capsys.readouterr().out
    first, second = (tmp_path / part for part in PARTS)
    flip(first / "patch_offset/c/0")
    flip(first / "pre/c/0/0")
    flip(second / "span_shape/c/0/0")
    (second / "post/c/0/0").unlink()
    (second / "post/left").touch()
    assert main(["verify", str(index)]) == 1
    found = sorted(line[4:] for line in capsys.readouterr().err.splitlines() if line.startswith("  - "))
    changed = "can't be trusted: the file was changed after it was written."
    patches = sum(map(len, PRE[:CUT]))
    assert found == [
        f"{first}/patch_offset/c/0: images image-0 to image-13 {changed}",
        f"{first}/pre/c/0/0: rows 0 to {patches - 1} of pre {changed}",
        f"{second}/post/c/0/0: this file of the store is missing; it holds images image-14 to image-22.",
        f"{second}/post/left: this file does not belong to the store.",
        f"{second}/span_shape/c/0/0: images image-14 to image-22 {changed}",
    ]


def test_every_byte_counts(tmp_path, small, capsys):
    index = write_ragged(tmp_path / "toy.json", LAYOUTS[:4], PRE[:4], POST[:4])
    for file in sorted(f for f in (tmp_path / "toy").rglob("*") if f.is_file()):
        for place in {0, file.stat().st_size // 2, file.stat().st_size - 1}:
            flip(file, place)
            assert main(["verify", str(index)]) == 1
            assert str(file.parents[-len(tmp_path.parts) - 2]) in capsys.readouterr().err
            flip(file, place)
    assert main(["verify", str(index)]) == 0


KILLED = """
import os, signal, sys
sys.path[:0] = {path!r}
from test_store_ragged import HOW, IDS, LAYOUTS, POST, PRE, Path, batches, write_part, writer_module
writer_module.CHUNK_BYTES, writer_module.SHARD_BYTES = 40, 400

def embedded():
    for number, batch in enumerate(batches(LAYOUTS, PRE, POST)):
        if number == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        yield batch

write_part(embedded(), Path({part!r}), IDS, "float16", HOW)
"""


def test_a_killed_run_leaves_nothing_that_looks_finished(tmp_path):
    part = tmp_path / "toy/part-000000-000023.zarr"
    part.parent.mkdir()
    code = KILLED.format(path=[p for p in sys.path if p], part=str(part))
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == -9
    assert [path.name for path in part.parent.iterdir()] == [f".{part.name}.partial"]
    assert list(part.parent.glob(".*/pre/c/*"))
    with pytest.raises(StoreError, match="zarr.json: can't be read"):
        write_index([part], tmp_path / "toy.json")
    index = write_ragged(tmp_path / "toy.json", LAYOUTS, PRE, POST)
    assert [path.name for path in part.parent.iterdir()] == [part.name]
    assert_images(open_store(index))


@pytest.mark.parametrize("after", [0, 4, 9, 14, 30])
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, small, after):
    failing(monkeypatch, errno.ENOSPC, after)
    with pytest.raises(StoreError, match=r"^the disk is full: .*part-0.*zarr can't be written"):
        write_ragged(tmp_path / "toy.json", LAYOUTS, PRE, POST)
    assert [p.name for p in (tmp_path / "toy").glob("*")] == []


@pytest.mark.parametrize(("name", "items"), [("pre", PRE), ("post", POST)])
@pytest.mark.parametrize("store_post", [True, False])
def test_a_value_that_is_not_finite_names_its_image(tmp_path, name, items, store_post):
    changed = [x.astype("float32") for x in items]
    changed[6][-1, 2] = np.nan
    given = {"pre": PRE, "post": POST} | {name: changed}
    embedded = batches(LAYOUTS, **given)
    with pytest.raises(StoreError, match=f"{name} of image image-6 is not finite.*compute_dtype"):
        write_part(embedded, tmp_path / "p.zarr", IDS, "float16", HOW, store_post)
    with pytest.raises(StoreError, match=f"embeddings in memory: {name} of image image-6 is not finite"):
        in_memory(batches(LAYOUTS, **given), IDS, HOW)
    changed[6][-1, 2] = 1e6
    with (
        np.errstate(over="ignore"),
        pytest.raises(StoreError, match=f"{name} of image image-6 holds a value beyond the range of float16"),
    ):
        write_part(batches(LAYOUTS, **given), tmp_path / "p.zarr", IDS, "float16", HOW, store_post)
    assert not (tmp_path / "p.zarr").exists()


def test_batches_that_do_not_fit_their_layouts_are_refused(tmp_path):
    def writer():
        return RaggedPartWriter(tmp_path / "p.zarr", IDS, WIDTH, WIDTH_OUT, "float16", HOW)

    batch = next(batches(LAYOUTS, PRE, POST))
    with pytest.raises(ValueError, match="a batch has .* rows, of its 4 layouts are wanted"):
        writer().append(**batch | {"pre": batch["pre"][1:]})
    with pytest.raises(ValueError, match="a batch has"):
        writer().append(**{name: values for name, values in batch.items() if name != "post_mean"})
    with pytest.raises(ValueError, match="append wants pre of"):
        writer().append(**batch | {"pre": batch["pre"][:, 1:]})
    one = LAYOUTS[0]
    with pytest.raises(ValueError, match="not as many boxes as views"):
        writer().append(**batch | {"layouts": [Layout(1, 1, one.shape, ()), *LAYOUTS[1:4]]})
    short = writer()
    short.append(**batch)
    with pytest.raises(StoreError, match="4 images were embedded, 23 were expected"):
        short.close()


def test_parts_of_both_formats_are_not_joined(tmp_path, index):
    write(tmp_path / "other", how={**HOW, "pre_grid": [2, 2]})
    rectangular = tmp_path / "other/toy/part-000000-000005.zarr"
    with pytest.raises(
        StoreError, match=f"{rectangular} is of format lossmap-embeddings/2, .*zarr of lossmap-embeddings/3: .*layout"
    ):
        write_index([tmp_path / PARTS[0], rectangular], tmp_path / "both.json")


def test_parts_made_in_different_ways_are_not_joined(tmp_path, index):
    other = write_ragged(tmp_path / "other/toy.json", LAYOUTS, PRE, POST, [CUT], how={**HOW, "key": {"version": 2}})
    with pytest.raises(StoreError, match="not made in the same way: key: checkpoint, key: version differ"):
        write_index([tmp_path / PARTS[0], other.parent / PARTS[1]], tmp_path / "both.json")


def test_formats_that_are_not_known_are_refused(tmp_path, index):
    text = index.read_text()
    index.write_text(text.replace("lossmap-embeddings/3", "lossmap-embeddings/4"))
    with pytest.raises(StoreError, match="of format lossmap-embeddings/4; this version of Lossmap reads .*/3 and .*/2"):
        open_store(index)
    index.write_text(text.replace("lossmap-embeddings/3", "lossmap-embeddings/2"))
    with pytest.raises(StoreError, match="format differ from what the parts say: it was edited"):
        open_store(index)


# Post that is not stored


def test_post_is_recomputed_of_the_images_that_are_asked_for(tmp_path):
    index = write_ragged(tmp_path / "toy.json", LAYOUTS, PRE, POST, parts=[CUT], store_post=False)
    assert not list((tmp_path / "toy").glob("*/post"))
    asked = []

    def recompute(pre, shape):
        asked.append((len(pre), shape))
        assert pre.shape == (len(pre), shape.patches, WIDTH)
        return connect(pre, shape)

    dataset, whole = open_store(index, recompute), np.concatenate(POST)
    assert dataset["post"].shape == whole.shape
    assert dataset.attrs["post"] == {"shape": [WIDTH_OUT], "dtype": "float16", "stored": False}
    assert list(dataset) == list(open_store(write_ragged(tmp_path / "b.json", LAYOUTS, PRE, POST)))
    assert asked == []
    offsets = dataset["token_offset"].values
    rows = slice(int(offsets[12]) + 1, int(offsets[15]) - 1)
    assert np.array_equal(dataset["post"][rows].values, whole[rows])
    assert sum(count for count, _ in asked) == 3
    scattered = [int(offsets[20]), 0, int(offsets[20]) + 1, 0]
    asked.clear()
    assert np.array_equal(dataset["post"][scattered, 1:3].values, whole[scattered, 1:3])
    assert sum(count for count, _ in asked) == 2
    assert dataset["post"][[]].shape == (0, WIDTH_OUT)
    assert np.array_equal(dataset["post"][-1].values, whole[-1])
    assert_images(dataset)
    with pytest.raises(StoreError, match=r"toy.json: post is not stored \(store_post: false\).*recompute="):
        open_store(index)["post"][0].values  # noqa: B018


def test_post_is_recomputed_in_blocks_of_bounded_size(tmp_path, monkeypatch):
    layouts = [LAYOUTS[0]] * 8
    pre, post = images(layouts)
    index = write_ragged(tmp_path / "toy.json", layouts, pre, post, parts=[5], store_post=False)
    shape = LAYOUTS[0].shape
    monkeypatch.setattr(rows_module, "RECOMPUTED_BYTES", 3 * 2 * (shape.patches * WIDTH + shape.tokens * WIDTH_OUT))
    asked = []
    dataset = open_store(index, lambda *given: asked.append(len(given[0])) or connect(*given))
    assert np.array_equal(dataset["post"].values, np.concatenate(post))
    assert asked == [3, 3, 2]


def test_a_connector_of_another_model_is_refused(tmp_path):
    index = write_ragged(tmp_path / "toy.json", LAYOUTS, PRE, POST, parts=[CUT], store_post=False)
    with pytest.raises(StoreError, match=r"was recomputed with the shape \(\d+, \d+, 4\), wanted \(\d+, \d+, 5\)"):
        open_store(index, lambda *given: connect(*given)[..., :4])["post"].values  # noqa: B018
    broken = open_store(
        index, lambda pre, shape: connect(pre, shape) * np.where(pre[:, :1, :1] == PRE[20][0, 0], 1e9, 1)
    )
    with pytest.raises(StoreError, match="post of image image-20, recomputed, is not finite in float16"):
        broken["post"].values  # noqa: B018


# Sharing


def test_equal_patches_of_two_stores_are_on_disk_once(tmp_path, index):
    tuned = write_ragged(tmp_path / "tuned.json", LAYOUTS, PRE, [2 * x for x in POST], parts=[CUT])
    found = share_pre(index, tuned)
    assert found.bytes == found.equal == found.shared > 0
    files = [path.with_suffix("") / f"part-000000-{CUT:06d}.zarr/pre/c/0/0" for path in (index, tuned)]
    assert files[0].samefile(files[1])
    assert main(["verify", str(tuned)]) == 0
    assert_images(open_store(tuned), post=[2 * x for x in POST])


# Embeddings of other tools


def test_lists_of_arrays_are_the_same_embeddings(index):
    stored, given = open_store(index), from_arrays(PRE, POST, layouts=LAYOUTS, image_ids=IDS)
    assert_images(given)
    for name in RAGGED_DIMENSIONS:
        xr.testing.assert_equal(stored[name].load(), given[name])
    assert as_embeddings(given) is given
    assert given.attrs["post_grid"] is None
    xr.testing.assert_equal(given["token_box"], with_patch_boxes(stored)["token_box"])
    assert from_arrays([x.tolist() for x in PRE], POST, layouts=LAYOUTS)["pre"].dtype == np.float32


WHOLE = Layout(8, 8, Shape((ViewShape(2, 2),), (Span(2, 2),)), ((0, 0, 8, 8),))
TILED = Layout(8, 8, Shape((ViewShape(2, 2),), (Span(2, 2, 0, (1, 2)),)), ((0, 0, 8, 8),))
BEYOND = Layout(8, 8, Shape((ViewShape(2, 2),), (Span(2, 2, top=1),)), ((0, 0, 8, 8),))
X = np.ones((4, 3))


@pytest.mark.parametrize(
    ("pre", "post", "how", "message"),
    [
        ([X], [X], {"layouts": [WHOLE], "pre_grid": (2, 2)}, "layouts say where"),
        ([X], [X, X], {"layouts": [WHOLE]}, "pre has 1 items, post 2, image_ids 1 and layouts 1"),
        ([], [], {"layouts": []}, "one or more"),
        ([X], [X[1:]], {"layouts": [WHOLE]}, r"post of item 0 has the shape \(3, 3\); .* want \(4, 3\)"),
        ([X, X[:, 1:]], [X, X], {"layouts": [WHOLE] * 2, "image_ids": "ab"}, r"pre of item b has the shape \(4, 2\)"),
        ([X, X], [X, X * np.inf], {"layouts": [WHOLE] * 2, "image_ids": "ab"}, "post of image b is not finite"),
        ([X], [X[0]], {"layouts": [WHOLE]}, "post of item 0: is an array of float64, shape"),
        ([X], [X], {"layouts": [Layout(8, 8, WHOLE.shape, ())]}, "layout of item 0: 0 boxes are given for 1 views"),
        ([X], [X], {"layouts": [TILED]}, "layout of item 0: span 0, .* can't be made of the views"),
        ([X], [X], {"layouts": [BEYOND]}, "layout of item 0: span 0, .* reaches beyond its views"),
        ([X, X[1:]], [X, X], {}, "pre: is no array .* layouts="),
    ],
)
def test_lists_that_do_not_fit_are_refused(pre, post, how, message):
    with pytest.raises(LossmapError, match=message):
        from_arrays(pre, post, **how)


def test_a_dataset_cut_by_its_images_is_refused():
    given = from_arrays(PRE, POST, layouts=LAYOUTS)
    with pytest.raises(LossmapError, match="layouts of 23 images and 2 names. .* isel can't pick some"):
        as_embeddings(given.isel(image=[0, 1]))
    with pytest.raises(LossmapError, match=r"without \['span_shape'\]"):
        as_embeddings(given.drop_vars("span_shape"))


# Boxes


def test_boxes_are_those_of_the_layouts(index):
    dataset = open_embeddings(index)
    for name, axis in (("patch_box", "patch"), ("token_box", "token")):
        wanted = np.concatenate([getattr(layout, f"{name}es") for layout in LAYOUTS]).astype("float32")
        assert (dataset[name].dims, dataset[name].dtype) == ((axis, "edge"), np.float32)
        assert np.isnan(wanted).any()
        assert np.array_equal(dataset[name].values, wanted, equal_nan=True)
        assert np.array_equal(dataset[name][[30, 2], 1:3].values, wanted[[30, 2], 1:3], equal_nan=True)
    assert dataset.encoding["source"] == str(index)


def test_boxes_of_some_rows_are_computed_for_their_images_alone(index, monkeypatch):
    dataset, asked = open_embeddings(index), []
    from lossmap.store import boxes

    plain = boxes.patch_boxes
    monkeypatch.setattr(boxes, "patch_boxes", lambda *given: asked.append(len(given[0])) or plain(*given))
    start = int(dataset["patch_offset"][5])
    dataset["patch_box"][start : start + 1].values  # noqa: B018
    assert asked == [1] * len(LAYOUTS[5].shape.views)


def test_a_rectangular_store_stays_as_it_was(tmp_path):
    index, _ = write(tmp_path)
    assert json.loads(index.read_text())["format"] == "lossmap-embeddings/2"
    dataset = open_embeddings(index)
    assert dataset["patch_box"].dims == ("image", "patch", "edge")
    assert "token_box" not in dataset
    assert Path(dataset.encoding["source"]) == index
