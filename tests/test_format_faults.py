"""Every fault of a dataset's annotations and folders, by its message."""

import json
import re
from pathlib import Path

import pytest
from tiny_datasets import COCO, CUB, DELETE, FILES, SEED, VQA_ANNOTATIONS, dataset, edited, fault, mask, picture

from lossmap.data.formats import parsing, read
from lossmap.data.sources import FORMATS, input_paths

Q, A, IM, K = "questions", "annotations", "images", "karpathy"
HOSTILE_ANNOTATIONS = {  # name -> (format, annotation files, what the message says)
    # any JSON file
    "not json": ("coco", {A: '{"images": [\n  {"id": 1,}\n]}'}, r"not JSON: .* at line 2, column \d+"),
    "cut short": ("coco", {A: json.dumps(COCO)[:-9]}, "is not JSON: .* at line 1, column"),
    "two values": ("coco", {A: "{}{}"}, "is not JSON: Extra data at line 1, column 3"),
    "empty file": ("coco", {A: ""}, "annotations.json: is empty"),
    "not utf-8": ("coco", {A: b'{"images": "\xff"}'}, "is not UTF-8 text .byte 12."),
    "nested too deeply": ("coco", {A: "[" * 200_000}, "is not usable JSON"),
    "endless number": ("coco", {A: '{"images": ' + "9" * 5000 + "}"}, "is not usable JSON"),
    "a list outermost": ("coco", {A: "[1]"}, "outermost value is a list, wanted an object"),
    "an object outermost": ("foodieqa", {A: "{}"}, "outermost value is an empty object, wanted a list"),
    "null outermost": ("vqav2", {Q: "null", A: VQA_ANNOTATIONS}, "outermost value is null, wanted an object"),
    "other format": ("karpathy", {A: SEED}, 'annotations.json: lacks "images"'),
    "no images": ("coco", {A: {"images": []}}, "annotations.json: holds no image"),
    "images not a list": ("coco", {A: {"images": {"a": 1}}}, '"images" is an object, wanted a list'),
    "record not an object": ("coco", {A: {"images": ["x"]}}, r"images\[0\]: is the text 'x', wanted an object"),
    "infinite id": (
        "coco",
        {A: '{"images": [{"id": Infinity, "file_name": "a"}]}'},
        '"id" is a huge number, wanted an id',
    ),
    "true as id": ("coco", edited("coco", (("images", 0, "id"), True)), '"id" is true, wanted an id'),
    "id of 391895.0": ("coco", edited("coco", (("images", 0, "id"), 9.0)), '"id" is the number 9.0, wanted an id'),
    "half a surrogate": (
        "coco",
        {A: json.dumps(COCO).replace("A cat", "A \\ud83d")},
        r"annotations\[0\]: \"caption\" is the text .*, which UTF-8 can't hold",
    ),
    # coco
    "image id repeated": (
        "coco",
        edited("coco", (("images", 2, "id"), "9")),
        r"images\[2\]: image 9 was already given at .*images\[0\]",
    ),
    "empty caption": ("coco", edited("coco", ((A, 1, "caption"), " \n")), r'annotations\[1\]: "caption" is empty text'),
    "no caption": ("coco", edited("coco", ((A, 1, "caption"), DELETE)), r'annotations\[1\]: lacks "caption"'),
    "caption of no image": ("coco", edited("coco", ((A, 1, "image_id"), 5)), "image 5 is not among the file's images"),
    "file name a number": (
        "coco",
        edited("coco", ((IM, 0, "file_name"), 9)),
        '"file_name" is the number 9, wanted text',
    ),
    "annotations an object": ("coco", edited("coco", ((A,), {})), '"annotations" is an empty object, wanted a list'),
    # paths
    "path up": ("coco", edited("coco", ((IM, 0, "file_name"), "../annotations.json")), "leaves the folder"),
    "absolute path": ("coco", edited("coco", ((IM, 0, "file_name"), "/etc/passwd")), "/etc/passwd: leaves the folder"),
    "null in path": ("coco", edited("coco", ((IM, 0, "file_name"), "a\0.jpg")), "holds a null character"),
    "endless path": ("coco", edited("coco", ((IM, 0, "file_name"), "a" * 5000)), "does not exist"),
    "path is the folder": ("coco", edited("coco", ((IM, 0, "file_name"), ".")), "leaves the folder|is not a file"),
    "missing image": (
        "coco",
        edited("coco", ((IM, 0, "file_name"), "z.jpg")),
        r"images\[0\]: image 9: .*z.jpg: does not",
    ),
    # karpathy
    "misspelt split": (
        K,
        edited(K, ((IM, 1, "split"), "tets")),
        r"images\[1\]: \"split\" is 'tets', wanted one of train",
    ),
    "no split": (K, edited(K, ((IM, 1, "split"), DELETE)), r'images\[1\]: lacks "split"'),
    "no sentences": (K, edited(K, ((IM, 0, "sentences"), [])), r'images\[0\]: "sentences" is empty'),
    "no raw": (K, edited(K, ((IM, 0, "sentences", 1, "raw"), DELETE)), r'images\[0\].sentences\[1\]: lacks "raw"'),
    "empty raw": (K, edited(K, ((IM, 0, "sentences", 1, "raw"), "")), r'sentences\[1\]: "raw" is empty text'),
    "no file name": (K, edited(K, ((IM, 0, "filename"), DELETE)), r'images\[0\]: lacks "filename"'),
    "folder up": (K, edited(K, ((IM, 0, "filepath"), "../..")), "leaves the folder"),
    "coco id repeated": (K, edited(K, ((IM, 2, "cocoid"), 7)), r"images\[2\]: image 7 was already given"),
    # seedbench
    "letter E": ("seedbench", edited("seedbench", ((Q, 0, "answer"), "E")), "'E', which is none of its 4 options"),
    "small letter": ("seedbench", edited("seedbench", ((Q, 0, "answer"), "a")), "'a', which is none of its 4 options"),
    "two letters": ("seedbench", edited("seedbench", ((Q, 0, "answer"), "AB")), "'AB', which is none of its 4 options"),
    "no answer": ("seedbench", edited("seedbench", ((Q, 0, "answer"), DELETE)), r'questions\[0\]: lacks "answer"'),
    "no choice": ("seedbench", edited("seedbench", ((Q, 0, "choice_c"), DELETE)), r'questions\[0\]: lacks "choice_c"'),
    "film as image": ("seedbench", edited("seedbench", ((Q, 0, "data_type"), "video")), '"data_type" is not image'),
    "image as film": ("seedbench", edited("seedbench", ((Q, 3, "data_type"), "image")), '"data_type" is not video'),
    "unknown type": ("seedbench", edited("seedbench", ((Q, 0, "question_type_id"), 4)), "question type 4 is not in"),
    "type as text": ("seedbench", edited("seedbench", ((Q, 0, "question_type_id"), "5")), "wanted a whole number"),
    "seed question twice": (
        "seedbench",
        edited("seedbench", ((Q, 1, "question_id"), "101")),
        "question 101 was already",
    ),
    "films only": (
        "seedbench",
        {A: {"questions": [SEED["questions"][3]], "question_type": {"Action": 10}}},
        "holds no image; it leaves out 1 questions about videos",
    ),
    "data id climbs": ("seedbench", edited("seedbench", ((Q, 0, "data_id"), "../x")), "leaves the folder"),
    # vizwiz
    "no answers": ("vizwiz_grounding", {A: {"VizWiz_val_00000008.jpg": {"question": "?"}}}, '8.jpg\': lacks "answers"'),
    "answers empty": (
        "vizwiz_grounding",
        {A: {"VizWiz_val_00000008.jpg": {"question": "?", "answers": []}}},
        '"answers" is empty',
    ),
    "answers blank": (
        "vizwiz_grounding",
        {A: {"VizWiz_val_00000008.jpg": {"question": "?", "answers": ["", " "]}}},
        '"answers" is empty',
    ),
    "answer a number": (
        "vizwiz_grounding",
        {A: {"VizWiz_val_00000008.jpg": {"question": "?", "answers": ["a", 3]}}},
        '"answers" holds the number 3, wanted only text',
    ),
    "image named twice": (
        "vizwiz_grounding",
        {A: '{"a.jpg": {"question": "?", "answers": ["a"]}, "a.jpg": {"question": "?", "answers": ["b"]}}'},
        "'a.jpg' comes twice in one object",
    ),
    "two images one mask": (
        "vizwiz_grounding",
        {A: {name: {"question": "?", "answers": ["a"]} for name in ("a.jpg", "a.png")}},
        "image a was already given",
    ),
    "no mask": (
        "vizwiz_grounding",
        {A: {"z.jpg": {"question": "?", "answers": ["a"]}}},
        "mask of question z: .*masks/z.png: does not exist",
    ),
    # vqav2
    "no annotation": (
        "vqav2",
        edited("vqav2", ((A, 0), DELETE)),
        r"questions\[1\]: question 7000 has no annotation in .*annotations.json",
    ),
    "no question": (
        "vqav2",
        edited("vqav2", ((Q, 1), DELETE), key=Q),
        r"annotations\[0\]: question 7000 is not in .*questions.json",
    ),
    "another image": ("vqav2", edited("vqav2", ((A, 0, "image_id"), 42)), "7000 is about image 7, not 42"),
    "vqa question twice": ("vqav2", edited("vqav2", ((Q, 2, "question_id"), 7000), key=Q), "question 7000 was already"),
    "annotated twice": ("vqav2", edited("vqav2", ((A, 1, "question_id"), 7000)), "question 7000 was already given"),
    "empty question": ("vqav2", edited("vqav2", ((Q, 0, "question"), ""), key=Q), '"question" is empty text'),
    "answers null": ("vqav2", edited("vqav2", ((A, 0, "answers"), None)), '"answers" is null, wanted a list'),
    "answer without text": ("vqav2", edited("vqav2", ((A, 0, "answers"), [{"x": 1}])), '"answers" holds null'),
    "image id as text": ("vqav2", edited("vqav2", ((Q, 0, "image_id"), "42"), key=Q), "wanted a whole number"),
    # foodieqa
    "answer 4": ("foodieqa", edited("foodieqa", ((0, "answer"), "4")), r"\[0\]: .*'4', which is none of its 4 options"),
    "answer -1": ("foodieqa", edited("foodieqa", ((0, "answer"), -1)), "'-1', which is none of its 4 options"),
    "answer A": ("foodieqa", edited("foodieqa", ((0, "answer"), "A")), "'A', which is none of its 4 options"),
    "choices as text": ("foodieqa", edited("foodieqa", ((0, "choices_en"), "a,b")), "'a,b', wanted a list"),
    "empty choice": ("foodieqa", edited("foodieqa", ((0, "choices_en", 1), "")), '"choices_en" holds empty text'),
    "no food": ("foodieqa", edited("foodieqa", ((0, "food_meta"), DELETE)), r'\[0\]: lacks "food_meta"'),
    "food climbs": (
        "foodieqa",
        edited("foodieqa", ((0, "food_meta", "food_file"), "images/../../x")),
        "leaves the folder",
    ),
    # cub
    "image without class": (
        "cub",
        edited("cub", (("image_class_labels.txt",), "1 1\n2 1\n")),
        r"images.txt: line 3: image 3 is not in .*image_class_labels.txt",
    ),
    "class unknown": (
        "cub",
        edited("cub", (("image_class_labels.txt",), "1 1\n2 1\n3 7\n")),
        "labels.txt: line 3: the class of image 3 is '7', which is not in .*classes.txt",
    ),
    "split 2": (
        "cub",
        edited("cub", (("train_test_split.txt",), "1 0\n2 2\n3 0\n")),
        r"split.txt: line 2: the split of image 2 is '2', which is not in 1 \(train\) or 0 \(test\)",
    ),
    "half a line": (
        "cub",
        edited("cub", (("classes.txt",), "1 a\n2\n")),
        "classes.txt: line 2: is '2', wanted an id and",
    ),
    "cub image twice": (
        "cub",
        edited("cub", (("images.txt",), CUB["images.txt"] + "1 x\n")),
        "line 4: id 1 was already",
    ),
    "box of no image": (
        "cub",
        edited("cub", (("bounding_boxes.txt",), CUB["bounding_boxes.txt"] + "4 1 1 1 1\n")),
        "boxes.txt: line 4: image 4 is not in .*images.txt",
    ),
    "box of three": (
        "cub",
        edited("cub", (("bounding_boxes.txt",), "1 1 1 1\n2 1 1 1 nan\n3 1 1 1 1\n")),
        "line 1: the box is '1 1 1', wanted four numbers",
    ),
    "cub climbs": ("cub", edited("cub", (("images.txt",), "1 ../../x\n2 a\n3 b\n")), "leaves the folder"),
}


