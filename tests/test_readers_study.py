"""Readers in a study: complete, repeatable, refused where they would be measured on what trained them."""

import json

import pandas as pd
import pytest
import yaml
from small_study import clone, planned, small_study, snakemake


def reading_study() -> dict:
    """One model, one dataset with open questions, and readers."""
    whole, config = small_study(), {"study": "small"}
    config["miniature"] = {
        "folder": "results/miniature",
        "seed": 2025,
        "images": dict.fromkeys(whole["miniature"]["images"], 4) | {"vqav2": 12, "vqav2-train": 24},
    }
    config["models"] = {"llava-mini": whole["models"]["llava-mini"]}
    config["datasets"] = {name: whole["datasets"][name] for name in ("vqav2", "vqav2-train")}
    config["answers"] = {"datasets": ["vqav2"]}
    config["statistics"] = {"resamples": 200}
    config["readers"] = {
        "train": "vqav2-train",
        "datasets": ["vqav2"],
        "networks": {"linear": {"blocks": 0, "width": 16}, "one-block": {"blocks": 1, "width": 16}},
        "training": {"epochs": 3},
    }
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = clone(tmp_path_factory.mktemp("readers") / "checkout")
    done = snakemake(folder, config=reading_study())
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_study_says_where_answers_are_lost(finished):
    table = pd.read_csv(finished / "results/small/tables/where_lost.csv")
    assert set(table["grouping"]) == {"all", "question type", "answer type"}
    assert {"digit", "colour", "count", "place"} & set(table.loc[table["grouping"] == "question type", "category"])
    for name in ("questions", "wrong"):
        counts = table.groupby("grouping")[name].sum()
        assert counts["all"] == counts["question type"] == counts["answer type"]
    split = table[["lost_before", "lost_at_connector", "not_used"]].sum(axis=1, skipna=False)
    weak = table["too_weak"]
    assert (table.loc[weak, "not_attributed"] == table.loc[weak, "wrong"]).all()
    assert split[weak].isna().all()
    assert split[~weak].dropna().to_numpy() == pytest.approx(1)
    readers = pd.read_csv(finished / "results/small/tables/readers.csv")
    assert set(readers["reader_input"]) == {"question", "pre", "post", "control", "control_prior"}
    assert set(readers["network"].dropna()) == {"linear", "one-block"}
    assert (finished / "results/small/figures/where_lost.png").stat().st_size > 10_000
    page = (finished / "results/small/summary.html").read_text()
    assert "Where is an answer lost" in page


def test_afterwards_there_is_nothing_to_be_done(finished):
    assert planned(finished, config=reading_study()) == set()


def test_an_edit_reruns_what_reads_it(finished):
    config = reading_study()
    config["readers"]["settled_within"] = 0.1
    assert "train_readers" not in planned(finished, config=config)
    assert {"measure_where_lost", "where_lost"} <= planned(finished, config=config)
    config = reading_study()
    config["readers"]["training"]["epochs"] = 4
    assert {"train_readers", "read_answers", "measure_where_lost"} <= planned(finished, config=config)
    assert not {"extract", "answer_questions"} & planned(finished, config=config)


def test_two_trainings_give_the_same_bytes(finished):
    results = finished / "results/small"
    files = ["readers/llava-mini/held_out.parquet", "tables/where_lost.csv", "tables/readers.csv"]
    before = {name: (results / name).read_bytes() for name in files}
    weights = (results / "readers/llava-mini/readers.safetensors").read_bytes()
    done = snakemake(finished, "--forcerun", "train_readers", config=reading_study())
    assert done.returncode == 0, done.stdout + done.stderr
    assert {name: (results / name).read_bytes() for name in files} == before
    assert len((results / "readers/llava-mini/readers.safetensors").read_bytes()) == len(weights)


def test_images_that_train_readers_are_not_measured_with_them(tmp_path):
    """Refused before anything is embedded."""
    folder, config = clone(tmp_path / "checkout"), reading_study()
    config["datasets"]["again"] = dict(config["datasets"]["vqav2-train"])
    config["answers"]["datasets"] = config["readers"]["datasets"] = ["again"]
    done = snakemake(folder, config=config)
    assert done.returncode
    log = folder / "results/small/logs/check_training_images/readers.log"
    assert (
        "vqav2-train, which trains the readers, are also in datasets that they answer (equal pixels)" in log.read_text()
    )
    assert not (folder / "results/small/embeddings").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": "vqav3"}, "readers: train: 'vqav3' is not among datasets"),
        ({"datasets": ["vqav2-train"]}, "readers: train: 'vqav2-train' is also measured"),
        ({"networks": {"odd": {"blocks": 1, "width": 30}}}, "networks: odd: width 30 isn't a multiple of heads, 4"),
        ({"trains": 1}, "readers: unknown key 'trains', did you mean 'train'"),
    ],
)
def test_a_wrong_setting_is_refused(change, message):
    from lossmap.errors import LossmapError
    from lossmap.study.settings import check_study

    config = reading_study()
    config["readers"] |= change
    with pytest.raises(LossmapError, match="(?s)" + message):
        check_study(config, paths=False)


def test_readers_are_compared_with_the_model_on_what_it_is_asked():
    from lossmap.errors import LossmapError
    from lossmap.study.settings import check_study

    config = reading_study()
    config["answers"]["datasets"] = []
    with pytest.raises(LossmapError, match="'vqav2' must be among answers: datasets, too"):
        check_study(config, paths=False)
    config = yaml.safe_load(json.dumps(reading_study()))
    whole = small_study()
    config["datasets"]["seedbench"] = whole["datasets"]["seedbench"]
    config["choices"] = {"datasets": ["seedbench"]}
    config["readers"]["datasets"] = ["vqav2", "seedbench"]
    with pytest.raises(LossmapError, match="wanted all of one kind"):
        check_study(config, paths=False)
