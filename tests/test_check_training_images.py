"""No image may train a reconstructor and be measured with it."""

import json

import pandas as pd
import pytest

from lossmap.errors import LossmapError
from lossmap.steps import check_training_images


def manifest(folder, name, digests):
    (folder / name).mkdir()
    rows = {"image_id": [f"{name}-{i}" for i in range(len(digests))], "sha256": digests}
    pd.DataFrame(rows).to_parquet(folder / name / "images.parquet")
    return folder / name / "images.parquet"


def test_separate_images_are_counted(tmp_path):
    training = manifest(tmp_path, "train", ["a", "b", "c"])
    evaluated = [manifest(tmp_path, "test", ["d"]), manifest(tmp_path, "vizwiz", ["e", "f"])]
    check_training_images.run(training=training, evaluated=evaluated, counts=tmp_path / "counts.json")
    assert json.loads((tmp_path / "counts.json").read_text())["images"] == {"training": 3, "test": 1, "vizwiz": 2}


def test_shared_images_are_an_error_whatever_they_are_called(tmp_path):
    training = manifest(tmp_path, "train", ["a", "b", "c"])
    evaluated = [manifest(tmp_path, "test", ["d", "c", "a"]), manifest(tmp_path, "vizwiz", ["e"])]
    with pytest.raises(LossmapError, match="Images of train.*\n.*test: 2 of 3 images, the first is test-1") as caught:
        check_training_images.run(training=training, evaluated=evaluated, counts=tmp_path / "counts.json")
    assert "vizwiz" not in str(caught.value)
    assert not (tmp_path / "counts.json").exists()
