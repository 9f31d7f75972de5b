"""Checkpoints: every spelling, shards, what must be downloaded, and every refusal."""

import dataclasses
import json
import os
import shutil

import httpx2
import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_models import CONFIGS, NEEDS_SIDE, SIDE, save_tiny, tiny_model

from lossmap.errors import LossmapError
from lossmap.vlm.checkpoints import resolve_checkpoint, weight_files
from lossmap.vlm.loading import VisionSide, load_vision_side

torch.set_num_threads(1)
MAIN = ["llava", "idefics2", "qwen2_5_vl"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize("model_type", MAIN)
@pytest.mark.parametrize("spelling", ["saved", "hub", "nested"])
@pytest.mark.parametrize("shard", ["1GB", "40KB"])
def test_every_spelling_and_sharding_gives_the_same_weights_and_features(tmp_path, model_type, spelling, shard):
    model = save_tiny(model_type, tmp_path, shard, spelling)
    assert (tmp_path / INDEX).exists() == (shard == "40KB")
    vision = load_vision_side(tmp_path)
    whole = model.model.state_dict()
    for name, tensor in vision.model.state_dict().items():
        assert torch.equal(tensor, whole[name]), name
    reference = tmp_path / "reference"
    save_tiny(model_type, reference)
    assert vision.digest == load_vision_side(reference).digest


def test_a_configuration_as_the_hub_has_it_loads_too(tmp_path):
    """Qwen2.5-VL's there keep the language model's settings at the top, and say min_pixels and max_pixels."""
    save_tiny("qwen2_5_vl", tmp_path)
    digest = load_vision_side(tmp_path).digest
    config = json.loads((tmp_path / "config.json").read_text())
    text, vision = config.pop("text_config"), config["vision_config"]
    rope = text.pop("rope_parameters")
    text |= {
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
    }
    vision |= {"in_chans": 3, "spatial_patch_size": vision["patch_size"], "model_type": "qwen2_5_vl"}
    flat = {**text, **config, "model_type": "qwen2_5_vl", "torch_dtype": "bfloat16"}
    (tmp_path / "config.json").write_text(json.dumps(flat))
    path = tmp_path / "preprocessor_config.json"
    processor = json.loads(path.read_text()) | {"min_pixels": 256, "max_pixels": 65536}
    del processor["size"]
    path.write_text(json.dumps({**processor, "processor_class": "Qwen2_5_VLProcessor"}))
    with pytest.raises(LossmapError, match="takes images of any size. Set the model's image_size"):
        load_vision_side(tmp_path)
    loaded = load_vision_side(tmp_path, image_size=96)
    assert loaded.digest == digest
    assert loaded.dtype == torch.float32
    assert loaded.pre_grid == (12, 12)


def test_the_digest_is_of_the_weights_in_use(tmp_path):
    save_tiny("llava", tmp_path / "a")
    save_tiny("llava", tmp_path / "b", seed=1)
    digests = [load_vision_side(tmp_path / name).digest for name in ("a", "a", "b")]
    assert digests[0] == digests[1] != digests[2]
    assert len(digests[0]) == 64
    assert load_vision_side(tmp_path / "a", dtype="bfloat16").digest != digests[0]
    # the language model is no part of it
    tensors = load_file(tmp_path / "a/model.safetensors")
    tensors["language_model.lm_head.weight"] += 1
    save_file(tensors, tmp_path / "a/model.safetensors", metadata={"format": "pt"})
    assert load_vision_side(tmp_path / "a").digest == digests[0]


def test_provenance_names_model_revision_and_weights(tmp_path):
    save_tiny("llava", tmp_path)
    vision = load_vision_side(tmp_path)
    assert vision.provenance == {
        "model_type": "llava",
        "revision": None,
        "digest": vision.digest,
        "connector_digest": vision.connector_digest,
    }


@pytest.mark.parametrize("model_type", CONFIGS)
def test_no_language_model_is_held(tmp_path, model_type):
    save_tiny(model_type, tmp_path)
    vision = load_vision_side(tmp_path, image_size=SIDE if model_type in NEEDS_SIDE else None)
    assert not [name for name in vision.model.state_dict() if name.startswith(("language_model", "text_model"))]


@pytest.mark.parametrize("layer", [-1, -2, -3, 1])
def test_llavas_unread_tower_layers_are_dropped_exactly(tmp_path, layer):
    model = tiny_model("llava")
    save_tiny("llava", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "vision_feature_layer": layer}))
    vision = load_vision_side(tmp_path)
    model.config.vision_feature_layer = layer
    image = Image.radial_gradient("L").convert("RGB")
    inputs = vision.preprocessor.normalise(vision.preprocessor.prepare([image]))
    with torch.inference_mode():
        wanted = model.model.get_image_features(**inputs).pooler_output
    assert torch.equal(vision.embed(inputs)[1], torch.stack(list(wanted)))
    assert len(vision.model.vision_tower.encoder.layers) == (layer if layer > 0 else 4 + layer)
    assert vision.config.vision_config.num_hidden_layers == 3  # the configuration told is the checkpoint's own


