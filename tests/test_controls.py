"""Controls lose exactly what they are meant to lose; every error."""

import numpy as np
import pytest
import torch

from lossmap.errors import LossmapError
from lossmap.reconstruct.controls import SETTINGS, make_connector
from lossmap.reconstruct.statistics import Statistics

torch.manual_seed(0)
PRE = torch.randn(3, 16, 6)
POST, PARTNER = torch.randn(2, 3, 4, 8)
IMAGES = np.array([5, 0, 9])
OF_BLOCKS = ("identity", "rotation", "invertible_mlp")


def control(kind, seed=0, *, pre_grid=(4, 4), post_grid=(2, 2), features=6, post_shape=(4, 8), fitted=None, **settings):
    pre_shape = (pre_grid[0] * pre_grid[1], features)
    spec = {"kind": kind, **settings}
    return make_connector(spec, list(pre_grid), pre_shape, post_shape, seed, fitted, post_grid=post_grid)


def fitted_pca(rank, pre=PRE):
    """The pca control of these images, its components taken from them."""
    bare = control("pca", rank=rank)
    rows = bare.grouped(pre).flatten(0, 1).double()
    centred = rows - rows.mean(0)
    mean, std, extra = bare.fit(rows.mean(0), centred.T @ centred / len(rows))
    empty = torch.zeros(6)
    return control("pca", rank=rank, fitted=Statistics(empty, empty, mean, std, "", "", extra=extra)), mean, std, extra


def outputs(connector, pre=PRE):
    return connector(IMAGES, pre, POST, PARTNER)


def undone(connector, post):
    """The patches that a rotation or an invertible MLP was given: each of its steps backwards."""
    first, *rest = connector.rotations()
    for rotation in reversed(rest):
        post = post @ rotation
        post = torch.where(post < 0, post / connector.slope, post)
    grouped = post @ first
    patches = torch.empty(len(post), 16, 6)
    patches[:, connector.blocks.flatten()] = grouped.reshape(len(post), 16, 6)
    return patches


def test_the_models_own_connector_changes_nothing():
    target, post = outputs(control("own"))
    assert target is PRE
    assert post is POST


def test_blocks_by_hand():
    assert control("own").blocks.tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    assert control("own", post_grid=(4, 4)).blocks.tolist() == [[i] for i in range(16)]
    assert control("own", post_grid=(4, 1)).blocks.tolist() == [
        [4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3] for i in range(4)
    ]
    assert control("own", post_grid=None).blocks is None


@pytest.mark.parametrize(
    ("pre_grid", "tokens", "block"),
    [((24, 24), 64, (3, 3)), ((8, 8), 16, (2, 2)), ((4, 4), 16, (1, 1)), ((24, 24), 144, (2, 2)), ((6, 10), 6, (2, 5))],
)
def test_tokens_without_a_place_stand_for_blocks_as_square_as_can_be(pre_grid, tokens, block):
    blocks = control("identity", pre_grid=pre_grid, post_grid=None, post_shape=(tokens, 8)).blocks
    assert sorted(blocks.flatten().tolist()) == list(range(pre_grid[0] * pre_grid[1]))
    rows, columns = blocks[0] // pre_grid[1], blocks[0] % pre_grid[1]
    assert (int(rows.max()) + 1, int(columns.max()) + 1) == block


@pytest.mark.parametrize("kind", OF_BLOCKS)
def test_lossless_controls_have_the_models_shape_where_it_can_hold_everything(kind):
    for width, wanted in ((8, 24), (24, 24), (40, 40)):
        connector = control(kind, post_shape=(4, width))
        assert connector.post_shape == (4, wanted)
        assert connector.lossless
        assert outputs(connector)[1].shape == (3, 4, wanted)


def test_identity_gives_each_token_its_patches():
    target, post = outputs(control("identity", post_shape=(4, 30)))
    assert target is PRE
    assert (post[:, 1, :24] == PRE[:, [2, 3, 6, 7]].flatten(1)).all()
    assert (post[:, :, 24:] == 0).all()


@pytest.mark.parametrize(
    ("kind", "settings"), [("rotation", {}), ("invertible_mlp", {}), ("invertible_mlp", {"layers": 5})]
)
@pytest.mark.parametrize("width", [8, 40])
def test_what_was_put_in_can_be_computed_from_what_comes_out(kind, settings, width):
    connector = control(kind, post_shape=(4, width), **settings)
    torch.testing.assert_close(undone(connector, outputs(connector)[1]), PRE, rtol=0, atol=2e-3 if settings else 1e-5)


def test_a_rotation_keeps_every_inner_product():
    post = outputs(control("rotation", post_shape=(4, 40)))[1]
    grouped = control("identity").grouped(PRE)
    torch.testing.assert_close(post @ post.mT, grouped @ grouped.mT, rtol=0, atol=1e-4)


def test_an_invertible_mlp_is_not_linear():
    connector = control("invertible_mlp")
    plus, minus = (connector.map(connector.grouped(values)) for values in (PRE, -PRE))
    assert (plus + minus).abs().mean() > 0.3 * plus.abs().mean()


@pytest.mark.parametrize("kind", ["rotation", "invertible_mlp"])
def test_the_seed_and_nothing_else_decides(kind):
    one, same, other = (outputs(control(kind, seed))[1] for seed in (3, 3, 4))
    assert (one == same).all()
    assert (one - other).abs().max() > 0.1