@pytest.mark.parametrize("name", HOSTILE_ANNOTATIONS)
def test_a_fault_in_the_annotations_is_named(name, tmp_path):
    form, content, message = HOSTILE_ANNOTATIONS[name]
    text = fault(dataset(tmp_path, form, content))
    assert re.search(message, text), text
    assert str(tmp_path) in text  # the file is named
    assert text.rstrip().endswith((".", "?"))  # the last line says what to do


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "image_folder"])
def test_a_missing_annotation_file_is_named(form, tmp_path):
    entry = dataset(tmp_path, form)
    path = Path(next(p for p in input_paths(entry)[::-1] if p.endswith((".json", ".txt"))))
    path.unlink()
    assert f"{path}: does not exist. Correct the dataset's entry" in fault(entry)
    path.mkdir()
    assert f"{path}: is not a file" in fault(entry)


@pytest.mark.parametrize("key", ["images", "masks"])
def test_a_missing_folder_is_one_error_and_not_one_for_each_file(key, tmp_path):
    entry = dataset(tmp_path, "vizwiz_grounding") | {key: f"{tmp_path}/nowhere"}
    text = fault(entry)
    assert text.startswith(f"{key}: {tmp_path}/nowhere is not a folder.")
    assert "\n" not in text


@pytest.mark.parametrize("form", ["karpathy", "cub"])
def test_a_split_without_images_is_an_error(form, tmp_path):
    if form == "karpathy":
        entry = dataset(tmp_path, form, split="val")
    else:
        content = edited("cub", (("train_test_split.txt",), "1 0\n2 0\n3 0\n"))
        entry = dataset(tmp_path, form, content, split="train")
    assert f"holds no image of split '{entry['split']}'; it leaves out" in fault(entry)


