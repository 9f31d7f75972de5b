"""Reconstruction where images differ in layout: known answers, agreement with rectangular embeddings, every error."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from accelerate import Accelerator
from ragged_data import (
    EACH,
    FEATURES,
    HIGH,
    LATENTS,
    TILED,
    TILED_LATENTS,
    WIDE,
    dataset,
    identity,
    latents,
    lossy,
    mixed,
    patches_of,
    through,
)
from ragged_store import write_ragged
from specs import checked

import lossmap
from lossmap.errors import LossmapError
from lossmap.reconstruct import batches as batches_module
from lossmap.reconstruct.batches import Batches, HeldOut
from lossmap.reconstruct.climbing import climb
from lossmap.reconstruct.evaluation import image_means, measure_losses
from lossmap.reconstruct.learning import TrainingSettings, train_network
from lossmap.reconstruct.linear import fit_linear_decoders
from lossmap.reconstruct.measuring import measure_statistics
from lossmap.reconstruct.networks import build_network
from lossmap.reconstruct.pairs import pairs_of
from lossmap.reconstruct.places import Centres, corners, places, resampling
from lossmap.reconstruct.ragged import Sizes
from lossmap.reconstruct.ragged_networks import build_ragged_network
from lossmap.reconstruct.saving import load_reconstructor, load_tensors, save_reconstructor
from lossmap.reconstruct.split import split_images
from lossmap.reconstruct.training import Run, Workplace
from lossmap.store import open_store
from lossmap.store.images import Images
from lossmap.store.layouts import Shape, Span, ViewShape, one_view
from lossmap.store.memory import from_arrays
from lossmap.store.patch_losses import LOSSES
from lossmap.store.ragged import select_images
from lossmap.study.steps import fit_linear, train_reconstructor
from lossmap.study.steps import measure_statistics as measure_statistics_step

MLP = {"kind": "mlp", "widths": [16], "dropout": 0.0}
TRANSFORMER = {"kind": "transformer", "width": 16, "layers": 1, "heads": 2, "dropout": 0.0}
NATIVE, PLACELESS = mixed([WIDE, HIGH], 160), mixed([LATENTS, TILED_LATENTS], 160)
TILES = mixed([TILED, EACH], 90)
SETTINGS = TrainingSettings(batch=8, epochs=4, learning_rate=0.01)  # a trial of rates takes longer than the rest


def pairs_for(store, spec=None, seed=0):
    (statistics,) = measure_statistics(store, {"it": spec or {"kind": "own"}}, seed, "digest").values()
    return pairs_of(store, statistics)


def fitted(pairs):
    split = split_images(len(pairs), 0.2, [100], 0)
    return {told["kind"]: (module, told) for _, module, told in fit_linear_decoders(pairs, split)}


def fvu(module, pairs, images=None):
    post, pre = pairs.read(range(len(pairs)) if images is None else images)
    with torch.inference_mode():
        return ((module(post).rows - pre.rows).square().sum() / pre.rows.square().sum()).item()


# Places


def test_interpolation_meets_the_cells_and_lies_between_them():
    ones = np.zeros(3, dtype=np.int64)
    cell, weight = corners(Centres(ones, np.array([0.125, 0.25, 0.99]), np.array([0.125, 0.375, 0.01])), (4, 4))
    assert weight[0].tolist() == [1, 0, 0, 0]
    assert cell[0, 0] == 0
    assert sorted(zip(cell[1].tolist(), weight[1].tolist(), strict=True))[:1] == [(1, 0.5)]
    assert weight[1, cell[1] == 5].sum() == 0.5
    assert weight[2, cell[2] == 12].sum() == 1  # beyond the last centres nothing is made up
    np.testing.assert_allclose(weight.sum(1), 1)


@pytest.mark.parametrize(("count", "cells"), [(4, 4), (3, 8), (9, 4), (1, 5), (5, 1)])
def test_resampling_keeps_constants_and_equal_grids(count, cells):
    matrix = resampling(count, cells)
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(matrix[::-1, ::-1], matrix, atol=1e-6)
    if count == cells:
        assert (matrix == np.eye(count)).all()


def test_targets_are_what_tokens_stand_for():
    assert places(WIDE).targets.tolist() == list(range(24))
    assert len(places(TILED).targets) == 16 + 4 * 6
    assert not {16, 20, 24, 28, 35, 39, 43, 47} & set(places(TILED).targets.tolist())
    assert places(LATENTS).targets.tolist() == list(range(1, 25))
    assert places(TILED).tokens.kind.tolist() == [0] * 16 + [1] * 24


# Pairs and batches


def test_rows_are_those_of_the_images_in_any_order():
    store = lossy(TILES)
    images, asked = Images(store), [7, 3, 88, 3, 4, 60]
    wanted = np.concatenate([images.read("pre", [i])[0] for i in asked])
    assert np.array_equal(images.rows("pre", asked), wanted)
    chosen = select_images(store, asked)
    assert np.array_equal(chosen["pre"].values, wanted)
    assert [Images(chosen).layout(i) for i in range(6)] == [images.layout(i) for i in asked]
    post, pre = pairs_for(store).read(asked)
    assert [len(post), len(pre)] == [6, 6]
    assert post.rows.shape[0] == sum(TILES[i].tokens for i in asked)
    assert pre.counts.tolist() == [len(places(TILES[i]).targets) for i in asked]


def test_blocks_are_as_large_as_memory_allows(monkeypatch):
    pairs = pairs_for(lossy(TILES))
    assert [len(post) for post, _ in pairs.blocks(range(90))] == [90]
    monkeypatch.setattr("lossmap.reconstruct.pairs.BLOCK_BYTES", 20 * 4 * sum(pairs.numbers))
    assert [len(post) for post, _ in pairs.blocks(range(90))] == [20, 20, 20, 20, 10]


@pytest.mark.parametrize("memory", [0, 10**9])
def test_batches_have_about_as_many_patches_and_can_be_taken_up(memory, monkeypatch):
    monkeypatch.setattr(batches_module, "RANGE", 32)
    pairs, images = pairs_for(lossy(TILES)), np.arange(3, 88)
    batches = Batches(pairs, images, 8, seed=1, buffer=24, memory=memory)
    order = batches.order(0)
    assert len(order) == len(batches) == 85 // 8
    assert len(np.unique(np.concatenate(order))) == sum(map(len, order)) > 70
    patches = [pairs.target_counts[images[some]].sum() for some in order]
    assert max(patches) - min(patches) <= 2 * 40
    assert np.mean(patches) == pytest.approx(8 * pairs.target_counts[images].mean(), rel=0.1)
    drawn = list(batches.epoch(0))
    for rows, (post, pre) in zip(order, drawn, strict=True):
        wanted_post, wanted_pre = pairs.read(images[rows])
        assert torch.equal(post.rows, wanted_post.rows)
        assert torch.equal(pre.rows, wanted_pre.rows)
        assert post.shapes == wanted_post.shapes
    for start in (0, 1, 5, 9, 10):
        again = list(batches.epoch(0, start))
        assert [torch.equal(a.rows, b.rows) for (a, _), (b, _) in zip(again, drawn[start:], strict=True)].count(0) == 0
    slices = [list(Batches(pairs, images, 8, 1, 24, memory, (i, 3)).epoch(0)) for i in range(3)]
    joined = [torch.cat([pre.rows for _, pre in pieces]) for pieces in zip(*slices, strict=True)]
    assert all(torch.equal(a, pre.rows) for a, (_, pre) in zip(joined, drawn, strict=True))
    assert (Batches(pairs, images, 8, seed=2).order(0)[0][:4] != order[0][:4]).any()


def test_an_image_that_fills_several_batches_leaves_an_image_for_each():
    large = one_view((20, 20), (20, 20))
    shapes = [large if i % 7 == 0 else one_view((1, 2), (1, 2)) for i in range(40)]
    pairs = pairs_for(identity(shapes))
    for seed in range(5):
        order = Batches(pairs, np.arange(40), 3, seed, part=(1, 2)).order(0)
        assert len(order) == 13
        assert all(len(some) for some in order)


@pytest.mark.parametrize("memory", [0, 10**9])
def test_held_out_images_come_in_order(memory):
    pairs = pairs_for(lossy(TILES))
    images = np.arange(0, 90, 4)
    post, pre = pairs.read(images)
    found = [*HeldOut(pairs, images, 5, memory, (0, 2)), *HeldOut(pairs, images, 5, memory, (1, 2))]
    assert torch.equal(torch.cat([some.rows for some, _ in found]), post.rows)
    assert torch.equal(torch.cat([some.rows for _, some in found]), pre.rows)


# The same embeddings, rectangular and written as ragged


def both(n=200):
    shapes = [one_view((4, 4), (2, 2))] * n
    ragged = lossy(shapes)
    arrays = {name: ragged[name].values.reshape(n, -1, ragged[name].shape[1]) for name in ("pre", "post")}
    return from_arrays(**arrays, pre_grid=(4, 4), post_grid=(2, 2)), ragged


CONTROLS = ("own", "identity", "rotation", "invertible_mlp", "pca", "pooling", "other_image", "other_image_and_patch")


@pytest.mark.parametrize("kind", CONTROLS)
def test_images_that_are_all_alike_give_what_rectangular_ones_give(kind):
    one, other = (pairs_for(store, {"kind": kind}) for store in both())
    for name in ("pre_mean", "pre_std", "post_mean", "post_std"):
        assert torch.equal(getattr(one.statistics, name), getattr(other.statistics, name)), name
    assert (other.pre_shape, other.post_shape) == ((None, 6), (None, one.post_shape[1]))
    assert (one.numbers, one.connector.known_fvu, one.connector.lossless) == (
        other.numbers,
        other.connector.known_fvu,
        other.connector.lossless,
    )
    images = [5, 0, 199, 5]
    for mine, theirs in zip(one.read(images), other.read(images), strict=True):
        torch.testing.assert_close(mine.flatten(0, 1), theirs.rows, rtol=0, atol=1e-6)
    rungs, ragged = fitted(one), fitted(other)
    torch.testing.assert_close(ragged["ridge"][0].weight, rungs["ridge"][0].weight, rtol=1e-5, atol=1e-6)
    for rung, (_, told) in rungs.items():
        assert ragged[rung][1]["held_out_error"] == pytest.approx(told["held_out_error"], rel=1e-5, abs=1e-7), rung


def test_networks_of_images_that_are_all_alike_lose_as_much():
    one, other = (pairs_for(store) for store in both(120))
    losses = []
    for pairs in (one, other):
        rungs = list(climb(pairs, {"net": MLP}, [100], 0.2, 3, SETTINGS))
        assert rungs[-1].history is not None
        losses.append(list(measure_losses(pairs, [rung.reconstructor for rung in rungs], 16)))
    for mine, theirs in zip(*losses, strict=True):
        for name in LOSSES:
            np.testing.assert_allclose(mine[name].reshape(4, -1), theirs[name], atol=1e-5)
        means, others = image_means(mine, 6), image_means(theirs, 6)
        for name, values in means.items():
            np.testing.assert_allclose(others[name], values, atol=1e-5)


def test_latents_on_the_reference_grid_are_those_of_rectangular_images():
    """Ridge of the mean token, and the networks' map over the sequence, where the grid is the reference's."""
    n, sizes = 60, Sizes(6, 8, None, 5, (4, 6))
    shape = one_view((4, 6), None, tokens=5)
    store = latents([shape] * n, noise=2.0)  # an error that is no small difference of large sums
    arrays = {name: store[name].values.reshape(n, -1, store[name].shape[1]) for name in ("pre", "post")}
    one = fitted(pairs_for(from_arrays(**arrays, pre_grid=(4, 6))))
    pairs = pairs_for(store)
    pairs.connector.sizes = pairs.sizes = sizes
    other = fitted(pairs)
    for rung in one:
        assert other[rung][1]["held_out_error"] == pytest.approx(one[rung][1]["held_out_error"], rel=1e-5), rung
    torch.testing.assert_close(other["ridge"][0].weight, one["ridge"][0].weight, rtol=1e-4, atol=1e-5)
    post, _ = pairs.read(range(7))
    for architecture in (MLP, TRANSFORMER):
        torch.manual_seed(0)
        plain = build_network(architecture, (24, 6), (5, 8)).eval()
        ragged = build_ragged_network(architecture, sizes).eval()
        state = plain.state_dict()
        for name in ("place", "position"):
            if name in state:
                state[name] = state[name].repeat(2, 1)
        ragged.load_state_dict(state)
        wanted = plain(post.rows.unflatten(0, (7, 5))).flatten(0, 1)
        torch.testing.assert_close(ragged(post).rows, wanted, rtol=1e-5, atol=1e-5)


# Known answers


@pytest.mark.parametrize("shapes", [NATIVE, TILES], ids=["native", "tiles"])
def test_what_loses_nothing_is_recovered(shapes):
    pairs = pairs_for(identity(shapes))
    rungs = fitted(pairs)
    assert fvu(rungs["ridge"][0], pairs) < 1e-4
    assert rungs["ridge"][1]["held_out_error"] < 1e-4
    assert fvu(rungs["mean"][0], pairs) == 1
    assert 0.9 < fvu(rungs["position_mean"][0], pairs) <= 1


@pytest.mark.parametrize("architecture", [MLP, TRANSFORMER])
@pytest.mark.parametrize("shapes", [NATIVE, TILES, PLACELESS], ids=["native", "tiles", "latents"])
def test_a_network_begins_as_ridge_and_learns(architecture, shapes):
    pairs = pairs_for(latents(shapes) if shapes is PLACELESS else lossy(shapes))
    ridge, told = fitted(pairs)["ridge"]
    split = split_images(len(pairs), 0.2, [100], 0)
    how = TrainingSettings(batch=8, epochs=4) if architecture is MLP else SETTINGS
    learned = train_network(pairs, split, 100, architecture, ridge, 0, how, Accelerator(cpu=True))
    done = learned.training
    if not done.alone:
        assert done.history[0]["held_out_loss"] == pytest.approx(told["held_out_error"], rel=1e-4)
    assert done.held_out_error <= done.linear_error
    assert done.held_out_error < done.history[0]["held_out_loss"]
    post, pre = pairs.read(split.held_out)
    found = (learned.module.eval()(post).rows - pre.rows).square().mean().item()
    assert found == pytest.approx(done.held_out_error, rel=1e-4)
    assert learned.architecture["ragged"]


def test_an_mlp_unbends_what_ridge_can_not():
    shapes = mixed([EACH, one_view((3, 4), (3, 4))], 300)
    pre = patches_of(shapes)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0]
    store = dataset(shapes, pre, through(shapes, pre, lambda x: (x @ turn) ** 3))
    trained = lossmap.train_reconstructor(store, {**MLP, "widths": [64]}, training={"batch": 16}, device="cpu")
    ridge = lossmap.train_reconstructor(store, "ridge", device="cpu")
    left = [lossmap.patch_losses(one, store).attrs["fvu"] for one in (trained, ridge)]
    assert left[0] < 0.25 * left[1]


def test_latents_tell_their_view_and_no_other():
    pairs = pairs_for(latents(PLACELESS))
    rungs = fitted(pairs)
    assert fvu(rungs["ridge"][0], pairs) < 0.05 < 0.5 < fvu(rungs["position_mean"][0], pairs)
    held_out = split_images(len(pairs), 0.2, [100], 0).held_out
    post, pre = pairs.read(held_out)
    found = (rungs["ridge"][0](post).rows - pre.rows).square().mean().item()
    assert rungs["ridge"][1]["held_out_error"] == pytest.approx(found, rel=1e-5)


@pytest.mark.parametrize("architecture", [MLP, TRANSFORMER])
@pytest.mark.parametrize("shape", [TILED, WIDE, TILED_LATENTS])
def test_which_patches_a_token_reaches(architecture, shape):
    """An MLP's token its own block, a transformer's all of the image; without places, all of the view."""
    torch.manual_seed(0)
    placed = bool(len(shape.blocks.tokens))
    sizes = Sizes.of([shape], 6, 8)
    network = build_ragged_network(architecture, sizes).eval()
    pairs = pairs_for((lossy if placed else latents)([shape] * 3))
    post, pre = pairs.read([0, 1])
    moved = post.with_rows(post.rows.clone())
    row = shape.tokens + int(shape.blocks.tokens[4] if placed else 7)
    moved.rows[row] += 1
    with torch.inference_mode():
        changed = (network(post).rows - network(moved).rows).abs().amax(1) > 1e-6
    first, second = changed.split(pre.counts.tolist())
    assert not first.any()
    reached = set(places(shape).targets[second.numpy()].tolist())
    if architecture is MLP and placed:
        assert reached == set(shape.blocks.patches[4].tolist())
    elif placed:
        assert reached == set(places(shape).targets.tolist())
    else:
        assert reached == set(range(15, 31))


def test_line_ends_are_read_by_a_transformer_and_not_by_an_mlp():
    pairs = pairs_for(lossy([TILED] * 3))
    post, _ = pairs.read([0])
    moved = post.with_rows(post.rows.clone())
    moved.rows[16] += 1  # the separator
    for architecture, read in ((MLP, False), (TRANSFORMER, True)):
        torch.manual_seed(0)
        network = build_ragged_network(architecture, pairs.sizes).eval()
        with torch.inference_mode():
            assert bool((network(post).rows != network(moved).rows).any()) == read


def test_patches_without_a_token_touch_nothing():
    clean = lossy(TILES)
    spoilt = clean.copy(deep=True)
    offsets = clean["patch_offset"].values
    kept = np.concatenate([offsets[i] + places(shape).targets for i, shape in enumerate(TILES)])
    lost = np.setdiff1d(np.arange(offsets[-1]), kept)
    assert len(lost) > 100
    spoilt["pre"].values[lost] = 1e6
    for kind in ("own", "identity", "pca", "pooling", "other_image", "other_image_and_patch"):
        shapes = [shape for shape in TILES if shape is TILED] if kind == "pooling" else None
        stores = [
            store if shapes is None else select_images(store, [i for i, s in enumerate(TILES) if s is TILED])
            for store in (clean, spoilt)
        ]
        pairs = [pairs_for(store, {"kind": kind}) for store in stores]
        for name in ("pre_mean", "pre_std", "post_mean", "post_std"):
            assert torch.equal(*(getattr(one.statistics, name) for one in pairs))
        assert all(torch.equal(a.rows, b.rows) for a, b in zip(*(one.read(range(20)) for one in pairs), strict=True))
    found = []
    for store in (clean, spoilt):
        trained = lossmap.train_reconstructor(store, MLP, training=vars(SETTINGS), device="cpu")
        found.append(lossmap.patch_losses(trained, store))
    for name in (*LOSSES, "pre_norm"):
        np.testing.assert_array_equal(found[0][name].values, found[1][name].values)
        assert np.isnan(found[0][name].values[lost]).all()
        assert np.isfinite(found[0][name].values[kept]).all()


def test_order_and_grouping_change_no_loss():
    store = lossy(TILES)
    trained = lossmap.train_reconstructor(store, TRANSFORMER, training=vars(SETTINGS), device="cpu")
    whole = lossmap.patch_losses(trained, store)
    order = np.random.default_rng(0).permutation(90)
    turned = lossmap.patch_losses(trained, select_images(store, order))
    offsets, others = whole["patch_offset"].values, turned["patch_offset"].values
    for place, image in enumerate(order):
        mine = whole["squared_error"].values[offsets[image] : offsets[image + 1]]
        np.testing.assert_allclose(turned["squared_error"].values[others[place] : others[place + 1]], mine, atol=1e-5)
    pairs = pairs_of(store, trained.statistics)
    by_size = [
        np.concatenate([batch["squared_error"][0] for batch in measure_losses(pairs, [trained.reconstructor], size)])
        for size in (1, 7, 90)
    ]
    for losses in by_size[1:]:
        np.testing.assert_allclose(losses, by_size[0], atol=1e-5)


@pytest.mark.parametrize("pieces", [2, 5])
def test_pieces_of_a_batch_add_up(pieces):
    pairs = pairs_for(lossy(TILES))
    ridge, _ = fitted(pairs)["ridge"]
    split, errors = split_images(90, 0.2, [100], 0), []
    for accumulate in (1, pieces):
        how = TrainingSettings(batch=8, epochs=2, learning_rate=0.01, accumulate=accumulate)
        errors.append(
            train_network(pairs, split, 100, MLP, ridge, 0, how, Accelerator(cpu=True)).training.held_out_error
        )
    assert errors[0] == pytest.approx(errors[1], rel=1e-4)


def test_a_run_that_was_killed_ends_in_the_same_bits(tmp_path, monkeypatch):
    pairs = pairs_for(lossy(NATIVE))
    ridge, _ = fitted(pairs)["ridge"]
    split = split_images(len(pairs), 0.2, [100], 0)
    architecture, how = {**TRANSFORMER, "dropout": 0.2}, TrainingSettings(batch=8, epochs=4, learning_rate=0.01)

    def trained(where):
        return train_network(pairs, split, 100, architecture, ridge, 0, how, Accelerator(cpu=True), where)

    wanted = trained(None)
    update, steps = Run.update, []

    def killed(run, *settings):
        steps.append(1)
        if len(steps) == 23:
            raise KeyboardInterrupt
        update(run, *settings)

    monkeypatch.setattr(Run, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        trained(Workplace(tmp_path, {}, 0.0))
    monkeypatch.setattr(Run, "update", update)
    assert (tmp_path / "run.safetensors").is_file()
    found = trained(Workplace(tmp_path, {}, 1e9))
    assert found.training.history == wanted.training.history
    state, other = wanted.module.state_dict(), found.module.state_dict()
    assert all(torch.equal(state[name], other[name]) for name in state)


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    worker, found = Path(__file__).with_name("ragged_worker.py"), []
    for name, how in (("one", []), ("two", launch)):
        command = [sys.executable, *how, str(worker), str(tmp_path / name)]
        path = os.pathsep.join([str(Path(__file__).parents[1] / "workflow"), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found.append(json.loads((tmp_path / name).read_text()))
    for one, two in zip(*found, strict=True):
        assert one == pytest.approx(two, abs=1e-5)


# Controls


@pytest.mark.parametrize("shapes", [NATIVE, TILES], ids=["native", "tiles"])
@pytest.mark.parametrize("kind", ["identity", "rotation", "pca", "pooling"])
def test_controls_lose_what_they_are_meant_to_lose(kind, shapes):
    if kind == "pooling":
        shapes = [shape for shape in shapes if shape is not EACH]
    pairs = pairs_for(lossy(shapes), {"kind": kind, "rank": 3} if kind == "pca" else {"kind": kind})
    left = fvu(fitted(pairs)["ridge"][0], pairs)
    if pairs.connector.known_fvu is not None:
        assert left == pytest.approx(pairs.connector.known_fvu, abs=5e-3)
    else:
        assert left == pytest.approx(0.75, abs=0.03)  # of four unrelated patches the mean keeps a quarter
    assert pairs.connector.lossless == (kind in ("identity", "rotation"))


def test_a_pooled_token_is_the_mean_of_a_square_of_a_view():
    store = lossy([TILED] * 4)
    pairs = pairs_for(store, {"kind": "pooling"})
    post, pre = pairs.read([1])
    # All of the thumbnail; of the tiles, whose outer columns have no token, the squares that are whole.
    assert [span[:2] for span in pairs.shape(1).spans] == [(2, 2), (2, 1), (2, 1)]
    assert (len(post.rows), len(pre.rows)) == (8, 32)
    stored = pairs.statistics.standardise_pre(torch.from_numpy(store["pre"].values[48:96]))
    wanted = pairs.statistics.standardise_post(stored[[2, 3, 6, 7]].mean(0))
    torch.testing.assert_close(post.rows[1], wanted)
    wanted = pairs.statistics.standardise_post(stored[[18, 19, 22, 23]].mean(0))
    torch.testing.assert_close(post.rows[4], wanted)


def test_another_image_lies_as_the_image_does():
    shapes = [WIDE, HIGH] * 5
    store = lossy(shapes)
    pairs = pairs_for(store, {"kind": "other_image"})
    assert pairs.partners[0] == 5
    post, pre = pairs.read([0])
    assert (post.counts.tolist(), pre.counts.tolist()) == ([6], [24])
    partner = torch.from_numpy(Images(store).read("post", [5])[0])  # 3 x 1 tokens
    wanted = partner[[0, 0, 0, 2, 2, 2]]
    torch.testing.assert_close(post.rows, pairs.statistics.standardise_post(wanted))
    post, _ = pairs.read([5])
    torch.testing.assert_close(
        post.rows, pairs.statistics.standardise_post(torch.from_numpy(Images(store).read("post", [0])[0])[[1, 4, 4]])
    )


def test_another_image_of_the_same_shape_gives_its_own_tokens():
    for shape, make in ((TILED, lossy), (TILED_LATENTS, latents)):
        store = make([shape] * 6)
        pairs = pairs_for(store, {"kind": "other_image"})
        placed = shape.blocks.tokens if len(shape.blocks.tokens) else np.arange(shape.tokens)
        wanted = torch.from_numpy(Images(store).read("post", [3])[0][placed])
        torch.testing.assert_close(pairs.read([0])[0].rows, pairs.statistics.standardise_post(wanted))


def test_latents_of_another_image_are_those_of_the_same_kind_of_view():
    store = latents([TILED_LATENTS, LATENTS] * 5)
    pairs = pairs_for(store, {"kind": "other_image"})
    images = Images(store)
    post, _ = pairs.read([0, 5])
    assert post.counts.tolist() == [15, 5]
    partner = torch.from_numpy(images.read("post", [5])[0])  # which has no tile: its whole view stands for all
    torch.testing.assert_close(post.rows[:15], pairs.statistics.standardise_post(partner.repeat(3, 1)))
    partner = torch.from_numpy(images.read("post", [0])[0][:5])
    torch.testing.assert_close(post.rows[15:], pairs.statistics.standardise_post(partner))


def test_another_image_and_patch_tell_nothing():
    pairs = pairs_for(lossy(NATIVE), {"kind": "other_image_and_patch"})
    _, pre = pairs.read([3, 4])
    _, own = pairs_for(lossy(NATIVE)).read([3, 4])
    for a, b in zip(pre.split(1), own.split(1), strict=True):
        assert torch.equal(a.rows.sort(0).values, b.rows.sort(0).values)
        assert not torch.equal(a.rows, b.rows)
    assert fvu(fitted(pairs)["ridge"][0], pairs) > 0.95


def test_squares_of_patches_for_latents():
    shapes = [one_view((4, 4), None, tokens=4), one_view((2, 8), None, tokens=4)] * 4
    store = dataset(shapes, patches_of(shapes), np.random.default_rng(0).normal(size=(32, 8)))
    pairs = pairs_for(store, {"kind": "identity"})
    assert [pairs.shape(i).blocks.patches[1].tolist() for i in (0, 1)] == [[2, 3, 6, 7], [2, 3, 10, 11]]
    assert pairs.sizes.patches_per_token == 4


def test_what_can_not_be_cut_or_read_is_named():
    with pytest.raises(LossmapError, match=r"identity: a view of 4 x 6 patches, of an image of 4 x 6, can't be cut"):
        pairs_for(latents([LATENTS] * 3), {"kind": "identity"})
    with pytest.raises(LossmapError, match=r"pooling: .*2 x 5 patches, of an image of 2 x 5, can't be cut into 2 x 2"):
        pairs_for(lossy([EACH] * 2), {"kind": "pooling"})
    with pytest.raises(LossmapError, match="The images' tokens differ: 1 patches a token or 4 patches a token"):
        Sizes.of([WIDE, EACH], 6, 8)
    both_views = Shape((ViewShape(2, 2), ViewShape(2, 2, "tile")), (Span(5, 0),))
    with pytest.raises(LossmapError, match=r"Tokens without a place, 5 of 2 views \(2 x 2, 2 x 2 patches\): which"):
        pairs_for(dataset([both_views] * 3, np.ones((24, 6)), np.ones((15, 8))))
    with pytest.raises(LossmapError, match="kind 'magic' is not known"):
        pairs_for(lossy(NATIVE), {"kind": "magic"})
    with pytest.raises(LossmapError, match="kind is 'forest'"):
        build_ragged_network({"kind": "forest"}, Sizes.of([WIDE], 6, 8))
    with pytest.raises(LossmapError, match=r"can't be built .*'widths'"):
        build_ragged_network({"kind": "mlp"}, Sizes.of([WIDE], 6, 8))
    ridge = fitted(pairs_for(lossy(NATIVE)))["ridge"][0]
    with pytest.raises(LossmapError, match="built for 4 patches a token, and the image has 1 patches a token"):
        ridge(pairs_for(lossy([EACH] * 3)).read([0])[0])


# On disk, and the library


@pytest.mark.parametrize("shapes", [TILES, PLACELESS], ids=["tiles", "latents"])
@pytest.mark.parametrize("rung", ["mean", "position_mean", "ridge", "mlp", "transformer"])
def test_a_reconstructor_comes_back(shapes, rung, tmp_path):
    pairs = pairs_for(latents(shapes) if shapes is PLACELESS else lossy(shapes))
    if rung in ("mlp", "transformer"):
        architecture = {**(MLP if rung == "mlp" else TRANSFORMER), **pairs.shapes, "held_out_error": 1.0}
        torch.manual_seed(0)
        module = build_ragged_network(MLP if rung == "mlp" else TRANSFORMER, pairs.sizes).eval()
    else:
        module, architecture = fitted(pairs)[rung]
    save_reconstructor(module, architecture, "d" * 64, tmp_path / "r.safetensors")
    loaded, stated = load_reconstructor(tmp_path / "r.safetensors", "d" * 64)
    assert stated == architecture
    assert {name: stated[name] for name in ("ragged", "features", "features_out", "patches_per_token", "tokens")} == {
        "ragged": True,
        "features": 6,
        "features_out": 8,
        "patches_per_token": None if shapes is PLACELESS else 1,
        "tokens": 5 if shapes is PLACELESS else None,
    }
    assert not {"pre_shape", "post_shape", "blocks"} & set(stated)
    post, _ = pairs.read([3, 0, 7])
    with torch.inference_mode():
        assert torch.equal(loaded(post).rows, module(post).rows)


def test_a_trained_network_comes_back_with_its_ridge(tmp_path):
    store = identity(TILES)
    trained = lossmap.train_reconstructor(store, MLP, training=vars(SETTINGS), device="cpu")
    trained.save(tmp_path)
    read = lossmap.open_reconstructor(tmp_path, "network", device="cpu")
    one, other = (lossmap.patch_losses(each, store) for each in (trained, read))
    np.testing.assert_array_equal(one["squared_error"].values, other["squared_error"].values)
    assert one.attrs["fvu"] < 1e-3
    assert one["squared_error"].dims == ("patch",)
    assert one["patch_offset"].values.tolist() == store["patch_offset"].values.tolist()
    found = read.reconstruct_each(store)
    assert [len(values) for values in found] == [shape.patches for shape in TILES]
    i = TILES.index(TILED)
    first = store["patch_offset"].values[i]
    targets = places(TILED).targets
    np.testing.assert_allclose(found[i][targets], store["pre"].values[first + targets], atol=0.05)
    assert np.isnan(np.delete(found[i], targets, axis=0)).all()


def test_the_steps_of_a_study_do_what_the_library_does(tmp_path):
    """From a store in parts, whose embeddings are read when they are due."""
    held = lossy(TILES)
    images = Images(held)
    layouts = [images.layout(i) for i in range(90)]
    sides = ([images.read(name, [i])[0] for i in range(90)] for name in ("pre", "post"))
    index = write_ragged(tmp_path / "toy.json", layouts, *sides, parts=[31, 60], dtype="float32")
    spec = {"connectors": {"own": {"kind": "own"}, "pca": {"kind": "pca", "rank": 3}}, "seed": 3}
    measure_statistics_step.run(embeddings=index, reconstructors=tmp_path, spec=checked("measure_statistics", spec))
    fit = checked("fit_linear", spec | {"shares": [100], "held_out": 0.2})
    fit_linear.run(embeddings=index, reconstructors=tmp_path, spec=fit)
    training = {**vars(SETTINGS), "memory": 0, "threads": 1, "processes": 1, "checkpoint_minutes": 9}
    spec = {"network": MLP, "share": 100, "shares": [100], "held_out": 0.2, "seed": 3, "training": training}
    own = tmp_path / "own"
    files = {"statistics": own / "statistics.safetensors", "ridge": own / "ridge-100.safetensors"}
    files |= {"reconstructor": own / "network-100.safetensors", "history": own / "history.csv"}
    train_reconstructor.run(embeddings=index, **files, spec=checked("train_reconstructor", spec))
    mine = lossmap.train_reconstructor(held, MLP, seed=3, training=vars(SETTINGS), device="cpu")
    mine.save(tmp_path / "mine")
    for name in ("ridge-100", "network-100"):
        wanted, found = (load_tensors(folder / f"{name}.safetensors")[0] for folder in (own, tmp_path / "mine"))
        assert all(torch.equal(wanted[key], found[key]) for key in wanted)
    read = lossmap.open_reconstructor(own, "network", device="cpu")
    one, other = (lossmap.patch_losses(read, store) for store in (held, open_store(index)))
    np.testing.assert_array_equal(one["squared_error"].values, other["squared_error"].values)
    assert one.attrs == other.attrs


def test_losses_say_the_shapes_of_their_images():
    pairs = pairs_for(lossy(TILES))
    rungs = [rung.reconstructor for rung in climb(pairs, {}, [100], 0.2, 0, SETTINGS)]
    batches = list(measure_losses(pairs, rungs, 16))
    assert [shape for batch in batches for shape in batch["shapes"]] == TILES
    patches = sum(shape.patches for shape in TILES[:16])
    assert batches[0]["squared_error"].shape == (3, patches)
    assert batches[0]["pre_norm"].shape == (patches,)
    means = image_means(batches[0], FEATURES)
    assert means["squared_error"].shape == (3, 16)
    np.testing.assert_allclose(means["squared_error"][0], means["variance"], rtol=1e-6)  # of the mean
    assert (means["absolute_norm_difference"] > 0).all()


@pytest.mark.parametrize("shapes", [NATIVE, PLACELESS], ids=["native", "latents"])
def test_a_ladder_of_ragged_embeddings(shapes):
    placed = shapes is NATIVE
    store = identity(shapes) if placed else latents(shapes)
    controls = {"rotation": {"kind": "rotation"}} if placed else {}
    controls |= {"other": {"kind": "other_image", "networks": "all"}}
    ladder = lossmap.run_ladder(
        store, networks={"net": MLP}, controls=controls, shares=(50, 100), training=vars(SETTINGS), device="cpu"
    )
    table = ladder.table.set_index(["connector", "decoder", "share"])
    assert table.loc[("own", "ridge", 100), "fvu"] < 0.05
    assert table.loc[("other", "ridge", 100), "fvu"] > (0.9 if placed else 0.3)
    assert set(table["n"]) == {32}
    assert "the model" in str(ladder.verdict())


def test_pairs_of_lists():
    rng = np.random.default_rng(0)
    grids = [(2, 3), (4, 4), (1, 5)] * 40
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    pre = [rng.normal(size=(*grid, 6)) for grid in grids]
    flat = [values.reshape(-1, 6) for values in pre]
    post = [values @ turn for values in flat]
    for given in ((pre, post), (flat, post), (list(map(torch.tensor, flat)), list(map(torch.tensor, post)))):
        ridge = lossmap.train_reconstructor(given, "ridge", device="cpu")
        assert lossmap.patch_losses(ridge, given).attrs["fvu"] < 1e-4
    store = from_arrays(pre, post)
    assert isinstance(store, xr.Dataset)
    assert Images(store).shape(1) == one_view((4, 4), (4, 4))
    assert store["pre_mean"].shape == (120, 6)
    assert lossmap.neighbour_overlap(pre, post, k=5).value > 0.99
    ladder = lossmap.run_ladder((pre, post), networks={}, controls={"turn": {"kind": "rotation"}}, device="cpu")
    assert ladder.verdict().own.fvu.value < 1e-4
    fours = [rng.normal(size=(2 * grid[0], 2 * grid[1], 6)) for grid in grids]
    merged = from_arrays(fours, [values[::2, ::2] for values in fours])
    assert Images(merged).shape(0) == one_view((4, 6), (2, 3))


def test_a_reconstructor_of_another_view_setting_is_refused():
    alike, differing = both(40)[0], lossy(NATIVE)
    square, native = (lossmap.train_reconstructor(store, "ridge", device="cpu") for store in (alike, differing))
    with pytest.raises(
        LossmapError, match=r"ridge on 100% .*: reconstructs embeddings whose images are all alike, and"
    ):
        lossmap.patch_losses(square, differing)
    with pytest.raises(LossmapError, match="reconstructs embeddings whose images differ in layout, and these are"):
        lossmap.patch_losses(native, alike)
    with pytest.raises(LossmapError, match="whose images differ in layout, and these are embeddings whose images are"):
        native.reconstruct(np.ones((3, 4, 8)))
    assert np.array_equal(square.reconstruct_each(alike), square.reconstruct(alike["post"].values))


def test_a_reconstruction_that_is_not_finite_is_named():
    store = lossy(TILES)
    trained = lossmap.train_reconstructor(store, "ridge", device="cpu")
    trained.reconstructor.module.weight.fill_(3e38)
    with pytest.raises(LossmapError, match="its reconstruction of image image-0 is not finite"):
        lossmap.patch_losses(trained, store)


def test_lists_that_are_no_embeddings_are_named():
    pre = [np.ones((3, 4)), np.ones((2, 4))]
    for given, message in (
        ((pre, pre[:1]), "pre: is no array .* layouts="),
        ((pre, [np.ones((5, 4))] * 2), "pre: is no array .* layouts="),
        (([np.ones((3, 4)), np.ones((2, 5))], pre), "pre of item 1 has the shape"),
        (([np.ones((3, 4)), np.full((2, 4), np.nan)], pre), "pre of image 1 is not finite"),
        (([np.ones((3, 2, 4)), np.ones((2, 2, 4))], [np.ones((2, 2, 4))] * 2), "item 0: 3 x 2 patches can't be"),
    ):
        with pytest.raises(LossmapError, match=message):
            from_arrays(*given)
