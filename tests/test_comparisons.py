"""Paired differences of two models: nothing against itself, known shifts, what can't be paired, table and figure."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from small_study import ROOT, clone, small_study, snakemake
from specs import PLAIN_FIGURES, checked

from lossmap.errors import LossmapError
from lossmap.measures.neighbours import rank_neighbours
from lossmap.measures.overlap import ranking_overlap
from lossmap.measures.unexplained import unexplained, unexplained_difference
from lossmap.study.columns import column
from lossmap.study.exhibits import comparisons
from lossmap.study.neighbour_lists import NeighbourLists, write_lists
from lossmap.study.settings import check_study
from lossmap.study.steps import compare_models, make_exhibit

N, K = 120, [5, 10]
IDS = np.array([f"image-{i}" for i in range(N)])
SPEC = {
    **{"base": "base", "tuned": "tuned", "shared": ["photos"], "lists": ["photos"], "losses": ["photos"]},
    **{"captions": ["photos"], "answers": ["photos"], "choices": []},
    **{"k": K, "metrics": ["euclidean"], "confidence": 0.95, "resamples": 400, "seed": 0},
}


def write_model(folder, noise, loss=0.2, better=0.0, ids=IDS, copies=None):
    """Neighbours, losses, captions and answers of a model whose connector adds noise of this length."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    before = rng.normal(size=(N, 6))
    after = before + noise * rng.normal(size=before.shape)
    rankings = {("euclidean", s): rank_neighbours(x, max(K)) for s, x in (("pre", before), ("post", after))}
    write_lists(folder / "lists.parquet", NeighbourLists(ids, copies or {}, rankings))
    variance = rng.uniform(1, 2, N)
    rows = {"image_id": ids, "variance": variance}
    frames = [
        pd.DataFrame({**rows, "reconstructor": name, "squared_error": variance * left, "best": best})
        for name, left, best in (("ridge", 0.9, False), ("mlp", loss + rng.uniform(0, 0.1, N), True))
    ]
    pd.concat(frames).to_parquet(folder / "losses.parquet")
    cider = rng.uniform(0, 200, N) + 100 * better
    pd.DataFrame({"image_id": ids, "text": "", "cider": cider}).to_parquet(folder / "captions.parquet")
    right = rng.uniform(0, 0.5, N) + better
    questions = {"question_id": [f"q{i}" for i in range(N)], "image_id": ids, "score": "vqa_accuracy"}
    pd.DataFrame({**questions, "accuracy": right}).to_parquet(folder / "answers.parquet")
    return folder


def compare(tmp_path, base, tuned, equal=100, **changes):
    (tmp_path / "shared.json").write_text(json.dumps({"bytes": 100, "equal": equal}))
    kinds = ("lists", "losses", "captions", "answers")
    files = {kind: [folder / f"{kind}.parquet" for folder in (base, tuned)] for kind in kinds}
    out = tmp_path / "comparison.parquet"
    compare_models.run(
        table=out, spec=checked("compare_models", {**SPEC, **changes}), shared=[tmp_path / "shared.json"], **files
    )
    return pd.read_parquet(out).set_index("measure")


def test_a_model_does_not_differ_from_itself(tmp_path):
    model = write_model(tmp_path / "model", 0.3)
    found = compare(tmp_path, model, model)
    assert len(found) == len(K) + 3
    assert (found[["difference", "low", "high"]] == 0).all(axis=None)
    assert (found["value_base"] == found["value_tuned"]).all()
    assert (found["equal_pre"] == 1).all()


def test_known_shifts_are_found_with_their_signs(tmp_path):
    base, tuned = write_model(tmp_path / "one", 0.3), write_model(tmp_path / "two", 0.9, loss=0.4, better=0.25)
    found = compare(tmp_path, base, tuned, equal=40)
    assert (found.loc["overlap", "high"] < 0).all()
    assert found.loc["FVU", "difference"] == pytest.approx(0.2, abs=1e-6)
    assert found.loc["vqa_accuracy", ["difference", "low", "high"]].tolist() == pytest.approx([0.25] * 3)
    assert found.loc["cider", ["difference", "low", "high"]].tolist() == pytest.approx([25] * 3)
    assert found["difference"].tolist() == pytest.approx((found["value_tuned"] - found["value_base"]).tolist())
    assert (found["equal_pre"] == 0.4).all()


