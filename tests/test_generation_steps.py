"""The steps that ask models: their tables, what a killed run keeps, and every refusal."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from specs import checked

from lossmap.data.formats import read
from lossmap.data.manifest import Manifest, make_table, write_manifest
from lossmap.errors import LossmapError
from lossmap.miniature.datasets import write_miniature
from lossmap.store import open_store
from lossmap.study import predictions, products, provenance
from lossmap.study.steps import answer_questions, caption_images, choose_options, extract, index_embeddings
from lossmap.vlm.choices import letter_log_probabilities
from lossmap.vlm.generation import LanguageSide, load_language_side
from lossmap.vlm.prompts import CAPTION, answer_prompt, caption_prompt, choice_prompt

ZOO = Path(__file__).parents[1] / "workflow/zoo"
MODEL = {"checkpoint": str(ZOO / "idefics2"), "revision": None, "image_size": None}
ASK = {**MODEL, "compute_dtype": "float32", "batch_size": 4}
CAPTIONS = {**ASK, "prompts": "default", "max_new_tokens": None}
ANSWERS = {**ASK, "max_new_tokens": None}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eleven images in two parts of a store, with questions that come in another order than the images."""
    folder = tmp_path_factory.mktemp("data")
    write_miniature(folder, 3, {"vqav2": 11, "seedbench": 6})
    entry = {"format": "vqav2", "images": f"{folder}/vqav2/val2014"}
    for name in ("questions", "annotations"):
        entry[name] = str(next((folder / "vqav2").glob(f"*{name}.json")))
    make_store(read(entry), folder / "vqav2", [(0, 4), (4, 11)])
    entry = {"format": "seedbench", "images": f"{folder}/seedbench/images"}
    make_store(read({**entry, "annotations": f"{folder}/seedbench/SEED-Bench.json"}), folder / "seedbench", [(0, 6)])
    return folder


def make_store(manifest, folder, parts):
    manifest.questions = manifest.questions.sample(frac=1, random_state=0)
    files = {name: folder / f"{name}.parquet" for name in ("images", "captions", "questions")}
    write_manifest(manifest, **files, summary=folder / "manifest.json")
    spec = {**MODEL, "batch_size": 8, "dtype": "float16", "compute_dtype": "float32"}
    spec["store_post"] = True
    for first, stop in parts:
        extract.run(
            images=files["images"], part=folder / f"{first}.zarr", first=first, stop=stop, spec=checked("extract", spec)
        )
    index_embeddings.run(parts=[folder / f"{first}.zarr" for first, _ in parts], index=folder / "store.json")


def inputs(data, dataset="vqav2"):
    return {"embeddings": data / dataset / "store.json", "questions": data / dataset / "questions.parquet"}


def posts(data, dataset, image_ids):
    store = open_store(data / dataset / "store.json")
    ids = store["image_id"].values.tolist()
    return torch.from_numpy(store["post"].values[[ids.index(image) for image in image_ids]])


def test_captions_are_the_models_own_of_every_image_in_order(data, tmp_path):
    caption_images.run(
        embeddings=data / "vqav2/store.json", captions=tmp_path / "c.parquet", spec=checked("caption_images", CAPTIONS)
    )
    assert pq.read_schema(tmp_path / "c.parquet").equals(predictions.SCHEMAS["captions"])
    table = pd.read_parquet(tmp_path / "c.parquet")
    assert table["image_id"].tolist() == pd.read_parquet(data / "vqav2/images.parquet")["image_id"].tolist()
    assert set(table["prompt"]) == {CAPTION[0]}
    language = load_language_side(MODEL["checkpoint"])
    assert set(table["revision"]) == {language.revision}
    made = language.generate([CAPTION[0]] * 11, posts(data, "vqav2", table["image_id"]), 128)
    assert [row.tolist() for row in table["token_ids"]] == made
    assert table["text"].tolist() == language.decode(made)
    assert not list(tmp_path.glob("*.partial"))


def test_the_papers_prompt_and_a_limit_are_settings(data, tmp_path):
    spec = {**CAPTIONS, "prompts": "paper", "max_new_tokens": 3}
    caption_images.run(
        embeddings=data / "vqav2/store.json", captions=tmp_path / "c.parquet", spec=checked("caption_images", spec)
    )
    table = pd.read_parquet(tmp_path / "c.parquet")
    assert set(table["prompt"]) == {caption_prompt("paper", "idefics2")[0]}
    assert set(table["token_ids"].map(len)) == {3}