def test_every_fault_is_listed_in_one_error(tmp_path):
    content = edited(
        "vqav2",
        ((A, 0, "answers"), []),
        ((A, 1, "question_type"), DELETE),
        ((A, 1, "answer_type"), DELETE),
    )
    content[Q] = edited("vqav2", ((Q, 0, "question"), ""), key=Q)[Q]
    entry = dataset(tmp_path, "vqav2", content)
    (tmp_path / "images" / FILES["vqav2"][0]).write_bytes(b"")
    (tmp_path / "images" / FILES["vqav2"][1]).unlink()
    text = fault(entry)
    assert f"The dataset in {tmp_path}/images (format vqav2) has 5 problems:" in text
    for line in (
        f'{tmp_path}/questions.json: questions[0]: "question" is empty text, wanted text',
        f'{tmp_path}/annotations.json: annotations[0]: "answers" is empty',
        f'{tmp_path}/annotations.json: annotations[1]: lacks "answer_type"',
        f"{tmp_path}/images/{FILES['vqav2'][0]}: is empty (zero bytes)",
        f"{tmp_path}/images/{FILES['vqav2'][1]}: does not exist",
    ):
        assert line in text
    assert "Nothing is skipped and nothing was written." in text


def test_masks_that_are_missing_damaged_or_of_another_size_are_all_listed(tmp_path):
    entry = dataset(tmp_path, "vizwiz_grounding")
    (tmp_path / "masks" / "VizWiz_val_00000008.png").write_bytes(b"no mask")
    mask(tmp_path / "masks" / "VizWiz_val_00000001.png", width=5)
    text = fault(entry)
    assert "VizWiz_val_00000008.png: is not an image" in text
    assert "VizWiz_val_00000001.png: is 5 x 3 pixels; its image, upright by its EXIF orientation, is 4 x 3" in text


