"""The library by itself: its public names, models in memory, embeddings of any tool, and one path with the workflow."""

import ast
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import peft
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image
from specs import checked
from tiny_models import CONFIGS, IMAGE_PROCESSORS, NEEDS_SIDE, SIDE, save_tiny, tiny_model
from toy_store import embeddings as toy_arrays
from toy_store import write_store
from transformers import AutoModelForImageTextToText, LlamaConfig, LlamaForCausalLM
from transformers.activations import gelu_pytorch_tanh

import lossmap
from lossmap import LossmapError
from lossmap.data.formats import read
from lossmap.reconstruct.learning import TrainingSettings, train_network
from lossmap.reconstruct.networks import build_network
from lossmap.reconstruct.pairs import pairs_of
from lossmap.reconstruct.saving import load_reconstructor, load_tensors
from lossmap.reconstruct.specs import CONTROLS, NETWORKS
from lossmap.reconstruct.split import split_images
from lossmap.reconstruct.statistics import Statistics
from lossmap.store import open_store, write_index
from lossmap.store.patch_losses import LOSSES, open_patch_losses
from lossmap.study.settings import check_study
from lossmap.study.steps import extract, fit_linear, measure_patch_loss, measure_statistics, train_reconstructor
from lossmap.vlm.processors import load_processor

ROOT = Path(__file__).parents[1]
MAIN = ("llava", "idefics2", "qwen2_5_vl")
rng = np.random.default_rng(0)
X = rng.normal(size=(300, 8)).astype(np.float32)
ROTATION = np.linalg.qr(rng.normal(size=(8, 8)))[0].astype(np.float32)


def pictures(n=5):
    drawn = np.random.default_rng(1)
    return [drawn.integers(0, 256, (60 + 3 * i, 90 - i, 3), dtype=np.uint8) for i in range(n)]


def seen(model_type, view):
    """Arguments of open_model for a view; some tiny models need a side for a square one."""
    return {"image_size": SIDE} if model_type in NEEDS_SIDE and view == "square" else {"view": view}


def assert_same(one, other, names=None):
    """By default in all arrays that either has."""
    for name in names or sorted({*one.data_vars, *other.data_vars}):
        np.testing.assert_array_equal(one[name].values, other[name].values, err_msg=name)


# Names


