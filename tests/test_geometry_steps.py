"""The steps on geometry: from a store to summaries and tables, with known connectors; the numbers are the measures'."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import stats
from specs import PLAIN_FIGURES, checked
from tiny_models import save_tiny

from lossmap.errors import LossmapError
from lossmap.measures.neighbours import nearest_neighbours
from lossmap.measures.overlap import list_overlap
from lossmap.measures.relations import partial_spearman
from lossmap.store import PartWriter, open_store, write_index
from lossmap.store.patch_losses import PatchLossWriter
from lossmap.study import paper
from lossmap.study.columns import column
from lossmap.study.exhibits import probe as probe_exhibit
from lossmap.study.exhibits.random_projection import equivalent_dimension, in_short
from lossmap.study.steps import compare_indexes, find_neighbours, make_exhibit, measure_geometry, probe_patches
from lossmap.study.tables import write_page
from lossmap.vlm.loading import load_vision_side

N, PATCHES, WIDTH = 60, 4, 6
KS = [3, 8]
RESAMPLING = {"confidence": 0.95, "resamples": 100, "seed": 0}
rng = np.random.default_rng(23)
PRE = rng.normal(size=(N, PATCHES, WIDTH)).astype(np.float32) + rng.normal(size=(N, 1, WIDTH)).astype(np.float32) + 1
Q, _ = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))


def store(folder, name, pre, post, grid=(2, 2)):
    """An embedding store of one part."""
    (folder / "d").mkdir(parents=True, exist_ok=True)
    ids = [f"image-{i}" for i in range(len(pre))]
    how = {"pre_grid": list(grid), "post_grid": None, "key": {}, "preprocessing": {}}
    part = folder / f"d/{name}/part-0.zarr"
    part.parent.mkdir()
    writer = PartWriter(part, ids, pre.shape[1:], post.shape[1:], "float32", how)
    place = {
        "box": np.tile([0.0, 0, 64, 64], (len(pre), 1)).astype("float32"),
        "size": np.full((len(pre), 2), 64, "i4"),
    }
    writer.append(pre=pre, post=post, pre_mean=pre.mean(1), post_mean=post.mean(1), **place)
    writer.close()
    write_index([part], folder / f"d/{name}.json")
    return folder / f"d/{name}.json"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Outputs of measure_geometry and compare_indexes for a rotation and for an unrelated connector."""
    folder = tmp_path_factory.mktemp("geometry")
    connectors = {"rotation": 2 * PRE @ Q.astype("f4"), "unrelated": rng.normal(size=(N, 3, 5)).astype("f4")}
    for name, post in connectors.items():
        index, out = store(folder, name, PRE, post), folder / f"out/{name}"
        out.mkdir(parents=True)
        find_neighbours.run(
            embeddings=index,
            lists=out / "lists",
            spec=checked("find_neighbours", {"k": 8, "metrics": ["euclidean", "cosine"], "equal_images": "drop"}),
        )
        plain = {"dataset": "d", "model": name, "k": KS, "confidence": RESAMPLING["confidence"]}
        spec = plain | RESAMPLING
        outputs = {key: out / key for key in ("alignment", "neighbours", "summary", "dimensions", "projections")}
        more = {"quantiles": [0.2, 0.5], "delta": 0.05, "queries": 40}
        measure_geometry.run(
            embeddings=index, lists=out / "lists", **outputs, spec=checked("measure_geometry", spec | more)
        )
        indexes = {"overlap": out / "indexes", "summary": out / "indexes_summary"}
        compare_indexes.run(
            embeddings=index,
            lists=out / "lists",
            **indexes,
            spec=checked("compare_indexes", plain | {"memory": 1e-6, "sink_ratio": 3}),
        )
    return folder


def summary(results, model):
    table = pd.read_parquet(results / f"out/{model}/summary")
    assert (table["dataset"] == "d").all()
    assert sorted(table["k"].dropna().unique()) == KS  # and missing, not 0, where a measure has none
    return table.fillna({"k": 0}).set_index(["measure", "k"])


