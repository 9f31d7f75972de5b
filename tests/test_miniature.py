"""The miniature datasets: repeatable, of the right digits, in the published formats."""

import csv
import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from lossmap.errors import LossmapError
from lossmap.miniature import datasets as miniature
from lossmap.miniature.datasets import IMAGES, answer_mask, write_miniature
from lossmap.miniature.files import ANNOTATIONS, FOLDERS, paths_in
from lossmap.miniature.scenes import digit_pool, draw_scene

N = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("miniature")
    write_miniature(path, 3, {**dict.fromkeys(IMAGES, N), "vizwiz": 40})
    return path


def digests(path: Path) -> dict[str, str]:
    return {
        str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(path.rglob("*"))
        if p.is_file()
    }


def load(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_file_and_folder_that_is_promised_is_there_and_nothing_else(folder):
    promised = paths_in(ANNOTATIONS, str(folder)) + paths_in(FOLDERS, str(folder))
    assert all(Path(path).exists() for path in promised)
    assert {p.name for p in folder.iterdir()} == set(IMAGES)
    loose = {
        p
        for p in folder.rglob("*")
        if p.is_file() and not any(p.is_relative_to(f) for f in paths_in(FOLDERS, str(folder)))
    }
    assert loose == {Path(path) for path in paths_in(ANNOTATIONS, str(folder))}


def test_one_seed_writes_the_same_bytes_and_another_seed_others(folder, tmp_path):
    write_miniature(tmp_path / "a", 3, {"seedbench": N, "cub": N})
    write_miniature(tmp_path / "b", 4, {"seedbench": N})
    assert digests(tmp_path / "a/seedbench") == digests(folder / "seedbench")
    assert digests(tmp_path / "a/cub") == digests(folder / "cub")
    assert not set(digests(tmp_path / "b").values()) & set(digests(folder / "seedbench").values())


def test_only_the_training_images_show_training_digits(tmp_path, monkeypatch):
    drawn = {}

    def noted(rng, pool, **options):
        drawn.setdefault(current, set()).update(pool.tolist())
        return draw_scene(rng, pool, **options)

    monkeypatch.setattr(miniature, "draw_scene", noted)
    for current in IMAGES:
        write_miniature(tmp_path, 0, {current: 4})
    training, held_out = set(digit_pool("training").tolist()), set(digit_pool("held-out").tolist())
    assert drawn["coco-train"] == training
    assert all(drawn[name] <= held_out for name in IMAGES if name != "coco-train")


def test_a_dataset_that_is_there_is_replaced_whole(tmp_path):
    (tmp_path / "cub").mkdir()
    (tmp_path / "cub/old.txt").write_text("left over")
    (tmp_path / "other.txt").write_text("somebody else's")
    write_miniature(tmp_path, 0, {"cub": 8})
    assert not (tmp_path / "cub/old.txt").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"cub", "other.txt"}


def test_a_run_that_is_cut_short_leaves_no_dataset(tmp_path, monkeypatch):
    def broken(folder, n, rng):
        (folder / "half.txt").write_text("")
        raise KeyboardInterrupt

    monkeypatch.setitem(miniature._WRITERS, "cub", broken)
    with pytest.raises(KeyboardInterrupt):
        write_miniature(tmp_path, 0, {"cub": 8})
    assert not (tmp_path / "cub").exists()


def test_coco_captions(folder):
    content = load(folder / "coco-train/annotations/captions_train2017.json")
    assert len(content["images"]) == N
    for image in content["images"]:
        assert image["file_name"] == f"{image['id']:012d}.jpg"
        with Image.open(folder / "coco-train/train2017" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])
    per_image = Counter(a["image_id"] for a in content["annotations"])
    assert per_image == {image["id"]: 5 for image in content["images"]}
    assert len({a["id"] for a in content["annotations"]}) == 5 * N


@pytest.mark.parametrize(
    ("name", "file"), [("coco-karpathy", "dataset_coco.json"), ("flickr30k", "dataset_flickr30k.json")]
)
def test_karpathy_files(folder, name, file):
    images = load(folder / name / file)["images"]
    assert len(images) == N
    assert {image["split"] for image in images} == {"test"}
    assert [image["imgid"] for image in images] == list(range(N))
    for image in images:
        assert (folder / name / "images" / image.get("filepath", "") / image["filename"]).is_file()
        assert [s["sentid"] for s in image["sentences"]] == image["sentids"]
        assert all(s["tokens"] and s["raw"].endswith(".") and s["imgid"] == image["imgid"] for s in image["sentences"])
    if name == "coco-karpathy":
        assert all(image["filename"] == f"COCO_val2014_{image['cocoid']:012d}.jpg" for image in images)


def test_seedbench(folder):
    content = load(folder / "seedbench/SEED-Bench.json")
    questions = content["questions"]
    assert len(questions) == N * 3 // 2
    assert len({q["question_id"] for q in questions}) == len(questions)
    assert max(Counter(q["answer"] for q in questions).values()) == N * 3 // 8
    assert {q["question_type_id"] for q in questions} == set(content["question_type"].values()) == set(range(1, 10))
    assert {q["data_id"] for q in questions} == {p.name for p in (folder / "seedbench/images").iterdir()}
    for q in questions:
        assert q["data_type"] == "image"
        assert len({q[f"choice_{letter}"] for letter in "abcd"}) == 4


