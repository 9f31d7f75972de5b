"""Readers: tiny datasets of every format, written by hand, read back by hand; then every fault, by its message."""

import copy
import json
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lossmap.data import formats
from lossmap.data.formats import READERS, parsing, read, spread
from lossmap.data.sources import FORMATS, input_paths
from lossmap.errors import LossmapError


def picture(path, width=4, height=3, shade=0, orientation=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.new("RGB", (width, height), (shade, 0, 0)).save(path, "PNG", exif=exif)  # any name: content decides


def mask(path, width=4, height=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (width, height), 255).save(path)


KARPATHY = {
    "dataset": "coco",
    "images": [
        {
            "filepath": "val2014",
            "filename": f"COCO_val2014_{i:012d}.jpg",
            "cocoid": i,
            "imgid": i,
            "split": split,
            "sentids": [10 * i, 10 * i + 1],
            "sentences": [
                {"tokens": ["a", "man"], "raw": f"A man with {i} hats.", "imgid": i, "sentid": 10 * i},
                {"tokens": ["hats"], "raw": "Hats", "imgid": i, "sentid": 10 * i + 1},
            ],
        }
        for i, split in ((7, "test"), (3, "train"), (5, "test"), (9, "restval"))
    ],
}
COCO = {
    "images": [{"id": i, "file_name": f"{i:012d}.jpg", "height": 3, "width": 4} for i in (9, 2, 4)],
    "annotations": [
        {"id": 1, "image_id": 2, "caption": "A cat."},
        {"id": 2, "image_id": 9, "caption": "A dog."},
        {"id": 3, "image_id": 2, "caption": "One cat."},
    ],
}
SEED = {
    "questions": [
        {
            "answer": answer,
            "choice_a": "One",
            "choice_b": "Two",
            "choice_c": "Three",
            "choice_d": "Four",
            "data_id": image,
            "data_type": "image" if kind <= 9 else "video",
            "question": "How many towels?",
            "question_id": number,
            "question_type_id": kind,
        }
        for answer, image, number, kind in (
            ("A", "22_33", "101", 5),
            ("D", "11_22", "102", 1),
            ("C", "22_33", "103", 9),
            ("B", "film.mp4", "104", 10),
        )
    ],
    "question_type": {"Scene Understanding": 1, "Instances Counting": 5, "Text Understanding": 9, "Action": 10},
}
VIZWIZ = {
    f"VizWiz_val_0000000{i}.jpg": {
        "question": f"What is can {i}?",
        "answers": ["soup"] * 7 + ["can"] * 2 + [""],
        "most_common_answer": "soup",
        "height": 3,
        "width": 4,
        "answer_grounding": [{"x": 1, "y": 2}],
    }
    for i in (8, 1)
}
VQA_QUESTIONS = {
    "data_subtype": "val2014",
    "questions": [
        {"image_id": 42, "question": "Where?", "question_id": 42000},
        {"image_id": 7, "question": "How many?", "question_id": 7000},
        {"image_id": 42, "question": "Who?", "question_id": 42001},
    ],
}
VQA_ANNOTATIONS = {
    "annotations": [
        {
            "question_id": number,
            "image_id": image,
            "question_type": "what",
            "answer_type": kind,
            "multiple_choice_answer": "down",
            "answers": [{"answer": f"down{j}", "answer_confidence": "yes", "answer_id": j + 1} for j in range(10)],
        }
        for number, image, kind in ((7000, 7, "number"), (42001, 42, "yes/no"), (42000, 42, "other"))
    ]
}
CUB = {
    "images.txt": "1 001.Albatross/Albatross_46.jpg\n2 001.Albatross/Albatross_9.jpg\n3 002.Auk/Auk_1.jpg\n",
    "image_class_labels.txt": "1 1\n2 1\n3 2\n",
    "train_test_split.txt": "1 0\n2 1\n3 0\n",
    "classes.txt": "1 001.Albatross\n2 002.Auk\n",
    "bounding_boxes.txt": "1 60.0 27.0 325.0 304.0\n2 1 2 3 4\n3 0.5 0 9 9\n",
}
FOODIE = [
    {
        "question": "菜?",
        "choices": ["川菜", "湘菜", "粤菜", "闽菜"],
        "answer": answer,
        "question_id": number,
        "question_en": "Which cuisine?",
        "choices_en": ["Sichuan", "Hunan", "Cantonese", "Fujian"],
        "food_meta": {"id": 1, "food_name": "鱼", "food_file": f"images/{name}"},
    }
    for answer, number, name in (("0", "q1", "fish.jpeg"), ("3", "q2", "fish.jpeg"), ("2", "q3", "bun.jpeg"))
]
CONTENT = {  # format -> annotation files by the entry's key
    "karpathy": {"annotations": KARPATHY},
    "coco": {"annotations": COCO},
    "seedbench": {"annotations": SEED},
    "vizwiz_grounding": {"annotations": VIZWIZ},
    "vqav2": {"questions": VQA_QUESTIONS, "annotations": VQA_ANNOTATIONS},
    "cub": {"annotations": CUB},
    "foodieqa": {"annotations": FOODIE},
    "image_folder": {},
}
FILES = {  # format -> image files
    "karpathy": ["val2014/COCO_val2014_000000000007.jpg", "val2014/COCO_val2014_000000000005.jpg"],
    "coco": ["000000000009.jpg", "000000000002.jpg", "000000000004.jpg"],
    "seedbench": ["22_33", "11_22"],
    "vizwiz_grounding": ["VizWiz_val_00000008.jpg", "VizWiz_val_00000001.jpg"],
    "vqav2": ["COCO_val2014_000000000042.jpg", "COCO_val2014_000000000007.jpg"],
    "cub": ["001.Albatross/Albatross_46.jpg", "002.Auk/Auk_1.jpg"],
    "foodieqa": ["fish.jpeg", "bun.jpeg"],
    "image_folder": ["dog/1.jpg", "cat/2.png", "cat/10.png"],
}


def dataset(folder, form, content=None, **extra):
    """A dataset's files under folder; content: annotations in place of the good ones (text is written as it is)."""
    entry = {"format": form, "images": str(folder / "images")} | extra
    if FORMATS[form].splits:
        entry.setdefault("split", "test")
    for name in FILES[form]:
        picture(folder / "images" / name)
    for key, value in (content or CONTENT[form]).items():
        if form == "cub":
            entry[key] = str(folder / "cub")
            (folder / "cub").mkdir()
            for name, text in value.items():
                (folder / "cub" / name).write_text(text)
        else:
            entry[key] = str(folder / f"{key}.json")
            text = value if isinstance(value, str | bytes) else json.dumps(value)
            Path(entry[key]).write_bytes(text if isinstance(text, bytes) else text.encode())
    if form == "vizwiz_grounding":
        entry["masks"] = str(folder / "masks")
        for name in FILES[form]:
            mask(folder / "masks" / name.replace(".jpg", ".png"))
    return entry


def ids(manifest):
    return manifest.images["image_id"].tolist()


def rows(frame, *columns):
    return [tuple(row) for row in frame[list(columns)].astype(object).where(frame[list(columns)].notna(), None).values]


def fault(entry):
    with pytest.raises(LossmapError) as raised:
        read(entry)
    return str(raised.value)


# Values by hand


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
        ("42000", "42", "Where?", "other"),
        ("7000", "7", "How many?", "number"),
        ("42001", "42", "Who?", "yes/no"),
    ]
    assert found.questions["answers"][2] == [f"down{j}" for j in range(10)]


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


