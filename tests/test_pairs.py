"""What reconstructors learn from: the split, the statistics, and pairs by image number; every error."""

import hashlib
import json

import numpy as np
import pytest
import torch
from toy_store import embeddings, write_store

from lossmap.errors import LossmapError
from lossmap.reconstruct.pairs import Pairs, block_size, connector_of, pairs_of
from lossmap.reconstruct.specs import canonical
from lossmap.reconstruct.split import split_images
from lossmap.reconstruct.statistics import Statistics, store_digest
from lossmap.store import images as images_module
from lossmap.store import open_store

PRE, POST = embeddings(40)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("one") / "toy.json", PRE, POST)


@pytest.fixture(scope="module")
def cut_store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("cut") / "toy.json", PRE, POST, parts=[3, 11, 12])


def statistics(index, kind="own", **changes):
    dataset = open_store(index)
    pre, post = (torch.from_numpy(dataset[name].values).float().flatten(0, 1) for name in ("pre", "post"))
    values = {"pre_mean": pre.mean(0), "pre_std": pre.std(0), "post_mean": post.mean(0), "post_std": post.std(0)}
    return Statistics(
        **(values | {"store_digest": store_digest(index), "connector": canonical({"kind": kind})} | changes)
    )


def test_a_fifth_is_held_out_and_shares_are_nested():
    split = split_images(103, 0.2, [25, 100, 50], seed=1)
    assert len(split.held_out) == 21
    assert {share: len(images) for share, images in split.train.items()} == {25: 20, 100: 82, 50: 41}
    assert set(split.train[25]) < set(split.train[50]) < set(split.train[100])
    assert sorted([*split.held_out, *split.train[100]]) == list(range(103))
    for images in (split.held_out, *split.train.values()):
        assert (np.diff(images) > 0).all()


def test_a_split_depends_on_its_seed_and_not_on_the_other_shares():
    one, same, other = (split_images(100, 0.2, shares, seed) for shares, seed in (([25], 1), ([25, 60], 1), ([25], 2)))
    assert (one.train[25] == same.train[25]).all()
    assert (one.held_out == same.held_out).all()
    assert (one.held_out != other.held_out).any()


@pytest.mark.parametrize(
    ("n", "held_out", "shares", "message"),
    [
        (2, 0.2, [100], "training set has 2 images, which leaves none for the held-out part"),
        (0, 0.2, [100], "training set has 0 images"),
        (10, 0.2, [100, 5], r"10 images, which leaves none for a share of 5% \(held_out: 0.2\)"),
        (10, 0.99, [100], "none for a share of 100%"),
        (10, 1.0, [100], "held_out is 1; wanted a part .* between 0 and 1"),
        (10, 0, [100], "held_out is 0; wanted"),
        (10, 0.2, [], r"shares is \[\]; wanted different percentages"),
        (10, 0.2, [50, 50], r"shares is \[50, 50\]; wanted different"),
        (10, 0.2, [0], r"shares is \[0\]; wanted .* from 1 to 100"),
        (10, 0.2, [101], r"shares is \[101\]; wanted"),
    ],
)
def test_a_split_that_leaves_nothing_is_named(n, held_out, shares, message):
    with pytest.raises(LossmapError, match=message):
        split_images(n, held_out, shares, 0)


def test_statistics_come_back_from_their_file(store, tmp_path):
    made = statistics(store, "pca", extra={"basis": torch.eye(3)}, seed=2**62 + 1)
    made.save(tmp_path / "s.safetensors")
    read = Statistics.load(tmp_path / "s.safetensors")
    for name in ("pre_mean", "pre_std", "post_mean", "post_std"):
        assert (getattr(read, name) == getattr(made, name)).all()
    assert (read.extra["basis"] == torch.eye(3)).all()
    assert (read.connector, read.seed, read.store_digest) == ('{"kind": "pca"}', 2**62 + 1, store_digest(store))
    assert read.digest == made.digest == hashlib.sha256((tmp_path / "s.safetensors").read_bytes()).hexdigest()
    assert statistics(store, "pca", seed=1).digest != statistics(store, "pca", seed=2).digest


