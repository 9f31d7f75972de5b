"""The ladder: FVU and its intervals, whether it still falls, and what the step writes about reconstructors on disk."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from specs import checked

from lossmap.errors import LossmapError
from lossmap.measures.statistics import bootstrap_mean
from lossmap.measures.unexplained import growth, unexplained, unexplained_difference
from lossmap.reconstruct.ladder import Ladder
from lossmap.reconstruct.networks import build_network
from lossmap.reconstruct.pairs import pairs_of
from lossmap.reconstruct.saving import load_reconstructor, save_reconstructor
from lossmap.reconstruct.statistics import Statistics
from lossmap.store import PartWriter, open_store, write_index
from lossmap.store.patch_losses import open_patch_losses
from lossmap.study.steps import fit_linear, judge_connector, measure_ladder, measure_patch_loss, measure_statistics

rng = np.random.default_rng(0)
VARIANCES = rng.uniform(0.5, 1.5, size=120)
ERRORS = VARIANCES * rng.uniform(0.1, 0.3, size=120)
OTHERS = ERRORS + rng.uniform(0.0, 0.02, size=120)


def test_unexplained_is_a_ratio_of_sums():
    assert unexplained([1, 2], [1, 3]).value == 0.75  # the mean of the ratios is .83
    assert unexplained(VARIANCES, VARIANCES) == (1, 1, 1)
    assert unexplained(0 * VARIANCES, VARIANCES) == (0, 0, 0)


def test_scale_does_not_matter():
    for one, other in zip(unexplained(ERRORS, VARIANCES), unexplained(7 * ERRORS, 7 * VARIANCES), strict=True):
        assert one == pytest.approx(other, rel=1e-12)


def test_scipys_bootstrap_gives_the_same_interval():
    value, low, high = unexplained(ERRORS, VARIANCES, resamples=20_000, seed=1)
    theirs = stats.bootstrap(
        (ERRORS, VARIANCES), lambda a, b, axis: a.sum(axis) / b.sum(axis), n_resamples=20_000, method="percentile",
        paired=True, rng=2, vectorized=True,
    )  # fmt: skip
    assert value == ERRORS.sum() / VARIANCES.sum()
    monte_carlo = 0.1 * theirs.standard_error
    assert low == pytest.approx(theirs.confidence_interval.low, abs=monte_carlo)
    assert high == pytest.approx(theirs.confidence_interval.high, abs=monte_carlo)


def test_with_variances_of_one_it_is_the_mean_with_its_own_interval():
    expected = bootstrap_mean(ERRORS, 500, 0.9, seed=3)
    assert unexplained(ERRORS, np.ones(120), 500, 0.9, seed=3) == pytest.approx(expected, rel=1e-12)


def test_columns_are_as_if_alone_and_memory_is_bounded(monkeypatch):
    both = unexplained(np.column_stack([ERRORS, OTHERS]), np.column_stack([VARIANCES, VARIANCES]), 501)
    monkeypatch.setattr("lossmap.measures.statistics.DRAWS_AT_ONCE", 120 * 501)
    for column, errors in enumerate((ERRORS, OTHERS)):
        alone = unexplained(errors, VARIANCES, 501)
        assert [values[column] for values in both] == pytest.approx(list(alone), rel=1e-12)


def test_a_paired_difference_forgets_what_both_share():
    value, low, high = unexplained_difference(ERRORS, OTHERS, VARIANCES)
    assert value == pytest.approx((ERRORS - OTHERS).sum() / VARIANCES.sum())
    width = np.subtract(*unexplained(ERRORS, VARIANCES)[:0:-1])
    assert high - low < 0.2 * width
    assert high < 0
    assert unexplained_difference(ERRORS, ERRORS, VARIANCES) == (0, 0, 0)


def test_the_interval_covers_as_often_as_it_says():
    covered, draw = 0, np.random.default_rng(5)
    for i in range(300):
        variances = draw.uniform(0.5, 1.5, size=60)
        low, high = unexplained(variances * draw.uniform(0, 0.4, size=60), variances, 300, 0.9, seed=i)[1:]
        covered += low <= 0.2 <= high
    assert abs(covered / 300 - 0.9) < 0.07


def test_faulty_numbers_are_named():
    with pytest.raises(ValueError, match=r"errors: have shape \(0,\); wanted \(images,\)"):
        unexplained([], [])
    with pytest.raises(ValueError, match="variances: 1 rows are negative or not finite; the first is row 1"):
        unexplained([1, 1], [1, np.nan])
    with pytest.raises(ValueError, match="errors: 1 rows are negative or not finite; the first is row 0"):
        unexplained([-1, 1], [1, 1])
    with pytest.raises(
        ValueError, match=r"others have shape \(3,\) and variances \(2,\); row i must be the same image"
    ):
        unexplained_difference([1, 1], [1, 1, 1], [1, 1])
    with pytest.raises(ValueError, match="variances: row 1 is zero; of an image without variance"):
        unexplained([1, 1], [1, 0])
    with pytest.raises(ValueError, match="resamples is 0"):
        unexplained([1, 1], [1, 1], resamples=0)


def test_growth_is_the_power_law_through_the_last_two_points():
    law = growth([1, 10, 40], [0.9, 0.2, 0.1])
    assert law.at(1) == law.end == 0.1
    assert law.at(4) == pytest.approx(0.05)
    assert law.at(0.25) == pytest.approx(0.2)
    assert law.exponent == pytest.approx(0.5)
    assert growth([1, 2], [0.1, 0.2]).exponent == growth([1, 2], [0.1, 0.1]).exponent == 0
    assert growth([1, 2], [0.1, 0.0]).at(2) == 0


def test_a_curve_falls_if_twice_the_size_promises_enough_below_the_best():
    law = growth([1, 4], [0.2, 0.1])  # twice the size leaves .0707
    assert law.falls(best=0.1, tolerance=0.029)
    assert not law.falls(best=0.1, tolerance=0.03)
    assert not law.falls(best=0.07, tolerance=0.01)  # it falls, above the best
    assert not growth([1, 4], [0.03, 0.008]).falls(best=0.008, tolerance=0.01)  # less than the tolerance is left
    assert not growth([1, 4], [0.2, 0.3]).falls(best=0.3, tolerance=0.01)


def test_the_steps_of_a_ladder_do_not_matter_for_whether_it_falls():
    """The same power law, seen in small steps and in large ones."""
    laws = [growth([1, factor], [0.1 * factor**0.3, 0.1]) for factor in (2, 8, 100)]
    assert [law.exponent for law in laws] == pytest.approx([0.3] * 3)


def test_what_it_takes_until_a_curve_settles():
    law = growth([1, 2], [0.2, 0.1])
    assert law.needed(0.01) == pytest.approx(5)
    later = law.at(law.needed(0.01))
    assert later - later / 2 == pytest.approx(0.01)
    assert law.needed(0.05) == 1
    assert law.needed(0) == growth([1, 2], [1 + 1e-3, 1]).needed(1e-6) == np.inf


def test_faulty_curves_are_named():
    with pytest.raises(ValueError, match=r"losses: have shape \(1,\) at sizes \(1,\); wanted at least 2"):
        growth([1], [0.1])
    with pytest.raises(ValueError, match="losses: entry 1 is not finite"):
        growth([1, 2], [0.1, np.nan])
    with pytest.raises(ValueError, match=r"sizes: \[2.0, 2.0\]; wanted rising numbers above 0"):
        growth([2, 2], [0.1, 0.2])


DECODERS, SHARES, GRID = ["mean", "position_mean", "ridge", "mlp-small"], [50, 100], (2, 2)
CONNECTORS = {name: {"kind": name} for name in ("own", "identity", "rotation", "other_image")}
NETWORK = {"kind": "mlp", "widths": [8], "dropout": 0.0}
FIT = {"connectors": CONNECTORS, "shares": SHARES, "held_out": 0.2, "seed": 0}


def embeddings(folder, n, seed, parts=1):
    """A store of a toy model whose connector is a linear map of each patch, 6 -> 5, with a little noise."""
    drawn, (matrix, place) = np.random.default_rng(seed), toy_model()
    pre = place + drawn.normal(size=(n, 4, 6))
    post = pre @ matrix + 0.1 * drawn.normal(size=(n, 4, 5))
    box, size = np.tile([0.0, 0, 64, 64], (n, 1)), np.full((n, 2), 64)
    whole = {"pre": pre, "post": post, "pre_mean": pre.mean(1), "post_mean": post.mean(1), "box": box, "size": size}
    how = {"pre_grid": GRID, "post_grid": GRID, "key": {"checkpoint": "toy"}}
    paths, index = [], folder / "toy.json"
    for rows in np.array_split(np.arange(n), parts):
        paths.append(folder / f"toy/part-{rows[0]}.zarr")
        writer = PartWriter(paths[-1], [f"image-{i}" for i in rows], (4, 6), (4, 5), "float32", how)
        writer.append(**{name: values[rows] for name, values in whole.items()})
        writer.close()
    write_index(paths, index)
    return index


def toy_model():
    drawn = np.random.default_rng(9)
    return drawn.normal(size=(6, 5)), drawn.normal(size=(4, 6))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model's folder of reconstructors, its networks with random weights, and an evaluation set."""
    folder = tmp_path_factory.mktemp("toy")
    train, evaluation = (embeddings(folder / name, n, i) for i, (name, n) in enumerate((("train", 80), ("test", 23))))
    models = folder / "reconstructors/toy"
    spec = checked("measure_statistics", {key: FIT[key] for key in ("connectors", "seed")})
    measure_statistics.run(embeddings=train, reconstructors=models, spec=spec)
    fit_linear.run(embeddings=train, reconstructors=models, spec=checked("fit_linear", FIT))
    for name in CONNECTORS:
        statistics = Statistics.load(models / name / "statistics.safetensors")
        pairs = pairs_of(open_store(train), statistics)
        shapes = {"pre_shape": [4, 6], "post_shape": list(pairs.post_shape), "blocks": pairs.connector.blocks.tolist()}
        torch.manual_seed(0)
        for share in SHARES:
            path = models / name / f"mlp-small-{share}.safetensors"
            architecture = {**NETWORK, **shapes, "held_out_error": 1.25}
            save_reconstructor(build_network(NETWORK, **shapes), architecture, statistics.digest, path)
    return models, evaluation