def test_a_rotation_gives_the_known_answer_of_every_measure(results):
    table = summary(results, "rotation")["value"]
    ones = ("mutual_neighbours", "trustworthiness", "continuity", "kendall", "spearman", "closeness", "bound_holds")
    for k in KS:
        assert [table[name, k] for name in ones] == pytest.approx([1] * len(ones), abs=1e-6)
        assert np.isnan(table["share_near_ties", k])
    assert table["cka", 0] == pytest.approx(1, abs=1e-5)
    assert table["unexplained_rotation", 0] < 1e-6
    assert table["unexplained_ridge", 0] < 1e-3
    for name in ("effective_rank", "intrinsic_dimension"):
        assert table[f"{name}_pre", 0] == pytest.approx(table[f"{name}_post", 0], rel=1e-3)
    for name in ("cosine_change_q95", "cosine_residual_q95", "epsilon"):
        assert table[name, 0] < 1e-5
    assert table["distance_ratio_q01", 0] == pytest.approx(1, abs=1e-5)
    assert table["distance_ratio_q99", 0] == pytest.approx(1, abs=1e-5)
    means = PRE.mean(1) - PRE.mean((0, 1))
    assert table["procrustes_error", 0] == pytest.approx(
        np.linalg.norm(means, axis=1).mean(), rel=1e-4
    )  # twice as long


def test_an_unrelated_connector_scores_chance(results):
    table = summary(results, "unrelated")
    for name in ("mutual_neighbours", "trustworthiness", "continuity", "kendall", "spearman"):
        row = table.loc[name, 8]
        assert row["low"] - 0.1 < row["chance"] < row["high"] + 0.1
    assert table.loc[("cka", 0), "low"] < 0.1
    assert table.loc[("unexplained_ridge", 0), "value"] > 0.8
    assert table.loc[("bound_holds", 3), "value"] == 1
    assert 0 <= table.loc[("share_near_ties", 3), "value"] <= 1


def test_tables_per_image_hold_one_row_for_each(results):
    alignment = pd.read_parquet(results / "out/unrelated/alignment")
    assert alignment["image_id"].tolist() == [f"image-{i}" for i in range(N)]
    assert alignment["procrustes_error"].mean() == pytest.approx(
        summary(results, "unrelated").loc[("procrustes_error", 0), "value"]
    )
    data = open_store(results / "d/unrelated.json")
    for side in ("pre", "post"):
        means = data[f"{side}_mean"].values
        np.testing.assert_allclose(
            alignment[f"{side}_length"], np.linalg.norm(means - means.mean(0), axis=1), rtol=1e-5
        )
    neighbours = pd.read_parquet(results / "out/unrelated/neighbours")
    assert len(neighbours) == N * len(KS)
    assert (neighbours["overlap"] >= neighbours["sharper_bound"]).all()
    assert (neighbours["sharper_bound"] >= neighbours["bound"]).all()
    needed = pd.read_parquet(results / "out/unrelated/dimensions")
    assert needed.groupby("quantile")["k"].apply(list).tolist() == [list(range(1, 9))] * 2


def test_dimensions_that_are_enough_keep_what_they_promise(results):
    table = pd.read_parquet(results / "out/rotation/projections")
    enough = table[table["purpose"] == "enough"]
    assert len(enough) == 4
    assert (enough["kept_all"] >= enough["promised"]).all()
    assert sorted(table.loc[table["purpose"] == "width", "dimension"].unique()) == [2, 4, 6]
    assert (table["queries"] == 40).all()


def test_two_runs_give_the_same_bytes(results, tmp_path):
    out = {key: tmp_path / key for key in ("alignment", "neighbours", "summary", "dimensions", "projections")}
    spec = {"dataset": "d", "model": "unrelated", "k": KS, **RESAMPLING, "quantiles": [0.2, 0.5], "delta": 0.05}
    lists = results / "out/unrelated/lists"
    measure_geometry.run(
        embeddings=results / "d/unrelated.json",
        lists=lists,
        **out,
        spec=checked("measure_geometry", spec | {"queries": 40}),
    )
    for key, path in out.items():
        assert path.read_bytes() == (results / f"out/unrelated/{key}").read_bytes()


def test_indexes_are_searched_as_they_say(results):
    table = pd.read_parquet(results / "out/unrelated/indexes_summary").set_index(["index", "k"])
    data = open_store(results / "d/unrelated.json")
    flat = [nearest_neighbours(data[side].values.reshape(N, -1), 8) for side in ("pre", "post")]
    pooled = [nearest_neighbours(data[f"{side}_mean"].values, 8, "cosine") for side in ("pre", "post")]
    for k in KS:
        assert table.loc[("flat_euclidean", k), "overlap"] == pytest.approx(list_overlap(*flat, k).mean())
        assert table.loc[("mean_pooled_cosine", k), "overlap"] == pytest.approx(list_overlap(*pooled, k).mean())
    rotation = pd.read_parquet(results / "out/rotation/indexes_summary").set_index(["index", "k"])["overlap"]
    assert (rotation > 0.99).all()
    assert len(pd.read_parquet(results / "out/rotation/indexes")) == N * len(KS) * 6


