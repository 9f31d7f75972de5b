"""post from pre through the connector alone: what the whole vision side gives, in every family and from a store."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from specs import checked
from tiny_models import CONFIGS, NEEDS_SIDE, SIDE, WIDTH, save_tiny

from lossmap.data.formats import read
from lossmap.errors import LossmapError
from lossmap.miniature.scenes import digit_pool, draw_scene
from lossmap.store import open_store
from lossmap.study.steps import extract, index_embeddings
from lossmap.vlm.families import FAMILIES, is_connector_key
from lossmap.vlm.loading import load_vision_side
from lossmap.vlm.recompute import BATCH, connector_of, load_connector

ZOO = Path(__file__).parents[1] / "workflow/zoo"
MAIN = {"llava": None, "idefics2": None, "qwen2_5_vl": 64}  # side of the square, of one that takes any
# Rounding to half precision moves a number by up to 2^-11 of itself, 2e-4 on average. A connector that scaled all alike
# would pass that on; those here come to at most five times as much.
ROUNDING = 1e-3


def size_of(model_type):
    return SIDE if model_type in NEEDS_SIDE else None


def embedded(vision, count):
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(60, 200, (SIDE, SIDE, 3), dtype=np.uint8)) for _ in range(count)]
    return vision.embed(vision.preprocessor.normalise(vision.preprocessor.prepare(images), "cpu", vision.dtype))


def apart(found, wanted):
    """Largest distance of an image's post from the wanted one, as a share of the wanted one's length."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    assert found.shape == wanted.shape
    return (np.linalg.norm(found - wanted, axis=(1, 2)) / np.linalg.norm(wanted, axis=(1, 2))).max()


@pytest.fixture(scope="module", params=CONFIGS)
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    save_tiny(request.param, folder)
    return folder, request.param


@pytest.fixture(scope="module")
def pair(checkpoint):
    """A vision side and the connector alone, of one checkpoint."""
    folder, model_type = checkpoint
    size = size_of(model_type)
    return load_vision_side(folder, image_size=size), load_connector(folder, image_size=size)


def test_of_a_model_with_deepstack_each_connector_makes_its_part_exactly(tmp_path):
    save_tiny("qwen3_vl", tmp_path)
    vision = load_vision_side(tmp_path)
    pre, post = embedded(vision, 1)
    connector = load_connector(tmp_path)
    assert torch.equal(connector.post(pre), post)
    assert [key for key in connector.model.state_dict() if key.startswith("visual.deepstack_merger_list.1.")]


def test_of_a_sequence_alone_the_merger_alone_is_loaded(tmp_path):
    save_tiny("qwen3_vl", tmp_path)
    vision, connector = (load(tmp_path, receives="sequence") for load in (load_vision_side, load_connector))
    pre, post = embedded(vision, 1)
    assert torch.equal(connector.post(pre), post)
    assert connector.digest == vision.connector_digest != load_connector(tmp_path).digest
    assert all(key.startswith("visual.merger.") for key in connector.model.state_dict())
    with pytest.raises(LossmapError, match="64 patches of 96 features.*another image_size, view or receives"):
        load_connector(tmp_path)(pre)


def test_embeddings_that_say_nothing_of_deepstack_hold_the_sequence_alone(tmp_path):
    """Those that were made before Lossmap knew more than the merger."""
    save_tiny("qwen3_vl", tmp_path)
    alone = load_vision_side(tmp_path, receives="sequence")
    told = {**alone.provenance, "checkpoint": str(tmp_path), "image_size": None, "compute_dtype": "float32"}
    del told["receives"]
    assert connector_of(told).connectors == ["visual.merger"]
    assert connector_of(told | load_vision_side(tmp_path).provenance).connectors[1:]


def test_post_is_what_the_vision_side_gives(pair):
    vision, connector = pair
    pre, post = embedded(vision, 5)
    found = connector(pre)
    assert found.dtype == np.float32
    assert apart(found, post) < 1e-6
    assert np.array_equal(connector(pre.numpy()), found)


def test_shapes_and_digest_are_those_of_the_vision_side(pair):
    vision, connector = pair
    rows, cols = vision.pre_grid
    assert connector.pre_shape == (vision.family.extra + rows * cols, vision.pre_dim)
    assert connector.post_shape == (vision.post_tokens, vision.post_dim)
    assert connector.digest == vision.connector_digest == vision.provenance["connector_digest"] != vision.digest
    assert connector(np.empty((0, *connector.pre_shape), np.float16)).shape == (0, *connector.post_shape)


