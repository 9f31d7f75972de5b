"""Tiny datasets of every published format, written by hand."""

import copy
import json
from pathlib import Path

import pytest
from PIL import Image

from lossmap.data.formats import read
from lossmap.data.sources import FORMATS
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
