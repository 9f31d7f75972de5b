"""Batches: every image in turn, the same ones in every mode, however the store is cut; every error."""

import numpy as np
import pytest
import torch
from toy_store import embeddings, write_store

from lossmap.errors import LossmapError
from lossmap.reconstruct import batches as batches_module
from lossmap.reconstruct.batches import Batches, HeldOut
from lossmap.reconstruct.pairs import Pairs, connector_of
from lossmap.reconstruct.specs import canonical
from lossmap.reconstruct.statistics import Statistics, store_digest
from lossmap.store import open_store

N = 300
PRE, POST = embeddings(N)
IMAGES = np.flatnonzero(np.arange(N) % 5)  # 240, with gaps


def open_toy(index):
    statistics = Statistics(
        *(torch.zeros(6), torch.ones(6), torch.zeros(8), torch.ones(8)),
        store_digest=store_digest(index),
        connector=canonical({"kind": "own"}),
    )
    store = open_store(index)
    return Pairs(store, connector_of({"kind": "own"}, store, 0), statistics)


@pytest.fixture(autouse=True)
def short_ranges(monkeypatch):
    """Several ranges in a few images."""
    monkeypatch.setattr(batches_module, "RANGE", 32)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return open_toy(write_store(tmp_path_factory.mktemp("one") / "toy.json", PRE, POST))


@pytest.fixture(scope="module")
def cut_pairs(tmp_path_factory):
    return open_toy(write_store(tmp_path_factory.mktemp("cut") / "toy.json", PRE, POST, parts=[1, 90, 91, 200]))


def drawn(batches, epoch=0, start=0):
    return list(batches.epoch(epoch, start))


def same(some, others):
    return len(some) == len(others) and all(
        torch.equal(a, b) for pair, other in zip(some, others, strict=True) for a, b in zip(pair, other, strict=True)
    )


def test_an_epoch_takes_each_image_once_but_those_that_fill_no_batch(pairs):
    batches = Batches(pairs, IMAGES, 32, seed=1)
    assert len(batches) == 7
    order = batches.order(0)
    assert order.shape == (7, 32)
    assert len(np.unique(order)) == 7 * 32
    assert len(Batches(pairs, IMAGES, 240, 1)) == 1


def test_batches_are_the_stores_pairs(pairs):
    batches = Batches(pairs, IMAGES, 7, seed=1)
    for rows, (post, pre) in zip(batches.order(2), drawn(batches, 2), strict=True):
        expected_post, expected_pre = pairs.read(IMAGES[rows])
        assert torch.equal(post, expected_post)
        assert torch.equal(pre, expected_pre)


@pytest.mark.parametrize("buffer", [1, 16, 50, 96, 10_000])
def test_memory_changes_nothing(pairs, buffer):
    held, streamed = (Batches(pairs, IMAGES, 16, 3, buffer, memory) for memory in (10**9, 0))
    assert held.held is not None
    assert streamed.held is None
    for epoch in (0, 1):
        assert same(drawn(held, epoch), drawn(streamed, epoch))


@pytest.mark.parametrize("memory", [0, 10**9])
def test_how_the_store_is_cut_changes_nothing(pairs, cut_pairs, memory):
    assert same(*(drawn(Batches(p, IMAGES, 16, 3, 48, memory)) for p in (pairs, cut_pairs)))


@pytest.mark.parametrize("memory", [0, 10**9])
def test_an_epoch_can_be_taken_up_at_any_batch(pairs, memory):
    batches = Batches(pairs, IMAGES, 16, 3, 48, memory)
    whole = drawn(batches)
    assert len(whole) == 15
    for start in (0, 1, 3, 4, 14, 15):
        assert same(drawn(batches, 0, start), whole[start:])


@pytest.mark.parametrize("memory", [0, 10**9])
def test_steps_run_on_through_epochs(pairs, memory):
    batches = Batches(pairs, IMAGES, 16, 3, 48, memory)
    whole = [batch for epoch in range(3) for batch in drawn(batches, epoch)]
    for start, stop in ((0, 45), (13, 31), (14, 15), (7, 7)):
        assert same(list(batches.steps(start, stop)), whole[start:stop])