def test_every_public_name_is_listed_typed_and_explained():
    tree = ast.parse((ROOT / "workflow/lossmap/__init__.py").read_text())
    typed = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        for alias in node.names
    }
    assert typed == {name: f"lossmap.{module}" for name, module in lossmap._MODULES.items()}
    assert sorted(lossmap.__all__) == sorted(typed)
    assert set(lossmap.__all__) <= set(dir(lossmap))
    for name in lossmap.__all__:
        assert f"    {name}  " in lossmap.__doc__
        public = getattr(lossmap, name)
        assert public.__doc__
        if name not in ("LossmapError", "miniature_images"):
            assert "Parameters: " in public.__doc__, name
            assert "Raises" in public.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'embedd'"):
        getattr(lossmap, "embedd")  # noqa: B009


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, lossmap; dir(lossmap); print({'torch', 'numpy', 'pandas', 'xarray'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "workflow", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_a_ladder_has_what_a_study_has_by_default():
    study = {
        "study": "s",
        "models": {"m": {"checkpoint": "workflow/zoo/llava"}},
        "datasets": {name: {"format": "image_folder", "images": name} for name in ("a", "b")},
        "overlap": {"datasets": ["b"]},
        "reconstruction": {"train": "a", "evaluate": ["b"]},
    }
    reconstruction = check_study(study, paths=False)["reconstruction"]
    assert reconstruction["networks"] == NETWORKS
    assert reconstruction["controls"] == CONTROLS
    training = {key: value for key, value in reconstruction["training"].items() if hasattr(TrainingSettings(), key)}
    assert training == vars(TrainingSettings())
    assert set(reconstruction["training"]) - set(training) == {"threads", "processes", "checkpoint_minutes"}


# Models in memory


@pytest.mark.parametrize("view", ["square", "processor"])
@pytest.mark.parametrize("model_type", CONFIGS)
def test_a_loaded_model_gives_the_bytes_of_its_checkpoint(model_type, view, tmp_path):
    """The class that generates and the base class, in training; and they are afterwards what they were."""
    loaded = save_tiny(model_type, tmp_path).train()
    processor = IMAGE_PROCESSORS[model_type]()
    loaded.get_input_embeddings().eval()
    # MiniCPM-V's models share one activation with each other, so that another's loading changes its mode.
    own = [module for module in loaded.modules() if module is not gelu_pytorch_tanh]
    modes, config = [module.training for module in own], loaded.config.to_dict()
    wanted = lossmap.embed(lossmap.open_model(tmp_path, device="cpu", **seen(model_type, view)), pictures())
    for model in (loaded, getattr(loaded, "model", loaded)):
        opened = lossmap.open_model(model, processor, **seen(model_type, view))
        assert_same(lossmap.embed(opened, pictures()), wanted)
        assert opened.connector_digest == wanted.attrs["key"]["connector_digest"]
    assert [module.training for module in own] == modes
    assert loaded.config.to_dict() == config
    assert not any(module._forward_pre_hooks for module in loaded.modules())


@pytest.mark.parametrize("view", ["square", "processor"])
@pytest.mark.parametrize("model_type", [*MAIN, "llava_next"])
def test_the_library_and_the_workflow_write_the_same(model_type, view, tmp_path):
    loaded = save_tiny(model_type, tmp_path / "model")
    (tmp_path / "photos").mkdir()
    for i, pixels in enumerate(pictures()):
        Image.fromarray(pixels).save(tmp_path / f"photos/{i}.png")
    images = read({"format": "image_folder", "images": str(tmp_path / "photos")}).images
    images.to_parquet(tmp_path / "images.parquet")
    spec = {"checkpoint": str(tmp_path / "model"), "revision": None, "image_size": None, "batch_size": 2, "view": view}
    spec |= {"dtype": "float16", "compute_dtype": "float32", "store_post": True}
    part = tmp_path / "workflow.zarr"
    extract.run(images=tmp_path / "images.parquet", part=part, first=0, stop=5, spec=checked("extract", spec))
    write_index([part], tmp_path / "workflow.json")
    wanted = lossmap.open_embeddings(tmp_path / "workflow.json")
    model = lossmap.open_model(loaded, IMAGE_PROCESSORS[model_type](), view=view)
    how = {"image_ids": images["image_id"], "batch_size": 2, "dtype": "float16"}
    held = lossmap.embed(model, images["path"], **how)
    stored = lossmap.embed(model, images["path"], **how, store=tmp_path / "mine/library.json")
    boxes = {name: held[name] for name in ("patch_box", "token_box") if name in held}
    for found in (held, stored, open_store(tmp_path / "mine/library.json").assign(boxes)):
        assert_same(found, wanted)
        assert found["image_id"].values.tolist() == wanted["image_id"].values.tolist()
        assert {name: found.attrs[name] for name in ("pre_grid", "post_grid", "post", "preprocessing")} == {
            name: wanted.attrs[name] for name in ("pre_grid", "post_grid", "post", "preprocessing")
        }
    assert stored.encoding["source"] == str(tmp_path / "mine/library.json")


def test_half_precision_stays_half_precision(tmp_path):
    loaded = save_tiny("llava", tmp_path).to(torch.bfloat16)
    found = lossmap.embed(lossmap.open_model(loaded, IMAGE_PROCESSORS["llava"]()), pictures())
    assert_same(found, lossmap.embed(lossmap.open_model(tmp_path, dtype="bfloat16", device="cpu"), pictures()))
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    assert found.attrs["key"]["compute_dtype"] == "bfloat16"


@pytest.mark.parametrize("model_type", MAIN)
def test_a_whole_processor_is_as_good_as_its_image_processor(model_type):
    folder = ROOT / "workflow/zoo" / model_type
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    found = lossmap.embed(lossmap.open_model(model, load_processor(folder)), lossmap.miniature_images(3))
    shipped = lossmap.open_model(f"workflow/zoo/{model_type}", device="cpu")
    assert_same(found, lossmap.embed(shipped, lossmap.miniature_images(3)))


def test_a_processor_of_other_pixels_is_refused():
    processor = IMAGE_PROCESSORS["llava"]()
    processor.size = {"shortest_edge": 2 * SIDE}
    processor.crop_size = {"height": 2 * SIDE, "width": 2 * SIDE}
    with pytest.raises(LossmapError, match="makes inputs of 128 x 128 pixels, its vision tower takes 64 x 64 only"):
        lossmap.open_model(tiny_model("llava"), processor)


def test_an_adapter_is_part_of_the_model(tmp_path):
    plain, model = tiny_model("llava"), tiny_model("llava")
    targets = ["q_proj", "v_proj", "linear_1"]
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    processor = IMAGE_PROCESSORS["llava"]()
    before, found = (lossmap.embed(lossmap.open_model(one, processor), pictures()) for one in (plain, adapted))
    assert not np.allclose(found["pre"], before["pre"], atol=1e-2)
    assert any(isinstance(module, peft.tuners.lora.Linear) for module in adapted.modules())
    merged = lossmap.embed(lossmap.open_model(adapted.merge_and_unload(), processor), pictures())
    for name in ("pre", "post"):
        np.testing.assert_allclose(merged[name], found[name], atol=2e-4)


def test_models_that_cannot_be_opened_are_named():
    small = {"vocab_size": 9, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    text = LlamaForCausalLM(LlamaConfig(**small, num_attention_heads=1, num_key_value_heads=1))
    with pytest.raises(
        LossmapError, match="LlamaForCausalLM.*no vision-language model.*'llama'.*Known families: llava"
    ):
        lossmap.open_model(text, IMAGE_PROCESSORS["llava"]())
    with pytest.raises(LossmapError, match="no vision-language model that Lossmap knows .its model_type is None"):
        lossmap.open_model(torch.nn.Linear(2, 2))
    with pytest.raises(LossmapError, match="LlavaForConditionalGeneration.: give its processor, too"):
        lossmap.open_model(tiny_model("llava"))
    with torch.device("meta"), pytest.raises(LossmapError, match="weights of its vision side are not in memory"):
        lossmap.open_model(AutoModelForImageTextToText.from_config(CONFIGS["llava"]()), IMAGE_PROCESSORS["llava"]())
    with pytest.raises(LossmapError, match="in memory is used as it is: leave out dtype, device"):
        lossmap.open_model(tiny_model("llava"), dtype="bfloat16", device="cpu")
    with pytest.raises(LossmapError, match="a checkpoint brings its own processor"):
        lossmap.open_model("workflow/zoo/llava", IMAGE_PROCESSORS["llava"]())


# Images


@pytest.fixture(scope="module")
def tiny():
    return lossmap.open_model(tiny_model("llava"), IMAGE_PROCESSORS["llava"]())


def test_a_path_a_picture_and_an_array_are_the_same_image(tiny, tmp_path):
    turned = Image.fromarray(pictures()[0])
    exif = turned.getexif()
    exif[0x0112] = 6  # lies on its side
    turned.save(tmp_path / "turned.png", exif=exif)
    clear = np.dstack([pictures()[1], np.full(pictures()[1].shape[:2], 99, np.uint8)])
    Image.fromarray(clear).save(tmp_path / "clear.png")
    Image.fromarray(pictures()[2]).save(tmp_path / "plain.png")
    files = [tmp_path / f"{name}.png" for name in ("turned", "clear", "plain")]
    by_path = lossmap.embed(tiny, files)
    assert by_path["image_id"].values.tolist() == [str(path) for path in files]
    assert_same(lossmap.embed(tiny, [Image.open(path) for path in files]), by_path)
    as_array = lossmap.embed(tiny, pictures()[2])
    assert_same(as_array, by_path.isel(image=[2]))
    assert by_path["size"].values.tolist() == [[60, 90], [89, 63], [88, 66]]


def test_each_patch_has_its_place_in_the_image(tiny):
    found = lossmap.embed(tiny, pictures())
    rows, cols = found.attrs["pre_grid"]
    boxes = found["patch_box"].values.reshape(-1, rows, cols, 4)
    np.testing.assert_allclose(boxes[:, 0, 0, :2], found["box"][:, :2])
    np.testing.assert_allclose(boxes[:, -1, -1, 2:], found["box"][:, 2:], rtol=1e-6)
    np.testing.assert_allclose(boxes[:, :, :-1, 2], boxes[:, :, 1:, 0], rtol=1e-6)
    np.testing.assert_array_equal(found["patch_box"][3, 5:7].values, found["patch_box"].values[3, 5:7])


def test_bad_images_are_named(tiny, tmp_path):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG")
    for images, message in (
        ([pictures()[0], tmp_path / "none.png"], "none.png: does not exist"),
        ([tmp_path / "cut.png"], "cut.png: is not an image"),
        ([pictures()[0], pictures()[1] / 255], "image 1: is an array of float64"),
        ([np.zeros((3, 40, 40), np.uint8)], r"image 0: is an array of uint8, shape \(3, 40, 40\)"),
        ([pictures()[0], 5], "image 1: is a int; wanted a path"),
        ([], "0 images and 0 image_ids are given"),
    ):
        with pytest.raises(LossmapError, match=message):
            lossmap.embed(tiny, images)
    with pytest.raises(LossmapError, match="image_ids: a occurs twice"):
        lossmap.embed(tiny, pictures(2), image_ids=["a", "a"])
    with pytest.raises(LossmapError, match="is no name of an index"):
        lossmap.embed(tiny, pictures(2), store=tmp_path / "here")


# Measures


def test_a_rotation_keeps_everything():
    both = lossmap.from_arrays(X, X @ ROTATION)
    for given in ((both,), (X, X @ ROTATION), (torch.tensor(X), torch.tensor(X @ ROTATION))):
        overlap = lossmap.neighbour_overlap(*given, k=10)
        assert overlap.value == overlap.low == overlap.high == 1
        assert overlap.p == 1 / 201
        assert overlap.chance == 10 / 299
        assert overlap.per_item.tolist() == [1] * 300
        assert overlap.null.mean() == pytest.approx(overlap.chance, abs=0.01)
        assert repr(overlap) == "1.000 [1.000, 1.000], chance 0.033, p <= 0.005 (n = 300)"
        found = lossmap.procrustes(*given)
        assert found.error.value == pytest.approx(0, abs=1e-5)
        assert found.unexplained["rotation"].value == pytest.approx(0, abs=1e-8)
        assert found.unexplained["ridge"].chance > 0.9
        assert lossmap.cka(*given).value == pytest.approx(1)


def test_unrelated_embeddings_score_chance():
    other = np.random.default_rng(5).normal(size=(300, 6))
    overlap, likeness = lossmap.neighbour_overlap(X, other), lossmap.cka(X, other)
    assert overlap.low < overlap.chance < overlap.high
    assert overlap.p > 0.01
    assert likeness.low < likeness.chance == 0 < likeness.high
    assert lossmap.procrustes(X, other).unexplained["ridge"].low > 0.9


def test_equal_items_are_dropped_or_counted():
    twice, after = np.concatenate([X[:100], X[:7]]), np.concatenate([X[:100, :4], X[:7, :4] + 1e-6])
    plain, dropped = lossmap.neighbour_overlap(X[:100], X[:100, :4], k=5), lossmap.neighbour_overlap(twice, after, k=5)
    np.testing.assert_array_equal(dropped.per_item, plain.per_item)
    assert dropped.items.tolist() == list(range(100))
    assert lossmap.neighbour_overlap(twice, after, k=5, equal="count").n == 107
    with pytest.raises(ValueError, match="equal is 'keep'; wanted drop or count"):
        lossmap.neighbour_overlap(twice, after, equal="keep")


def test_patches_are_pooled_and_one_side_alone_is_refused():
    cut = X.reshape(100, 3, 8)
    assert_overlap = lossmap.neighbour_overlap(cut, cut[:, :, :4], k=5)
    by_hand = lossmap.neighbour_overlap(cut.mean(1), cut[:, :, :4].mean(1), k=5)
    np.testing.assert_array_equal(assert_overlap.per_item, by_hand.per_item)
    with pytest.raises(ValueError, match="after: is missing"):
        lossmap.neighbour_overlap(X)
    with pytest.raises(ValueError, match="holds both sides; leave after out"):
        lossmap.cka(lossmap.from_arrays(X, X), X)


def test_arrays_that_are_no_embeddings_are_named():
    for pre, post, how, message in (
        (X, X[1:], {}, "pre has 300 items, post 299 and image_ids 300"),
        (X[0], X, {}, r"pre: is an array of float32, shape \(8,\)"),
        (X.reshape(100, 3, 8), X[:100], {"pre_grid": (2, 2)}, r"pre_grid is \(2, 2\), and pre has 3"),
        (np.where(np.arange(300)[:, None] == 7, np.nan, X), X, {}, "pre of image 7 is not finite"),
    ):
        with pytest.raises(LossmapError, match=message):
            lossmap.from_arrays(pre, post, **how)
    with pytest.raises(LossmapError, match="given as a ndarray; wanted a Dataset"):
        lossmap.train_reconstructor(X)


# Reconstruction

TRAINING = {"epochs": 3, "batch": 16}
NETWORK = {"kind": "mlp", "widths": [12], "dropout": 0.1}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A store, what the workflow's steps make of it, and what the library makes of the same arrays in memory."""
    folder = tmp_path_factory.mktemp("toy")
    index = write_store(folder / "toy.json", *toy_arrays(200))
    spec = {"connectors": {"own": {"kind": "own"}}, "seed": 3}
    measure_statistics.run(embeddings=index, reconstructors=folder, spec=checked("measure_statistics", spec))
    fit_linear.run(
        embeddings=index, reconstructors=folder, spec=checked("fit_linear", spec | {"shares": [100], "held_out": 0.2})
    )
    training = {**vars(TrainingSettings()), **TRAINING, "threads": 1, "processes": 1, "checkpoint_minutes": 9}
    spec = {"network": NETWORK, "share": 100, "shares": [100], "held_out": 0.2, "seed": 3, "training": training}
    own = folder / "own"
    files = {"statistics": own / "statistics.safetensors", "ridge": own / "ridge-100.safetensors"}
    files |= {"reconstructor": own / "network-100.safetensors", "history": own / "history.csv"}
    train_reconstructor.run(embeddings=index, **files, spec=checked("train_reconstructor", spec))
    state = torch.get_rng_state()
    mine = lossmap.train_reconstructor(open_store(index).load(), NETWORK, seed=3, training=TRAINING, device="cpu")
    assert torch.equal(torch.get_rng_state(), state)
    return folder, mine


def test_training_in_memory_is_the_workflows(toy, tmp_path):
    folder, mine = toy
    mine.save(tmp_path)
    for name in ("ridge-100", "network-100"):
        wanted, about = load_tensors(folder / f"own/{name}.safetensors")
        found, mine_about = load_tensors(tmp_path / f"{name}.safetensors")
        assert wanted.keys() == found.keys()
        assert all(torch.equal(wanted[key], found[key]) for key in wanted)
        for description in (about, mine_about):
            for told in ("statistics", "key", "provenance"):
                description.pop(told, None)
            description["architecture"].pop("ridge", None)
        assert about == mine_about
    assert mine.history["held_out_loss"].tolist() == pd.read_csv(folder / "own/history.csv")["held_out_loss"].tolist()
    assert repr(mine).startswith(f"network: held-out error {mine.reconstructor.held_out_error:.4g}")


def test_losses_in_memory_are_the_workflows(toy, tmp_path):
    folder, mine = toy
    index = write_store(tmp_path / "other.json", *toy_arrays(31, seed=9))
    copies = tmp_path / "copies.parquet"
    pd.DataFrame({"dataset": ["none"], "image_id": ["0"]}).to_parquet(copies)
    out = {name: tmp_path / name for name in ("losses", "images", "summary")}
    spec = {"dataset": "test", "model": "toy", "decoders": ["ridge", "network"], "share": 100, "batch_size": 16}
    spec |= {"confidence": 0.95, "resamples": 200, "seed": 0}
    measure_patch_loss.run(
        embeddings=index, near_copies=copies, reconstructors=folder, **out, spec=checked("measure_patch_loss", spec)
    )
    wanted = open_patch_losses(out["losses"]).sel(reconstructor="network")
    summary = pd.read_parquet(out["summary"]).set_index("reconstructor")
    mine.save(tmp_path / "saved")
    read = lossmap.open_reconstructor(tmp_path / "saved", "network", device="cpu")
    for reconstructor in (mine, read):
        found = lossmap.patch_losses(reconstructor, lossmap.open_embeddings(index))
        assert_same(found, wanted, (*LOSSES, "pre_norm", "image_id"))
        assert found.attrs["fvu"] == summary.loc["network", "fvu"]
        assert found["patch_box"].dims == ("image", "row", "col", "edge")
        some = lossmap.patch_losses(reconstructor, lossmap.open_embeddings(index).isel(image=[30, 3, 1]))
        for name in LOSSES:
            np.testing.assert_allclose(some[name], found[name].isel(image=[30, 3, 1]), rtol=1e-5, atol=1e-6)
        assert_same(some, found.isel(image=[30, 3, 1]), ("patch_box", "image_id"))


def test_a_linear_connector_is_undone_and_an_unrelated_one_is_not():
    train, test = X[:200], X[200:]
    ridge = lossmap.train_reconstructor((train, train @ ROTATION), "ridge", device="cpu")
    losses = lossmap.patch_losses(ridge, (test, test @ ROTATION))
    assert losses.attrs["fvu"] < 1e-6
    np.testing.assert_allclose(ridge.reconstruct(test @ ROTATION)[:, 0], test, atol=1e-3)
    noise = rng.normal(size=X.shape)
    unrelated = lossmap.train_reconstructor((train, noise[:200]), "ridge", device="cpu")
    assert lossmap.patch_losses(unrelated, (test, noise[200:])).attrs["fvu"] == pytest.approx(1, abs=0.1)


def test_networks_and_settings_that_are_not_known_are_named():
    with pytest.raises(LossmapError, match="network is 'mlp'. Choose one of mean, position_mean, ridge, mlp-small"):
        lossmap.train_reconstructor((X, X), "mlp")
    with pytest.raises(LossmapError, match="training: epoch is no setting of it; it has epochs, batch"):
        lossmap.train_reconstructor((X, X), training={"epoch": 3})
    with pytest.raises(LossmapError, match="was read from a folder. Copy the folder"):
        lossmap.reconstruct.trained.Trained(None, None).save("here")


def test_a_lossless_connector_is_told_from_one_that_loses():
    """The same ladder on a rotation, and on half of the features."""
    how = {"networks": {}, "controls": {"rotation": {"kind": "rotation"}}, "shares": (50, 100), "device": "cpu"}
    whole, half = (lossmap.run_ladder((X, post), **how) for post in (X @ ROTATION, X[:, :4]))
    assert whole.verdict().own.fvu.value < 1e-6
    assert half.verdict().own.fvu.value == pytest.approx(0.5, abs=0.1)
    assert half.verdict().difference.low > 0.3
    assert "of the variance is lost at the connector" in str(half.verdict())
    table = half.table
    assert set(table["decoder"]) == {"mean", "position_mean", "ridge"}
    assert set(table["n"]) == {60}


def bent(n, seed):
    """Embeddings through a connector that bends each direction and drops a quarter of them: .25 is lost."""
    pre = np.random.default_rng(seed).normal(size=(n, 4, 8)).astype("float32")
    turned = pre @ np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0].astype("float32")
    return pre, (turned + 0.45 * np.sin(2 * turned))[:, :, :6]


@pytest.mark.slow
def test_the_verdicts_of_studies_of_other_sizes_agree():
    """What is said to be lost, from few images and from many: ranges that hold what is lost, and so each other."""
    networks = {
        "small": {"kind": "mlp", "widths": [16], "dropout": 0},
        "large": {"kind": "mlp", "widths": [64], "dropout": 0},
    }
    how = {"networks": networks, "controls": {}, "device": "cpu", "resamples": 200}
    verdicts = {n: lossmap.run_ladder(bent(n, n), bent(400, 99), **how).verdict() for n in (200, 800, 3200)}
    for n, verdict in verdicts.items():
        low, high = verdict.lost
        assert low <= 0.25 <= high, f"{n} images: {low} to {high}"
    assert "yes" not in (verdicts[200].settled, verdicts[800].settled)  # no network learned to unbend
    assert verdicts[3200].own.fvu.value < verdicts[200].own.fvu.value - 0.02


def test_images_that_train_are_not_tested_on():
    with pytest.raises(LossmapError, match="7 of 57 test images also train .* the first is 50"):
        lossmap.run_ladder((X[:200], X[:200]), (np.r_[X[200:250], X[:7]], np.r_[X[200:250], X[:7]]))


def test_a_network_trained_in_half_precision_runs_in_full(toy):
    folder, _ = toy
    statistics = Statistics.load(folder / "own/statistics.safetensors")
    pairs = pairs_of(open_store(folder / "toy.json"), statistics)
    ridge, _ = load_reconstructor(folder / "own/ridge-100.safetensors")
    AcceleratorState._reset_state(True)
    try:
        accelerator = Accelerator(cpu=True, mixed_precision="bf16")
        split, settings = split_images(200, 0.2, [100], 0), TrainingSettings(**TRAINING)
        learned = train_network(pairs, split, 100, NETWORK, ridge, 0, settings, accelerator)
    finally:
        AcceleratorState._reset_state(True)
    post, _ = pairs.read(range(5))
    shapes = {name: learned.architecture[name] for name in ("pre_shape", "post_shape", "blocks")}
    again = build_network(NETWORK, **shapes).eval()
    again.load_state_dict(learned.module.network.state_dict())
    with torch.no_grad():
        assert torch.equal(learned.module.eval()(post), ridge(post) + again(post))


# The loss map


def test_losses_are_drawn_where_their_patches_lie(tiny):
    found = lossmap.embed(tiny, pictures(30))
    losses = lossmap.patch_losses(lossmap.train_reconstructor(found, "ridge", device="cpu"), found)
    axes = plt.subplots()[1]
    drawn = lossmap.draw_patch_losses(pictures()[3], losses.isel(image=3), ax=axes)
    assert drawn is axes
    shown, overlay = axes.get_images()
    np.testing.assert_array_equal(shown.get_array(), pictures()[3])
    np.testing.assert_array_equal(overlay.get_array(), losses["squared_error"][3])
    left, top, right, bottom = found["box"][3].values
    np.testing.assert_allclose(overlay.get_extent(), [left, right, bottom, top], rtol=1e-6)
    assert overlay.norm.vmax == pytest.approx(float(losses["squared_error"][3].max()))
    whole = lossmap.draw_patch_losses(pictures()[3], losses["squared_error"][3].values, highest=2.5).get_images()[1]
    assert whole.get_extent() == [0, 87, 69, 0]
    assert whole.norm.vmax == 2.5
    with pytest.raises(LossmapError, match=r"shape \(30, 8, 8\).*losses.isel\(image=0\)"):
        lossmap.draw_patch_losses(pictures()[3], losses)
    plt.close("all")
