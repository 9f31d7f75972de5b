"""What a study asks of its datasets is held against what they hold before anything is embedded."""

import copy
import json
import os
import re
import shutil

import pytest
import yaml
from PIL import Image
from small_study import ROOT, clone, snakemake

from lossmap.data.contents import count_contents
from lossmap.data.formats import read, spread
from lossmap.errors import LossmapError
from lossmap.study.checks import all_problems, check_annotations, check_contents
from lossmap.study.reading import read_study
from lossmap.study.settings import check_study

NOTHING = count_contents([], [], [])
FOUR = ["red"] * 4


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def default(monkeypatch):
    """The default study, which a test may change."""
    monkeypatch.chdir(ROOT)
    return copy.deepcopy(check_study(read_study("config.yaml")))


def study(datasets: dict, **sections) -> dict:
    """A study of datasets whose images lie in this folder, with all defaults."""
    entries = {name: {"images": "images", **entry} for name, entry in datasets.items()}
    content = {"study": "mine", "models": {"m": {"checkpoint": str(ROOT / "workflow/zoo/llava")}}, "datasets": entries}
    return check_study({**content, **sections})


def images(names) -> None:
    os.makedirs("images", exist_ok=True)
    for i, name in enumerate(names):
        os.makedirs(os.path.dirname(f"images/{name}") or ".", exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(f"images/{name}")


def write(name: str, content) -> str:
    with open(name, "w") as file:
        json.dump(content, file)
    return name


def coco(captioned, count=40) -> str:
    records = [{"id": i, "file_name": f"{i}.png"} for i in range(count)]
    captions = [{"id": i, "image_id": i, "caption": "a dog"} for i in captioned]
    return write("captions.json", {"images": records, "annotations": captions or [{"bbox": [0, 0, 1, 1]}]})


def problems(dataset: str, config: dict, **contents) -> list[str]:
    return all_problems(config, {dataset: NOTHING | contents})


def test_what_a_dataset_holds_is_counted_by_hand():
    found = count_contents(
        [("a", "cat"), ("b", "cat"), ("c", "dog"), ("d", None)],
        ["a", "a", "c"],
        [
            ("q1", "What?", ["x", "y"], None, "m.png"),
            ("q2", "<image>\nWhat?", ["x"], ["x", "<image> <|image_pad|>"], None),
            ("q3", "<image>", ["x", "y"], None, float("nan")),
        ],
    )
    assert found == {
        "images": 4, "captions": 3, "questions": 3, "classes": 2, "alone_in_class": 1, "without_caption": [2, "b"],
        "answers": {"2": [2, "q1"], "1": [1, "q2"]}, "options": {"0": [2, "q1"], "2": [1, "q2"]},
        "marks": {"<image>": [2, "q2"], "<|image_pad|>": [1, "q2"]}, "without_mask": [2, "q2"],
    }  # fmt: skip


def test_images_of_a_shape_that_a_model_refuses_are_named_with_it(default):
    shapes = [["/photos/line.png", 400, 1], ["/photos/scroll.png", 60, 6000]]
    found = problems("coco-train", default, long_shapes=shapes, images=400)
    assert found == [
        "coco-train (400 images): models: qwen2.5-vl-mini: /photos/line.png: 400 x 1 pixels; image processors of"
        " qwen2_5_vl take shapes up to 200:1. Crop the image, or take it out of the dataset."
    ]


def test_annotations_and_the_manifest_that_is_read_of_them_count_alike():
    images(f"{i}.png" for i in range(40))
    config = study({"caps": {"format": "coco", "annotations": coco(range(39)), "sample": 30}})
    found, manifest = {}, read(config["datasets"]["caps"]).summary()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lossmap.study.checks.all_problems", lambda config, contents: found.update(contents) or [])
        config["overlap"]["datasets"] = ["caps"]
        check_annotations(config)
    assert found["caps"] == {key: manifest[key] for key in found["caps"]}
    assert found["caps"]["images"] == 30


@pytest.mark.parametrize(
    ("captioned", "message"),
    [
        ([i for i in range(40) if i != 17], r"1 have none in captions\.json, the first is image 17"),
        ([], r"captions\.json holds no caption of these images; CIDEr needs one of each .captions_"),
    ],
)
def test_an_image_without_caption_is_found_before_anything_is_read(captioned, message):
    os.mkdir("images")  # no image is opened
    config = study({"caps": {"format": "coco", "annotations": coco(captioned)}})
    check_annotations(config)  # nobody asked for captions
    config["captions"]["datasets"] = ["caps"]
    with pytest.raises(LossmapError, match=f"1 fault:\n  - caps .40 images.: captions: .*{message}.*\nMend"):
        check_annotations(config)


def test_images_without_caption_that_are_not_chosen_are_no_fault():
    os.mkdir("images")
    config = study({"caps": {"format": "coco", "annotations": coco(sorted(spread(40)[:17])), "limit": 17}})
    config["captions"]["datasets"] = ["caps"]
    check_annotations(config)


def vqa(answers: int) -> dict:
    questions = [{"question_id": 10 + i, "image_id": i, "question": "What?"} for i in range(3)]
    given = [{"answer": "red"}] * answers
    annotations = [{**one, "answers": given, "answer_type": "other"} for one in questions]
    return {
        "format": "vqav2",
        "questions": write("q.json", {"questions": questions}),
        "annotations": write("a.json", {"annotations": annotations}),
    }


@pytest.mark.parametrize("answers", [1, 3])
def test_too_few_answers_are_found_before_anything_is_read(answers):
    os.mkdir("images")
    config = study({"own": vqa(answers)}, answers={"datasets": ["own"]})
    with pytest.raises(LossmapError, match=rf"3 of 3 questions .*a\.json, question 10 has {answers}; .*vqa_match"):
        check_annotations(config)
    config["answers"]["score"] = "vqa_match"
    check_annotations(config)


def test_four_answers_are_enough():
    os.mkdir("images")
    check_annotations(study({"own": vqa(4)}, answers={"datasets": ["own"]}))


def test_questions_with_options_that_cannot_be_chosen_from_are_named(default):
    asked = {"images": 2, "questions": 9}
    (few,) = problems("foodieqa", default, **asked, options={"1": [2, "q7"], "4": [7, "q0"]})
    assert "2 of 9 questions have fewer than 2 options" in few
    assert "question q7 has 1" in few
    (many,) = problems("foodieqa", default, **asked, options={"27": [1, "q3"], "4": [8, "q0"]})
    assert "1 of 9 questions have more options than there are letters, 26" in many
    (none,) = problems("foodieqa", default, images=2)
    assert "no question" in none
    assert not problems("foodieqa", default, **asked, options={"2": [1, "q1"], "26": [8, "q0"]})


def test_a_question_that_holds_a_models_mark_of_an_image_is_named_for_that_model(default):
    found = {"images": 2, "questions": 9, "options": {"4": [9, "q0"]}, "marks": {"<|image_pad|>": [3, "q2"]}}
    (problem,) = problems("foodieqa", default, **found)
    assert "models: qwen2.5-vl-mini: 3 of 9 questions, the first q2, hold the mark" in problem
    assert not problems("coco-train", default, images=2000, marks=found["marks"])


def test_a_question_without_mask_is_named_where_answers_are_related_to_losses(default):
    found = {"images": 200, "questions": 200, "answers": {"10": [200, "q0"]}, "without_mask": [2, "q4"]}
    (problem,) = problems("vizwiz", default, **found)
    assert "2 of 200 questions have no answer mask, the first is question q4" in problem
    default["reconstruction"]["evaluate"].remove("vizwiz")
    assert not problems("vizwiz", default, **found)


@pytest.mark.parametrize("classes", [0, 1])
def test_retrieval_without_classes_is_refused(default, classes):
    (problem,) = problems("cub", default, images=500, classes=classes)
    assert f"needs 2 classes at least, cub has {classes}" in problem


def test_retrieval_where_every_image_is_alone_in_its_class_is_refused(default):
    (problem,) = problems("cub", default, images=500, classes=500, alone_in_class=500)
    assert "every image is alone in its class" in problem
    assert not problems("cub", default, images=500, classes=499, alone_in_class=498)


def test_more_neighbours_than_images_are_refused_in_every_section(default):
    assert not problems("flickr30k", default, images=2)
    asked = {"questions": 1, "answers": {"10": [1, "q0"]}}
    assert not problems("vizwiz", default, images=101, **asked)
    (problem,) = problems("vizwiz", default, images=100, **asked)
    assert "overlap: k: 100 neighbours are too many; with 100 images, an image has 99 at most" in problem
    text = "\n".join(problems("seedbench", default, images=6, questions=1, options={"4": [1, "q0"]}))
    for key, k in (("overlap: k", 50), ("geometry: k", 100), ("galleries: k", 10), ("figure2: k", 6)):
        assert f"{key}: {k} neighbours are too many" in text
    text = "\n".join(problems("cub", default, images=5, classes=2))
    for key, k in (("retrieval: recall", 5), ("retrieval: overlap_k", 100), ("galleries: shown", 5)):
        assert f"{key}: {k} neighbours are too many" in text


def test_geometry_needs_four_images_and_one_beyond_the_neighbours(default):
    default["choices"]["datasets"] = default["overlap"]["datasets"] = default["galleries"]["datasets"] = []
    del default["figure2"]
    default["geometry"]["k"] = [2]
    assert not problems("seedbench", default, images=4)
    few = problems("seedbench", default, images=3)
    assert "k is 1 at most" in few[0]
    assert "4 images at least" in few[1]
    assert not problems("seedbench", default, images=9, same_picture=4, pictures=6)
    default["equal_images"] = "count"
    assert not problems("seedbench", default, images=9, same_picture=3, pictures=7)
    assert "2 images without a copy" in problems("seedbench", default, images=20, single_pictures=1, pictures=10)[0]
    assert "4 images hold one and the same picture" in problems("seedbench", default, images=9, same_picture=4)[0]
    default["geometry"]["k"] = [1]
    assert "its intrinsic dimension: 2 neighbours" in problems("seedbench", default, images=2)[0]


def test_copies_that_are_dropped_are_no_neighbours(default):
    """A study of 30 photographs and 30 black frames has 31 images that differ."""
    default["retrieval"] |= {"overlap_k": 10, "recall": [1]}
    found = {"images": 60, "pictures": 31, "same_picture": 30, "classes": 2}
    assert not problems("cub", default, **found)
    default["retrieval"] |= {"overlap_k": 31}
    (problem,) = problems("cub", default, **found)
    assert "overlap_k: 31 neighbours are too many; with 31 images that differ (equal_images: drop, of 60)" in problem
    default["equal_images"] = "count"
    assert not problems("cub", default, **found)


def test_a_training_set_smaller_than_a_batch_is_refused(default):
    assert not problems("coco-train", default, images=80)  # a quarter of 64 training images is one batch of 16
    (problem,) = problems("coco-train", default, images=76)
    assert "25% of 61 training images are 15, fewer than a batch of 16" in problem
    default["reconstruction"] |= {"held_out": 0.001}
    (problem,) = problems("coco-train", default, images=100)
    assert "held_out: is less than one of these images" in problem


def test_one_image_is_too_few_for_a_control_of_other_images_and_a_small_batch_for_many_processes(default):
    del default["captions"]["datasets"][:]
    (problem,) = problems("coco-karpathy", default, images=1)
    assert "controls: other-image: takes another image's output, and there is one image" in problem
    assert not problems("coco-karpathy", default, images=2)
    default["reconstruction"]["training"] |= {"processes": 17}
    (problem,) = problems("coco-train", default, images=80)
    assert "training: processes: 17 can't share a batch of 16 images" in problem


def test_defaults_of_training_fit_any_number_of_images(default):
    default["reconstruction"]["training"]["batch"] = None
    assert not problems("coco-train", default, images=60)
    assert not problems("coco-train", default, images=100_000)
    assert "25% of 2 training images are 0, fewer than one" in problems("coco-train", default, images=2)[1]


def test_faults_of_all_datasets_stand_in_one_error(default):
    found = {"vizwiz": NOTHING | {"images": 50, "questions": 1}, "cub": NOTHING | {"images": 50, "classes": 1}}
    with pytest.raises(LossmapError, match="4 faults:") as caught:
        check_contents(default, found)
    for part in (
        "vizwiz (50 images): overlap: k: 50",
        "k: 100",
        "cub (50 images): retrieval: by class",
        "overlap_k: 100",
    ):
        assert part in str(caught.value)


def test_faulty_annotations_of_two_datasets_stand_in_one_error():
    images(["a.png"])
    write("bad.json", {"images": [{"id": 1}]})
    write("text.json", "no list")
    entry = {"format": "coco"}
    config = study(
        {"one": {**entry, "annotations": "bad.json"}, "two": {**entry, "annotations": "text.json"}},
        overlap={"datasets": ["one", "two"], "k": [1]},
    )
    with pytest.raises(LossmapError, match="2 faults") as caught:
        check_annotations(config)
    assert 'one: bad.json: images[0]: lacks "file_name"' in str(caught.value)
    assert "two: text.json: its outermost value is the text 'no list'" in str(caught.value)


@pytest.mark.parametrize("option", [{}, {"choice_d": ""}, {"choice_d": 4}, {"choice_d": None}], ids=str)
def test_a_missing_option_is_named_before_anything_is_read(option):
    images(["a.png"])
    record = {"question_id": "q", "data_id": "a.png", "question": "Who?", "question_type_id": 1, "answer": "A"}
    record |= {"choice_a": "she", "choice_b": "he", "choice_c": "they", **option}
    path = write("seed.json", {"question_type": {"Instance": 1}, "questions": [record]})
    config = study({"seed": {"format": "seedbench", "annotations": path}}, choices={"datasets": ["seed"]})
    with pytest.raises(LossmapError, match=r'1 fault:\n  - seed: seed.json: questions\[0\]: .*"choice_d"'):
        check_annotations(config)


def test_a_split_without_images_is_found_before_anything_is_read():
    os.mkdir("images")
    records = [{"split": "train", "filename": "a.png", "sentences": [{"raw": "a dog"}]}]
    entry = {"format": "karpathy", "annotations": write("k.json", {"images": records}), "split": "test"}
    with pytest.raises(LossmapError, match="flickr: k.json: holds no image of split 'test'; it leaves out 1 images"):
        check_annotations(study({"flickr": entry}, overlap={"datasets": ["flickr"], "k": [1]}))


def test_what_was_read_since_it_changed_is_left_to_its_manifest():
    os.mkdir("images")
    config = study({"caps": {"format": "coco", "annotations": coco([])}}, overlap={"datasets": ["caps"], "k": [40]})
    os.makedirs("results/mine/data/caps")
    manifest = write("results/mine/data/caps/manifest.json", {})
    check_annotations(config)
    os.utime(manifest, (1, 1))
    with pytest.raises(LossmapError, match="40 neighbours are too many"):
        check_annotations(config)


def test_annotations_that_take_long_to_read_are_left_to_the_manifest(monkeypatch):
    os.mkdir("images")
    config = study({"caps": {"format": "coco", "annotations": coco([])}}, overlap={"datasets": ["caps"], "k": [40]})
    monkeypatch.setattr("lossmap.study.checks.QUICK", os.path.getsize("captions.json") - 1)
    check_annotations(config)


@pytest.mark.slow
def test_a_dry_run_of_the_documentations_study_says_what_sixty_images_are_too_few_for(tmp_path):
    """The study of docs/your-own-study.md, with 60 photographs in two classes and a model that is here."""
    images(f"{'cats' if i % 2 else 'dogs'}/{i}.png" for i in range(60))
    folder = clone(tmp_path / "checkout")
    shutil.move("images", folder / "photos")
    [block] = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/your-own-study.md").read_text(), re.S)
    config = yaml.safe_load(block)
    config["models"] = {"llava": {"checkpoint": "workflow/zoo/llava"}}
    config["datasets"]["photos"]["images"] = "photos"
    config["retrieval"]["overlap_k"] = 60
    del config["compare"]
    done = snakemake(folder, "-n", config=config)
    assert done.returncode == 1
    assert "photos (60 images): retrieval: overlap_k: 60 neighbours are too many" in done.stdout + done.stderr
    assert not (folder / "results").exists()
    config["retrieval"]["overlap_k"] = 59
    assert snakemake(folder, "-n", config=config).returncode == 0


def test_readers_need_questions_to_train_on_and_images_to_hold_out(default):
    assert problems("vqav2-train", default, images=400) == [
        "vqav2-train (400 images): readers: train: there is no question about any of these images"
    ]
    found = problems("vqav2-train", default, images=2, questions=2)
    assert found == ["vqav2-train (2 images): readers: held_out: 0 of 2 images; wanted some, and not all"]