# Choosing images


def many(folder, count, **extra):
    for i in range(count):
        picture(folder / "images" / f"{i:02d}.png")
    content = {
        "images": [{"id": i, "file_name": f"{i:02d}.png"} for i in reversed(range(count))],
        "annotations": [{"id": i, "image_id": i, "caption": f"Number {i}."} for i in range(count)],
    }
    (folder / "coco.json").write_text(json.dumps(content))
    return {"format": "coco", "images": f"{folder}/images", "annotations": f"{folder}/coco.json"} | extra


def test_limit_is_spread_over_all_images_and_grows_by_adding(tmp_path):
    assert sorted(spread(10)) == list(range(10))
    order = spread(600)
    for n in (40, 100, 300):
        chosen = np.sort(order[:n])
        assert np.diff(chosen).max() < 2.7 * 600 / n  # the golden ratio leaves no wider gap
        assert abs(np.mean(chosen % 2) - 0.5) < 0.06  # nor does a period of the annotations meet it
    found = read(many(tmp_path, 6, limit=2))
    assert len(ids(found)) == 2
    assert set(found.captions["image_id"]) == set(ids(found))
    assert set(ids(found)) < set(ids(read(many(tmp_path, 6, limit=3))))
    assert ids(read(many(tmp_path, 6, limit=7))) == ["5", "4", "3", "2", "1", "0"]