def test_a_layout_whose_numbers_would_fit_another_grid_is_refused_by_its_rows(tmp_path):
    """64 vectors of 32 numbers would divide among 16 patches."""
    save_tiny("llava", tmp_path)
    vision = load_vision_side(tmp_path)
    vision.pre_grid = (4, 4)
    batch = vision.preprocessor.prepare([Image.new("RGB", (SIDE, SIDE))])
    with pytest.raises(LossmapError, match="1 images gave 64 vectors before the connector .* not 4 x 4 patches each"):
        vision.embed(vision.preprocessor.normalise(batch))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near_single_precision(tmp_path, dtype):
    save_tiny("llava", tmp_path)
    single, half = load_vision_side(tmp_path), load_vision_side(tmp_path, dtype=dtype)
    assert half.dtype == getattr(torch, dtype)
    batch = single.preprocessor.prepare([Image.radial_gradient("L").convert("RGB")])
    pre, post = single.embed(single.preprocessor.normalise(batch, "cpu", single.dtype))
    pre_half, post_half = half.embed(half.preprocessor.normalise(batch, half.device, half.dtype))
    assert pre_half.dtype == post_half.dtype == half.dtype
    assert (pre_half.float() - pre).norm() < 0.05 * pre.norm()
    assert (post_half.float() - post).norm() < 0.05 * post.norm()


def test_a_precision_that_is_not_known_is_refused(tmp_path):
    with pytest.raises(LossmapError, match="dtype is 'int8'. Choose one of float32, bfloat16, float16"):
        load_vision_side(tmp_path, dtype="int8")


