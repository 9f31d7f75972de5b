"""Which images of a dataset are taken: limit, sample, and what is not looked at."""

import json

import numpy as np
from tiny_datasets import dataset, fault, ids, picture

from lossmap.data import formats
from lossmap.data.formats import read, spread


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