@pytest.mark.parametrize("rank", [1, 3])
def test_pca_loses_the_discarded_eigenvalues(rank):
    connector, mean, std, extra = fitted_pca(rank)
    target, post = outputs(connector)
    assert target is PRE
    assert post.shape == (3, 4, 4 * rank)
    grouped = connector.grouped(PRE)
    centre = grouped.mean((0, 1))
    back = (post - mean) @ connector.basis.T + centre
    share = (back - grouped).square().sum() / grouped.square().sum()
    assert connector.known_fvu == pytest.approx(share.item(), rel=1e-4)
    assert not connector.lossless
    torch.testing.assert_close(post.flatten(0, 1).mean(0), mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(post.flatten(0, 1).std(0, correction=0), std, rtol=0, atol=1e-5)
    assert (extra["eigenvalues"].diff() <= 0).all()


def test_pca_of_full_rank_loses_nothing():
    connector, _, std, _ = fitted_pca(6)
    assert connector.lossless
    assert connector.known_fvu == pytest.approx(0, abs=1e-6)
    # 12 tokens span 11 of the 24 dimensions; what is left is rounding, which must not be blown up to variance 1.
    assert (std == 0).sum() == 13


def test_pca_has_by_default_as_many_numbers_as_the_model():
    assert control("pca").post_shape == (4, 8)  # 4 * 8 numbers for 16 patches: 2 for each
    assert control("pca", post_shape=(4, 400)).post_shape == (4, 24)
    assert control("pca", post_grid=None).post_shape == (4, 8)


def test_pooling_loses_differences_and_nothing_else():
    connector = control("pooling", post_grid=(4, 4), post_shape=(16, 9))
    assert connector.post_shape == (4, 6)
    post = outputs(connector)[1]
    torch.testing.assert_close(post[:, 1], PRE[:, [2, 3, 6, 7]].mean(1))
    changed = PRE.clone()
    changed[:, 2] += 1
    changed[:, 7] -= 1
    torch.testing.assert_close(outputs(connector, changed)[1], post)
    assert not connector.lossless


@pytest.mark.parametrize("kind", ["other_image", "other_image_and_patch"])
@pytest.mark.parametrize("n", [2, 7, 10])
def test_every_image_gets_another_and_each_is_given_once(kind, n):
    connector = control(kind)
    partner = connector.partner(n)
    assert (partner != np.arange(n)).all()
    assert sorted(partner) == list(range(n))
    assert outputs(connector)[1] is PARTNER
    assert not connector.lossless


def test_other_image_keeps_the_target():
    assert outputs(control("other_image"))[0] is PRE
    assert control("own").partner(10) is None
    assert control("rotation").partner(10) is None


def test_patches_are_shuffled_by_the_number_of_their_image():
    connector = control("other_image_and_patch")
    target = outputs(connector)[0]
    assert (target.sort(1).values == PRE.sort(1).values).all()
    assert (target != PRE).any(2).float().mean() > 0.7
    alone = connector(IMAGES[2:], PRE[2:], None, PARTNER[2:])[0]
    assert (alone == target[2:]).all()
    again = connector(IMAGES[[2, 2]], PRE[[0, 0]], None, PARTNER[[0, 0]])[0]
    assert (again[0] == again[1]).all()
    orders = {tuple(connector(np.array([i]), PRE[:1], None, PARTNER[:1])[0][0, :, 0].tolist()) for i in range(20)}
    assert len(orders) == 20


def test_what_theory_knows():
    known = {kind: control(kind).known_fvu for kind in SETTINGS}
    assert known == {
        "own": None, "identity": 0, "rotation": 0, "invertible_mlp": None, "pca": None, "pooling": None,
        "other_image": None, "other_image_and_patch": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "magic"}, "kind 'magic' is not known; wanted one of own, identity"),
        ({}, "kind None is not known"),
        ({"kind": "rotation", "angle": 3}, "kind rotation: angle is no setting of it; it has none"),
        ({"kind": "invertible_mlp", "depth": 3}, "depth is no setting of it; it has layers, slope"),
        ({"kind": "invertible_mlp", "slope": 0}, "invertible_mlp: layers is 2 and slope 0; wanted"),
        ({"kind": "invertible_mlp", "layers": -1}, "invertible_mlp: layers is -1 and slope 0.1; wanted"),
        ({"kind": "pca", "rank": 7}, "pca: rank is 7; wanted 1 to 6"),
        ({"kind": "pca", "rank": -1}, "pca: rank is -1; wanted 1 to 6"),
    ],
)
def test_a_wrong_spec_is_named(spec, message):
    with pytest.raises(LossmapError, match=message):
        make_connector(spec, [4, 4], (16, 6), (4, 8), 0, post_grid=[2, 2])


def test_a_grid_that_does_not_fit_is_named():
    with pytest.raises(
        LossmapError, match="rotation: 4 x 4 patches can't be cut into 5 equal blocks.*Leave this control"
    ):
        control("rotation", post_grid=None, post_shape=(5, 8))
    with pytest.raises(LossmapError, match="own: a grid of 4 x 4 patches can't be cut into 3 x 2 equal blocks"):
        control("own", post_grid=(3, 2))
    with pytest.raises(LossmapError, match="pooling: a grid of 3 x 4 patches can't be cut into 2 x 2 blocks"):
        control("pooling", pre_grid=(3, 4))
    with pytest.raises(LossmapError, match="needs at least 2 images; this store has 1"):
        control("other_image").partner(1)