def test_answers_belong_to_their_questions(data, tmp_path):
    answer_questions.run(**inputs(data), answers=tmp_path / "a.parquet", spec=checked("answer_questions", ANSWERS))
    assert pq.read_schema(tmp_path / "a.parquet").equals(predictions.SCHEMAS["answers"])
    table, questions = pd.read_parquet(tmp_path / "a.parquet"), pd.read_parquet(data / "vqav2/questions.parquet")
    pd.testing.assert_frame_equal(table[["question_id", "image_id"]], questions[["question_id", "image_id"]])
    prompts = [answer_prompt(question) for question in questions["question"]]
    assert table["prompt"].tolist() == prompts
    language = load_language_side(MODEL["checkpoint"])
    made = language.generate(prompts, posts(data, "vqav2", table["image_id"]), 32)
    assert table["text"].tolist() == language.decode(made)
    assert np.mean([text in set(told) for text, told in zip(table["text"], questions["answers"], strict=True)]) > 0.5


def test_choices_are_the_likeliest_letters(data, tmp_path):
    choose_options.run(**inputs(data, "seedbench"), choices=tmp_path / "c.parquet", spec=checked("choose_options", ASK))
    assert pq.read_schema(tmp_path / "c.parquet").equals(predictions.SCHEMAS["choices"])
    table, questions = pd.read_parquet(tmp_path / "c.parquet"), pd.read_parquet(data / "seedbench/questions.parquet")
    assert table["question_id"].tolist() == questions["question_id"].tolist()
    prompts = [choice_prompt(*pair) for pair in zip(questions["question"], questions["options"], strict=True)]
    assert table["prompt"].tolist() == prompts
    language = load_language_side(MODEL["checkpoint"])
    post = posts(data, "seedbench", table["image_id"])
    expected = letter_log_probabilities(language, prompts, post, [4] * len(prompts))
    np.testing.assert_allclose(np.stack(table["log_probabilities"]), expected, atol=1e-5)
    assert table["choice"].tolist() == np.stack(table["log_probabilities"]).argmax(1).tolist()


class Killed(BaseException):
    """As a signal would."""


@pytest.fixture
def calls(monkeypatch):
    """Counts batches, and stops a run before the batch whose number is put into it."""
    made, original = [None], LanguageSide.generate

    def generate(self, prompts, post, most, size):
        if len(made) - 1 == made[0]:
            raise Killed
        made.append(len(prompts))
        return original(self, prompts, post, most, size)

    monkeypatch.setattr(LanguageSide, "generate", generate)
    monkeypatch.setattr(predictions, "CHUNK", 8)
    return made


def test_a_killed_run_goes_on_where_it_stopped_and_ends_the_same(data, tmp_path, calls):
    path, whole = tmp_path / "a.parquet", tmp_path / "whole.parquet"
    answer_questions.run(**inputs(data), answers=whole, spec=checked("answer_questions", ANSWERS))
    batches = calls[1:]
    assert len(batches) > 5
    calls[:] = [5]  # two chunks of two batches are done, a third is begun
    with pytest.raises(Killed):
        answer_questions.run(**inputs(data), answers=path, spec=checked("answer_questions", ANSWERS))
    assert not path.exists()
    assert len(list((tmp_path / "a.parquet.partial").glob("*/*.parquet"))) == 2
    calls[:] = [None]
    answer_questions.run(**inputs(data), answers=path, spec=checked("answer_questions", ANSWERS))
    assert calls[1:] == batches[4:]
    assert path.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("change", ["spec", "questions", "store", "version"])
def test_what_was_made_otherwise_is_not_taken(data, tmp_path, calls, change, monkeypatch):
    shutil.copytree(data / "vqav2", tmp_path / "vqav2")
    path = tmp_path / "a.parquet"
    calls[0] = 5
    with pytest.raises(Killed):
        answer_questions.run(**inputs(tmp_path), answers=path, spec=checked("answer_questions", ANSWERS))
    calls[:] = [None]
    spec = {**ANSWERS, "max_new_tokens": 7} if change == "spec" else ANSWERS
    if change == "questions":
        table = pq.read_table(tmp_path / "vqav2/questions.parquet")
        pq.write_table(table.slice(1), tmp_path / "vqav2/questions.parquet")
    if change == "store":
        index = tmp_path / "vqav2/store.json"
        index.write_text(json.dumps(json.loads(index.read_text())))  # the same content in other bytes
    if change == "version":
        monkeypatch.setitem(products.VERSIONS, "answers", {1: "first", 2: "another"})
    answer_questions.run(**inputs(tmp_path), answers=path, spec=checked("answer_questions", spec))
    assert sum(calls[1:]) == len(pd.read_parquet(path))
    assert not list(tmp_path.glob("*.partial"))


