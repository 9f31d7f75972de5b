"""No image may train a reconstructor and be measured with it; copies that were encoded anew or resized are named."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images
from specs import checked

from lossmap.data.formats import read
from lossmap.errors import LossmapError
from lossmap.study.steps import check_training_images, read_dataset

PHOTOGRAPHS = [Image.fromarray(pixels) for pixels in load_sample_images().images]


def crops(count, seed=0):
    """Pieces of photographs that show different things."""
    rng = np.random.default_rng(seed)
    corners = rng.permutation([(p, x, y) for p in range(2) for x in range(0, 480, 96) for y in range(0, 300, 72)])
    return [PHOTOGRAPHS[p].crop((x, y, x + 96, y + 72)) for p, x, y in corners[:count]]


def dataset(folder, name, images, saved="PNG", **options):
    """Read a folder of these images. Returns its images.parquet; image i is `name`-i."""
    source, out = folder / "photos" / name, folder / name
    source.mkdir(parents=True)
    for i, image in enumerate(images):
        image.save(source / f"{name}-{i:02d}", saved, **options)
    tables = {key: out / f"{key}.parquet" for key in ("images", "captions", "questions", "thumbnails")}
    spec = {"format": "image_folder", "images": str(source)}
    read_dataset.run(
        **tables, summary=out / "manifest.json", digests=out / "images.sha256", spec=checked("read_dataset", spec)
    )
    return tables["images"]


def check(folder, training, *evaluated):
    """What the step writes: counts and near-copies."""
    out = {"counts": folder / "counts.json", "near_copies": folder / "near_copies.parquet"}
    check_training_images.run(training=training, evaluated=list(evaluated), **out)
    return json.loads(out["counts"].read_text()), pd.read_parquet(out["near_copies"])


def test_separate_images_are_counted(tmp_path):
    train, test, vizwiz = crops(10)[:5], crops(10)[5:8], crops(10)[8:]
    training = dataset(tmp_path, "train", train)
    counts, found = check(tmp_path, training, dataset(tmp_path, "test", test), dataset(tmp_path, "vizwiz", vizwiz))
    assert counts["images"] == {"training": 5, "test": 3, "vizwiz": 2}
    assert counts["near_copies"] == {"test": 0, "vizwiz": 0}
    assert found.columns.tolist() == ["dataset", "image_id", "training_image_id", "share"]
    assert len(found) == 0


def turned(image):
    exif = Image.Exif()
    exif[0x0112] = 6
    return image.transpose(Image.Transpose.ROTATE_90), exif


@pytest.mark.parametrize("how", ["other name", "other format", "metadata", "turned by EXIF"])
def test_the_same_pixels_are_an_error_whatever_the_file(how, tmp_path):
    images, other = crops(9)[:8], crops(9)[8]
    training = dataset(tmp_path, "train", images)
    match how:
        case "other name":
            test = dataset(tmp_path, "test", [other, images[3], images[0]])
        case "other format":
            test = dataset(tmp_path, "test", [other, images[3], images[0]], "WEBP", lossless=True)
        case "metadata":
            test = dataset(tmp_path, "test", [other, images[3], images[0]], dpi=(9, 9))
        case "turned by EXIF":
            test = dataset(tmp_path, "test", [turned(images[i])[0] for i in (5, 3)], exif=turned(other)[1])
    count = "2 of 2 images, the first is test-00" if how == "turned by EXIF" else "2 of 3 images, the first is test-01"
    with pytest.raises(LossmapError, match=f"Images of train.*equal pixels.:\n.*test: {count}") as caught:
        check(tmp_path, training, test, dataset(tmp_path, "vizwiz", [other.rotate(180)]))
    assert "vizwiz" not in str(caught.value)
    assert not (tmp_path / "counts.json").exists()


@pytest.mark.parametrize(
    ("size", "options"),
    [
        *[((96, 72), {"quality": quality}) for quality in (30, 60, 95)],
        *[(size, {"quality": 80}) for size in ((48, 36), (72, 54), (144, 108), (192, 144))],
    ],
)
def test_copies_that_were_encoded_anew_or_resized_are_named(size, options, tmp_path, capfd):
    """Ten copies among other pieces of the same photographs: all are found, with what each is of; no other."""
    images, others = crops(30)[:20], crops(30)[20:]
    training = dataset(tmp_path, "train", images)
    copies = [image.resize(size, Image.Resampling.BICUBIC) for image in images[:10]]
    counts, found = check(tmp_path, training, dataset(tmp_path, "test", [*copies, *others], "JPEG", **options))
    assert counts["near_copies"] == {"test": 10}
    assert found["image_id"].tolist() == [f"test-{i:02d}" for i in range(10)]
    assert found["training_image_id"].tolist() == [f"train-{i:02d}" for i in range(10)]
    assert found["share"].between(0, 0.5).all()
    note = "test: 10 of 20 images are near-copies of images of train, which train the reconstructors"
    shown = capfd.readouterr()
    assert note in shown.out
    assert note in shown.err


def test_images_that_only_look_alike_from_afar_are_no_copies(tmp_path):
    """Pages of text have one thumbnail; each is another page."""
    rng = np.random.default_rng(0)
    pages = [Image.fromarray(np.where(rng.random((96, 96)) < 0.1, 0, 255).astype(np.uint8)) for _ in range(6)]
    training, test = dataset(tmp_path, "train", pages[:3]), dataset(tmp_path, "test", pages[3:])
    _, found = check(tmp_path, training, test)
    assert len(found) == 0
    _, found = check(tmp_path, training, dataset(tmp_path, "again", pages[:3], "JPEG", quality=90))
    assert len(found) == 3


def test_equal_images_are_counted_and_said(tmp_path, capfd):
    image, other = crops(2)
    source = tmp_path / "photos"
    source.mkdir()
    for name, picture in (("a.png", image), ("b.bmp", image), ("c.png", other), ("d.png", image)):
        picture.save(source / name)
    (source / "notes.txt").write_text("x")
    manifest = read({"format": "image_folder", "images": str(source)})
    assert manifest.summary()["equal_images"] == 2
    assert manifest.summary()["equal_groups"] == [["a.png", "b.bmp", "d.png"]]
    assert manifest.notes() == [
        "1 .txt files left out",
        "2 of 4 images equal an earlier one, pixel by pixel: a.png = b.bmp",
    ]


def test_equal_images_of_two_classes_are_named(tmp_path):
    image, other = crops(2)
    for name, picture in (("cat/1.png", image), ("cat/2.png", image), ("dog/3.png", image), ("dog/4.png", other)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture.save(tmp_path / name)
    assert read({"format": "image_folder", "images": str(tmp_path)}).notes() == [
        "2 of 4 images equal an earlier one, pixel by pixel: cat/1.png = cat/2.png",
        "of another class than the image that they equal: 1 of these, cat/1.png = dog/3.png; where equal images are "
        "dropped, the first one's class counts",
    ]
