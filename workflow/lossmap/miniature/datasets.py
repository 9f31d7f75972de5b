"""Nine small datasets of digit scenes, each written exactly in the format in which the large one is published.

All but the training images show held-out digits only. One seed, the same bytes. Each dataset is written under a
temporary name and then renamed: a run that is killed leaves nothing that looks whole.
"""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from lossmap.errors import LossmapError
from lossmap.miniature import language
from lossmap.miniature.files import ANNOTATIONS
from lossmap.miniature.scenes import NUMBERS, Scene, digit_pool, draw_scene

IMAGES = {  # how many images each has, unless told otherwise
    "coco-train": 2000,
    "coco-karpathy": 400,
    "flickr30k": 300,
    "seedbench": 400,
    "vizwiz": 400,
    "vqav2": 400,
    "cub": 600,
    "foodieqa": 200,
    "vqav2-train": 1200,
}
INKS = {"Warm": ("red", "orange", "yellow", "purple"), "Cool": ("green", "blue", "cyan", "white")}

_TURNED = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}  # EXIF orientation
_CHINESE_PLACES = dict(
    zip(("top left", "top right", "bottom left", "bottom right"), ["左上", "右上", "左下", "右下"], strict=True)
)


def _save(path: Path, image: np.ndarray, orientation: int = 1) -> None:
    """Write a JPEG. With an orientation of 3, 6 or 8 the pixels are stored turned, and the EXIF tag says how to turn
    them back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture, exif = Image.fromarray(image), Image.Exif()
    if orientation in _TURNED:
        picture = picture.transpose(_TURNED[orientation])
        exif[0x0112] = orientation
    picture.save(path, "JPEG", quality=93, subsampling=0, exif=exif)


def _orientation(rng: np.random.Generator) -> int:
    """The EXIF orientation of a photograph: one in twelve was taken with the camera turned."""
    return int(rng.choice([3, 6, 8])) if rng.random() < 0.08 else 1


def _write_json(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def _ids(rng: np.random.Generator, n: int, top: int) -> list[int]:
    """n different numbers below `top`, ascending."""
    return sorted((rng.choice(top - 1, n, replace=False) + 1).tolist())


def _answerable(scene: Scene, rng: np.random.Generator) -> language.Question:
    """An open question about a scene that has an answer in it."""
    while True:
        question = language.ask(scene, rng)
        if question.digits:
            return question


def answer_mask(scene: Scene, digits: tuple[int, ...]) -> np.ndarray:
    """(height, width) bool: the visible ink of these digits of a scene."""
    return np.any(scene.masks[list(digits)], axis=0)


def _coco_train(folder: Path, n: int, rng: np.random.Generator) -> None:
    pool, images, annotations = digit_pool("training"), [], list[dict]()
    for image_id in _ids(rng, n, 581_930):
        scene = draw_scene(rng, pool)
        name = f"{image_id:012d}.jpg"
        _save(folder / "train2017" / name, scene.image)
        height, width = scene.image.shape[:2]
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        for caption in language.captions(scene, rng):
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, "caption": caption})
    content = {"info": {"description": "Scenes of handwritten digits in the format of COCO 2017"}}
    _write_json(
        folder / "annotations/captions_train2017.json", {**content, "images": images, "annotations": annotations}
    )


def _sentences(scene: Scene, rng: np.random.Generator, image: int) -> dict:
    """The caption fields of one image of a Karpathy file; `image` counts from 0."""
    raws = language.captions(scene, rng)
    sentids = list(range(image * len(raws), (image + 1) * len(raws)))
    sentences = [
        {"tokens": re.findall(r"\w+", raw.lower()), "raw": raw, "imgid": image, "sentid": sentid}
        for raw, sentid in zip(raws, sentids, strict=True)
    ]
    return {"imgid": image, "split": "test", "sentids": sentids, "sentences": sentences}


def _coco_karpathy(folder: Path, n: int, rng: np.random.Generator) -> None:
    pool, images = digit_pool("held-out"), []
    for i, image_id in enumerate(_ids(rng, n, 581_930)):
        scene = draw_scene(rng, pool)
        name = f"COCO_val2014_{image_id:012d}.jpg"
        _save(folder / "images/val2014" / name, scene.image)
        images.append({"filepath": "val2014", "filename": name, "cocoid": image_id, **_sentences(scene, rng, i)})
    _write_json(folder / "dataset_coco.json", {"dataset": "coco", "images": images})


def _flickr30k(folder: Path, n: int, rng: np.random.Generator) -> None:
    pool, images = digit_pool("held-out"), []
    for i, number in enumerate(_ids(rng, n, 8_000_000_000)):
        scene = draw_scene(rng, pool)
        name = f"{number:010d}.jpg"
        _save(folder / "images" / name, scene.image, _orientation(rng))
        images.append({"filename": name, **_sentences(scene, rng, i)})
    _write_json(folder / "dataset_flickr30k.json", {"dataset": "flickr30k", "images": images})


def _seedbench(folder: Path, n: int, rng: np.random.Generator) -> None:
    """Three questions for every two images, the right letters and the categories as even as they can be."""
    pool, questions, asked = digit_pool("held-out"), list[dict](), Counter[int]()
    total = (3 * n + 1) // 2
    letters = rng.permutation(np.arange(total) % 4).tolist()
    for i, number in enumerate(_ids(rng, n, 10_000_000)):
        scene = draw_scene(rng, pool)
        data_id = f"{number}_{int(rng.integers(10**8, 10**10))}"
        _save(folder / "images" / data_id, scene.image, _orientation(rng))
        for _ in range(1 + (i % 2 == 0)):
            fits = language.categories_of(scene)
            category = min(rng.permutation(fits).tolist(), key=lambda c: asked[c])
            asked[category] += 1
            choice = language.ask_choice(scene, rng, category, letters[len(questions)])
            entry = {"answer": language.LETTERS[choice.answer]}
            for letter, option in zip("abcd", choice.options, strict=True):
                entry[f"choice_{letter}"] = option
            entry |= {"data_id": data_id, "data_type": "image", "question": choice.text}
            entry |= {"question_id": str(100_000 + len(questions)), "question_type_id": category}
            questions.append(entry)
    types = {name: number for number, name in language.CATEGORIES.items()}
    _write_json(folder / "SEED-Bench.json", {"questions": questions, "question_type": types})


def _vizwiz(folder: Path, n: int, rng: np.random.Generator) -> None:
    """Sizes, masks and grounding polygons are of the picture as it is seen, after its EXIF orientation is applied."""
    pool, entries = digit_pool("held-out"), {}
    (folder / "binary_masks_png/val").mkdir(parents=True)
    for number in _ids(rng, n, 40_000):
        scene = draw_scene(rng, pool)
        stem = f"VizWiz_val_{number:08d}"
        _save(folder / "val" / f"{stem}.jpg", scene.image, _orientation(rng))
        question = _answerable(scene, rng)
        mask = answer_mask(scene, question.digits)
        Image.fromarray(mask.astype(np.uint8) * 255).save(folder / f"binary_masks_png/val/{stem}.png")
        answers = language.ten_answers(question, rng)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        corners = ((0, 0), (-1, 0), (-1, -1), (0, -1))
        entries[f"{stem}.jpg"] = {
            "question": question.text,
            "answers": answers,
            "most_common_answer": Counter(answers).most_common(1)[0][0],
            "height": mask.shape[0],
            "width": mask.shape[1],
            "answer_grounding": [{"x": int(columns[x]), "y": int(rows[y])} for x, y in corners],
        }
    _write_json(folder / "val_grounding.json", entries)


def _vqav2(folder: Path, n: int, rng: np.random.Generator) -> None:
    """Two questions an image, some of which its scene does not answer."""
    _write_vqa(folder, n, rng, "val2014", ANNOTATIONS["vqav2"], 2)


def _vqav2_train(folder: Path, n: int, rng: np.random.Generator) -> None:
    """Eight questions an image: they cost a reader little, an image costs a model's pass. Of digits that no model has
    seen, as those that readers are asked about: else what they learn would not be of the same kind."""
    _write_vqa(folder, n, rng, "train2014", ANNOTATIONS["vqav2-train"], 8)


def _write_vqa(folder: Path, n: int, rng: np.random.Generator, subset: str, files: tuple[str, ...], asked: int) -> None:
    """So many questions about each of n images, in the two files of VQAv2. A question's type is what it asks for."""
    pool, questions, annotations = digit_pool("held-out"), [], []
    for image_id in _ids(rng, n, 581_930):
        scene = draw_scene(rng, pool)
        _save(folder / f"{subset}/COCO_{subset}_{image_id:012d}.jpg", scene.image)
        for k in range(asked):
            question, question_id = language.ask(scene, rng), image_id * 1000 + k
            answers = language.ten_answers(question, rng)
            questions.append({"image_id": image_id, "question": question.text, "question_id": question_id})
            annotations.append(
                {
                    "question_id": question_id,
                    "image_id": image_id,
                    "question_type": language.asks_for(question.text),
                    "answer_type": "number" if question.kind in ("count", "digit") else "other",
                    "multiple_choice_answer": Counter(answers).most_common(1)[0][0],
                    "answers": [
                        {
                            "answer": answer,
                            "answer_confidence": ("yes", "maybe", "no")[int(rng.choice(3, p=(0.8, 0.15, 0.05)))],
                            "answer_id": i + 1,
                        }
                        for i, answer in enumerate(answers)
                    ],
                }
            )
    said = {"data_type": "mscoco", "data_subtype": subset}
    _write_json(folder / files[0], {"task_type": "Open-Ended", **said, "questions": questions})
    _write_json(folder / files[1], {**said, "annotations": annotations})