def test_what_other_code_made_is_taken_where_keys_agree(data, tmp_path, calls, monkeypatch):
    """A killed run goes on with a code that was edited since, and the table says which key and which code."""
    path = tmp_path / "a.parquet"
    calls[0] = 5
    with pytest.raises(Killed):
        answer_questions.run(**inputs(data), answers=path, spec=checked("answer_questions", ANSWERS))
    calls[:] = [None]
    monkeypatch.setattr(provenance, "code_hash", lambda step: "another")
    answer_questions.run(**inputs(data), answers=path, spec=checked("answer_questions", ANSWERS))
    assert 0 < sum(calls[1:]) < len(pd.read_parquet(path))
    about = json.loads(pq.read_schema(path).metadata[b"lossmap"])
    assert about["provenance"]["code"] == "another"
    assert about["key"]["product"] == "answers"
    assert about["key"]["family"] == products.family_key("answers", "idefics2")
    assert about["key"]["spec"] == ANSWERS


# Refusals


def asked(data, tmp_path, rows):
    """What a step reads, with these questions."""
    tables = {name: make_table(name, []) for name in ("images", "captions")}
    files = {name: tmp_path / f"{name}.parquet" for name in tables}
    manifest = Manifest(**tables, questions=make_table("questions", rows), format="vqav2")
    write_manifest(manifest, **files, questions=tmp_path / "q.parquet", summary=tmp_path / "manifest.json")
    return {"embeddings": data / "vqav2/store.json", "questions": tmp_path / "q.parquet"}


def test_a_dataset_without_questions_is_named(data, tmp_path):
    given = asked(data, tmp_path, [])
    with pytest.raises(LossmapError, match="q.parquet: holds no questions. Leave this dataset out of answers"):
        answer_questions.run(**given, answers=tmp_path / "a", spec=checked("answer_questions", ANSWERS))
    with pytest.raises(LossmapError, match="q.parquet: holds no questions. Leave this dataset out of choices"):
        choose_options.run(**given, choices=tmp_path / "a", spec=checked("choose_options", ASK))


def test_questions_without_enough_options_are_listed(data, tmp_path):
    image = pd.read_parquet(data / "vqav2/images.parquet")["image_id"][0]
    options = [None, [], ["one"], ["a", "b"], ["x"] * 27]
    rows = [(f"q{i}", image, "Which?", ["a"], some, None, None, None) for i, some in enumerate(options)]
    with pytest.raises(
        LossmapError,
        match="(?s)4 of 5 questions can't be asked as multiple choice, which takes 2 to 26"
        ".*question q0: 0 options.*q1: 0 options.*q2: 1 options.*q4: 27 options.*leave this dataset",
    ):
        choose_options.run(**asked(data, tmp_path, rows), choices=tmp_path / "a", spec=checked("choose_options", ASK))


def test_an_image_without_embeddings_is_named_with_its_question(data, tmp_path):
    rows = [("q7", "nowhere", "Which?", ["a"], None, None, None, None)]
    with pytest.raises(LossmapError, match="(?s)these images have no embeddings:.*q7: image nowhere"):
        answer_questions.run(
            **asked(data, tmp_path, rows), answers=tmp_path / "a", spec=checked("answer_questions", ANSWERS)
        )


def test_another_model_than_that_of_the_embeddings_is_refused(data, tmp_path):
    spec = {**CAPTIONS, "checkpoint": str(ZOO / "llava"), "image_size": 64}
    with pytest.raises(
        LossmapError,
        match="(?s)store.json: these .* another model.*checkpoint: .*idefics2' there, "
        ".*llava' here.*image_size: None there, 64 here.*Extract them again",
    ):
        caption_images.run(
            embeddings=data / "vqav2/store.json", captions=tmp_path / "c", spec=checked("caption_images", spec)
        )