def test_pre_rounded_for_the_store_gives_post_within_that_rounding(pair):
    vision, connector = pair
    pre, post = embedded(vision, 5)
    assert 0 < apart(connector(pre.half().numpy()), post.half()) < ROUNDING


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_pre_of_a_half_precision_model_loses_nothing_in_the_store(checkpoint, dtype):
    folder, model_type = checkpoint
    vision, connector = (
        load(folder, dtype=dtype, image_size=size_of(model_type)) for load in (load_vision_side, load_connector)
    )
    pre, post = embedded(vision, 3)
    assert connector.dtype == getattr(torch, dtype)
    assert apart(connector(pre.half().numpy()), post.float()) < 1e-3
    assert connector.digest == vision.connector_digest


def test_an_image_gives_the_same_in_any_batch(pair):
    _, connector = pair
    rng = np.random.default_rng(1)
    pre = rng.normal(size=(2 * BATCH + 3, *connector.pre_shape)).astype(np.float32)
    whole = connector(pre)
    for i in (0, BATCH - 1, BATCH, 2 * BATCH + 2):
        assert apart(connector(pre[i : i + 1]), whole[i : i + 1]) < 1e-6


def test_neither_tower_nor_language_model_is_built_read_or_run(checkpoint, tmp_path, monkeypatch):
    folder, model_type = checkpoint
    vision = load_vision_side(folder, image_size=size_of(model_type))
    pre, post = embedded(vision, 2)
    family = FAMILIES[model_type]
    shutil.copytree(folder, tmp_path / "bare")
    path = tmp_path / "bare/model.safetensors"
    tensors = load_file(path)
    kept = {key: values for key, values in tensors.items() if is_connector_key(family, key)}
    assert 0 < len(kept) < len(tensors)
    save_file(kept, path, metadata={"format": "pt"})

    def run(*args, **kwargs):
        raise AssertionError("the tower was run")

    names = (family.connector, *family.after)
    modules = dict(vision.model.named_modules())
    own = {type(part) for name in names if name in modules for part in modules[name].modules()}
    for layer in {torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.Embedding} - own:
        monkeypatch.setattr(layer, "forward", run)
    monkeypatch.setattr(type(vision.model), "get_image_features", run, raising=False)
    connector = load_connector(tmp_path / "bare", image_size=size_of(model_type))
    assert len(connector.model.state_dict()) == len(kept)
    assert apart(connector(pre), post) < 1e-6


@pytest.mark.parametrize("model_type", MAIN)
@pytest.mark.parametrize("spelling", ["hub", "nested"])
def test_every_spelling_and_sharding_gives_the_same_connector(tmp_path, model_type, spelling):
    save_tiny(model_type, tmp_path / "saved")
    save_tiny(model_type, tmp_path / "other", "40KB", spelling)
    assert load_connector(tmp_path / "other").digest == load_connector(tmp_path / "saved").digest


@pytest.mark.parametrize("side", [48, 80])
def test_windows_that_do_not_divide_the_image_change_nothing(tmp_path, side):
    save_tiny("qwen2_5_vl", tmp_path)
    vision, connector = (load(tmp_path, image_size=side) for load in (load_vision_side, load_connector))
    pre, post = embedded(vision, 2)
    assert apart(connector(pre), post) < 1e-6


def test_several_layers_side_by_side_are_taken_too(tmp_path):
    config = CONFIGS["llava"]()
    config.vision_feature_layer = [-2, -1]
    assert FAMILIES["llava"].pre_dim(config) == 2 * WIDTH


