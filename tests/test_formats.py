"""Readers: tiny datasets of every format, read back by hand."""

import copy
from pathlib import Path

import pytest
from tiny_datasets import (
    COCO,
    FILES,
    KARPATHY,
    VQA_ANNOTATIONS,
    VQA_QUESTIONS,
    dataset,
    fault,
    ids,
    mask,
    picture,
    rows,
)

from lossmap.data.formats import READERS, read
from lossmap.data.sources import FORMATS, input_paths


def test_karpathy(tmp_path):
    found = read(dataset(tmp_path, "karpathy"))
    assert ids(found) == ["7", "5"]
    assert found.images["path"][0] == f"{tmp_path}/images/val2014/COCO_val2014_000000000007.jpg"
    assert rows(found.images, "width", "height", "label") == [(4, 3, None)] * 2
    assert rows(found.captions, "image_id", "caption") == [
        ("7", "A man with 7 hats."),
        ("7", "Hats"),
        ("5", "A man with 5 hats."),
        ("5", "Hats"),
    ]
    assert len(found.questions) == 0
    assert found.left_out == {"images of other splits": 2}


def test_karpathy_of_flickr_has_no_folder_and_no_coco_id(tmp_path):
    content = copy.deepcopy(KARPATHY)
    for record in content["images"]:
        del record["filepath"], record["cocoid"]
    for name in FILES["karpathy"]:
        picture(tmp_path / "images" / Path(name).name)
    found = read(dataset(tmp_path, "karpathy", {"annotations": content}))
    assert ids(found) == ["COCO_val2014_000000000007", "COCO_val2014_000000000005"]


def test_coco(tmp_path):
    found = read(dataset(tmp_path, "coco"))
    assert ids(found) == ["9", "2", "4"]
    assert rows(found.captions, "image_id", "caption") == [("2", "A cat."), ("9", "A dog."), ("2", "One cat.")]
    assert found.summary()["captions"] == 3


@pytest.mark.parametrize(("annotations", "count"), [([{"id": 1, "image_id": 2, "bbox": [1, 2, 3, 4]}], 1), (None, 0)])
def test_coco_instances_are_images_only(annotations, count, tmp_path):
    content = {"images": COCO["images"]} | ({} if annotations is None else {"annotations": annotations})
    found = read(dataset(tmp_path, "coco", {"annotations": content}))
    assert (len(found.images), len(found.captions)) == (3, 0)
    assert found.left_out == {"annotations that are not captions": count}


def test_seedbench(tmp_path):
    found = read(dataset(tmp_path, "seedbench"))
    assert ids(found) == ["22_33", "11_22"]
    assert rows(found.questions, "question_id", "image_id", "answer_index", "category") == [
        ("101", "22_33", 0, "Instances Counting"),
        ("102", "11_22", 3, "Scene Understanding"),
        ("103", "22_33", 2, "Text Understanding"),
    ]
    assert found.questions["answers"].tolist() == [["One"], ["Four"], ["Three"]]
    assert found.questions["options"][0] == ["One", "Two", "Three", "Four"]
    assert found.left_out == {"questions about videos": 1}


def test_seedbench_images_may_have_a_suffix(tmp_path):
    entry = dataset(tmp_path, "seedbench")
    (tmp_path / "images" / "11_22").rename(tmp_path / "images" / "11_22.png")
    found = read(entry)
    assert ids(found) == ["22_33", "11_22"]
    assert found.images["path"][1] == f"{tmp_path}/images/11_22.png"


def test_vizwiz(tmp_path):
    found = read(dataset(tmp_path, "vizwiz_grounding"))
    assert ids(found) == ["VizWiz_val_00000008", "VizWiz_val_00000001"]
    assert rows(found.questions, "question_id", "image_id", "question", "category", "mask_path")[0] == (
        "VizWiz_val_00000008",
        "VizWiz_val_00000008",
        "What is can 8?",
        None,
        f"{tmp_path}/masks/VizWiz_val_00000008.png",
    )
    assert found.questions["answers"][0] == ["soup"] * 7 + ["can"] * 2 + [""]
    assert found.questions["options"][0] is None


def test_a_mask_has_the_size_of_the_upright_image(tmp_path):
    entry = dataset(tmp_path, "vizwiz_grounding")
    name = "VizWiz_val_00000008"
    picture(tmp_path / "images" / f"{name}.jpg", width=4, height=3, orientation=6)  # upright it is 3 wide, 4 high
    text = fault(entry)
    assert (
        f"mask of question {name}: {tmp_path}/masks/{name}.png: is 4 x 3 pixels;"
        " its image, upright by its EXIF orientation, is 3 x 4" in text
    )
    mask(tmp_path / "masks" / f"{name}.png", width=3, height=4)
    found = read(entry)
    assert rows(found.images, "width", "height") == [(3, 4), (4, 3)]