def test_limit_takes_of_every_class_in_proportion(tmp_path):
    for label in range(6):
        for i in range(20):
            picture(tmp_path / f"class{label}" / f"{i:02d}.png")
    entry = {"format": "image_folder", "images": str(tmp_path)}
    counts = read(entry | {"limit": 40}).images["label"].value_counts()
    assert len(counts) == 6
    assert counts.between(5, 8).all()
    few = read(entry | {"limit": 4})
    assert few.left_out == {"classes of which no image is chosen": 2}


def test_sample_is_random_by_seed_and_keeps_the_order(tmp_path):
    drawn = [[int(i) for i in ids(read(many(tmp_path, 12, sample=5, seed=seed)))] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(one == sorted(set(one), reverse=True) and len(one) == 5 for one in drawn)
    assert ids(read(many(tmp_path, 12, sample=5))) == [str(i) for i in drawn[0]]  # the seed is 0 unless given
    assert len(read(many(tmp_path, 12, sample=12)).images) == 12


def test_every_image_is_as_likely_to_be_sampled():
    images, counts = list(range(10)), np.zeros(10)
    for seed in range(500):
        counts[formats._choose(images, {"sample": 3, "seed": seed}, [])] += 1
    assert counts.sum() == 1500
    assert np.abs(counts - 150).max() < 4 * np.sqrt(500 * 0.3 * 0.7)  # four standard deviations


def test_sampled_vqa_keeps_all_questions_of_an_image(tmp_path):
    for seed in range(4):
        found = read(dataset(tmp_path, "vqav2", sample=1, seed=seed))
        assert found.questions["question_id"].tolist() == {"42": ["42000", "42001"], "7": ["7000"]}[ids(found)[0]]


def test_only_chosen_images_need_to_exist(tmp_path):
    entry = many(tmp_path, 4, limit=1)
    (tmp_path / "images" / "00.png").unlink()
    assert ids(read(entry)) == ["3"]


def test_a_sample_larger_than_the_dataset_is_an_error(tmp_path):
    assert "sample: 9 images were asked for, and there are 4; take fewer or all" in fault(many(tmp_path, 4, sample=9))


# Faults


def edited(form, *edits, key="annotations"):
    """The good annotations with edits: (path of keys and indices, new value); a value DELETE removes, ADD appends."""
    content = copy.deepcopy(CONTENT[form])
    for path, value in edits:
        place = content[key]
        for step in path[:-1]:
            place = place[step]
        if value is DELETE:
            del place[path[-1]]
        else:
            place[path[-1]] = value
    return content


DELETE = object()
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


def test_an_image_that_is_a_link_is_read_and_a_path_that_climbs_is_not(tmp_path):
    entry = dataset(tmp_path, "coco")
    path = tmp_path / "images" / FILES["coco"][0]
    path.rename(tmp_path / "elsewhere.jpg")
    path.symlink_to(tmp_path / "elsewhere.jpg")
    assert len(read(entry).images) == 3
    content = edited("coco", (("images", 0, "file_name"), "../elsewhere.jpg"))
    text = fault(dataset(tmp_path, "coco", content))
    assert "elsewhere.jpg: leaves the folder" in text


def test_images_are_known_by_suffix_or_first_bytes_and_all_else_is_counted(tmp_path):
    for name in ("a.jfif", "b.JPE", "c.tif", "d", "e.download", "f.png"):
        picture(tmp_path / name)
    names = (".DS_Store", "Thumbs.db", "._a.jpg", ".hidden.jpg", "notes.txt", "more.TXT", "README")
    for name in names:
        (tmp_path / name).write_text("no image")
    (tmp_path / "@eaDir").mkdir()
    found = read({"format": "image_folder", "images": str(tmp_path)})
    assert ids(found) == ["a.jfif", "b.JPE", "c.tif", "d", "e.download", "f.png"]
    assert found.left_out == {".txt files": 2, "files without suffix": 1, "hidden files": 1}


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.heic", b"x", "HEIC"),
        ("a.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),  # as telephones export them
        ("a", b"\xff\x0a\0\0", "JPEG XL"),
        ("a.svg", b'<?xml version="1.0"?>\n<!-- x -->\n<svg xmlns="x"/>', "SVG"),
        ("b", b"\xef\xbb\xbf <svg width='4'/>", "SVG"),
        ("a.tif", b"II*\0\x10\0\0\0CR\2\0", "a camera's raw format"),
        ("a.psd", b"8BPS\0\1", "Photoshop's format"),
        ("a.jp2", b"\0\0\0\x0cjP  \r\n", "JPEG 2000"),
        ("a.DNG", b"II*\0\x08\0\0\0", "a camera's raw format"),
        ("a.cr3", b"\0\0\0\x18ftypcrx \0\0\0\1", "a camera's raw format"),
    ],
)
def test_an_image_that_cannot_be_read_is_refused_by_name(name, content, kind, tmp_path):
    picture(tmp_path / "good.png")
    (tmp_path / name).write_bytes(content)
    text = fault({"format": "image_folder", "images": str(tmp_path)})
    assert f"{tmp_path}/{name}: is {kind}, which is not read. Convert it to PNG or JPEG, or move it away." in text