def test_epochs_and_seeds_differ_and_repeat(pairs):
    one, same_seed, other = (Batches(pairs, IMAGES, 16, seed) for seed in (3, 3, 4))
    assert (one.order(0) == same_seed.order(0)).all()
    assert (one.order(0) != one.order(1)).any()
    assert (one.order(0) != other.order(0)).any()


def test_a_buffer_mixes_a_few_ranges(pairs):
    batches = Batches(pairs, IMAGES, 16, 3, buffer=64)
    ranges = [np.unique(rows // 32) for rows in batches.order(0)]
    assert max(map(len, ranges)) > 1
    assert len(np.unique(np.concatenate(ranges[:4]))) <= 3  # two whole ranges, or parts of one and the short one


def test_a_buffer_of_everything_shuffles_everything(pairs):
    orders = np.stack([Batches(pairs, IMAGES, 16, seed, 10_000).order(0).ravel() for seed in range(200)])
    first = orders[:, 0]
    assert abs(first.mean() - 119.5) < 5 * np.sqrt(240**2 / 12 / 200)
    neighbours = (np.abs(np.diff(orders, axis=1)) == 1).mean()
    assert neighbours == pytest.approx(2 / 240, abs=0.003)


@pytest.mark.parametrize("memory", [0, 10**9])
def test_processes_take_slices_of_the_same_batches(pairs, memory):
    whole = drawn(Batches(pairs, IMAGES, 16, 3, 48, memory))
    slices = [drawn(Batches(pairs, IMAGES, 16, 3, 48, memory, (i, 3))) for i in range(3)]
    joined = [tuple(torch.cat(sides) for sides in zip(*batch, strict=True)) for batch in zip(*slices, strict=True)]
    assert same(joined, whole)


def test_the_next_buffer_is_read_while_this_one_is_used(pairs, monkeypatch):
    reads = []
    blocks = Pairs.blocks
    monkeypatch.setattr(Pairs, "blocks", lambda self, images, *size: reads.append(1) or blocks(self, images, *size))
    epoch = Batches(pairs, IMAGES, 16, 3, 48, memory=0).epoch(0)
    next(epoch)
    epoch.close()
    assert len(reads) == 2


def test_a_fault_while_reading_ahead_is_raised(pairs, monkeypatch):
    batches = Batches(pairs, IMAGES, 16, 3, 48, memory=0)
    monkeypatch.setattr(Pairs, "read", lambda *_: (_ for _ in ()).throw(LossmapError("part-7: damaged")))
    with pytest.raises(LossmapError, match="part-7: damaged"):
        drawn(batches)


@pytest.mark.parametrize("memory", [0, 10**9])
def test_held_out_images_come_in_order(pairs, memory):
    images = np.arange(0, N, 5)
    expected = pairs.read(images)
    whole = list(HeldOut(pairs, images, 16, memory))
    assert [len(post) for post, _ in whole] == [16, 16, 16, 12]
    halves = [*HeldOut(pairs, images, 7, memory, (0, 2)), *HeldOut(pairs, images, 7, memory, (1, 2))]
    for blocks in (whole, halves):
        assert all(
            torch.equal(torch.cat(sides), e) for sides, e in zip(zip(*blocks, strict=True), expected, strict=True)
        )


def test_what_fits_is_held(pairs):
    assert pairs.image_bytes == 4 * (16 * 6 + 4 * 8)
    for memory, held in ((240 * pairs.image_bytes, True), (240 * pairs.image_bytes - 1, False)):
        assert (Batches(pairs, IMAGES, 16, 3, memory=memory).held is not None) == held
        assert (HeldOut(pairs, IMAGES, 16, memory).held is not None) == held


def test_a_batch_that_is_too_large_or_too_small_is_named(pairs):
    with pytest.raises(
        LossmapError, match="toy.json: 20 training images are fewer than one batch of 21. Set batch to at"
    ):
        Batches(pairs, IMAGES[:20], 21, 0)
    with pytest.raises(LossmapError, match="batch of 2 can't be shared by 3 processes"):
        Batches(pairs, IMAGES, 2, 0, part=(0, 3))
    with pytest.raises(LossmapError, match="toy.json: 2 held-out images can't be shared by 3 processes"):
        HeldOut(pairs, IMAGES[:2], 16, part=(0, 3))
