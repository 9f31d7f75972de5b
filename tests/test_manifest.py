"""Manifest tables: fixed columns and types, the same bytes every time, nothing lost on the way to disk and back."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from specs import checked

from lossmap.data.manifest import SCHEMAS, Manifest, make_table, read_manifest, read_table, write_manifest
from lossmap.data.sources import CUB_FILES, FORMATS, check_entry, input_paths
from lossmap.errors import LossmapError
from lossmap.study.sources import is_made, sources_digest
from lossmap.study.steps import read_dataset

IMAGES = [("b", "x/b.jpg", "cat", 3, 2, "0" * 64, "a" * 64), ("a", "x/a.jpg", None, 5, 4, "1" * 64, "b" * 64)]
CAPTIONS = [("b", "Ein Vögelchen."), ("b", "鸟")]
QUESTIONS = [
    ("q1", "b", "What?", ["bird", ""], None, None, "other", "m/b.png"),
    ("q2", "a", "Which?", ["two"], ["one", "two"], 1, None, None),
]
DTYPES = {
    "images": ["str", "str", "str", "int64", "int64", "str", "str"],
    "captions": ["str", "str"],
    "questions": ["str", "str", "str", "object", "object", "Int64", "str", "str"],
}


def manifest(images=IMAGES, captions=CAPTIONS, questions=QUESTIONS):
    return Manifest(
        images=make_table("images", images),
        captions=make_table("captions", captions),
        questions=make_table("questions", questions),
        format="coco",
        left_out={"films": 3},
    )


def files(folder):
    return {name: folder / f"{name}.parquet" for name in SCHEMAS} | {"summary": folder / "manifest.json"}


def write(folder, **changes):
    write_manifest(manifest(**changes), **files(folder))
    return folder


@pytest.mark.parametrize("empty", [False, True])
def test_what_is_written_is_read(empty, tmp_path):
    made = manifest([], [], []) if empty else manifest()
    write_manifest(made, **files(tmp_path))
    read = read_manifest(tmp_path)
    for name in SCHEMAS:
        pd.testing.assert_frame_equal(getattr(read, name), getattr(made, name))
        assert [str(dtype) for dtype in getattr(made, name).dtypes] == DTYPES[name]
        assert list(getattr(made, name)) == SCHEMAS[name].names
    assert (read.format, read.left_out) == ("coco", {"films": 3})


def test_cells_are_plain_lists_and_missing_values(tmp_path):
    questions = read_manifest(write(tmp_path)).questions
    assert questions["answers"].tolist() == [["bird", ""], ["two"]]
    assert questions["options"].tolist() == [None, ["one", "two"]]
    assert questions["answer_index"].isna().tolist() == [True, False]
    assert questions["answer_index"][1] == 1
    assert questions["mask_path"].isna().tolist() == [False, True]
    assert type(questions["answers"][0]) is list


def test_the_same_manifest_gives_the_same_bytes(tmp_path):
    first, second = write(tmp_path / "1"), write(tmp_path / "2")
    for name, path in files(first).items():
        assert path.read_bytes() == files(second)[name].read_bytes(), name
    assert pq.read_schema(first / "questions.parquet").metadata is None  # no index, no versions


def test_the_summary_counts_and_digests_ids_in_order(tmp_path):
    summary = json.loads((write(tmp_path) / "manifest.json").read_text())
    assert summary == {
        "format": "coco",
        "images": 2,
        "captions": 2,
        "questions": 2,
        "classes": 1,
        "alone_in_class": 1,
        "without_caption": [1, "a"],
        "answers": {"2": [1, "q1"], "1": [1, "q2"]},
        "options": {"0": [1, "q1"], "2": [1, "q2"]},
        "marks": {},
        "without_mask": [1, "q2"],
        "equal_images": 0,
        "equal_groups": [],
        "long_shapes": [],
        "pictures": 2,
        "single_pictures": 2,
        "same_picture": 1,
        "image_ids_sha256": hashlib.sha256(b'["b", "a"]').hexdigest(),
        "left_out": {"films": 3},
    }
    assert manifest(images=IMAGES[::-1]).summary()["image_ids_sha256"] != summary["image_ids_sha256"]


def test_the_summary_tells_images_of_long_shapes():
    long = [("c", "x/c.jpg", None, 51, 1, "2" * 64, "c" * 64), ("d", "x/d.jpg", None, 2, 100, "3" * 64, "d" * 64)]
    assert manifest(images=[*IMAGES, *long]).summary()["long_shapes"] == [["x/c.jpg", 51, 1]]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(LossmapError, match=r"manifest\.json: does not exist. Run read_dataset again"):
        read_manifest(tmp_path)
    (write(tmp_path) / "captions.parquet").unlink()
    with pytest.raises(LossmapError, match=r"captions\.parquet: does not exist. Run read_dataset again"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "3"])
def test_a_summary_that_is_none_is_named(content, tmp_path):
    (write(tmp_path) / "manifest.json").write_text(content)
    with pytest.raises(LossmapError, match=r"manifest\.json: can't be read as a manifest"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all"])
def test_a_damaged_table_is_named(content, tmp_path):
    (write(tmp_path) / "images.parquet").write_bytes(content)
    with pytest.raises(LossmapError, match=r"images\.parquet: can't be read as a manifest"):
        read_manifest(tmp_path)


def test_a_table_of_other_columns_is_named(tmp_path):
    pq.write_table(pa.table({"image_id": ["a"]}), tmp_path / "images.parquet")
    with pytest.raises(LossmapError, match="has the columns image_id; wanted image_id, path, label"):
        read_table(tmp_path / "images.parquet", "images")


def test_tables_of_another_run_are_noticed(tmp_path):
    write(tmp_path / "1")
    write(tmp_path / "2", images=IMAGES[::-1])
    (tmp_path / "2" / "images.parquet").rename(tmp_path / "1" / "images.parquet")
    with pytest.raises(LossmapError, match=r"manifest\.json: does not describe the tables beside it"):
        read_manifest(tmp_path / "1")


# The entry in config.yaml

ENTRY = {"format": "image_folder", "images": "photos"}


def test_inputs_are_the_paths_as_given_in_a_fixed_order():
    assert input_paths(ENTRY) == ["photos"]
    vqa = {"annotations": "../a.json", "format": "vqav2", "questions": "./q.json", "images": "data//val2014"}
    assert input_paths(vqa) == ["data//val2014", "./q.json", "../a.json"]
    cub = {"format": "cub", "images": "CUB/images", "annotations": "CUB", "split": "test"}
    assert input_paths(cub) == ["CUB/images", *(f"CUB/{name}" for name in CUB_FILES)]
    assert len(CUB_FILES) == 5


def test_every_format_names_its_keys():
    assert FORMATS["karpathy"].required == ("format", "images", "annotations", "split")
    assert FORMATS["vizwiz_grounding"].required == ("format", "images", "annotations", "masks")
    assert FORMATS["image_folder"].allowed == ("format", "images", "limit", "sample", "seed")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "format: is None, wanted one of karpathy, coco"),
        ({"format": "imagenet"}, "format: is 'imagenet', wanted one of"),
        ({"format": "coco", "images": "x"}, "annotations: is missing; format coco needs it"),
        (ENTRY | {"masks": "m"}, "masks: means nothing to format image_folder"),
        (ENTRY | {"split": "test"}, "split: means nothing to format image_folder"),
        (ENTRY | {"limmit": 3}, "limmit: means nothing to format image_folder"),
        (ENTRY | {"images": 3}, "images: is 3, wanted a path"),
        (ENTRY | {"images": " "}, "images: is ' ', wanted a path"),
        (ENTRY | {"limit": 0}, "limit: is 0, wanted a whole number of at least 1"),
        (ENTRY | {"limit": -3}, "limit: is -3, wanted a whole number of at least 1"),
        (ENTRY | {"limit": True}, "limit: is True, wanted a whole number"),
        (ENTRY | {"sample": 0}, "sample: is 0, wanted a whole number of at least 1"),
        (ENTRY | {"sample": 2.5}, "sample: is 2.5, wanted a whole number"),
        (ENTRY | {"sample": 2, "seed": -1}, "seed: is -1, wanted a whole number of at least 0"),
        (ENTRY | {"seed": 1}, "seed: does nothing without sample"),
        (ENTRY | {"sample": 2, "limit": 2}, "limit and sample: are both given"),
        (
            {"format": "cub", "images": "x", "annotations": "y", "split": "val"},
            "split: is 'val', wanted one of train, test",
        ),
    ],
)
def test_a_wrong_entry_says_what_to_mend(entry, message):
    with pytest.raises(LossmapError) as raised:
        check_entry(entry)
    assert message in str(raised.value)
    with pytest.raises(LossmapError):
        input_paths(entry)


def test_all_faults_of_an_entry_are_listed_at_once():
    with pytest.raises(
        LossmapError, match=r"(?s)images: is missing.*masks: means nothing.*limit: is 0.*Mend its entry"
    ):
        check_entry({"format": "coco", "annotations": "a", "masks": "m", "limit": 0})


def test_the_snakefile_can_import_the_sources_without_any_library():
    code = "import sys, lossmap.data.sources; print(sorted({'numpy', 'pandas', 'PIL', 'pyarrow'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": "workflow"})
    assert shown.stdout.strip() == "[]", shown.stderr


def test_links_and_own_images_below_results_are_watched_and_loops_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own, store = tmp_path / "results/mine", tmp_path / "store"
    (own / "cat").mkdir(parents=True)
    (store / "dog").mkdir(parents=True)
    (store / "1.png").write_bytes(b"1")
    (own / "dog").symlink_to(store / "dog")
    (own / "cat/1.png").symlink_to(store / "1.png")
    (own / "loop").symlink_to(own)
    entry = {"format": "image_folder", "images": "results/mine"}
    seen = [sources_digest(entry, "results/miniature")]

    def changed():
        seen.append(sources_digest(entry, "results/miniature"))
        return seen[-1] != seen[-2]

    assert not changed()
    (own / "cat/2.png").write_bytes(b"2")
    assert changed()
    (store / "dog/3.png").write_bytes(b"3")  # in a folder that a link leads to
    assert changed()
    (store / "1.png").write_bytes(b"another")  # a file that a link leads to
    assert changed()
    (store / "1.png").unlink()
    assert changed()
    made = entry | {"images": "results/miniature/cub/images"}
    Path(made["images"]).mkdir(parents=True)
    before = sources_digest(made, "results/miniature")
    Path(made["images"], "1.png").write_bytes(b"1")  # Snakemake watches what the workflow makes
    assert sources_digest(made, "results/miniature") == before
    assert is_made("results/miniature/cub/images", "results/miniature")
    assert is_made("results/miniature/cub/images.txt", "results/miniature")
    assert not is_made("results/miniature/mine", "results/miniature")
    assert not is_made("results/mini", "results/miniature")


# The step


def test_the_step_writes_the_manifest(tmp_path):
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((2, 3, 3), dtype=np.uint8)).save(tmp_path / "photos" / "a.png")
    spec = {"format": "image_folder", "images": str(tmp_path / "photos")}
    read_dataset.run(
        **files(tmp_path / "out"),
        thumbnails=tmp_path / "out/thumbnails.parquet",
        digests=tmp_path / "out/images.sha256",
        spec=checked("read_dataset", spec),
        threads=2,
    )
    read = read_manifest(tmp_path / "out")
    found = read.images.drop(columns=["sha256", "pixels_sha256"])
    assert found.values.tolist() == [["a.png", f"{tmp_path}/photos/a.png", np.nan, 3, 2]]
    assert len(read.captions) == len(read.questions) == 0


def test_the_step_writes_nothing_if_anything_is_wrong(tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "photos" / "a.png")
    (tmp_path / "photos" / "b.png").write_bytes(b"")
    spec = {"format": "image_folder", "images": str(tmp_path / "photos")}
    with pytest.raises(LossmapError, match=r"b\.png: is empty"):
        read_dataset.run(
            **files(tmp_path / "out"),
            thumbnails=tmp_path / "out/thumbnails.parquet",
            digests=tmp_path / "out/images.sha256",
            spec=checked("read_dataset", spec),
        )
    assert not (tmp_path / "out").exists()
