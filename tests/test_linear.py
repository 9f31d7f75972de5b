"""The linear decoders: agreement with scikit-learn and brute force, and what they leave on every control."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge
from specs import checked
from toy_store import embeddings, write_store

from lossmap.errors import LossmapError
from lossmap.reconstruct import linear as linear_module
from lossmap.reconstruct import pairs as pairs_module
from lossmap.reconstruct.linear import (
    REGULARISERS,
    NormalEquations,
    Ridge,
    build_linear,
    fit_linear_decoders,
    fit_ridge,
)
from lossmap.reconstruct.pairs import pairs_of
from lossmap.reconstruct.split import split_images
from lossmap.reconstruct.statistics import Statistics
from lossmap.store import open_store
from lossmap.study.steps import measure_statistics

CONTROLS = ("own", "identity", "rotation", "invertible_mlp", "pca", "pooling", "other_image", "other_image_and_patch")
rng = np.random.default_rng(0)


def measured(folder, connectors=CONTROLS, pre_post=None, **how):
    """A toy store with the statistics of some connectors, and the store's index."""
    index = write_store(folder / "toy.json", *(pre_post or embeddings()), **how)
    spec = {"connectors": {name: {"kind": name} for name in connectors}, "seed": 0}
    measure_statistics.run(embeddings=index, reconstructors=folder, spec=checked("measure_statistics", spec))
    return index


def pairs_for(index, connector):
    return pairs_of(open_store(index), Statistics.load(index.parent / connector / "statistics.safetensors"))


def fitted(pairs, shares=(100,)):
    return {
        (told["kind"], share): (module, told)
        for share, module, told in fit_linear_decoders(pairs, split_images(len(pairs), 0.2, list(shares), 0))
    }