MODELS = ("rotation", "unrelated")
CHECKPOINTS = {"checkpoints": {"rotation": "llava-hf/llava-1.5-7b-hf", "unrelated": "x"}, "confidence": 0.95}


def paths(results, name):
    return [results / f"out/{model}/{name}" for model in MODELS]


def made(folder, name, settings, **files):
    """An exhibit's CSV file as a table, its page (without notes), and its caption."""
    inputs = [f"{label}={path}" for label, several in files.items() for path in several]
    make_exhibit.run(name, results=folder, inputs=inputs, settings=settings, spec=PLAIN_FIGURES)
    table = pd.read_csv(folder / f"tables/{name}.csv")
    assert [name for name in table.columns if column(name) is None] == []
    page = (folder / f"tables/{name}.html").read_text()
    assert page.count('<th scope="col"') <= 9
    return table, page, (folder / f"tables/{name}.rst").read_text()


def test_table_5_has_the_papers_values_for_its_images_only(results, tmp_path):
    table, page, caption = made(tmp_path, "table5", CHECKPOINTS, summaries=paths(results, "summary"))
    ours = table.set_index("model").loc["rotation"]
    assert table["residual_mean_reported"].isna().all()
    page = page.split("<table>")[1].split("<script>")[0]
    assert "reported" not in page
    assert ">residual, mean</button><small>unit of the embeddings</small></th>" in page
    for name in ("residual_mean", "residual_std", "residual_min", "residual_max"):  # the paper's columns
        assert table[name].notna().all()
        assert column(name).unit == "unit of the embeddings"
    names = ("unexplained_rotation_standardised", "unexplained_ridge")
    shares = [f"{ours[name]:.3f} [{ours[f'{name}_low']:.3f}, {ours[f'{name}_high']:.3f}]" for name in names]
    assert shares[1] == "0.000 [0.000, 0.000]"
    assert (
        f"**rotation** on d, fraction of the variance of standardised features left unexplained: {shares[0]}" in caption
    )
    assert f"{shares[1]} (chance {ours['unexplained_ridge_chance']:.3f}) by any linear map" in caption
    table = pd.read_parquet(paths(results, "summary")[0]).assign(dataset="seedbench", n=5624)
    table.to_parquet(tmp_path / "theirs")
    table, page, _ = made(tmp_path, "table5", CHECKPOINTS, summaries=[tmp_path / "theirs"])
    assert table["residual_mean_reported"].tolist() == [16.62]
    assert ">16.62<" in page


def test_table_7_has_the_papers_values_for_its_llava(results, tmp_path, monkeypatch):
    reported = pd.read_csv(f"{paper.__path__[0]}/table7.csv").assign(model="llava")
    (tmp_path / "paper").mkdir()
    reported.to_csv(tmp_path / "paper/table7.csv", index=False)
    monkeypatch.setattr(paper, "__file__", str(tmp_path / "paper/__init__.py"))
    tables = [pd.read_parquet(path).replace({"k": {8: 10}}) for path in paths(results, "indexes_summary")]
    for i, table in enumerate(tables):
        table.to_parquet(tmp_path / f"{i}")
    settings = CHECKPOINTS | {"sink_ratio": 3}
    table, page, caption = made(tmp_path, "table7", settings, summaries=[tmp_path / "0", tmp_path / "1"])
    table = table.set_index(["model", "index", "k"])["overlap_reported"]
    assert table["rotation", "flat_euclidean", 10] == 0.49
    assert np.isnan(table["rotation", "flat_euclidean", 3])
    assert np.isnan(table["unrelated", "flat_euclidean", 10])
    assert "longer than 3 times" in page
    assert "all patches, cosine" in page
    assert "**rotation** on d preserves, of the 3 nearest neighbours: 1.00" in caption