@pytest.mark.parametrize("model_type", MAIN)
def test_missing_weights_are_named_never_made_up(tmp_path, model_type):
    save_tiny(model_type, tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    lost = next(key for key in sorted(tensors) if ("vision" in key or "visual" in key) and "0" in key)
    del tensors[lost]
    save_file(tensors, path, metadata={"format": "pt"})
    tail = lost.split("0.", 1)[1]
    with pytest.raises(LossmapError, match=f"(?s){tmp_path}.*don't fit its config.json.*0.{tail}: missing.*random"):
        load_vision_side(tmp_path)


def test_weights_of_another_shape_are_named(tmp_path):
    save_tiny("llava", tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors["multi_modal_projector.linear_1.bias"] = torch.zeros(7)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(LossmapError, match=r"multi_modal_projector.linear_1.bias: .*7.* not .*48"):
        load_vision_side(tmp_path)


def test_a_damaged_weight_file_is_named(tmp_path):
    save_tiny("llava", tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(LossmapError, match="model.safetensors: can't be read as safetensors"):
        load_vision_side(tmp_path)


def test_a_layout_that_is_no_grid_is_refused(tmp_path):
    save_tiny("llava", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["vision_feature_select_strategy"] = "full"  # CLIP's class token among the patches
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(LossmapError, match="65 vectors before the connector.*not 8 x 8 patches each.*select_strategy"):
        load_vision_side(tmp_path)


def test_tokens_that_do_not_form_the_familys_grid_are_refused(tmp_path):
    save_tiny("llava", tmp_path)
    vision = load_vision_side(tmp_path)
    family = dataclasses.replace(vision.family, merge=lambda config: 2)
    with pytest.raises(LossmapError, match=r"64 tokens leave the connector, which is not a grid of \(4, 4\)"):
        VisionSide("llava", family, vision.config, vision.model, vision.preprocessor, None)


@pytest.mark.parametrize(("model_type", "views"), [("internvl", 1), ("aya_vision", 1), ("smolvlm", 5)])
def test_opening_a_model_that_cuts_tiles_runs_the_plain_image_with_the_fewest(tmp_path, monkeypatch, model_type, views):
    """At real size each tile takes a core ten seconds."""
    save_tiny(model_type, tmp_path)
    shapes, embed = [], VisionSide.embed
    monkeypatch.setattr(
        VisionSide, "embed", lambda self, inputs, shape=None: shapes.append(shape) or embed(self, inputs, shape)
    )
    load_vision_side(tmp_path, view="processor")
    assert [len(shape.views) for shape in shapes] == [views]


# Folders


@pytest.mark.parametrize("model_type", MAIN)
def test_only_shards_with_vision_tensors_are_needed(tmp_path, model_type):
    save_tiny(model_type, tmp_path, "40KB")
    needed, every = weight_files(tmp_path), weight_files(tmp_path, vision_only=False)
    assert set(needed) < set(every)
    digest = load_vision_side(tmp_path).digest
    for name in set(every) - set(needed):
        (tmp_path / name).unlink()
    assert load_vision_side(tmp_path).digest == digest
    with pytest.raises(LossmapError, match="weight files that model.safetensors.index.json names are missing"):
        resolve_checkpoint(tmp_path, vision_only=False)
    (tmp_path / needed[0]).unlink()
    with pytest.raises(LossmapError, match=f"(?s){tmp_path}.*{needed[0]}.*Add them"):
        resolve_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "has no config.json"),
        ("preprocessor_config.json", "has no preprocessor_config.json .nor processor_config.json."),
        ("model.safetensors", "has no model.safetensors and no model.safetensors.index.json. Complete"),
    ],
)
def test_a_folder_that_lacks_a_file_is_named_with_the_file(tmp_path, missing, message):
    save_tiny("llava", tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(LossmapError, match=f"{tmp_path}: {message}"):
        resolve_checkpoint(tmp_path)


def test_pickled_weights_are_refused(tmp_path):
    save_tiny("llava", tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(LossmapError, match="pickled files .*which can run code.*Convert them to safetensors"):
        resolve_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "can't be read as an index"),
        ("{}", "can't be read as an index"),
        ('{"weight_map": {"lm_head.weight": "a.safetensors"}}', "maps no tensor whose name begins with vision_tower."),
        (
            '{"weight_map": {"vision_tower.x": "../a.safetensors"}}',
            "names ../a.safetensors, which is not a file of its",
        ),
    ],
)
def test_an_index_that_leads_nowhere_is_named(tmp_path, content, message):
    save_tiny("llava", tmp_path)
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(LossmapError, match=f"{INDEX}: {message}"):
        resolve_checkpoint(tmp_path)


# The hub