def measure(trained, folder, batch_size=7, decoders=DECODERS, index=None, near_copies=()):
    """Runs measure_patch_loss. Returns the store, the table of images and the summary."""
    models, evaluation = trained
    out = {"losses": folder / "toy.zarr", "images": folder / "toy.parquet", "summary": folder / "summary.parquet"}
    spec = {"dataset": "test", "model": "toy", "decoders": decoders, "share": 100, "batch_size": batch_size}
    spec |= {"confidence": 0.95, "resamples": 200, "seed": 0}
    copies = folder / "near_copies.parquet"
    near_copies = pd.DataFrame({"dataset": "test", "image_id": near_copies}, dtype="str")
    pd.concat([near_copies, pd.DataFrame({"dataset": ["other"], "image_id": ["0"]})]).to_parquet(copies)
    spec = checked("measure_patch_loss", spec)
    measure_patch_loss.run(embeddings=index or evaluation, near_copies=copies, reconstructors=models, **out, spec=spec)
    return open_patch_losses(out["losses"]), pd.read_parquet(out["images"]), pd.read_parquet(out["summary"])


def measured_ladder(trained, folder, batch_size=7):
    models, evaluation = trained
    connectors = {name: DECODERS if name == "own" else DECODERS[:3] for name in CONNECTORS}
    spec = {"dataset": "test", "model": "toy", "connectors": connectors, "shares": SHARES}
    spec = checked("measure_ladder", spec | {"batch_size": batch_size})
    ladder = folder / "ladder.parquet"
    measure_ladder.run(embeddings=evaluation, reconstructors=models, ladder=ladder, spec=spec)
    return pd.read_parquet(ladder)