def _cub(folder: Path, n: int, rng: np.random.Generator) -> None:
    """A digit in a family of inks is a class: up to 20, each of at least four images where there are that many; half
    of a class is for testing. One digit an image; its handwriting, ink, size, place and background vary."""
    classes = [(ink, label) for label in range(10) for ink in INKS][: max(1, min(20, n // 4))]
    names = [f"{i + 1:03d}.{ink}_{NUMBERS[label].capitalize()}" for i, (ink, label) in enumerate(classes)]
    listed: dict[str, list[str]] = {name: [] for name in ANNOTATIONS["cub"]}
    listed["classes.txt"] = [f"{i + 1} {name}" for i, name in enumerate(names)]
    serials = _ids(rng, n, 200_000)
    for i, k in enumerate(sorted(j % len(classes) for j in range(n))):
        ink, label = classes[k]
        scene = draw_scene(rng, digit_pool("held-out", (label,)), n_digits=1, colours=INKS[ink])
        number = sum(line.endswith(f" {k + 1}") for line in listed["image_class_labels.txt"]) + 1
        name = f"{names[k]}/{names[k][4:]}_{number:04d}_{serials[i]}.jpg"
        _save(folder / "images" / name, scene.image)
        listed["images.txt"].append(f"{i + 1} {name}")
        listed["image_class_labels.txt"].append(f"{i + 1} {k + 1}")
        listed["train_test_split.txt"].append(f"{i + 1} {number % 2}")
        box = " ".join(f"{value:.1f}" for value in scene.digits[0].box)
        listed["bounding_boxes.txt"].append(f"{i + 1} {box}")
    for name, lines in listed.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _foodieqa(folder: Path, n: int, rng: np.random.Generator) -> None:
    pool, entries = digit_pool("held-out"), []
    letters = rng.permutation(np.arange(n) % 4).tolist()
    for i, number in enumerate(_ids(rng, n, 20_000_000)):
        scene = draw_scene(rng, pool)
        file = f"images/{number}_{i}_IMG_{int(rng.integers(1, 10_000)):04d}.jpeg"
        _save(folder / file, scene.image, _orientation(rng))
        choice = language.ask_choice(scene, rng, 2 + i % 2, letters[i])
        place = next(chinese for english, chinese in _CHINESE_PLACES.items() if english in choice.text)
        asked = f"{place}角的数字是什么颜色?" if choice.category == 3 else f"{place}角的数字是几?"
        digit = scene.digits[choice.digits[0]]
        entries.append(
            {
                "question": asked,
                "choices": [_in_chinese(option) for option in choice.options],
                "answer": str(choice.answer),
                "question_id": str(i),
                "question_en": choice.text,
                "choices_en": list(choice.options),
                "food_meta": {"id": i, "food_name": f"{digit.colour} {digit.number}", "food_file": file},
            }
        )
    _write_json(folder / "sivqa_tidy.json", entries)


_CHINESE = dict(
    zip(
        (*NUMBERS, "red", "green", "blue", "yellow", "purple", "orange", "cyan", "white"),
        ["零", "一", "二", "三", "四", "五", "六", "七", "八", "九", "红", "绿", "蓝", "黄", "紫", "橙", "青", "白"],
        strict=True,
    )
)


def _in_chinese(word: str) -> str:
    return _CHINESE[word] + ("" if word in NUMBERS else "色")


_WRITERS: dict[str, Callable[[Path, int, np.random.Generator], None]] = {
    "coco-train": _coco_train,
    "coco-karpathy": _coco_karpathy,
    "flickr30k": _flickr30k,
    "seedbench": _seedbench,
    "vizwiz": _vizwiz,
    "vqav2": _vqav2,
    "cub": _cub,
    "foodieqa": _foodieqa,
    "vqav2-train": _vqav2_train,
}


def write_miniature(folder: Path, seed: int, images: dict[str, int] | None = None) -> None:
    """Write datasets of digit scenes into a folder, one sub-folder each.

    folder: made if it is missing; a dataset that is already there is replaced; nothing outside is touched. seed: the
    same one gives the same bytes. images: number of images (at least 4) by name of dataset, those of IMAGES if None;
    only the datasets named are written.
    Raises LossmapError for a name that is not in IMAGES and for a number below 4.
    """
    images = IMAGES if images is None else images
    wrong = [f"{name}: no such dataset; there are {', '.join(IMAGES)}" for name in images if name not in IMAGES]
    wrong += [
        f"{name}: {n!r} images, at least 4 are needed" for name, n in images.items() if not isinstance(n, int) or n < 4
    ]
    if wrong:
        raise LossmapError.listing("The miniature datasets cannot be written:", wrong, "Correct `images`.")
    for index, name in enumerate(IMAGES):
        if name not in images:
            continue
        target, partial = folder / name, folder / f".{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _WRITERS[name](partial, images[name], np.random.default_rng([seed, index]))
        if target.exists():
            shutil.rmtree(target)
        os.replace(partial, target)
