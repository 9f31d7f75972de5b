"""`lossmap verify`: all that is wrong with a store, in one message."""

import json
import os
import shutil

import numpy as np
import pytest
from toy_store import embeddings, write_store

from lossmap.__main__ import main
from lossmap.store import StoreError, open_store
from lossmap.store import writer as writer_module

PARTS = "toy/part-000000-000005.zarr", "toy/part-000005-000012.zarr"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """Two parts of 5 and 7 images; three images in a shard, one in a chunk of pre."""
    pre, post = embeddings(12)
    image_bytes = pre[0].size * 2
    monkeypatch.setattr(writer_module, "CHUNK_BYTES", image_bytes)
    monkeypatch.setattr(writer_module, "SHARD_BYTES", 3 * image_bytes)
    monkeypatch.setattr(writer_module, "SHARDS", 1)
    return write_store(tmp_path / "toy.json", pre, post, parts=[5])


def flip(file, place=0):
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def verified(index, capsys):
    """Exit status, what was printed, and the lines of problems."""
    status = main(["verify", str(index)])
    out, err = capsys.readouterr()
    return status, out, [line.removeprefix("  - ") for line in err.splitlines() if line.startswith("  - ")]


def test_a_whole_store_is_one_line_that_counts_every_file_and_byte(index, tmp_path, capsys):
    status, out, problems = verified(index, capsys)
    files = [
        f for part in PARTS for f in (tmp_path / part).rglob("*") if f.is_file() and f != tmp_path / part / "zarr.json"
    ]
    size = sum(f.stat().st_size for f in files)
    assert (status, problems) == (0, [])
    assert out.startswith(f"{index}: 2 parts, {len(files)} files, {size} bytes are what was written (")
    assert len(out.splitlines()) == 1


def test_parts_of_other_code_make_the_same_store(tmp_path, capsys):
    """Equal keys: the same index, digests and all, whoever made the parts. Verifying tells, and finds no fault."""
    pre, post = embeddings(12)
    plain = write_store(tmp_path / "plain/toy.json", pre, post, parts=[5, 8])
    made = [{"code": "a", "commit": None}, {"code": "b", "commit": "c"}, {"code": "b", "commit": "c"}]
    told = write_store(tmp_path / "told/toy.json", pre, post, parts=[5, 8], made=made)
    assert told.read_bytes() == plain.read_bytes()
    assert verified(plain, capsys)[1].count("\n") == 1
    status, out, problems = verified(told, capsys)
    assert (status, problems) == (0, [])
    assert out.splitlines()[1:] == [
        "For information: its parts were made by different code or software, with equal keys.",
        "  - code a, commit None: 1 parts, the first is part-000000-000005.zarr",
        "  - code b, commit c: 2 parts, the first is part-000005-000008.zarr",
    ]
    (tmp_path / "told/toy/part-000005-000008.zarr/provenance.json").write_text("{")
    assert main(["verify", str(told)]) == 1
    assert "provenance.json: can't be read" in capsys.readouterr().err