def test_standardised_means_mean_0_and_variance_1_and_a_constant_feature_is_0(store):
    made = statistics(store)
    for values, standardise in ((PRE, made.standardise_pre), (POST, made.standardise_post)):
        rows = standardise(torch.from_numpy(values).half()).flatten(0, 1)
        assert rows.dtype == torch.float32
        torch.testing.assert_close(rows.mean(0), torch.zeros(rows.shape[1]), rtol=0, atol=1e-4)
        torch.testing.assert_close(rows.std(0), torch.ones(rows.shape[1]), rtol=0, atol=1e-4)
    flat = statistics(store, pre_mean=torch.full((6,), 3.0), pre_std=torch.tensor([0.0, 1, 1, 0, 2, 1]))
    assert flat.standardise_pre(torch.full((2, 6), 3.0)).tolist() == [[0] * 6] * 2
    assert flat.constant_features == (2, 0)


def test_statistics_of_another_store_are_refused(store, cut_store):
    statistics(store).check_store(store)
    with pytest.raises(LossmapError, match=r'toy.json: the statistics of connector {"kind": "own"} were measured on'):
        statistics(store).check_store(cut_store)


@pytest.mark.parametrize("content", [None, b"", b"no safetensors at all", "without metadata", "another format"])
def test_a_file_that_holds_no_statistics_is_named(store, tmp_path, content):
    path = tmp_path / "s.safetensors"
    statistics(store).save(path)
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        text = path.read_bytes()
        old, new = (
            (b"lossmap-statistics/1", b"lossmap-statistics/9") if "format" in content else (b'"lossmap"', b'"lossmop"')
        )
        assert old in text
        path.write_bytes(text.replace(old, new))
    with pytest.raises(
        LossmapError, match=r"s\.safetensors: no statistics of embeddings can be read.*Delete it and run"
    ):
        Statistics.load(path)


def test_pairs_are_the_standardised_embeddings_of_the_images(store):
    made = statistics(store)
    pairs = pairs_of(open_store(store), made)
    assert (len(pairs), pairs.pre_shape, pairs.post_shape) == (40, (16, 6), (4, 8))
    images = [7, 0, 39, 7, 12]
    post, pre = pairs.read(images)
    assert (pre == made.standardise_pre(torch.from_numpy(PRE[images]).half())).all()
    assert (post == made.standardise_post(torch.from_numpy(POST[images]).half())).all()
    assert post.dtype == pre.dtype == torch.float32


@pytest.mark.parametrize(
    "kind", ["own", "identity", "invertible_mlp", "pooling", "other_image", "other_image_and_patch"]
)
def test_parts_blocks_and_gaps_play_no_role(store, cut_store, kind, monkeypatch):
    width = connector_of({"kind": kind}, open_store(store), 0).post_shape[1]
    made = statistics(store, kind, post_mean=torch.zeros(width), post_std=torch.ones(width))
    images = [0, 3, 4, 5, 11, 12, 39]
    post, pre = pairs_of(open_store(store), made).read(images)
    monkeypatch.setattr(images_module, "GAP", 1)
    blocks = list(pairs_of(open_store(cut_store), made).blocks(images, 3))
    assert [len(inputs) for inputs, _ in blocks] == [3, 3, 1]
    torch.testing.assert_close(torch.cat([inputs for inputs, _ in blocks]), post, rtol=0, atol=1e-5)
    assert (torch.cat([targets for _, targets in blocks]) == pre).all()


def test_the_other_image_is_half_a_store_away(store):
    made = statistics(store, "other_image")
    post, pre = pairs_of(open_store(store), made).read([0, 25])
    own_post, own_pre = pairs_of(open_store(store), statistics(store)).read([0, 25, 20, 5])
    assert (pre == own_pre[:2]).all()
    assert (post == own_post[2:]).all()


def test_blocks_are_as_large_as_memory_allows(monkeypatch):
    assert block_size((16, 6), (4, 8)) == 1024
    assert block_size((576, 1024), (576, 4096)) == 22
    assert block_size((2**15, 2**14)) == 1


def test_images_that_are_not_there_are_refused(store):
    pairs = pairs_of(open_store(store), statistics(store))
    for images in ([0, 40], [-1, 3]):
        with pytest.raises(ValueError, match=f"images {images[0]} to {images[1]} are asked for; the store has 40"):
            pairs.read(images)
    with pytest.raises(ValueError, match="no images are asked for"):
        pairs.read([])


@pytest.mark.parametrize(("side", "width"), [("pre", 6), ("post", 8)])
def test_statistics_of_another_model_are_refused(store, side, width):
    made = statistics(store, **{f"{side}_mean": torch.zeros(3), f"{side}_std": torch.ones(3)})
    message = rf"toy.json: {side} of connector .* has {width} features, and its statistics are of 3"
    with pytest.raises(LossmapError, match=message):
        Pairs(open_store(store), connector_of(json.loads(made.connector), open_store(store), 0), made)