class Hub:
    """Stands for the hub: a folder, of which it hands out what is asked for, into a cache."""

    def __init__(self, source, cache):
        self.source, self.cache, self.calls = source, cache, []

    def snapshot_download(self, repo_id, *, revision, allow_patterns, ignore_patterns):
        self.calls.append((repo_id, revision))
        self.cache.mkdir(exist_ok=True)
        for path in self.source.iterdir():
            if any(path.match(pattern) for pattern in allow_patterns):
                shutil.copy(path, self.cache)
        return str(self.cache)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = Hub(tmp_path / "source", tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    return hub


@pytest.mark.parametrize("model_type", MAIN)
@pytest.mark.parametrize("shard", ["1GB", "40KB"])
def test_from_the_hub_only_the_files_of_the_vision_side_come(hub, model_type, shard):
    save_tiny(model_type, hub.source, shard)
    vision = load_vision_side("owner/model", COMMIT)
    assert set(hub.calls) == {("owner/model", COMMIT)}
    assert sorted(p.name for p in hub.cache.glob("*.safetensors")) == weight_files(hub.source)
    assert vision.digest == load_vision_side(hub.source).digest
    assert vision.revision == COMMIT
    resolve_checkpoint("owner/model", COMMIT, vision_only=False)
    assert len(list(hub.cache.glob("*.safetensors"))) == len(list(hub.source.glob("*.safetensors")))


def test_from_the_hub_no_pickled_weights_come(hub):
    save_tiny("llava", hub.source)
    (hub.source / "model.safetensors").rename(hub.source / "pytorch_model.bin")
    with pytest.raises(LossmapError, match="has no model.safetensors.*published as pickled weights .* has safetensors"):
        resolve_checkpoint("owner/model", COMMIT)
    assert not list(hub.cache.glob("*.bin"))


@pytest.mark.parametrize("revision", [None, "", "main", "v1.0", COMMIT[:7], COMMIT.upper()])
def test_a_hub_checkpoint_must_be_pinned_to_a_commit(hub, revision):
    with pytest.raises(LossmapError, match="owner/model: has .*revision.*Give the commit to use, 40 hex digits"):
        resolve_checkpoint("owner/model", revision)
    assert hub.calls == []


@pytest.mark.parametrize("checkpoint", ["no/such/folder", "./model", "model", "/nowhere/model"])
def test_a_path_that_is_neither_folder_nor_hub_id_is_named(checkpoint):
    with pytest.raises(LossmapError, match=f"{checkpoint}: is neither a folder here nor a hub id"):
        resolve_checkpoint(checkpoint, COMMIT)


def response(status):
    return httpx2.Response(status, request=httpx2.Request("GET", "https://hub.invalid/owner/model"))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (errors.GatedRepoError("no", response=response(403)), "is gated.*set HF_TOKEN to a token of that account"),
        (errors.RepositoryNotFoundError("no", response=response(404)), "was not found, or is private.*HF_TOKEN"),
        (errors.RevisionNotFoundError("no", response=response(404)), "has no such revision"),
        (errors.HfHubHTTPError("no", response=response(401)), "was refused .HTTP 401.*HF_TOKEN"),
        (errors.HfHubHTTPError("no", response=response(403)), "was refused .HTTP 403.*HF_TOKEN"),
        (errors.HfHubHTTPError("no", response=response(503)), "could not be downloaded .HTTP 503.*HF_ENDPOINT"),
        (errors.OfflineModeIsEnabled("off"), "HF_HUB_OFFLINE"),
        (errors.LocalEntryNotFoundError("not cached"), "HF_HUB_OFFLINE.*HF_HOME.*HF_ENDPOINT"),
        (errors.IncompleteSnapshotError("part", "/cache"), "HF_HUB_OFFLINE"),
        (httpx2.ConnectError("name not resolved"), "could not be downloaded .Connect.*HF_ENDPOINT"),
        (httpx2.ReadTimeout("slow"), "could not be downloaded .Read.*HF_ENDPOINT"),
        (OSError(28, "No space left on device"), "No space left on device.*HF_HOME"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_goes_wrong_with_the_hub_is_told_with_what_helps(monkeypatch, error, message):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(LossmapError, match=f"owner/model at {COMMIT}: .*{message}") as caught:
        resolve_checkpoint("owner/model", COMMIT)
    assert "give its folder as the checkpoint" in str(caught.value) or "revision" in message
    assert "hf_secret" not in str(caught.value)


def test_the_real_hub_client_offline_gives_the_same_message(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(LossmapError, match="HF_HUB_OFFLINE"):
        resolve_checkpoint("owner/model", COMMIT)
    assert os.listdir(tmp_path) in ([], ["models--owner--model"], [".locks"])
