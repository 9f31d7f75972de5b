"""What runs again when code changes: of cheap results what the edited code makes, of costly ones what a raised version
is of. The real Snakefile on a small study; a dry run after each edit."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from small_study import MODELS, ROOT, clone, planned, snakemake

PACKAGE = "workflow/lossmap"
COSTLY = {
    *("extract", "index_embeddings", "measure_statistics", "fit_linear", "train_reconstructor", "measure_patch_loss"),
    *("measure_ladder", "caption_images", "answer_questions", "choose_options", "probe_patches"),
}
SCORED = {"compare_models", "comparisons"}  # what compares scores and losses of two models
END = {"make_summary", "make_report", "all"}
OF_LOSSES = {
    *("relate_captions", "relate_answers", "table3_cider", "table4", "figure5", "within_image"),
    *("choose_examples", "figure1", "figure7", "figure12", "make_browser"),
    *(f"loss_maps-{dataset}" for dataset in ("coco-karpathy", "vizwiz", "seedbench")),
    *("table3", "table6", "table9", "patch_losses", *SCORED, *END),
    *("probe_patches", "probe"),  # the probe is compared with losses
}
OF_THE_LADDER = {"judge_connector", "ladder", "verdict", "table1"}


@pytest.fixture
def edit(study):
    """Edits a file of the finished checkout: (path, old, new), or (path, None, what to append). It is put back."""
    kept = {}

    def change(name: str, old: str | None, new: str) -> None:
        path = study / name
        kept.setdefault(path, (path.read_text(), path.stat()))
        text = path.read_text()
        assert old is None or old in text, f"{name} has no {old!r}"
        path.write_text(text + new if old is None else text.replace(old, new, 1))

    yield change
    for path, (text, stat) in kept.items():
        path.write_text(text)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def modules(study: Path, *folders: str) -> list[str]:
    found = [path for folder in folders for path in sorted((study / PACKAGE / folder).rglob("*.py"))]
    return [path.relative_to(study).as_posix() for path in found if path.read_text().strip()]


def jobs(study: Path) -> list[str]:
    """A line for each job that a dry run lists: its rule and its first output."""
    done = snakemake(study, "-n")
    assert done.returncode == 0, done.stdout + done.stderr
    return re.findall(r"^([\w.-]+  results/\S+)", done.stdout + done.stderr, re.M)


def test_explanations_make_nothing_stale(study, edit):
    """Another docstring and another comment in every module there is."""
    edited = modules(study, ".")
    assert len(edited) > 150
    for name in edited:
        text = (study / name).read_text()
        if text.startswith('"""'):
            edit(name, '"""', '"""It is explained otherwise. ')
        edit(name, None, "\n# a remark\n")
    assert planned(study) == set()


def test_a_new_family_makes_nothing_stale(study, edit):
    added = """
    "new": Family("projector", _PIXELS, sizes.one, "whole", _TOWER, orders.merge_blocks),"""
    registry = "FAMILIES: dict[str, Family] = {"
    edit(f"{PACKAGE}/vlm/families.py", registry, registry + added)
    assert planned(study) == set()


def test_another_colour_redraws_one_figure(study, edit):
    edit(f"{PACKAGE}/figures/overlap.py", 'color="black"', 'color="grey"')
    assert planned(study) == {"figure3", *END}


def test_another_measure_runs_no_costly_job(study, edit):
    edit(f"{PACKAGE}/measures/overlap.py", None, "\nADDED = 1\n")
    again = planned(study)
    assert {"measure_overlap", "figure3", *END} <= again
    assert not again & {*COSTLY, "find_neighbours", "score_captions", "judge_connector"}


@pytest.mark.parametrize("folder", ["vlm", "reconstruct", "store", "study/steps"])
def test_edited_code_runs_no_costly_job(study, edit, folder):
    """Whatever was edited of what costly steps run: versions and golden values stand for that. Steps that make what
    costly ones read are left out: a run tells whether that changed, a dry run can't."""
    before = ("draw_miniature", "read_dataset", "check_training_images")
    for name in modules(study, folder):
        if Path(name).stem not in before:
            edit(name, None, "\nADDED = 1\n")
    assert not planned(study) & COSTLY


def test_another_command_runs_no_costly_job(study, edit):
    edit("rules/embeddings.smk", "python -m lossmap extract --images", "python -m lossmap extract  --images")
    assert planned(study) == set()


RAISED = {
    "ladder": {"measure_ladder", *OF_THE_LADDER, *END},
    "patch_losses": {"measure_patch_loss", *OF_LOSSES},
    "networks": {
        *("train_reconstructor", "history", "measure_patch_loss", "measure_ladder", *OF_THE_LADDER, *OF_LOSSES)
    },
    "captions": {
        *("caption_images", "score_captions", "relate_captions", "table3_cider", "table4", "choose_examples"),
        *("figure12", "make_browser", *SCORED, *END),
    },
    "choices": {"choose_options", "score_choices", "scores", "choose_examples", "make_browser", *SCORED, *END},
    "probe": {"probe_patches", "probe", *END},
}


