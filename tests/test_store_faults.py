"""What is in a part's place, or wrong with the disk, when a part is written."""

import errno
import itertools
import os
import shutil

import pytest
from small_disk import may_mount, small_disk
from test_store import HOW, POST, PRE, small_chunks, write
from zarr.storage import _local as zarr_local

from lossmap.store import PartWriter, StoreError, open_store


@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_in_a_parts_place_is_replaced_and_what_it_leads_to_stays(tmp_path, dangling):
    """Snakemake's cache between workflows leaves such links; a cache that was wiped, dangling ones."""
    write(tmp_path / "a")
    cached, part = tmp_path / "cached", tmp_path / "a/toy/part-000000-000005.zarr"
    part.rename(cached)
    part.symlink_to(cached)
    before = {f: f.read_bytes() for f in cached.rglob("*") if f.is_file()}
    if dangling:
        shutil.rmtree(cached)
    index, given = write(tmp_path / "a", batches=1)
    assert not part.is_symlink()
    assert (open_store(index)["pre"].values == given["pre"].astype("float16")).all()
    assert dangling or {f: f.read_bytes() for f in cached.rglob("*") if f.is_file()} == before


def test_a_folder_of_links_is_replaced_and_what_they_lead_to_stays(tmp_path):
    write(tmp_path / "a")
    cached, part = tmp_path / "cached", tmp_path / "a/toy/part-000000-000005.zarr"
    part.rename(cached)
    part.mkdir()
    for entry in cached.iterdir():
        (part / entry.name).symlink_to(entry)
    index, _ = write(tmp_path / "a")
    assert not any(entry.is_symlink() for entry in part.iterdir())
    assert (cached / "pre/c/0/0/0").read_bytes() == (part / "pre/c/0/0/0").read_bytes()
    assert open_store(index)["pre"].shape == (8, *PRE)


def failing(monkeypatch, number, after):
    """The disk refuses the write number `after` of a part's files."""
    count, write_file = itertools.count(), zarr_local._put

    def put(*arguments, **named):
        if next(count) >= after:
            raise OSError(number, os.strerror(number))
        return write_file(*arguments, **named)

    monkeypatch.setattr(zarr_local, "_put", put)


@pytest.mark.parametrize("after", [0, 3, 9, 12, 18])
def test_a_full_disk_leaves_nothing_and_says_what_to_do(tmp_path, monkeypatch, after):
    small_chunks(monkeypatch)
    write(tmp_path / "finished")
    failing(monkeypatch, errno.ENOSPC, after)
    with pytest.raises(
        StoreError, match=r"^the disk is full: .*part-0.*zarr can't be written .*Free space .*run again"
    ):
        write(tmp_path)
    assert not (tmp_path / "toy.json").exists()
    assert [p.name for p in (tmp_path / "toy").glob("*")] == []
    assert open_store(tmp_path / "finished/toy.json")["pre"].shape == (8, *PRE)


def test_a_part_in_place_stays_where_its_successor_finds_no_room(tmp_path, monkeypatch):
    index, given = write(tmp_path)
    failing(monkeypatch, errno.EDQUOT, 5)
    with pytest.raises(StoreError, match="the disk is full"):
        write(tmp_path, batches=1)
    assert (open_store(index)["pre"].values == given["pre"].astype("float16")).all()


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_may_not_be_written_is_named(tmp_path, monkeypatch, number):
    failing(monkeypatch, number, 0)
    with pytest.raises(StoreError, match=f"p.zarr: can't be written .*Make {tmp_path} writable, or run"):
        PartWriter(tmp_path / "p.zarr", ["a"], PRE, POST, "float16", HOW)


def test_other_faults_of_a_disk_keep_their_traceback(tmp_path, monkeypatch):
    failing(monkeypatch, errno.EIO, 0)
    with pytest.raises(OSError, match="Input/output error"):
        PartWriter(tmp_path / "p.zarr", ["a"], PRE, POST, "float16", HOW)


@pytest.mark.skipif(bool(may_mount()), reason=may_mount())
def test_a_real_disk_that_is_full_and_one_that_is_read_only(tmp_path):
    disk = tmp_path / "disk"
    with small_disk(disk, 1024) as change:
        with pytest.raises(StoreError, match="^the disk is full: .*Free space"):
            write(disk, counts=(2, 20_000))
        assert [path.name for path in (disk / "toy").iterdir()] == ["part-000000-000002.zarr"]
        write(disk, counts=(2,))
        change("ro")
        read_only = "part-000000-000002.zarr: can't be written .Read-only file system.*writable"
        with pytest.raises(StoreError, match=read_only):
            write(disk, counts=(2,))
        assert open_store(disk / "toy.json")["pre"].shape == (2, *PRE)