def unexplained(module, pairs, images=None):
    post, pre = pairs.read(range(len(pairs)) if images is None else images)
    return ((module(post) - pre).square().sum() / pre.square().sum()).item()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return measured(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def decoders(store):
    """All linear decoders of all connectors."""
    return {name: fitted(pairs_for(store, name)) for name in CONTROLS}


def equations(x, y, cuts=()):
    made = NormalEquations(x.shape[1], y.shape[1])
    for some, others in zip(np.split(x, list(cuts)), np.split(y, list(cuts)), strict=True):
        made.update(torch.as_tensor(some), torch.as_tensor(others))
    return made


def regression(n=300, d=12, o=5, noise=1.0):
    x = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 2
    return x, x @ rng.normal(size=(d, o)) + noise * rng.normal(size=(n, o)) - 1


def test_the_weights_are_scikit_learns():
    x, y = regression(noise=20.0)
    fit = fit_ridge(equations(x[:200], y[:200], [7, 50]), equations(x[200:], y[200:], [1]))
    theirs = SklearnRidge(fit.regulariser).fit(x[:200], y[:200])
    np.testing.assert_allclose(fit.weight.T, theirs.coef_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fit.bias, theirs.intercept_, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("noise", [0.1, 5.0, 1000.0])
@pytest.mark.parametrize("n", [8, 60])
def test_the_regulariser_is_the_best_on_the_held_out_rows(noise, n, monkeypatch):
    monkeypatch.setattr(linear_module, "COLUMNS_AT_ONCE", 2)
    x, y = regression(n + 100, noise=noise)
    fit = fit_ridge(equations(x[:n], y[:n]), equations(x[n:], y[n:]))
    scale = np.square(x[:n]).sum() / x.shape[1]
    errors = [np.square(SklearnRidge(r * scale).fit(x[:n], y[:n]).predict(x[n:]) - y[n:]).mean() for r in REGULARISERS]
    assert fit.regulariser == pytest.approx(REGULARISERS[np.argmin(errors)] * scale)
    assert fit.error == pytest.approx(min(errors), rel=1e-6)


def test_float32_rows_do_as_well():
    x, y = regression(2000)
    double = fit_ridge(equations(x[:1500], y[:1500]), equations(x[1500:], y[1500:]))
    x, y = x.astype("float32"), y.astype("float32")
    single = fit_ridge(equations(x[:1500], y[:1500]), equations(x[1500:], y[1500:]))
    assert single.error == pytest.approx(double.error, rel=1e-3)


def test_without_rows_there_is_no_fit():
    x, y = regression()
    for name, rows in (
        ("train", (equations(x[:0], y[:0]), equations(x, y))),
        ("held_out", (equations(x, y), equations(x[:0], y[:0]))),
    ):
        with pytest.raises(ValueError, match=f"{name} has no rows"):
            fit_ridge(*rows)


def test_one_row_or_constant_inputs_give_the_mean():
    x, y = regression()
    for some in (slice(0, 1), slice(0, 4)):
        fit = fit_ridge(equations(np.repeat(x[:1], 4, 0)[some], y[some]), equations(x[9:], y[9:]))
        np.testing.assert_allclose(fit.bias, y[some].mean(0), rtol=1e-5)
        np.testing.assert_allclose(fit.weight, 0, atol=1e-6)


def test_the_mean_leaves_everything_and_positions_what_they_do_not_tell(store, decoders):
    pairs = pairs_for(store, "own")
    _, pre = pairs.read(range(len(pairs)))
    assert unexplained(decoders["own"]["mean", 100][0], pairs) == 1
    module = decoders["own"]["position_mean", 100][0]
    images = split_images(len(pairs), 0.2, [100], 0).train[100]
    torch.testing.assert_close(module(torch.zeros(1, 4, 8))[0], pre[images].mean(0), rtol=0, atol=1e-5)
    assert 0.4 < unexplained(module, pairs) < 0.7


@pytest.mark.parametrize("control", ["identity", "rotation"])
def test_what_loses_nothing_is_recovered(store, decoders, control):
    assert unexplained(decoders[control]["ridge", 100][0], pairs_for(store, control)) < 1e-3


def test_pca_leaves_the_discarded_eigenvalues(store, decoders):
    pairs = pairs_for(store, "pca")
    extra = pairs.statistics.extra
    assert pairs.post_shape == (4, 8)
    discarded = (extra["eigenvalues"][8:].sum() / 24).item()  # standardised: 24 features of mean square 1 in a block
    assert pairs.connector.known_fvu == pytest.approx(discarded, rel=1e-4)
    assert 0.05 < discarded < 0.5
    images = split_images(len(pairs), 0.2, [100], 0).train[100]
    assert unexplained(decoders["pca"]["ridge", 100][0], pairs, images) == pytest.approx(discarded, rel=0.01)
    assert unexplained(decoders["pca"]["ridge", 100][0], pairs) == pytest.approx(discarded, rel=0.01)


def test_an_invertible_mlp_is_too_much_for_ridge(store, decoders):
    pairs = pairs_for(store, "invertible_mlp")
    assert pairs.connector.lossless
    assert unexplained(decoders["invertible_mlp"]["ridge", 100][0], pairs) > 0.1


def test_another_image_tells_the_position_and_no_more(store, decoders):
    for module, pairs in (
        (decoders["other_image"][decoder, 100][0], pairs_for(store, "other_image")) for decoder in ("mean", "ridge")
    ):
        position_mean = unexplained(decoders["other_image"]["position_mean", 100][0], pairs)
        assert unexplained(module, pairs) > position_mean - 0.02


@pytest.mark.parametrize("decoder", ["mean", "position_mean", "ridge"])
def test_another_image_and_patch_tell_nothing(store, decoders, decoder):
    assert (
        unexplained(decoders["other_image_and_patch"][decoder, 100][0], pairs_for(store, "other_image_and_patch"))
        > 0.98
    )


def test_ridge_beats_the_mean_and_says_by_how_much(store, decoders):
    pairs = pairs_for(store, "own")
    held_out = split_images(len(pairs), 0.2, [100], 0).held_out
    post, pre = pairs.read(held_out)
    told = {
        decoder: decoders["own"][decoder, 100][1]["held_out_error"] for decoder in ("mean", "position_mean", "ridge")
    }
    for decoder, error in told.items():
        module = decoders["own"][decoder, 100][0]
        assert error == pytest.approx((module(post) - pre).square().mean().item(), rel=1e-5)
    assert told["ridge"] < told["position_mean"] < told["mean"]


def test_a_share_is_fitted_as_if_it_were_alone(store):
    pairs = pairs_for(store, "own")
    together, alone = fitted(pairs, (100, 25)), fitted(pairs, (25,))
    post, _ = pairs.read([0, 1])
    for decoder in ("mean", "position_mean", "ridge"):
        torch.testing.assert_close(together[decoder, 25][0](post), alone[decoder, 25][0](post), rtol=0, atol=1e-6)
    assert together["ridge", 25][1]["held_out_error"] > together["ridge", 100][1]["held_out_error"]


def test_parts_and_blocks_play_no_role(store, decoders, tmp_path, monkeypatch):
    monkeypatch.setattr(pairs_module, "BLOCK_BYTES", 30_000)
    cut = measured(tmp_path, ["own", "pca"], parts=[13, 14, 300])
    for name in ("own", "pca"):
        one, other = pairs_for(store, name), pairs_for(cut, name)
        module, told = fitted(other)["ridge", 100]
        assert unexplained(module, other) == pytest.approx(unexplained(decoders[name]["ridge", 100][0], one), abs=1e-6)
        assert told["held_out_error"] == pytest.approx(decoders[name]["ridge", 100][1]["held_out_error"], abs=1e-6)


def test_the_number_of_threads_plays_no_role(store, decoders):
    pairs = pairs_for(store, "own")
    torch.set_num_threads(2)
    try:
        module = fitted(pairs)["ridge", 100][0]
    finally:
        torch.set_num_threads(1)
    assert unexplained(module, pairs) == pytest.approx(unexplained(decoders["own"]["ridge", 100][0], pairs), abs=1e-6)


def test_tokens_without_a_place_predict_all_patches_from_their_mean(tmp_path):
    pairs = pairs_for(measured(tmp_path, ["own"], post_grid=None), "own")
    assert pairs.connector.blocks is None
    module, told = fitted(pairs)["ridge", 100]
    assert module.weight.shape == (8, 16 * 6)
    post, pre = pairs.read(range(len(pairs)))
    images = split_images(len(pairs), 0.2, [100], 0).train[100]
    theirs = SklearnRidge(told["regulariser"]).fit(post[images].mean(1), pre[images].flatten(1))
    np.testing.assert_allclose(module(post).flatten(1), theirs.predict(post.mean(1).numpy()), atol=1e-4)
    assert (module(post) - module(post.flip(1))).abs().max() < 1e-5


def test_each_token_predicts_its_own_block():
    module = Ridge((16, 6), (4, 8), [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]])
    module.weight.copy_(torch.from_numpy(rng.normal(size=(8, 24))))
    post = torch.zeros(1, 4, 8)
    post[0, 1] = 1.0
    patches = module(post)[0]
    assert patches[[2, 3, 6, 7]].flatten().tolist() == pytest.approx(module.weight.sum(0).tolist(), rel=1e-5)
    assert patches[[0, 1, 4, 5, *range(8, 16)]].abs().max() == 0


def test_tokens_beyond_the_blocks_are_not_read():
    module = Ridge((4, 2), (5, 3), [[0], [1], [2], [3]])
    module.weight.fill_(1.0)
    post = torch.ones(2, 5, 3)
    assert (module(post) == 3).all()
    post[:, 4] = 100
    assert (module(post) == 3).all()


def test_a_constant_feature_is_no_obstacle(tmp_path):
    pre, post = embeddings(200)
    pre[:, :, 2], post[:, :, 5] = 4, -1
    pairs = pairs_for(measured(tmp_path, ["own", "rotation"], (pre, post)), "rotation")
    assert pairs.statistics.constant_features == (1, 0)
    assert unexplained(fitted(pairs)["ridge", 100][0], pairs) < 1e-3
    pairs = pairs_for(tmp_path / "toy.json", "own")
    assert pairs.statistics.constant_features == (1, 1)
    module = fitted(pairs)["ridge", 100][0]
    assert unexplained(module, pairs) < 1
    assert module(pairs.read([0])[0])[:, :, 2].abs().max() == 0


def test_wrong_blocks_and_kinds_are_named():
    with pytest.raises(LossmapError, match=r"ridge: blocks of shape \(2, 2\) don't give each of 4 patches"):
        Ridge((4, 2), (2, 3), [[0, 1], [1, 3]])
    with pytest.raises(LossmapError, match="to one of 1 tokens"):
        Ridge((4, 2), (1, 3), [[0, 1], [2, 3]])
    with pytest.raises(LossmapError, match="kind is 'lasso'. Linear ones are mean, position_mean, ridge"):
        build_linear({"kind": "lasso"}, (4, 2), (4, 3))