@pytest.mark.parametrize(("name", "kind"), [("p.heic", "HEIC"), ("p.jp2", "JPEG 2000"), ("p.dng", "a camera's raw")])
def test_a_jpeg_under_the_name_of_a_format_that_is_not_read_is_refused_by_name(name, kind, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / name, "JPEG")
    text = fault({"format": "image_folder", "images": str(tmp_path)})
    assert f"{name}: is named as {kind}" in text
    assert "which is not read, but holds another format. Rename it by what it holds, or convert it" in text


def test_an_avif_that_names_another_brand_first_is_read(tmp_path):
    file = tmp_path / "a"
    Image.new("RGB", (8, 8)).save(file, "AVIF")
    content = file.read_bytes()
    file.write_bytes(content[:8] + b"mif1" + content[12:])
    assert ids(read({"format": "image_folder", "images": str(tmp_path)})) == ["a"]


CAFE = [unicodedata.normalize(form, "café/né.jpg") for form in ("NFC", "NFD")]


@pytest.mark.parametrize("disk", [0, 1])
def test_a_name_in_another_unicode_form_is_the_same_name(disk, tmp_path):
    content = edited("coco", (("images", 0, "file_name"), CAFE[1 - disk]))
    entry = dataset(tmp_path, "coco", content)
    picture(tmp_path / "images" / CAFE[disk], width=7)
    found = read(entry)
    assert found.images["path"][0] == f"{tmp_path}/images/{CAFE[disk]}"
    assert found.images["width"].tolist() == [7, 4, 4]


def test_names_that_differ_in_form_alone_are_never_mixed_up(tmp_path):
    content = edited("coco", *((("images", i, "file_name"), CAFE[i]) for i in range(2)))
    entry = dataset(tmp_path, "coco", content)
    picture(tmp_path / "images" / CAFE[1], width=9)
    assert re.search("images.0.: image 9: .*does not exist.* There is 'cafe.*spelt otherwise", fault(entry))
    assert "does not exist" in fault(entry | {"limit": 1})  # whether the other is chosen or not
    picture(tmp_path / "images" / CAFE[0], width=7)
    assert read(entry).images["width"].tolist() == [7, 9, 4]


def test_a_name_in_other_letters_is_refused_with_the_one_that_is_there(tmp_path):
    content = edited("coco", (("images", 0, "file_name"), "SUB/A.JPG"))
    entry = dataset(tmp_path, "coco", content)
    picture(tmp_path / "images" / "sub" / "a.jpg")
    assert "SUB/A.JPG: does not exist" in fault(entry)
    assert "There is 'sub/a.jpg', spelt otherwise: give it or its entry the other's name." in fault(entry)
    picture(tmp_path / "images" / "sub" / "A.jpg")
    assert "There is" not in fault(entry)  # which of the two?


def test_a_mask_in_another_unicode_form_is_found(tmp_path):
    content = {A: {CAFE[0].replace("/", "-"): VIZWIZ["VizWiz_val_00000008.jpg"]}}
    entry = dataset(tmp_path, "vizwiz_grounding", content)
    picture(tmp_path / "images" / CAFE[0].replace("/", "-"))
    file = tmp_path / "masks" / CAFE[1].replace("/", "-").replace(".jpg", ".png")
    mask(file)
    assert read(entry).questions["mask_path"].tolist() == [str(file)]


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