# From a store


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Twelve scenes and their manifest."""
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "photos").mkdir()
    rng, pool = np.random.default_rng(0), digit_pool("held-out")
    for i in range(12):
        Image.fromarray(draw_scene(rng, pool).image).save(folder / f"photos/{i}.png")
    read({"format": "image_folder", "images": str(folder / "photos")}).images.to_parquet(folder / "images.parquet")
    return folder / "images.parquet"


def stored(scenes, checkpoint, folder, **changes):
    spec = {"checkpoint": str(checkpoint), "revision": None, "image_size": None}
    spec |= {"batch_size": 5, "dtype": "float16", "compute_dtype": "float32", "store_post": True} | changes
    extract.run(images=scenes, part=folder / "part.zarr", first=0, stop=12, spec=checked("extract", spec))
    index_embeddings.run(parts=[folder / "part.zarr"], index=folder / "index.json")
    return open_store(folder / "index.json")


@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", MAIN)
def test_a_stores_post_is_recomputed_from_its_pre(scenes, tmp_path, model, compute_dtype, record_property):
    store = stored(scenes, ZOO / model, tmp_path, compute_dtype=compute_dtype, image_size=MAIN[model])
    connector = connector_of(store.attrs["key"])
    assert connector.dtype == getattr(torch, compute_dtype)
    found = apart(connector(store["pre"].values), store["post"].values)
    record_property("apart", float(found))
    assert found < ROUNDING


def test_a_connector_of_other_weights_is_refused(scenes, tmp_path):
    shutil.copytree(ZOO / "llava", tmp_path / "model")
    made = stored(scenes, tmp_path / "model", tmp_path).attrs["key"]
    path = tmp_path / "model/model.safetensors"
    tensors = load_file(path)
    assert any(key.startswith("vision_tower.") for key in tensors)
    for key, values in tensors.items():
        if key.startswith("vision_tower."):
            values += 1  # the tower has no part in post of a given pre
    save_file(tensors, path, metadata={"format": "pt"})
    assert connector_of(made).digest == made["connector_digest"]
    tensors["multi_modal_projector.linear_2.bias"][0] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(LossmapError, match=f"{tmp_path}/model: the weights of its connector are not those .* of then"):
        connector_of(made)


# Faults


def test_a_store_that_does_not_tell_its_connector_is_refused():
    with pytest.raises(LossmapError, match="owner/model: .*don't say which connector.*Extract them again"):
        connector_of({"checkpoint": "owner/model", "digest": "0" * 64})


@pytest.mark.parametrize("shape", [(2, 64, WIDTH + 1), (2, 63, WIDTH), (64, WIDTH)])
def test_pre_of_another_shape_is_refused(tmp_path, shape):
    save_tiny("llava", tmp_path)
    numbers = f"{tmp_path}: its connector takes 64 patches of 32 features per image, .* have the shape"
    with pytest.raises(LossmapError, match=rf"{numbers} \({', '.join(map(str, shape))}\)"):
        load_connector(tmp_path)(np.zeros(shape, np.float16))


def test_missing_weights_are_named_never_made_up(checkpoint, tmp_path):
    folder, model_type = checkpoint
    shutil.copytree(folder, tmp_path / "model")
    path = tmp_path / "model/model.safetensors"
    tensors = load_file(path)
    lost = next(key for key in sorted(tensors) if is_connector_key(FAMILIES[model_type], key))
    del tensors[lost]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(LossmapError, match=f"(?s)don't fit its config.json.*{lost.removeprefix('model.')}: missing"):
        load_connector(tmp_path / "model", image_size=size_of(model_type))


def test_a_precision_that_is_not_known_is_refused(tmp_path):
    with pytest.raises(LossmapError, match="dtype is 'int8'. Choose one of float32, bfloat16, float16"):
        load_connector(tmp_path, dtype="int8")


def test_the_likeliest_visual_words_are_found_again(tmp_path):
    save_tiny("ovis2", tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    content["vision_config"]["tokenize_function"] = "st_argmax"
    (tmp_path / "config.json").write_text(json.dumps(content))
    pre, post = embedded(load_vision_side(tmp_path), 2)
    assert apart(load_connector(tmp_path)(pre), post) < 1e-6


def test_a_tower_that_leaves_patches_alone_has_four_times_as_many(tmp_path):
    save_tiny("minicpmv4_6", tmp_path)
    for name in ("config.json", "preprocessor_config.json"):
        content = json.loads((tmp_path / name).read_text()) | {"downsample_mode": "4x"}
        (tmp_path / name).write_text(json.dumps(content))
    vision, connector = (load(tmp_path, image_size=SIDE) for load in (load_vision_side, load_connector))
    pre, post = embedded(vision, 2)
    assert pre.shape[1:] == (256, WIDTH)
    assert post.shape[1] == 64
    assert apart(connector(pre), post) < 1e-6
