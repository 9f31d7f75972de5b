"""Equal patches of two stores on disk once: links where bytes are equal, two whole stores, and every fault."""

import errno
import os
import shutil

import numpy as np
import pytest
from toy_store import embeddings, write_store

from lossmap.store import StoreError, open_store
from lossmap.store.sharing import share_pre
from lossmap.study.steps import verify


@pytest.fixture
def stores(tmp_path):
    """Two stores of two parts with the same pre; post differs, as after another connector."""
    pre, post = embeddings(40)
    made = [
        write_store(tmp_path / f"{name}.json", pre, post * scale, parts=[25]) for name, scale in (("a", 1), ("b", 2))
    ]
    return *made, pre


def shards(index):
    return sorted(path for path in index.with_suffix("").glob("*/pre/c/**/*") if path.is_file())


def test_equal_patches_are_on_disk_once_and_both_stores_stay_whole(stores):
    base, tuned, pre = stores
    contents = [path.read_bytes() for path in shards(tuned)]
    found = share_pre(base, tuned)
    assert found.bytes == found.equal == found.shared == sum(map(len, contents)) > 0
    assert [path.stat().st_ino for path in shards(tuned)] == [path.stat().st_ino for path in shards(base)]
    assert [path.read_bytes() for path in shards(tuned)] == contents
    for index in (base, tuned):
        verify.run(index)
    shutil.rmtree(base.with_suffix(""))
    verify.run(tuned)
    np.testing.assert_array_equal(open_store(tuned)["pre"].values, pre.astype("float16"))


def test_a_second_call_changes_nothing(stores):
    base, tuned, _ = stores
    first = share_pre(base, tuned)
    before = [path.stat() for path in shards(tuned)]
    assert share_pre(base, tuned) == first
    assert [path.stat() for path in shards(tuned)] == before


def test_what_differs_in_one_image_is_kept_in_both(stores, tmp_path):
    base, _, pre = stores
    other = pre.copy()
    other[30] += 1  # of the second part
    third = write_store(tmp_path / "c.json", other, embeddings(40)[1], parts=[25])
    found = share_pre(base, third)
    sizes = [path.stat().st_size for path in shards(third)]
    assert found.equal == found.shared == sizes[0]
    assert found.bytes == sum(sizes)
    np.testing.assert_array_equal(open_store(third)["pre"].values, other.astype("float16"))


def test_other_parts_share_nothing(stores, tmp_path):
    base, _, pre = stores
    third = write_store(tmp_path / "c.json", pre, embeddings(40)[1], parts=[20])
    assert share_pre(base, third).equal == 0


def test_where_the_file_system_has_no_links_both_files_stay(stores, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    base, tuned, _ = stores
    monkeypatch.setattr(os, "link", refuse)
    found = share_pre(base, tuned)
    assert (found.equal, found.shared) == (found.bytes, 0)
    verify.run(tuned)


def test_a_damaged_file_is_not_spread(stores):
    base, tuned, _ = stores
    first = shards(base)[0]
    first.write_bytes(b"\0" * first.stat().st_size)
    with pytest.raises(StoreError, match="can't be trusted: the file was changed after it was written"):
        share_pre(base, tuned)
    verify.run(tuned)
