"""Studies of models in views, with the real Snakefile: native resolution with texts; tiles with what needs no text."""

import numpy as np
import pandas as pd
import pytest
from small_study import clone, planned, snakemake
from tiny_models import save_tiny

from lossmap.store import Images, open_store
from lossmap.store.patch_losses import ImageLosses, open_patch_losses

MADE = "results/miniature"
IMAGES = {"coco-train": 60, "coco-karpathy": 12, "seedbench": 24, "vizwiz": 16}
DATASETS = {
    "coco-train": {
        "format": "coco",
        "images": f"{MADE}/coco-train/train2017",
        "annotations": f"{MADE}/coco-train/annotations/captions_train2017.json",
    },
    "coco-karpathy": {
        "format": "karpathy",
        "images": f"{MADE}/coco-karpathy/images",
        "annotations": f"{MADE}/coco-karpathy/dataset_coco.json",
        "split": "test",
    },
    "seedbench": {
        "format": "seedbench",
        "images": f"{MADE}/seedbench/images",
        "annotations": f"{MADE}/seedbench/SEED-Bench.json",
    },
    "vizwiz": {
        "format": "vizwiz_grounding",
        "images": f"{MADE}/vizwiz/val",
        "annotations": f"{MADE}/vizwiz/val_grounding.json",
        "masks": f"{MADE}/vizwiz/binary_masks_png/val",
    },
}
CONTROLS = {
    "identity": {"kind": "identity"},
    "pca": {"kind": "pca"},
    "pooling": {"kind": "pooling"},
    "other-image": {"kind": "other_image"},
    "other-image-and-patch": {"kind": "other_image_and_patch"},
}


def study_of(model: dict, texts: bool) -> dict:
    """A study of one model, its images in several parts."""
    config = {
        "study": "views",
        "miniature": {"folder": MADE, "seed": 2025, "images": IMAGES},
        "models": {"m": model},
        "datasets": DATASETS,
        "extraction": {"part_size": 20, "batch_size": 5},
        "overlap": {"datasets": ["seedbench"], "k": [3, 5], "permutations": 50},
        "geometry": {"datasets": ["seedbench"], "k": [3], "queries": 8},
        "probe": {"images": 3, "directions": 1},
        "statistics": {"resamples": 200},
        "reconstruction": {
            "train": "coco-train",
            "ladder": "seedbench",
            "evaluate": ["coco-karpathy", "seedbench", "vizwiz"],
            "networks": {
                "mlp": {"kind": "mlp", "widths": [16]},
                "transformer": {"kind": "transformer", "width": 8, "layers": 1, "heads": 2},
            },
            "controls": CONTROLS,
            "training": {"epochs": 2},
        },
    }
    asked = {"captions": ["coco-karpathy"], "answers": ["vizwiz"], "choices": ["seedbench"]}
    return config | ({name: {"datasets": datasets} for name, datasets in asked.items()} if texts else {})


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    """The miniature Qwen2.5-VL, shown images in their own shape with up to 2.25 times its usual pixels."""
    folder = clone(tmp_path_factory.mktemp("native") / "checkout")
    view = {"max_pixels": 9216, "min_pixels": 4096}
    config = study_of({"checkpoint": "workflow/zoo/qwen2_5_vl", "view": view}, texts=True)
    done = snakemake(folder, config=config)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, config


@pytest.fixture(scope="module")
def tiled(tmp_path_factory):
    """LLaVA-NeXT with random weights, shown all of an image and two tiles, between margins."""
    folder = clone(tmp_path_factory.mktemp("tiled") / "checkout")
    save_tiny("llava_next", folder / "model")
    config = study_of({"checkpoint": "model"}, texts=False)
    done = snakemake(folder, config=config)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, config


@pytest.fixture(params=["native", "tiled"])
def done(request):
    return request.getfixturevalue(request.param)


def test_nothing_is_left_to_do(done):
    folder, config = done
    assert planned(folder, config=config) == set()


def test_the_stores_are_of_images_that_differ(done):
    folder, _ = done
    images = Images(open_store(folder / "results/views/embeddings/seedbench/m.json"))
    assert images.ragged
    assert len(images) == IMAGES["seedbench"]
    assert len(images.shapes) > 1


def test_controls_lose_what_is_known_of_them(done):
    folder, _ = done
    table = pd.read_csv(folder / "results/views/tables/ladder.csv")
    ridge = table[table["decoder"] == "ridge"].groupby("connector")["fvu"].min()
    assert ridge["identity"] < 0.001
    assert 0 < ridge["pca"] < ridge["other-image"]
    assert ridge["other-image-and-patch"] == pytest.approx(1, abs=0.1)
    own = table[table["connector"] == "own"]
    assert set(own["decoder"]) == {"mean", "position_mean", "ridge", "mlp", "transformer"}
    assert own["fvu"].between(0, 1.2).all()


def test_every_patch_that_a_token_stands_for_has_a_loss_and_no_other(done):
    folder, _ = done
    place = folder / "results/views"
    losses = open_patch_losses(place / "patch_loss/seedbench/m.zarr")
    images = ImageLosses(losses.sel(reconstructor=losses.attrs["best"]))
    store = Images(open_store(place / "embeddings/seedbench/m.json"))
    for i in range(len(store)):
        shape = store.shape(i)
        measured = np.flatnonzero(np.isfinite(images.values("squared_error", i)))
        assert measured.tolist() == sorted(shape.blocks.patches.ravel().tolist())


def test_pages_tell_how_images_are_seen(native, tiled):
    page = (native[0] / "results/views/tables/figure3.html").read_text()
    assert "So, within limits: m (max_pixels 9,216, min_pixels 4,096)" in page
    page = (tiled[0] / "results/views/summary.html").read_text()
    assert "own shape or in tiles: m." in page
    shown = pd.read_csv(tiled[0] / "results/views/tables/table1.csv")["input"][0]
    assert shown.startswith("3 views, ")


def test_texts_are_scored(native):
    scores = pd.read_csv(native[0] / "results/views/tables/scores.csv")
    assert set(scores["task"]) == {"answers", "choices"}
    assert scores["accuracy"].between(0, 1).all()
    captions = pd.read_csv(native[0] / "results/views/tables/table3_cider.csv")
    assert captions["cider"].gt(0).all()