def fvu(rows):
    return rows["squared_error"].sum() / rows["variance"].sum()


def test_losses_are_given_without_near_copies_too(trained, tmp_path):
    (tmp_path / "whole").mkdir()
    _, images, whole = measure(trained, tmp_path / "whole")
    ids = images["image_id"].unique()
    _, _, found = measure(trained, tmp_path, near_copies=ids[:4])
    assert (whole["near_copies"] == 0).all()
    np.testing.assert_array_equal(whole["fvu_without_near_copies"], whole["fvu"])
    np.testing.assert_array_equal(found["fvu"], whole["fvu"])
    assert (found["near_copies"] == 4).all()
    rest = images[~images["image_id"].isin(ids[:4])]
    for row in found.itertuples():
        rows = rest[rest["reconstructor"] == row.reconstructor]
        assert row.fvu_without_near_copies == pytest.approx(fvu(rows))
        assert row.loss_without_near_copies == pytest.approx(rows["squared_error"].mean())
    (tmp_path / "all").mkdir()
    assert measure(trained, tmp_path / "all", near_copies=ids)[2]["fvu_without_near_copies"].isna().all()


def test_patch_losses_are_those_of_each_reconstruction(trained, tmp_path):
    store, _, _ = measure(trained, tmp_path)
    models, evaluation = trained
    statistics = Statistics.load(models / "own/statistics.safetensors")
    post, pre = pairs_of(open_store(evaluation), statistics).read(range(23))
    for decoder in DECODERS:
        module, _ = load_reconstructor(models / f"own/{decoder}-100.safetensors", statistics.digest)
        with torch.no_grad():
            difference = (pre - module(post)).numpy()
            longer = (pre.norm(dim=2) - module(post).norm(dim=2)).numpy()
        found = store.sel(reconstructor=decoder)
        np.testing.assert_allclose(found["squared_error"].values.reshape(23, 4), (difference**2).mean(2), rtol=1e-5)
        np.testing.assert_allclose(found["norm_difference"].values.reshape(23, 4), longer, atol=1e-5)
    np.testing.assert_allclose(store["pre_norm"].values.reshape(23, 4), pre.norm(dim=2), rtol=1e-6)
    assert store["reconstructor"].values.tolist() == DECODERS
    assert store.attrs["best"] == "ridge"
    assert store.attrs["pre_grid"] == [2, 2]