def test_the_interval_of_overlap_counts_images_as_neighbours_too(tmp_path):
    base, tuned = write_model(tmp_path / "one", 0.3), write_model(tmp_path / "two", 0.5)
    found = compare(tmp_path, base, tuned).loc["overlap"].iloc[0]
    rng = np.random.default_rng(0)
    before = rng.normal(size=(N, 6))
    added = rng.normal(size=before.shape)
    rankings = [rank_neighbours(x, K[0]) for x in (before, before + 0.3 * added, before + 0.5 * added)]
    one, two = (ranking_overlap(rankings[0], after, K[0], parts=True) for after in rankings[1:])
    assert found[["difference", "low", "high"]].tolist() == pytest.approx(list((two - one).interval(0.95)))


def test_where_other_images_are_copies_overlap_is_not_paired(tmp_path):
    base = write_model(tmp_path / "one", 0.3)
    tuned = write_model(tmp_path / "two", 0.3)
    lists = NeighbourLists(IDS[::-1], {}, compare_models.read_lists(tuned / "lists.parquet").rankings)
    write_lists(tuned / "lists.parquet", lists)
    found = compare(tmp_path, base, tuned)
    assert found.loc["overlap", "difference"].isna().all()
    assert set(found.loc["overlap", "reason"]) == {compare_models.COPIES}
    assert found.loc["FVU", "difference"] == 0


def test_files_of_other_images_are_refused_by_name(tmp_path):
    base, tuned = write_model(tmp_path / "one", 0.3), write_model(tmp_path / "two", 0.3)
    rows = pd.read_parquet(tuned / "captions.parquet")
    rows.iloc[1:].to_parquet(tuned / "captions.parquet")
    with pytest.raises(LossmapError, match="image_id image-0 is in one alone. Delete the older"):
        compare(tmp_path, base, tuned)


def test_fvu_of_other_variances_is_the_difference_of_both():
    rng = np.random.default_rng(1)
    errors, others, variances, theirs = rng.uniform(1, 2, (4, 50))
    found = unexplained_difference(errors, others, variances, other_variances=theirs)
    each = unexplained(errors, variances).value - unexplained(others, theirs).value
    assert found.value == pytest.approx(each)
    assert found.low < found.value < found.high
    same = unexplained_difference(errors, others, variances, other_variances=variances)
    assert same == unexplained_difference(errors, others, variances)


def test_the_table_says_what_is_equal_and_which_intervals_are_without_0_and_is_drawn(tmp_path):
    base, tuned = write_model(tmp_path / "one", 0.3), write_model(tmp_path / "two", 0.9, loss=0.4, better=0.25)
    compare(tmp_path, base, tuned)
    inputs = [f"comparisons={tmp_path / 'comparison.parquet'}"]
    make_exhibit.run("comparisons", results=tmp_path, inputs=inputs, settings={"confidence": 0.95}, spec=PLAIN_FIGURES)
    text = (tmp_path / "tables/comparisons.rst").read_text()
    assert "**tuned** less **base**: the embeddings before the connector are the same bytes; 5 of 5 intervals" in text
    assert "FVU of patches on photos: 0.200 [" in text
    assert "CIDEr on photos: 25.000 [25.000, 25.000]" in text
    page = (tmp_path / "tables/comparisons.html").read_text()
    assert "tuned - base" in page
    assert "equal before" in page
    table = pd.read_csv(tmp_path / "tables/comparisons.csv")
    assert [name for name in table.columns if column(name) is None] == []
    assert table["difference_low"].notna().all()
    assert min((tmp_path / f"figures/comparisons.{kind}").stat().st_size for kind in ("pdf", "png")) > 5000


