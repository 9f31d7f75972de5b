"""`lossmap init`: a study of someone's own images that passes every check, with settings that fit their number."""

import os

import numpy as np
import pytest
import yaml
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image

from lossmap.__main__ import main
from lossmap.study.checks import check_annotations
from lossmap.study.derived import view_of
from lossmap.study.own_study import LIMIT, name_of, neighbours_of
from lossmap.study.reading import read_study
from lossmap.study.settings import check_study

LLAVA = "workflow/zoo/llava"
HUB = {  # of the paper; their configurations are shipped
    "llava-hf/llava-1.5-7b-hf": "b234b804b114d9e37bb655e11cbbb5f5e971b7a9",
    "Qwen/Qwen2.5-VL-7B-Instruct": "cc594898137f460bfe9f0759e9844b3ce807cfb5",
    "HuggingFaceM4/idefics2-8b": "2c42686c57fe21cf0348c9ce1077d094b72e7698",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def photos(folder, number, classes=1):
    """Files with the names of images: nothing opens them before a run."""
    for i in range(number):
        inner = folder / f"class {i % classes}" if classes > 1 else folder
        inner.mkdir(parents=True, exist_ok=True)
        (inner / f"{i:05d}.jpg").touch()


def init(*arguments, study="mine.yaml", model=LLAVA, images="photos"):
    return main(["init", study, "--model", model, "--images", images, *arguments])


def written(path="mine.yaml"):
    """What was written, and the same with all defaults, after the checks of a run."""
    content = read_study(path)
    checked = check_study(content)
    check_annotations(checked)
    return content, checked


def refused(capsys, *arguments, **more):
    """The fault, of a study that is not written."""
    before = sorted(os.listdir())
    assert init(*arguments, **more) == 1
    assert sorted(os.listdir()) == before
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "k", "recall"), [(4, [1], [1]), (30, [7], [1, 5]), (60, [10], [1, 5]), (400, [10, 50, 100], [1, 5])]
)
def test_a_study_fits_the_number_of_images(here, number, k, recall):
    photos(here / "photos", number, classes=2)
    assert init() == 0
    content, checked = written()
    assert content["datasets"] == {"photos": {"format": "image_folder", "images": "photos"}}
    assert content["models"] == {"llava": {"checkpoint": LLAVA}}
    assert content["overlap"]["k"] == content["geometry"]["k"] == k
    assert content["retrieval"] == {"datasets": ["photos"], "recall": recall}
    assert "reconstruction" not in content
    assert checked["retrieval"]["overlap_k"] == max(k)


@pytest.mark.parametrize("images", [*range(4, 60), 100, 399, 400, 5000])
def test_chance_is_never_far_above_a_quarter(images):
    assert all(1 <= k < images for k in neighbours_of(images))
    assert max(neighbours_of(images)) / (images - 1) <= 1 / 3


def test_of_a_large_folder_a_part_is_chosen_and_the_file_says_so(here):
    photos(here / "photos", LIMIT + 7)
    assert init() == 0
    content, _ = written()
    assert content["datasets"]["photos"]["limit"] == LIMIT
    assert f"# spread evenly over {LIMIT + 7:,} images" in (here / "mine.yaml").read_text()


@pytest.mark.parametrize("classes", [1, 20])  # 20: every image is alone in its class
def test_without_classes_there_is_no_retrieval(here, classes):
    photos(here / "photos", 20, classes)
    assert init() == 0
    assert "retrieval" not in written()[0]


def test_other_images_train_reconstructors(here):
    photos(here / "a/photos", 20)
    photos(here / "b/photos", 30)
    assert init("--train", "b/photos", "--name", "two", images="a/photos") == 0
    content, _ = written()
    assert content["study"] == "two"
    assert content["reconstruction"] == {"train": "photos-train", "evaluate": ["photos"]}
    assert content["datasets"]["photos-train"]["images"] == "b/photos"


def test_without_other_images_the_file_says_what_to_add(here):
    """The comment's own lines, uncommented, make the study that --train writes."""
    photos(here / "photos", 20)
    photos(here / "FOLDER", 30)
    assert init() == 0
    text = (here / "mine.yaml").read_text()
    entry, section = (
        line[2:] for line in text.splitlines() if line.startswith(("#   photos-train", "# reconstruction"))
    )
    text = text.replace("\ndatasets:\n", f"\ndatasets:\n{entry}\n") + section + "\n"
    (here / "more.yaml").write_text(text)
    content, _ = written("more.yaml")
    assert content["reconstruction"] == {"train": "photos-train", "evaluate": ["photos"]}