def test_images_are_means_over_their_patches_and_the_summary_over_images(trained, tmp_path):
    store, images, summary = measure(trained, tmp_path)
    assert len(images) == 23 * len(DECODERS)
    over = ("row", "col")
    for decoder, rows in images.groupby("reconstructor"):
        maps = store.sel(reconstructor=decoder)
        for name in ("squared_error", "norm_difference", "cosine_error"):
            np.testing.assert_allclose(rows[name], maps[name].mean(over), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(rows["absolute_norm_difference"], abs(maps["norm_difference"]).mean(over), rtol=1e-5)
        np.testing.assert_allclose(rows["variance"], (maps["pre_norm"] ** 2).mean(over) / 6, rtol=1e-5)
        assert rows["best"].eq(decoder == "ridge").all()
        row = summary.set_index("reconstructor").loc[decoder]
        assert row["loss"] == pytest.approx(rows["squared_error"].mean())
        assert row["loss_std"] == pytest.approx(rows["squared_error"].std(ddof=0))
        assert row["fvu"] == pytest.approx(fvu(rows))
        assert row["fvu_low"] <= row["fvu"] <= row["fvu_high"]
    assert summary["held_out_error"].tolist()[3] == 1.25
    assert summary["parameters"].tolist() == [0, 4 * 6, 5 * 6 + 6, 5 * 8 + 8 + 16 + 8 * 6 + 6]
    assert summary["n"].unique().tolist() == [23]


def test_the_mean_scores_the_variance(trained, tmp_path):
    _, images, _ = measure(trained, tmp_path)
    mean = images[images["reconstructor"] == "mean"]
    np.testing.assert_allclose(mean["squared_error"], mean["variance"], rtol=1e-6)
    assert (mean["cosine_error"] == 1).all()


def test_neither_batch_nor_part_size_shows(trained, tmp_path):
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder in folders:
        folder.mkdir()
    parts = embeddings(tmp_path / "parts", 23, 1, parts=3)
    found = [measure(trained, folders[0]), measure(trained, folders[1], batch_size=23)]
    found.append(measure(trained, folders[2], index=parts))
    for store, images, _ in found[1:]:
        for name in ("squared_error", "norm_difference", "cosine_error", "pre_norm"):
            np.testing.assert_allclose(store[name], found[0][0][name], atol=1e-6)
        pd.testing.assert_frame_equal(images, found[0][1], rtol=0, atol=1e-6)


def test_the_ladder_has_a_row_for_each_connector_decoder_share_and_image(trained, tmp_path):
    ladder = measured_ladder(trained, tmp_path)
    groups = ladder.groupby(["connector", "decoder", "share"], sort=False)
    decoders = [(c, r) for c in CONNECTORS for r in DECODERS if c == "own" or r != "mlp-small"]
    assert list(groups.groups) == [(*which, share) for which in decoders for share in SHARES]
    assert groups.size().unique().tolist() == [23]
    assert ladder.notna().drop(columns=["known_fvu", "halfway_error", "passes", "learning_rate"]).all(axis=None)
    flat = ladder.groupby("connector").first()
    assert flat["lossless"].to_dict() == {"own": False, "identity": True, "rotation": True, "other_image": False}
    assert flat.loc["rotation", "known_fvu"] == 0
    assert np.isnan(flat.loc["own", "known_fvu"])
    assert (flat.loc["own", "pre_numbers"], flat.loc["own", "post_numbers"]) == (24, 20)
    assert flat.loc["rotation", "post_numbers"] == 24
    assert (flat["kind"] == flat.index).all()
    assert ladder.groupby("decoder")["architecture"].first()["mlp-small"] == "mlp"


def test_the_ladder_finds_what_is_known(trained, tmp_path):
    ladder = measured_ladder(trained, tmp_path)
    scores = ladder.groupby(["connector", "decoder", "share"]).apply(fvu, include_groups=False)
    assert scores["identity", "ridge", 100] < 1e-3
    assert scores["rotation", "ridge", 100] < 1e-3
    assert scores["own", "ridge", 100] > 0.02  # 6 features do not fit into 5
    assert abs(scores["own", "mean", 100] - 1) < 1e-6
    assert scores["other_image", "ridge", 100] > scores["other_image", "position_mean", 100] - 0.02


def test_ladder_and_patch_losses_agree(trained, tmp_path):
    _, images, _ = measure(trained, tmp_path)
    ladder = measured_ladder(trained, tmp_path, batch_size=23)
    own = ladder[(ladder["connector"] == "own") & (ladder["share"] == 100)]
    for name in ("squared_error", "cosine_error", "variance"):
        np.testing.assert_allclose(own[name], images[name], atol=1e-6)
    assert own["image_id"].tolist() == images["image_id"].tolist()


def test_the_ladder_of_a_real_run_can_be_judged(trained, tmp_path):
    measured_ladder(trained, tmp_path)
    out = {name: tmp_path / f"judged_{name}" for name in ("ladder", "verdict")}
    spec = {"settled_within": 0.01, "confidence": 0.95, "resamples": 200, "seed": 0}
    spec = checked("judge_connector", spec)
    copies = tmp_path / "near_copies"
    pd.DataFrame({"dataset": [], "image_id": []}, dtype="str").to_parquet(copies)
    judge_connector.run(ladders=[tmp_path / "ladder.parquet"], near_copies=copies, **out, spec=spec)
    row = pd.read_parquet(out["verdict"]).iloc[0]
    assert row["model_connector_decoder"] == "ridge"
    difference = row["model_connector_fvu"] - row["matched_control_fvu"]
    assert row["matched_control_difference"] == pytest.approx(difference, abs=1e-5)
    assert row["matched_control_difference_low"] > 0
    assert "24 dimensions of an image enter the connector and 20 leave it" in row["details"]


def test_damaged_and_foreign_reconstructors_are_named(trained, tmp_path):
    models, evaluation = trained
    copy = tmp_path / "toy"
    shutil.copytree(models, copy)
    statistics = Statistics.load(copy / "own/statistics.safetensors")
    path = copy / "own/ridge-100.safetensors"
    module, architecture = load_reconstructor(path)
    module.bias[2] = np.nan
    save_reconstructor(module, architecture, statistics.digest, path)
    with pytest.raises(
        LossmapError, match=r"own/ridge-100.safetensors: its reconstruction of image image-0 is not finite"
    ):
        measure((copy, evaluation), tmp_path)
    assert not (tmp_path / "toy.zarr").exists()
    shutil.copy(copy / "identity/ridge-100.safetensors", path)
    with pytest.raises(LossmapError, match=r"own/ridge-100.safetensors: .*other statistics"):
        measure((copy, evaluation), tmp_path)
    path.unlink()
    with pytest.raises(LossmapError, match=r"own/ridge-100.safetensors: can't be read"):
        measure((copy, evaluation), tmp_path)
    del architecture["held_out_error"]
    save_reconstructor(module, architecture, statistics.digest, path)
    with pytest.raises(LossmapError, match=r"own/ridge-100.safetensors: doesn't say its held-out error"):
        measure((copy, evaluation), tmp_path)


def ladder_of(decoders):
    """A ladder of one connector. decoders: (decoder, architecture, share, parameters, fvu, converged)."""
    frames = [
        pd.DataFrame(
            {
                **{"image_id": ["a", "b"], "squared_error": fvu, "cosine_error": 0.1, "variance": 1.0},
                **{"dataset": "d", "model": "m", "connector": "own", "kind": "own", "lossless": False},
                **{"decoder": decoder, "architecture": architecture, "share": share, "parameters": parameters},
                **{"held_out_error": fvu, "converged": converged, "post_numbers": 8, "pre_numbers": 8},
            }
        )
        for decoder, architecture, share, parameters, fvu, converged in decoders
    ]
    return Ladder(pd.concat(frames, ignore_index=True), "here", 100, 0.95, 0)


def test_how_far_a_curve_goes_is_told_by_networks_like_the_best_or_by_none():
    ridge = [("ridge", "ridge", 25, 10, 0.5, True), ("ridge", "ridge", 100, 10, 0.4, True)]
    small = [("small", "mlp", 25, 10, 0.4, True), ("small", "mlp", 100, 10, 0.2, True)]
    large = [("large", "mlp", 25, 40, 0.4, True), ("large", "mlp", 100, 40, 0.1, True)]
    by_size, by_images = np.log(0.2 / 0.1) / np.log(4), np.log(0.4 / 0.1) / np.log(4)
    assert ladder_of([*ridge, *small, *large]).reach("own", 10) == pytest.approx(0.1 * 10 ** -(by_size + by_images))
    # The best has no curve over images that converged: another network of its kind has.
    unfinished = [(*large[0][:5], False), large[1]]
    by_others = np.log(0.4 / 0.2) / np.log(4)
    assert ladder_of([*ridge, *small, *unfinished]).reach("own", 10) == pytest.approx(
        0.1 * 10 ** -(by_size + by_others)
    )
    # No network has: ridge says nothing of what more images would teach it.
    both = [(*small[0][:5], False), small[1], *unfinished]
    assert ladder_of([*ridge, *both]).reach("own", 10) == 0