def test_of_several_pairs_each_dataset_has_its_pairs_together(tmp_path):
    pairs, datasets = [("base", "one"), ("base", "two")], ["photos", "art"]
    paths = []
    for base, tuned in pairs:
        rows = [
            {"base": base, "tuned": tuned, "dataset": dataset, "measure": measure, "metric": None, "k": None, "n": 9}
            | {"value_base": 0.5, "value_tuned": 0.6, "difference": 0.1, "low": 0.05, "high": 0.15, "reason": None}
            for measure in ("FVU", "vqa_accuracy")
            for dataset in datasets
        ]
        paths.append(tmp_path / tuned)
        pd.DataFrame(rows).assign(equal_pre=1.0).to_parquet(paths[-1])
    table = comparisons.table(comparisons.Settings(confidence=0.95), paths)
    assert table["dataset"].tolist() == ["photos"] * 4 + ["art"] * 4
    assert table["tuned"].tolist() == ["one", "one", "two", "two"] * 2
    assert len(comparisons.draw(table, comparisons.Settings(confidence=0.95), paths).axes) == 2 * 2


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([["llava-mini", "lava-mini"]], "compare: 'lava-mini' is not among models, did you mean 'llava-mini'"),
        ([["llava-mini", "llava-mini"]], "compare: 'llava-mini' is compared with itself"),
        ([["llava-mini"]], "compare: 0"),
        ("llava-mini", "compare"),
    ],
)
def test_pairs_that_can_not_be_compared_are_refused(pairs, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(LossmapError, match=message):
        check_study({**small_study(), "compare": pairs})


def test_a_study_that_measures_nothing_has_nothing_to_compare(monkeypatch):
    monkeypatch.chdir(ROOT)
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    kept = {key: config[key] for key in ("study", "miniature", "models", "datasets")}
    with pytest.raises(LossmapError, match="compare: needs overlap, reconstruction"):
        check_study({**kept, "compare": [["llava-mini", "idefics2-mini"]]})


@pytest.mark.slow
def test_a_fine_tune_of_the_connector_shares_all_of_pre_with_its_base(tmp_path):
    """With the real Snakefile: two checkpoints of one tower, and a second run that has nothing to do."""
    folder = clone(tmp_path / "checkout")
    tuned = Path(shutil.copytree(folder / "workflow/zoo/llava", folder / "tuned"))
    weights = load_file(tuned / "model.safetensors")
    connector = sorted(name for name in weights if "multi_modal_projector" in name and name.endswith("weight"))
    noise = torch.Generator().manual_seed(0)
    for name in connector:
        weights[name] += 2 * weights[name].std() * torch.randn(weights[name].shape, generator=noise)
    save_file(weights, tuned / "model.safetensors", metadata={"format": "pt"})
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / f"photos/{i}.png")
    config = {
        "study": "tuning",
        "models": {"base": {"checkpoint": "workflow/zoo/llava"}, "tuned": {"checkpoint": "tuned"}},
        "datasets": {"photos": {"format": "image_folder", "images": "photos"}},
        "overlap": {"datasets": ["photos"], "k": [3]},
        "compare": [["base", "tuned"]],
    }
    done = snakemake(folder, "comparisons", config=config)
    assert done.returncode == 0, done.stdout + done.stderr
    table = pd.read_csv(folder / "results/tuning/tables/comparisons.csv")
    assert table["measure"].tolist() == ["overlap"] * 2
    assert (table["equal_pre"] == 1).all()
    assert (table["value_base"] != table["value_tuned"]).any()
    stores = folder / "results/tuning/embeddings/photos"
    shards = {
        model: [path for path in sorted((stores / model).glob("*/pre/c/**/*")) if path.is_file()]
        for model in ("base", "tuned")
    }
    assert len(shards["base"]) > 0
    assert [p.stat().st_ino for p in shards["base"]] == [p.stat().st_ino for p in shards["tuned"]]
    again = snakemake(folder, "comparisons", config=config)
    assert "Nothing to be done" in again.stdout + again.stderr