@pytest.mark.parametrize(
    ("name", "settings", "title", "sentence"),
    [
        ("similarity", {"k": KS}, "trustworthiness", "**rotation** on d: CKA 1.00"),
        ("margins", {}, "near-ties", "**rotation** on d: overlap 1.00 [1.00, 1.00] at k = 3 by cosine."),
    ],
)
def test_tables_of_geometry_show_what_their_summaries_hold(results, tmp_path, name, settings, title, sentence):
    settings = settings | {"confidence": 0.95}
    table, page, caption = made(tmp_path, name, settings, summaries=paths(results, "summary"))
    assert f">{title}</button><small>share" in page
    assert sentence in caption
    assert [measure for measure in table["measure"] if column(measure) is None] == []
    ours = summary(results, "unrelated").loc[("mutual_neighbours", 3), "value"]
    row = table[(table["model"] == "unrelated") & (table["measure"] == "mutual_neighbours") & (table["k"] == 3)]
    assert row["value"].tolist() == [pytest.approx(ours, rel=1e-5)]
    assert f">{ours:.2f} [" in page or name == "similarity"
    assert table["model"].tolist() == sorted(table["model"])  # all of one model's together
    if name == "margins":
        near, moved = (table.loc[table["measure"] == f"share_{kind}", "value"] for kind in ("near_ties", "moved"))
        np.testing.assert_allclose(near.to_numpy() + moved.to_numpy(), [np.nan, np.nan, 1, 1], rtol=1e-5)


def test_the_table_of_random_projections_sets_them_beside_the_connector(results, tmp_path):
    inputs = {name: paths(results, name) for name in ("dimensions", "projections")}
    inputs["summaries"] = paths(results, "summary")
    table, page, caption = made(tmp_path, "random_projection", {"k": KS, "confidence": 0.95}, **inputs)
    assert len(table) == 2 * 2 * 2
    assert (table["dimension_low"] <= table["dimension"]).all()
    assert (table["dimension"] <= table["dimension_high"]).all()
    assert table.loc[table["model"] == "rotation", "overlap_connector"].tolist() == [1] * 4
    assert table.loc[table["model"] == "unrelated", "width"].tolist() == [5] * 4
    assert "To preserve all 3 neighbours (by cosine) of 50% of the images" in caption
    assert "the connector's is 1.00. To" in caption  # more than any projection: no width is worth as much
    assert ">width of equal overlap</button>" in page


def test_an_equivalent_dimension_is_interpolated_and_never_invented():
    m, overlap = np.array([2, 8, 32]), np.array([0.2, 0.4, 0.3])
    assert equivalent_dimension(m, overlap, 0.3) == pytest.approx(4)
    assert equivalent_dimension(m, overlap, 0.2) == 2
    assert np.isnan(equivalent_dimension(m, overlap, 0.1))
    assert np.isnan(equivalent_dimension(m, overlap, 0.5))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (96, "96"),
        (1030365, "1 million"),
        (798686, "799 thousand"),
        (2.4e9, "2.4 billion"),
        (np.inf, "none"),
        (np.nan, "–"),
    ],
)
def test_dimensions_in_short(value, text):
    assert in_short(value) == text


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """A tiny LLaVA, a store of what it embeds, and patch losses that are the reverse of the lengths of patches."""
    folder = tmp_path_factory.mktemp("probe")
    save_tiny("llava", folder / "model")
    vision = load_vision_side(folder / "model")
    pictures = [Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)) for _ in range(6)]
    inputs = vision.preprocessor.normalise(vision.preprocessor.prepare(pictures), vision.device, vision.dtype)
    pre, post = (values.numpy() for values in vision.embed(inputs))
    index = store(folder, "llava", pre, post, grid=(8, 8))
    ids = [f"image-{i}" for i in range(6)]
    writer = PatchLossWriter(folder / "losses.zarr", ["mean", "ridge"], ids, (8, 8), {"best": "ridge"})
    loss = rng.random((2, 6, 64))
    names = ("squared_error", "norm_difference", "cosine_error")
    writer.append(**dict.fromkeys(names, loss), pre_norm=np.linalg.norm(pre, axis=2))
    writer.close()
    return folder, index, loss[1]


def probe(folder, index, out, **changes):
    spec = {"dataset": "d", "model": "llava", "checkpoint": str(folder / "model"), "revision": None, "image_size": None}
    spec |= {"images": 4, "directions": 2, "step": 0.01, "batch_size": 50, **RESAMPLING}
    probe_patches.run(
        embeddings=index,
        patches=out / "patches",
        summary=out / "summary",
        spec=checked("probe_patches", spec),
        **changes,
    )
    return pd.read_parquet(out / "patches"), pd.read_parquet(out / "summary").set_index("measure")


def probe_page(folder):
    """The page and the caption of what `probe` measured; its figure is another test's."""
    settings = probe_exhibit.Settings(dataset="d", models=["llava"], images=4, confidence=0.95)
    table = probe_exhibit.table(settings, [folder / "summary"])
    assert [name for name in [*table.columns, *table["measure"]] if column(name) is None] == []
    shown = probe_exhibit.page(table, settings)
    assert len(shown.columns) <= 9
    write_page(shown, folder / "probe.html", "", "", "", "")
    return (folder / "probe.html").read_text(), "\n".join(probe_exhibit.findings(table, settings))