def test_a_folder_that_mixes_images_and_classes_is_an_error(tmp_path):
    entry = dataset(tmp_path, "image_folder")
    picture(tmp_path / "images" / "stray.png")
    assert "holds both images (stray.png, ...) and sub-folders of images (cat, ...)" in fault(entry)


def test_a_folder_inside_a_class_is_an_error(tmp_path):
    entry = dataset(tmp_path, "image_folder")
    picture(tmp_path / "images" / "cat" / "young" / "3.png")
    assert "images/cat/young: is a folder inside a class's folder; move it up" in fault(entry)


def test_a_folder_without_images_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    text = fault({"format": "image_folder", "images": str(tmp_path)})
    assert f"{tmp_path}: holds no image; it leaves out 1 .txt files" in text


def test_a_file_name_that_is_not_utf8_is_named(tmp_path):
    entry = dataset(tmp_path, "image_folder")
    with open(bytes(tmp_path) + b"/images/cat/\xff.png", "wb") as file:
        file.write(b"x")
    assert r"the file name 'cat/\udcff.png' is not UTF-8; rename it" in fault(entry)


def test_a_byte_order_mark_is_no_fault(tmp_path):
    text = b"\xef\xbb\xbf" + json.dumps(COCO).encode()
    assert len(read(dataset(tmp_path, "coco", {A: text})).images) == 3


def test_an_annotation_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    entry = dataset(tmp_path, "coco")
    monkeypatch.setattr(parsing, "open", refuse, raising=False)
    assert "annotations.json: can't be read (Permission denied). Mend its permissions." in fault(entry)
