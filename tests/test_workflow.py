"""The real Snakefile on a small study: complete, repeatable byte for byte, and no more work than needed."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import faiss
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from sklearn.neighbors import NearestNeighbors
from small_study import MODELS, ROOT, K, clone, planned, small_study, snakemake

from lossmap.store import open_store

CONDA = {"PATH": f"{ROOT / 'tests/conda/bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture
def edited(study):
    """The finished checkout; files that a test changes are put back, with their times."""
    kept = {}

    def remember(name: str) -> Path:
        path = study / name
        kept[path] = (path.read_bytes(), path.stat())
        return path

    yield remember
    for path, (content, stat) in kept.items():
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_every_result_of_the_study_is_there(study):
    results = study / "results/small"
    tables = {path.stem for path in (results / "tables").glob("*.html")}
    assert tables == {
        *("figure3", "table2", "table8"),
        *("table1", "table3", "table6", "table9", "ladder", "verdict"),
        *("table3_cider", "table4", "scores", "figure5", "within_image"),
        *("table5", "table7", "similarity", "margins", "random_projection", "probe", "comparisons"),
    }
    for table in tables:
        assert len(pd.read_csv(results / f"tables/{table}.csv")) > 0
        page = (results / f"tables/{table}.html").read_text()
        assert "</table>" in page
        # lossmap.study.columns says what each column means
        assert not re.findall(r"<th(?: class=\"number\")?>(.*?)</th>", page), table
    drawn = {
        *("figure1", "figure2", "figure6", "figure7", "figure12", "patch_losses", "history"),
        *(f"galleries-{dataset}" for dataset in ("seedbench", "cub")),
        *(f"loss_maps-{dataset}" for dataset in ("coco-karpathy", "vizwiz", "seedbench")),
    }
    assert {path.stem for path in (results / "tables").glob("*.csv")} == tables | drawn
    assert {path.stem for path in (results / "tables").glob("*.rst")} == tables | drawn
    figures = {path.stem for path in (results / "figures").glob("*.pdf")}
    assert figures == {
        *("figure1", "figure2", "figure3", "figure5", "figure6", "figure7", "figure12"),
        *("ladder", "patch_losses", "history", "margins", "random_projection", "probe", "comparisons"),
        *(f"galleries-{dataset}-{model}" for dataset in ("seedbench", "cub") for model in MODELS),
        *(f"loss_maps-{name}-{model}" for name in ("coco-karpathy", "vizwiz", "seedbench") for model in MODELS),
    }
    for figure in figures:
        assert (results / f"figures/{figure}.pdf").read_bytes().startswith(b"%PDF")
        assert (results / f"figures/{figure}.png").read_bytes().startswith(b"\x89PNG")
    assert zipfile.is_zipfile(results / "report.zip")
    assert "</html>" in (results / "browser.html").read_text()


def test_a_second_run_has_nothing_to_do(study):
    done = snakemake(study)
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr


def test_the_store_opens_as_an_xarray_dataset(study):
    store = open_store(study / "results/small/embeddings/seedbench/llava-mini.json")
    assert store["pre"].dims == ("image", "patch", "feature")
    assert store.sizes["image"] == 24
    assert store.attrs["pre_grid"] == [8, 8]
    assert store.attrs["key"]["checkpoint"] == "workflow/zoo/llava"
    assert np.allclose(store["pre"].values.astype("float32").mean(1), store["pre_mean"].values, atol=2e-3)


def test_the_documentations_lines_open_a_store(study):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/embeddings.md").read_text(), re.S)
    (lines,) = (block for block in blocks if "open_embeddings(" in block)
    assert len([line for line in lines.splitlines() if line]) == 3
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow")}
    command = [sys.executable, "-c", lines.replace("results/mini/", "results/small/")]
    done = subprocess.run(command, cwd=study, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.startswith("(24, 64, 96) (24, ")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_overlap_equals_that_of_faiss_for_every_image(study, model, metric):
    store = open_store(study / f"results/small/embeddings/seedbench/{model}.json")
    table = pd.read_parquet(study / f"results/small/neighbours/seedbench/{model}/overlap.parquet")
    found = {}
    for stage in ("pre", "post"):
        values = store[f"{stage}_mean"].values.copy()
        if metric == "cosine":
            faiss.normalize_L2(values)
        index = {"euclidean": faiss.IndexFlatL2, "cosine": faiss.IndexFlatIP}[metric](values.shape[1])
        index.add(values)
        found[stage] = [[j for j in row if j != i] for i, row in enumerate(index.search(values, max(K) + 1)[1])]
    for k in K:
        ours = table[(table["metric"] == metric) & (table["k"] == k)].set_index("image_id")
        theirs = [len(set(a[:k]) & set(b[:k])) / k for a, b in zip(found["pre"], found["post"], strict=True)]
        assert ours.loc[store["image_id"].values, "overlap"].tolist() == theirs


@pytest.mark.parametrize("model", MODELS)
def test_retrieval_equals_that_of_scikit_learn_for_every_query(study, model):
    store = open_store(study / f"results/small/embeddings/cub/{model}.json")
    labels = pd.read_parquet(study / "results/small/data/cub/images.parquet").set_index("image_id")["label"]
    labels = labels.loc[store["image_id"].values].to_numpy()
    table = pd.read_parquet(study / f"results/small/neighbours/cub/{model}/retrieval.parquet")
    for stage in ("pre", "post"):
        search = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(store[f"{stage}_mean"].values.astype("float64"))
        neighbours = search.kneighbors(return_distance=False)
        rows = table[(table["metric"] == "euclidean") & (table["stage"] == stage)].set_index("image_id")
        for r in (1, 5):
            theirs = (labels[neighbours[:, :r]] == labels[:, None]).any(1)
            assert rows.loc[store["image_id"].values, f"recall_at_{r}"].tolist() == theirs.astype(float).tolist()


def test_tables_say_what_the_parts_say(study):
    table = pd.read_csv(study / "results/small/tables/figure3.csv")
    for row in table.itertuples():
        images = pd.read_parquet(study / f"results/small/neighbours/{row.dataset}/{row.model}/overlap.parquet")
        images = images[(images["metric"] == row.metric) & (images["k"] == row.k)]
        assert row.overlap == pytest.approx(images["overlap"].mean(), rel=1e-5)
        assert row.overlap_low <= row.overlap <= row.overlap_high
        assert row.chance == pytest.approx(row.k / (row.n - 1), rel=1e-5)
        assert row.overlap_corrected == pytest.approx((row.overlap - row.chance) / (1 - row.chance), rel=1e-4, abs=1e-6)
        assert row.overlap_paper_convention >= 1 / row.k
    assert set(table["model"]) == set(MODELS)


def test_a_second_clone_elsewhere_with_conda_gives_the_same_bytes(study, tmp_path):
    """Each rule runs with what its environment file lists and nothing more: `tests/conda` stands in for conda."""
    other = clone(tmp_path / "a quite different place" / "checkout")
    done = snakemake(other, "--use-conda", environment=CONDA)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((other / ".snakemake/conda").glob("*/pyvenv.cfg"))) == 2
    compared = 0
    for path in sorted((study / "results").rglob("*")):
        if path.suffix in {".csv", ".html", ".rst", ".parquet", ".json", ".pdf", ".png", ".jpg"}:
            twin = other / path.relative_to(study)
            assert twin.read_bytes() == path.read_bytes(), path.relative_to(study)
            compared += 1
    assert compared > 100


def test_with_conda_a_rule_lacks_what_its_file_does_not_list(study, tmp_path):
    other = clone(tmp_path / "checkout")
    shutil.copytree(study / "results/small/neighbours", other / "results/small/neighbours")
    environment = other / "envs/analysis.yaml"
    listed = environment.read_text()
    arguments = ["results/small/figures/figure3.pdf", "--allowed-rules", "figure3", "--use-conda"]
    assert snakemake(other, *arguments, environment=CONDA).returncode == 0
    environment.write_text(re.sub("  - seaborn-base=.*\n", "", listed))
    done = snakemake(other, *arguments, "--force", environment=CONDA)
    assert done.returncode == 1
    assert "No module named 'seaborn'" in done.stdout + done.stderr


def test_touching_the_code_reruns_nothing(study, edited):
    os.utime(edited("workflow/lossmap/measures/overlap.py"))
    assert planned(study) == set()


@pytest.mark.parametrize("name", ["workflow/zoo/llava/model.safetensors", "workflow/zoo/llava/config.json"])
def test_touching_a_model_reruns_nothing(study, edited, name):
    os.utime(edited(name))
    assert planned(study) == set()


def test_moving_the_checkout_reruns_nothing(study):
    moved = study.with_name("moved")
    study.rename(moved)
    try:
        assert planned(moved) == set()
    finally:
        moved.rename(study)


def test_an_edited_text_makes_the_report_anew(study, edited):
    path = edited("workflow/report/workflow.rst")
    path.write_text(path.read_text() + "\nOne more sentence.\n")
    assert planned(study) == {"make_report", "all"}


def test_a_comment_reruns_nothing(study, edited):
    path = edited("workflow/lossmap/measures/overlap.py")
    path.write_text(path.read_text() + "\n# a remark\n")
    assert planned(study) == set()


def test_editing_the_overlap_reruns_what_uses_it(study, edited):
    path = edited("workflow/lossmap/measures/overlap.py")
    path.write_text(path.read_text() + "\nADDED = 1\n")
    uses = {"measure_overlap", "measure_retrieval", "measure_geometry", "compare_indexes", "compare_models", "figure2"}
    uses |= {f"galleries-{dataset}" for dataset in small_study()["galleries"]["datasets"]}
    follows = {"figure3", "table2", "table8", "table5", "table7", "figure6", "similarity", "margins"}
    follows |= {"random_projection", "comparisons", "make_summary", "make_report", "all"}
    assert planned(study) == uses | follows


def test_editing_a_figure_reruns_that_figure(study, edited):
    path = edited("workflow/lossmap/figures/overlap.py")
    path.write_text(path.read_text() + "\nADDED = 1\n")
    assert planned(study) == {"figure3", "make_summary", "make_report", "all"}


def test_editing_a_score_generates_nothing_anew(study, edited):
    path = edited("workflow/lossmap/measures/cider.py")
    path.write_text(path.read_text() + "\nADDED = 1\n")
    again = planned(study)
    assert {"score_captions", "relate_captions", "table3_cider", "table4", "figure12"} <= again
    assert not again & {"caption_images", "answer_questions", "train_reconstructor", "measure_patch_loss"}


def test_another_k_extracts_nothing_anew(study):
    config = small_study()
    config["overlap"]["k"] = [2, 4, 5]
    again = planned(study, config=config)
    assert {"measure_overlap", "figure3"} <= again
    assert not again & {"draw_miniature", "read_dataset", "extract", "index_embeddings", "find_neighbours"}


def test_one_figure_is_redrawn_alone(study, edited):
    path = edited("workflow/lossmap/vlm/loading.py")
    path.write_text(path.read_text() + "\nADDED = 1\n")
    figure = "results/small/figures/figure3.pdf"
    assert planned(study, figure, "--force", "--allowed-rules", "figure3") == {"figure3"}


def test_a_damaged_part_stops_what_reads_it(study, edited):
    index = json.loads((study / "results/small/embeddings/seedbench/llava-mini.json").read_text())
    part = f"results/small/embeddings/seedbench/{index['parts'][0]['path']}"
    chunk = edited(f"{part}/pre_mean/c/0/0")
    content = bytearray(chunk.read_bytes())
    content[5] ^= 1
    chunk.write_bytes(content)
    lists = "results/small/neighbours/seedbench/llava-mini/lists.parquet"
    keep = (study / lists).read_bytes()
    done = snakemake(study, lists, "--force", "--allowed-rules", "find_neighbours")
    assert done.returncode == 1
    assert re.search(r"error: .*pre_mean/c/0/0: images \S+ to \S+ can't be trusted", done.stdout + done.stderr)
    (study / lists).write_bytes(keep)


def test_a_damaged_part_is_made_anew_when_deleted_as_the_message_says(study):
    index = study / "results/small/embeddings/seedbench/llava-mini.json"
    part = index.parent / json.loads(index.read_text())["parts"][1]["path"]
    before = {path: path.read_bytes() for path in [index, *part.rglob("zarr.json")]}
    shutil.rmtree(part)
    index.unlink()
    done = snakemake(study, str(index.relative_to(study)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^\d+ of \d+  extract ", done.stdout + done.stderr, re.M)) == 1
    assert {path: path.read_bytes() for path in before} == before
    assert planned(study) == set()


def test_a_killed_extraction_is_done_again(study):
    """What a kill leaves behind: the part under its temporary name."""
    index = study / "results/small/embeddings/cub/llava-mini.json"
    part = index.parent / json.loads(index.read_text())["parts"][0]["path"]
    before = index.read_bytes()
    part.rename(part.with_name(f".{part.name}.partial"))
    index.unlink()
    done = snakemake(study, str(index.relative_to(study)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert index.read_bytes() == before
    assert not part.with_name(f".{part.name}.partial").exists()


def photographs(folder: Path) -> dict:
    """A study of two classes of photographs in a folder of its own."""
    for i in range(6):
        path = folder / f"photos/{'cats' if i % 2 else 'dogs'}/{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + i, 30), (40 * i, 20, 90)).save(path)
    config = {key: small_study()[key] for key in ("study", "models")}
    return config | {"datasets": {"photos": {"format": "image_folder", "images": "photos"}}}


def test_a_study_without_measures_extracts(tmp_path):
    folder = clone(tmp_path / "checkout")
    config = photographs(folder)
    done = snakemake(folder, "-n", config=config)
    assert done.returncode == 0, done.stdout + done.stderr
    for model in MODELS:
        assert f"results/small/embeddings/photos/{model}.json" in done.stdout + done.stderr


def test_an_image_added_to_a_class_is_noticed(tmp_path):
    folder = clone(tmp_path / "checkout")
    config = photographs(folder)
    assert snakemake(folder, "manifests", config=config).returncode == 0
    assert planned(folder, "manifests", config=config) == set()
    Image.new("RGB", (9, 9)).save(folder / "photos/cats/new.png")
    assert planned(folder, "manifests", config=config) == {"read_dataset", "manifests"}


def test_too_few_images_for_k_stop_before_extraction(tmp_path):
    folder = clone(tmp_path / "checkout")
    config = small_study()
    config["datasets"]["seedbench"]["limit"] = 5
    done = snakemake(folder, config=config)
    assert done.returncode == 1
    assert "seedbench (5 images): overlap: k: 5 neighbours are too many" in done.stdout + done.stderr
    assert not (folder / "results/small/embeddings").exists()


def test_a_misspelt_key_stops_before_anything(tmp_path):
    folder = clone(tmp_path / "checkout")
    done = snakemake(folder, config=small_study() | {"retreival": {}})
    assert done.returncode == 1
    assert "unknown key 'retreival', did you mean 'retrieval'" in done.stdout + done.stderr
    assert not (folder / "results").exists()


def test_a_key_that_is_given_twice_stops_before_anything(tmp_path):
    folder = clone(tmp_path / "checkout")
    snakemake(folder, "--version")
    twice = (folder / "small.yaml").read_text() + "study: other\n"
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", "twice.yaml"]
    (folder / "twice.yaml").write_text(twice)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    lines = [i for i, line in enumerate(twice.splitlines(), start=1) if line.startswith("study:")]
    assert f"twice.yaml: 'study' is given twice, in lines {lines[0]} and {lines[1]}" in done.stdout + done.stderr
    assert not (folder / "results").exists()


def test_a_given_study_replaces_the_default_one(tmp_path):
    folder = clone(tmp_path / "checkout")
    config = {key: small_study()[key] for key in ("study", "models", "datasets")}
    config["datasets"] = {"seedbench": config["datasets"]["seedbench"]}
    done = snakemake(folder, "-n", config=config)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "results/small/embeddings/seedbench" in done.stdout + done.stderr
    assert "results/small/data/vizwiz" not in done.stdout + done.stderr


def test_the_papers_study_names_all_missing_paths_at_once():
    command = [sys.executable, "-m", "snakemake", "-n", "--configfile", "workflow/studies/paper.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    text = done.stdout + done.stderr
    config = yaml.safe_load((ROOT / "workflow/studies/paper.yaml").read_text())
    for entry in config["datasets"].values():
        assert f"{entry['images']} does not exist" in text