@pytest.mark.parametrize("product", RAISED)
def test_a_raised_version_makes_that_product_anew_and_what_follows(study, edit, product):
    edit(f"{PACKAGE}/study/products.py", f'"{product}": {{1: ', f'"{product}": {{9: "another", 1: ')
    assert planned(study) == RAISED[product]


def test_a_raised_version_is_the_reason_that_is_given(study, edit):
    edit(f"{PACKAGE}/study/products.py", '"ladder": {1: ', '"ladder": {9: "another", 1: ')
    done = snakemake(study, "-n")
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("measure_ladder  results/")]
    assert len(lines) == len(MODELS)
    assert all("Params have changed since last execution" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("study/products.py", '"embeddings": {"', '"embeddings": {"qwen2_5_vl": {1: "first", 2: "another"}, "'),
        (
            "vlm/families.py",
            "orders.windows, orders.squares_listed,",
            "orders.windows, orders.squares_listed, newline=1,",
        ),
    ],
    ids=["version", "entry"],
)
def test_what_changes_of_one_family_extracts_that_family_alone(study, edit, name, old, new):
    edit(f"{PACKAGE}/{name}", old, new)
    extracted = [job for job in jobs(study) if job.startswith("extract ")]
    assert extracted
    assert all(f"/{MODELS[1]}/" in job for job in extracted)
    trained = [job for job in jobs(study) if job.startswith(("train_reconstructor ", "caption_images "))]
    assert trained
    assert all(f"/{MODELS[1]}/" in job for job in trained)


@pytest.fixture
def copy(study, tmp_path) -> Path:
    """A copy of the finished study, to run."""
    return Path(shutil.copytree(study, tmp_path / "checkout", symlinks=True))


def test_results_of_an_earlier_lossmap_are_taken_over_as_they_are(copy):
    """As the documentation says: what an earlier version made counts as made by this one, once it is touched."""
    path = copy / PACKAGE / "study/products.py"
    path.write_text(path.read_text().replace('{1: "first"}', '{1: "first", 2: "another"}'))
    assert planned(copy) >= COSTLY
    before = {path: path.read_bytes() for path in copy.glob("results/small/tables/*")}
    done = snakemake(copy, "--touch")
    assert done.returncode == 0, done.stdout + done.stderr
    assert planned(copy) == set()
    assert {path: path.read_bytes() for path in before} == before


def test_a_part_that_edited_code_makes_anew_belongs_to_its_store(copy):
    """The same index to the byte, nothing to be done after it, and `verify` tells which part is of which code."""
    index = copy / f"results/small/embeddings/seedbench/{MODELS[0]}.json"
    part = index.parent / json.loads(index.read_text())["parts"][1]["path"]
    before = index.read_bytes()
    module = copy / PACKAGE / "vlm/embedding.py"
    module.write_text(module.read_text() + "\nADDED = 1\n")
    shutil.rmtree(part)
    index.unlink()
    done = snakemake(copy, str(index.relative_to(copy)))
    assert done.returncode == 0, done.stdout + done.stderr
    assert index.read_bytes() == before
    assert planned(copy) == set()
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow")}
    command = [sys.executable, "-m", "lossmap", "verify", str(index)]
    told = subprocess.run(command, cwd=copy, capture_output=True, text=True, env=environment, check=True).stdout
    assert "made by different code or software, with equal keys" in told
    assert told.count("  - code ") == 2


def test_a_hub_model_is_planned_without_its_family_and_run_only_with_it(tmp_path):
    """A dry run needs no network. A run knows the family before it starts the first costly job, or says what helps."""
    folder = clone(tmp_path / "checkout")
    (folder / "photos").mkdir()
    for i in range(3):
        Image.new("RGB", (20 + i, 30), (40 * i, 20, 90)).save(folder / f"photos/{i}.png")
    config = {"study": "small", "models": {"far": {"checkpoint": "owner/name", "revision": "a" * 40}}}
    config["datasets"] = {"photos": {"format": "image_folder", "images": "photos"}}
    environment = {"HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    assert snakemake(folder, "manifests", config=config, environment=environment).returncode == 0
    done = snakemake(folder, "-n", config=config, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search("^extract  results/small/embeddings/photos/far/", done.stdout + done.stderr, re.M)
    done = snakemake(folder, config=config, environment=environment)
    assert done.returncode == 1
    assert f"owner/name at {'a' * 40}: is not complete in the hub's cache" in done.stdout + done.stderr
    assert not list(folder.glob("results/small/logs/extract/**/*.log"))