def test_the_folder_that_trains_is_another_one(here, capsys):
    photos(here / "photos", 20)
    assert "--train: ./photos is the folder of --images, too" in refused(capsys, "--train", "./photos")


@pytest.mark.parametrize("hub_id", HUB)
def test_a_hub_model_sees_images_as_its_own_processor_shows_them(here, hub_id):
    revision = HUB[hub_id]
    photos(here / "photos", 20)
    assert init("--revision", revision, model=hub_id) == 0
    content, study = written()
    assert content["models"] == {hub_id.partition("/")[2]: {"checkpoint": hub_id, "revision": revision}}
    assert [view_of(model) for model in study["models"].values()] == ["processor"]


def test_names_of_any_path_become_names_of_results(here):
    photos(here / "my phötos, (2): new #1", 20)
    assert init(study="my stüdy.yaml", images="my phötos, (2): new #1/") == 0
    content, _ = written("my stüdy.yaml")
    assert content["study"] == "my-st-dy"
    assert content["datasets"] == {"my-ph-tos-2-new-1": {"format": "image_folder", "images": "my phötos, (2): new #1/"}}
    assert name_of("/data/фото", "photos") == "photos"


def test_the_next_two_commands_are_printed(here, capsys):
    photos(here / "photos", 20)
    assert init(study="my study.yaml") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "20 images" in lines[0]
    assert lines[1] == "  lossmap plan --configfile 'my study.yaml'"
    assert lines[2].startswith("  lossmap run --cores ")
    assert lines[2].endswith(" --configfile 'my study.yaml'")


def test_an_existing_file_is_never_replaced(here, capsys):
    photos(here / "photos", 20)
    (here / "mine.yaml").write_text("study: precious\n")
    assert "mine.yaml: is there already" in refused(capsys)
    assert (here / "mine.yaml").read_text() == "study: precious\n"


def test_what_is_no_folder_of_images_is_refused(here, capsys):
    assert "--images: photos does not exist" in refused(capsys)
    photos(here / "photos", 3)
    assert "--images: photos holds 3 images; a study needs 4 at least" in refused(capsys)
    assert "0.jpg is a file; give a folder of images" in refused(capsys, images="photos/00000.jpg")
    photos(here / "photos", 20, classes=2)
    assert "holds both images (00000.jpg, ...) and sub-folders" in refused(capsys)
    (here / "texts").mkdir()
    (here / "texts/a.txt").touch()
    assert "texts: holds no image; it leaves out 1 .txt files" in refused(capsys, images="texts")


def test_what_is_no_model_is_refused(here, capsys, monkeypatch):
    photos(here / "photos", 20)
    assert "photos: has no config.json" in refused(capsys, model="photos")
    assert "/nowhere/llava is no folder, and no hub id" in refused(capsys, model="/nowhere/llava")
    assert "as a hub id it needs --revision: a 40-digit commit hash" in refused(
        capsys, model="llava-hf/llava-1.5-7b-hf"
    )
    assert "has the revision 'main'" in refused(capsys, "--revision", "main", model="llava-hf/llava-1.5-7b-hf")

    def no_hub(*arguments, **more):
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", no_hub)
    assert "the hub could not be reached" in refused(capsys, "--revision", "0" * 40, model="someone/some-model")
    assert "revision means nothing to a folder" in refused(capsys, "--revision", "0" * 40)


def test_what_can_not_be_written_is_refused(here, capsys):
    photos(here / "photos", 20)
    assert "nowhere/mine.yaml: its folder does not exist" in refused(capsys, study="nowhere/mine.yaml")
    assert "'zoo' is taken" in refused(capsys, study="zoo.yaml")
    assert "is no name of a file" in refused(capsys, "--name", "a/b")
    (here / "phot{o}s").symlink_to("photos")
    assert "which Snakemake takes for a wildcard" in refused(capsys, images="phot{o}s")


def test_the_plan_of_a_written_study_can_be_had(here, capsys):
    rng = np.random.default_rng(0)
    (here / "photos").mkdir()
    for i in range(12):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(here / f"photos/{i}.png")
    assert init() == 0
    capsys.readouterr()
    assert main(["plan", "--configfile", "mine.yaml"]) == 0
    assert "photos" in capsys.readouterr().out


def test_every_section_of_the_file_is_a_key_of_a_study(here):
    """So that a renamed key is noticed here, too; `check_study` refuses unknown ones."""
    photos(here / "photos", 20, classes=2)
    photos(here / "other", 20)
    assert init("--train", "other") == 0
    assert list(yaml.safe_load((here / "mine.yaml").read_text())) == [
        *("study", "models", "datasets", "extraction", "overlap", "retrieval", "geometry", "galleries"),
        "reconstruction",
    ]