def test_vqav2(tmp_path):
    found = read(dataset(tmp_path, "vqav2"))
    assert ids(found) == ["42", "7"]
    assert found.images["path"][1] == f"{tmp_path}/images/COCO_val2014_000000000007.jpg"
    assert rows(found.questions, "question_id", "image_id", "question", "category") == [
        ("42000", "42", "Where?", "what"),
        ("7000", "7", "How many?", "what"),
        ("42001", "42", "Who?", "what"),
    ]
    assert found.questions["answers"][2] == [f"down{j}" for j in range(10)]


def test_vqav2_without_question_types_has_the_answer_types(tmp_path):
    annotations = [
        {key: value for key, value in one.items() if key != "question_type"} for one in VQA_ANNOTATIONS["annotations"]
    ]
    found = read(dataset(tmp_path, "vqav2", {"questions": VQA_QUESTIONS, "annotations": {"annotations": annotations}}))
    assert found.questions["category"].tolist() == ["other", "number", "yes/no"]


def test_vqav2_image_names_follow_the_folder_where_the_file_does_not_say(tmp_path):
    questions = {"questions": VQA_QUESTIONS["questions"]}
    for image in (42, 7):
        picture(tmp_path / "train2014" / f"COCO_train2014_{image:012d}.jpg")
    content = {"questions": questions, "annotations": VQA_ANNOTATIONS}
    found = read(dataset(tmp_path, "vqav2", content, images=f"{tmp_path}/train2014/"))
    assert found.images["path"][0] == f"{tmp_path}/train2014/COCO_train2014_000000000042.jpg"


def test_cub(tmp_path):
    found = read(dataset(tmp_path, "cub"))
    assert rows(found.images, "image_id", "label") == [("1", "001.Albatross"), ("3", "002.Auk")]
    assert found.left_out == {"images of other splits": 1}
    picture(tmp_path / "images" / "001.Albatross" / "Albatross_9.jpg")
    train = {"format": "cub", "images": f"{tmp_path}/images", "annotations": f"{tmp_path}/cub", "split": "train"}
    assert ids(read(train)) == ["2"]


def test_foodieqa(tmp_path):
    found = read(dataset(tmp_path, "foodieqa"))
    assert ids(found) == ["fish.jpeg", "bun.jpeg"]
    assert rows(found.questions, "question_id", "image_id", "question", "answer_index") == [
        ("q1", "fish.jpeg", "Which cuisine?", 0),
        ("q2", "fish.jpeg", "Which cuisine?", 3),
        ("q3", "bun.jpeg", "Which cuisine?", 2),
    ]
    assert found.questions["answers"].tolist() == [["Sichuan"], ["Fujian"], ["Cantonese"]]


def test_folder_of_classes(tmp_path):
    entry = dataset(tmp_path, "image_folder")
    (tmp_path / "images" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "images" / ".hidden.png").write_text("ignored")
    (tmp_path / "images" / "empty").mkdir()
    found = read(entry)
    assert rows(found.images, "image_id", "label") == [
        ("cat/10.png", "cat"),
        ("cat/2.png", "cat"),
        ("dog/1.jpg", "dog"),
    ]
    assert found.left_out == {".txt files": 1, "hidden files": 1}


def test_flat_folder(tmp_path):
    for name in ("b.PNG", "a b.jpg", "鸟.webp"):
        picture(tmp_path / name)
    found = read({"format": "image_folder", "images": str(tmp_path)})
    assert rows(found.images, "image_id", "label") == [("a b.jpg", None), ("b.PNG", None), ("鸟.webp", None)]


def test_the_same_files_give_the_same_manifest(tmp_path):
    entry = dataset(tmp_path, "karpathy")
    first, second = read(entry), read(entry)
    assert first.images.equals(second.images)
    assert first.captions.equals(second.captions)
    assert first.summary() == second.summary()


def test_every_format_has_a_reader_that_reads_its_inputs(tmp_path):
    assert list(READERS) == list(FORMATS)
    for form in FORMATS:
        entry = dataset(tmp_path / form, form)
        assert all(Path(path).exists() for path in input_paths(entry))
        assert len(read(entry).images) == len(FILES[form])