def test_vizwiz_masks_fit_the_pictures_as_they_are_seen(folder):
    entries = load(folder / "vizwiz/val_grounding.json")
    assert len(entries) == 40
    turned = 0
    for name, entry in entries.items():
        assert len(entry["answers"]) == 10
        assert entry["most_common_answer"] in entry["answers"]
        with Image.open(folder / "vizwiz/val" / name) as stored:
            orientation = stored.getexif().get(0x0112, 1)
            seen = np.asarray(ImageOps.exif_transpose(stored)).astype(int)
        with Image.open(folder / "vizwiz/binary_masks_png/val" / name.replace(".jpg", ".png")) as picture:
            mask = np.asarray(picture)
        assert mask.shape == seen.shape[:2] == (entry["height"], entry["width"])
        assert set(np.unique(mask)) == {0, 255}
        # Ink is brighter than the background: the mask lies on it only if the picture is turned as the mask is.
        lit = seen.max(2)
        assert lit[mask > 0].mean() > 1.5 * np.median(lit)
        for corner in entry["answer_grounding"]:
            assert 0 <= corner["x"] < entry["width"]
            assert 0 <= corner["y"] < entry["height"]
        turned += orientation in (3, 6, 8)
    assert 0 < turned < 12


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_turned_picture_is_seen_upright_again(tmp_path, orientation):
    scene = draw_scene(np.random.default_rng(0), digit_pool("held-out"), shape=(84, 112))
    miniature._save(tmp_path / "a.jpg", scene.image, orientation)
    with Image.open(tmp_path / "a.jpg") as stored:
        assert stored.size == ((84, 112) if orientation in (6, 8) else (112, 84))
        seen = np.asarray(ImageOps.exif_transpose(stored)).astype(int)
    assert np.abs(seen - scene.image).mean() < 4  # JPEG loses a little


def test_a_mask_is_the_visible_ink_of_the_digits_asked_about_and_of_no_other():
    for i in range(30):
        scene = draw_scene(np.random.default_rng(i), digit_pool("held-out"), n_digits=3)
        mask = answer_mask(scene, (0, 2))
        assert (mask == (scene.masks[0] | scene.masks[2])).all()
        assert not (mask & scene.masks[1]).any()


def test_vqav2(folder):
    asked = load(folder / "vqav2/v2_OpenEnded_mscoco_val2014_questions.json")["questions"]
    said = load(folder / "vqav2/v2_mscoco_val2014_annotations.json")["annotations"]
    assert [q["question_id"] for q in asked] == [a["question_id"] for a in said]
    assert len({q["question_id"] for q in asked}) == 2 * N
    for question, annotation in zip(asked, said, strict=True):
        assert question["image_id"] == annotation["image_id"]
        assert (folder / f"vqav2/val2014/COCO_val2014_{question['image_id']:012d}.jpg").is_file()
        answers = [a["answer"] for a in annotation["answers"]]
        assert len(answers) == 10
        assert Counter(answers)[annotation["multiple_choice_answer"]] == max(Counter(answers).values())
        assert [a["answer_id"] for a in annotation["answers"]] == list(range(1, 11))


def rows(path):
    with open(path) as file:
        return list(csv.reader(file, delimiter=" "))


def test_cub(folder):
    images, labels, split, classes, boxes = (
        rows(folder / "cub" / f"{name}.txt")
        for name in ("images", "image_class_labels", "train_test_split", "classes", "bounding_boxes")
    )
    ids = [str(i + 1) for i in range(N)]
    assert all([row[0] for row in table] == ids for table in (images, labels, split, boxes))
    names = dict(classes)
    testing = Counter()
    for (_, name), (_, label), (_, training), (_, *box) in zip(images, labels, split, boxes, strict=True):
        assert name.split("/")[0] == names[label]
        testing[label] += training == "0"
        with Image.open(folder / "cub/images" / name) as picture:
            x, y, w, h = map(float, box)
            assert x + w <= picture.width
            assert y + h <= picture.height
    assert set(testing) == set(names)
    assert min(testing.values()) >= 2


def test_cub_has_twenty_classes_when_there_are_images_for_them(tmp_path):
    write_miniature(tmp_path, 0, {"cub": 100})
    assert len(rows(tmp_path / "cub/classes.txt")) == 20
    assert set(Counter(label for _, label in rows(tmp_path / "cub/image_class_labels.txt")).values()) == {5}


def test_foodieqa(folder):
    entries = load(folder / "foodieqa/sivqa_tidy.json")
    assert len(entries) == N
    assert Counter(e["answer"] for e in entries) == {str(i): N // 4 for i in range(4)}
    for entry in entries:
        assert len(set(entry["choices_en"])) == len(set(entry["choices"])) == 4
        assert entry["choices_en"][int(entry["answer"])] in entry["food_meta"]["food_name"]
        assert (folder / "foodieqa" / entry["food_meta"]["food_file"]).is_file()


def test_unknown_names_and_numbers_are_listed_together(tmp_path):
    with pytest.raises(LossmapError, match=r"(?s)imagenet: no such dataset.*cub: 2 images, at least 4"):
        write_miniature(tmp_path, 0, {"imagenet": 5, "cub": 2})
    assert not list(tmp_path.iterdir())
