"""What runs again when data change: what reads them, and nothing else. A small study, run with the real Snakefile."""

import asyncio
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_study import MODELS, snakemake

from lossmap.study.reruns import plan_by_content

CAPTIONS = Path("results/miniature/coco-karpathy/dataset_coco.json")
CHOICES = Path("results/miniature/seedbench/SEED-Bench.json")
DATASETS = ["coco-train", "coco-karpathy", "vizwiz", "seedbench"]  # what the small study measures, but for figure 6


@pytest.fixture
def copy(study, tmp_path) -> Path:
    """A copy of the finished study, to change."""
    return Path(shutil.copytree(study, tmp_path / "checkout", symlinks=True))


def jobs(folder: Path, *arguments: str) -> set[str]:
    """Rule and wildcards of every job that a run of the study runs."""
    done = snakemake(folder, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return set(re.findall(r"^\d+ of \d+  (.+?)  [\d:]+$", done.stdout + done.stderr, re.M))


def edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_corrected_caption_runs_what_reads_captions_of_its_dataset(copy):
    def correct(content):
        content["images"][0]["sentences"][0]["raw"] = "another caption, which is the right one"

    edit(copy / CAPTIONS, correct)
    ran = jobs(copy)
    of_its_dataset = {
        f"{rule} coco-karpathy {model}"
        for rule in ("score_captions", "relate_captions", "choose_examples")
        for model in MODELS
    }
    assert {job.removesuffix(" captions") for job in ran if " coco-karpathy " in job} == of_its_dataset
    others = {job for job in ran if " coco-karpathy " not in job}
    assert others == {
        "read_dataset coco-karpathy",
        *("table3_cider", "table4", "figure12", "make_browser", "make_summary", "make_report"),
        *(f"compare_models {' '.join(MODELS)}", "comparisons"),
    }
    assert not jobs(copy)


def test_datasets_that_are_read_again_and_are_as_they_were_run_nothing_else(copy):
    assert {job.split()[0] for job in jobs(copy, "--forcerun", "read_dataset")} == {"read_dataset"}


def test_images_that_are_appended_are_embedded_with_those_of_their_part_alone(copy, study):
    def append(content):
        last = content["questions"][-1]
        for number in range(3):
            name = f"appended-{number}.jpg"
            folder = copy / CHOICES.parent / "images"
            shutil.copy(folder / content["questions"][number]["data_id"], folder / name)
            content["questions"].append({**last, "data_id": name, "question_id": f"appended-{number}"})

    edit(copy / CHOICES, append)
    stores = [f"results/small/embeddings/{dataset}/{model}.json" for dataset in DATASETS for model in MODELS]
    ran = jobs(copy, *stores)
    assert ran == {
        "read_dataset seedbench",
        "check_training_images reconstructors",
        *(f"extract seedbench {model} 000020 000027" for model in MODELS),
        *(f"index_embeddings seedbench {model}" for model in MODELS),
    }
    for model in MODELS:
        path = f"results/small/embeddings/seedbench/{model}.json"
        index, before = (json.loads((top / path).read_text()) for top in (copy, study))
        assert index["parts"][0] == before["parts"][0]
        assert index["images"] == before["images"] + 3
    listed = snakemake(copy, "-n").stdout
    assert "measure_overlap  results/small/neighbours/seedbench/" in listed
    assert not re.search(r"^(extract|index_embeddings|train_\w+)  ", listed, re.M)
    assert not re.search(r"^\w+  results/small/\w+/(coco|flickr30k|vizwiz|vqav2|cub|foodieqa)", listed, re.M)


class Plan:
    """As much of Snakemake's DAG as planning looks at: job 1 has run, job 2 waits; both are marked for job 0."""

    jobs = (1, 2)

    def __init__(self):
        self.reasons = {job: SimpleNamespace(updated_input_run={"a"}) for job in self.jobs}
        self.plans = 0

    def finished(self, job):
        return job == 1

    def reason(self, job):
        return self.reasons[job]

    async def update_needrun(self):
        self.plans += 1


def test_marks_of_jobs_that_wait_are_forgotten_before_each_plan_and_a_plan_is_made_once():
    for _ in range(2):  # the Snakefile may be read twice in a process
        plan_by_content(Plan)
    plan = Plan()
    asyncio.run(plan.update_needrun())
    assert plan.plans == 1
    assert plan.reasons[1].updated_input_run == {"a"}
    assert plan.reasons[2].updated_input_run == set()