def test_the_probe_stands_beside_the_loss(probed, tmp_path):
    folder, index, loss = probed
    patches, found = probe(folder, index, tmp_path, patch_loss=folder / "losses.zarr")
    assert len(patches) == 4 * 64
    for image, rows in patches.groupby("image_id"):
        wanted = loss[int(image.removeprefix("image-"))]
        np.testing.assert_allclose(rows.sort_values(["row", "col"])["loss"], wanted, rtol=1e-6)
    assert found.loc["response_random_loss", "n"] == 4
    assert abs(found.loc["response_random_loss", "value"]) < 0.5
    data = open_store(index)
    norms = dict(zip(data["image_id"].values, np.linalg.norm(data["pre"].values, axis=2), strict=True))
    for name in ("random", "towards"):
        images = [(norms[image], rows) for image, rows in patches.groupby("image_id")]
        raw = [stats.spearmanr(rows[name], rows["loss"]).statistic for _, rows in images]
        given = [partial_spearman(rows[name], rows["loss"], [norm], 1).rho for norm, rows in images]
        assert found.loc[f"response_{name}_loss", "value"] == pytest.approx(np.mean(raw))
        assert found.loc[f"response_{name}_loss_partial", "value"] == pytest.approx(np.mean(given))
    assert found["k"].isna().all()
    assert found.loc["response_random", "value"] == pytest.approx(patches["random"].mean())
    page, caption = probe_page(tmp_path)
    partial, raw = (found.loc[f"response_random_loss{end}"] for end in ("_partial", ""))
    shown, beside = (f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" for row in (partial, raw))
    assert f"given their norm: {shown} (raw: {beside})." in caption
    assert page.index("partial rho with loss") < page.index("raw rho with loss")


def test_the_probe_needs_no_loss(probed, tmp_path):
    folder, index, _ = probed
    patches, found = probe(folder, index, tmp_path)
    assert "loss" not in patches
    assert "response_random_loss" not in found.index
    page, caption = probe_page(tmp_path)
    assert "Rank correlation with the loss" not in caption
    assert "with loss, " not in page.split("<tbody>")[0]


def test_a_token_wise_connector_sees_every_patch_as_its_own_jacobian(probed, tmp_path):
    """Relative response times the gain is the Jacobian's root mean square: LLaVA's connector is one MLP per token."""
    folder, index, _ = probed
    patches, _ = probe(folder, index, tmp_path, threads=1)
    vision, data = load_vision_side(folder / "model"), open_store(index)
    row = patches[patches["image_id"] == patches["image_id"][0]].set_index(["row", "col"]).loc[(3, 5)]
    image = int(patches["image_id"][0].removeprefix("image-"))
    pre, post = data["pre"][image].values, data["post"][image].values
    jacobian = torch.func.jacrev(vision.model.multi_modal_projector)(torch.from_numpy(pre[3 * 8 + 5])).detach()
    wanted = float(jacobian.norm()) / pre.shape[1] ** 0.5 * np.linalg.norm(pre) / np.linalg.norm(post)
    assert row["random"] == pytest.approx(wanted, rel=0.5)  # two directions only


def test_an_image_that_is_there_twice_is_probed_towards_a_third(probed, tmp_path):
    folder, _, _ = probed
    pre = rng.normal(size=(3, 64, 32)).astype("f4")[[0, 1, 2, 0, 1, 2]]  # each image's partner is its copy
    patches, _ = probe(folder, store(tmp_path, "twins", pre, pre, grid=(8, 8)), tmp_path, threads=1)
    assert patches["towards"].notna().all()
    assert (patches["towards"] > 0).all()


def test_faults_of_the_probe_are_named(probed, tmp_path):
    folder, _, _ = probed
    same = np.tile(rng.normal(size=(1, 64, 32)).astype("f4"), (6, 1, 1))
    index = store(tmp_path, "twins", same, same, grid=(8, 8))
    with pytest.raises(LossmapError, match="every other image has a patch in common with image image-."):
        probe(folder, index, tmp_path)
    more = rng.normal(size=(9, 64, 32)).astype("f4")
    index = store(tmp_path, "more", more, more, grid=(8, 8))
    with pytest.raises(LossmapError, match=r"losses.zarr: lacks image image-\d, which the embeddings have"):
        probe(folder, index, tmp_path, patch_loss=folder / "losses.zarr")
    content = json.loads(index.read_text())
    assert content["images"] == 9