def test_every_byte_counts(index, tmp_path, capsys):
    """Bytes at five places of each file, changed one at a time."""
    part, changes = tmp_path / PARTS[0], 0
    for file in sorted(f for f in part.rglob("*") if f.is_file()):
        for place in range(0, file.stat().st_size, max(1, file.stat().st_size // 5)):
            flip(file, place)
            status, _, problems = verified(index, capsys)
            assert status == 1
            assert len(problems) == 1
            assert str(part) in problems[0]
            flip(file, place)
            changes += 1
    assert changes > 50
    assert verified(index, capsys)[0] == 0


def test_all_that_is_wrong_is_told_at_once_with_the_images(index, tmp_path, capsys):
    first, second = (tmp_path / part for part in PARTS)
    flip(second / "pre/c/1/0/0", writer_module.CHUNK_BYTES)  # the shard holds images 8 to 10 of the store
    (second / "post/c/0/0/0").unlink()
    os.truncate(second / "size/c/0/0", 3)
    (second / "pre/c/9").mkdir()
    (second / "pre/c/9/left.txt").write_text("?")
    shutil.rmtree(first)
    status, out, problems = verified(index, capsys)
    assert (status, out) == (1, "")
    assert sorted(problems) == sorted(
        [
            f"{first}: this part of the store is missing; it holds images image-0 to image-4.",
            f"{second}/pre/c/1/0/0: image image-9 can't be trusted: the file was changed after it was written.",
            f"{second}/post/c/0/0/0: this file of the store is missing; it holds images image-5 to image-11.",
            f"{second}/size/c/0/0: 3 bytes, {7 * 8 + 20} were written; it holds images image-5 to image-11.",
            f"{second}/pre/c/9/left.txt: this file does not belong to the store.",
        ]
    )


def test_the_message_says_what_to_do(index, tmp_path, capsys):
    flip(tmp_path / PARTS[0] / "box/c/0/0")
    assert main(["verify", str(index), "--threads", "1"]) == 1
    message = capsys.readouterr().err
    assert f"error: {index}: this store is not what was written:\n  - " in message
    assert f"Delete {index} and the parts (.zarr) that are damaged or lack files, and run again" in message


@pytest.mark.parametrize("place", [0, -1])
def test_blocks_that_are_damaged_are_named_apart(index, tmp_path, capsys, place):
    """In a shard of three images, the first and the last; a damaged list of chunks concerns all of them."""
    shard, size = tmp_path / PARTS[0] / "pre/c/0/0/0", writer_module.CHUNK_BYTES
    flip(shard)
    flip(shard, 2 * size if place == 0 else -1)
    wanted = "image image-0 and image image-2" if place == 0 else "images image-0 to image-2"
    assert f"{wanted} can't be trusted" in verified(index, capsys)[2][0]


def test_swapped_files_and_swapped_parts_are_found(index, tmp_path, capsys):
    first, second = (tmp_path / part for part in PARTS)
    for a, b in ((first / "pre/c/0/0/0", second / "pre/c/0/0/0"), (first / "pre/c/0/0/0", first / "post/c/0/0/0")):
        swap(a, b)
        assert sorted(p.split(":")[0] for p in verified(index, capsys)[2]) == sorted([str(a), str(b)])
        swap(a, b)
    swap(first, second)
    problems = verified(index, capsys)[2]
    assert [p.split(":")[0] for p in problems] == [str(first), str(second)]
    assert all("is not the part that was indexed" in p for p in problems)
    swap(first, second)
    assert verified(index, capsys)[0] == 0


def swap(a, b):
    aside = a.with_name("aside")
    a.rename(aside)
    b.rename(a)
    aside.rename(b)


def test_damaged_image_ids_hide_no_other_damage(index, tmp_path, capsys):
    flip(tmp_path / PARTS[1] / "image_id/c/0", 7)
    flip(tmp_path / PARTS[1] / "pre/c/0/0/0")
    problems = verified(index, capsys)[2]
    assert len(problems) == 2
    assert any("image_id/c/0: the image ids can't be trusted" in p for p in problems)
    assert any("pre/c/0/0/0: image number 0 can't be trusted" in p for p in problems)


def test_an_edited_part_and_an_edited_index_are_found(index, tmp_path, capsys):
    root = tmp_path / PARTS[0] / "zarr.json"
    text = root.read_text()
    root.write_text(text.replace('"toy"', '"other"'))
    assert (
        "is not the part that was indexed (its digest differs); it holds images image-0 to image-4"
        in (verified(index, capsys)[2][0])
    )
    root.write_text(text)
    content = json.loads(index.read_text())
    index.write_text(json.dumps(content | {"model": "other"}))
    assert main(["verify", str(index)]) == 1
    assert "model differ from what the parts say: it was edited" in capsys.readouterr().err
    content["parts"][1]["first_image"] = "image-6"
    index.write_text(json.dumps(content))
    assert main(["verify", str(index)]) == 1
    assert "first_image or last_image of" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "lossmap-embeddings/2"}'])
def test_an_index_that_is_none_is_one_error(tmp_path, content, capsys):
    (tmp_path / "toy.json").write_text(content)
    assert main(["verify", str(tmp_path / "toy.json")]) == 1
    assert f"error: {tmp_path}/toy.json: " in capsys.readouterr().err


def test_snakemakes_mark_belongs(index, tmp_path, capsys):
    (tmp_path / PARTS[0] / ".snakemake_timestamp").touch()
    assert verified(index, capsys)[0] == 0


@pytest.mark.parametrize("how", ["part", "entries"])
def test_parts_that_are_links_into_a_cache_are_read_and_checked(index, tmp_path, capsys, how):
    """Both ways in which Snakemake's cache between workflows puts a part in its place."""
    wanted, part = open_store(index)["pre"].values, tmp_path / PARTS[0]
    cached = tmp_path / "cache/0123"
    cached.parent.mkdir()
    part.rename(cached)
    if how == "part":
        part.symlink_to(cached)
    else:
        part.mkdir()
        for entry in cached.iterdir():
            (part / entry.name).symlink_to(entry)
    assert np.array_equal(open_store(index)["pre"].values, wanted)
    assert verified(index, capsys)[0] == 0
    flip(cached / "pre/c/1/0/0")
    assert f"{part}/pre/c/1/0/0: image image-3 can't be trusted" in verified(index, capsys)[2][0]
    (cached / "pre/extra").touch()
    assert any(p == f"{part}/pre/extra: this file does not belong to the store." for p in verified(index, capsys)[2])
    with pytest.raises(StoreError, match="pre/c/1/0/0: image image-3 can't be trusted"):
        open_store(index)["pre"][3].values  # noqa: B018


@pytest.mark.parametrize("when", [0, 4_000_000_000])
def test_times_do_not_matter(index, tmp_path, capsys, when):
    """A clock that goes backwards, a restored backup, a copy."""
    for file in [index, *tmp_path.rglob("*")]:
        os.utime(file, (when, when))
    assert verified(index, capsys)[0] == 0
    assert open_store(index)["post"].shape == (12, 4, 8)


def test_a_store_without_post_is_verified_too(tmp_path, capsys):
    pre, post = embeddings(6)
    index = write_store(tmp_path / "toy.json", pre, post, store_post=False)
    assert verified(index, capsys)[0] == 0
    flip(tmp_path / "toy/part-000000-000006.zarr/post_mean/c/0/0")
    assert "post_mean/c/0/0: images image-0 to image-5 can't be trusted" in verified(index, capsys)[2][0]
