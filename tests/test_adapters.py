"""A LoRA adapter's folder as a checkpoint: what peft makes of the whole model, and what is wrong with a folder."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_checkpoint_check import photos
from tiny_models import CONFIGS, IMAGE_PROCESSORS, SIDE, save_tiny, tiny_model
from transformers import AutoModelForImageTextToText

import lossmap
from lossmap.errors import LossmapError
from lossmap.study.settings import check_study
from lossmap.vlm.checkpoint_check import checkpoint_problems
from lossmap.vlm.checkpoints import fetch_configuration, folders_of, resolve_checkpoint
from lossmap.vlm.families import FAMILIES, is_vision_key
from lossmap.vlm.generation import load_language_side
from lossmap.vlm.loading import load_vision_side
from lossmap.vlm.recompute import load_connector

ROOT = Path(__file__).parents[1]
ZOO = ROOT / "workflow/zoo"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PICTURES = list(np.random.default_rng(0).integers(0, 256, (2, 96, 80, 3), dtype=np.uint8))
SIZES = {name for name, family in FAMILIES.items() if family.view in ("any", "longest")}
# Layers of the miniature LLaVA's tower, connector and language model.
LLAVA = ["q_proj", "v_proj", "fc1", "linear_1", "linear_2"]


def adapt(base, folder, model=None, **settings):
    """Train nothing: save a random adapter of a model in `base`, and return that model with the adapter merged."""
    model = model or AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(1)
    adapted = peft.get_peft_model(model, peft.LoraConfig(init_lora_weights=False, **{"r": 2, **settings}))
    with torch.no_grad():
        for name, values in adapted.named_parameters():
            if values.requires_grad and "lora_" not in name:
                values.add_(torch.randn_like(values) * 0.1)
    adapted.save_pretrained(folder)
    edit(folder, base_model_name_or_path=str(base))
    return adapted.merge_and_unload().eval()


def edit(folder, **values):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def assert_embeds_alike(found, wanted, atol=1e-6):
    found, wanted = (lossmap.embed(vision, PICTURES) for vision in (found, wanted))
    for name in ("pre", "post"):
        scale = float(np.abs(wanted[name]).max())
        np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=atol * max(scale, 1))


@pytest.mark.parametrize("model_type", CONFIGS)
def test_an_adapter_of_every_family_is_merged_as_peft_merges_it(tmp_path, model_type):
    model = save_tiny(model_type, tmp_path / "base")
    # Experts are parameters, which peft adapts in a way of its own.
    targets = r".*visual\..*\.(qkv|proj)" if model_type == "glm4v_moe" else "all-linear"
    merged = adapt(tmp_path / "base", tmp_path / "adapter", model, target_modules=targets)
    size = SIDE if model_type in SIZES else None
    wanted = lossmap.open_model(merged, IMAGE_PROCESSORS[model_type](), image_size=size)
    found = lossmap.open_model(tmp_path / "adapter", image_size=size, device="cpu")
    assert_embeds_alike(found, wanted)
    base = lossmap.open_model(tmp_path / "base", image_size=size, device="cpu")
    assert found.digest != base.digest
    if model_type != "gemma3":  # whose connector has no linear layer
        assert found.connector_digest != base.connector_digest
    assert load_connector(tmp_path / "adapter", image_size=size).digest == found.connector_digest


@pytest.mark.parametrize(
    "settings",
    [
        {"use_rslora": True, "lora_alpha": 5},
        {"rank_pattern": {"vision_tower.*q_proj": 3, "linear_1": 1}, "alpha_pattern": {"linear_1": 7, "v_proj": 2}},
        {"use_dora": True},
        {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["multi_modal_projector"]},
        {"bias": "all"},
        {"lora_bias": True, "target_modules": r".*(vision_tower.*q_proj|linear_1)"},
        {"bias": "lora_only"},
        {"target_modules": r".*vision_tower.*\.(q_proj|fc1|patch_embedding)"},
        {"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": "layers"},
        {"target_modules": ["fc1", "k_proj"], "exclude_modules": r".*language_model.*"},
    ],
    ids=str,
)
def test_what_an_adapter_may_say_is_understood_as_peft_does(tmp_path, settings):
    model = save_tiny("llava", tmp_path / "base")
    merged = adapt(tmp_path / "base", tmp_path / "adapter", model, **{"target_modules": LLAVA} | settings)
    wanted = lossmap.open_model(merged, IMAGE_PROCESSORS["llava"]())
    assert_embeds_alike(lossmap.open_model(tmp_path / "adapter", device="cpu"), wanted)


def test_in_half_precision_it_is_what_peft_makes_of_the_model_in_half_precision(tmp_path):
    save_tiny("llava", tmp_path / "base")
    adapt(tmp_path / "base", tmp_path / "adapter", target_modules=LLAVA)
    whole = AutoModelForImageTextToText.from_pretrained(tmp_path / "base", dtype=torch.bfloat16)
    merged = peft.PeftModel.from_pretrained(whole, tmp_path / "adapter").merge_and_unload()
    found = lossmap.open_model(tmp_path / "adapter", dtype="bfloat16", device="cpu")
    loaded, state = found.model.state_dict(), merged.model.state_dict()
    vision = [name for name in loaded if is_vision_key(found.family, name)]
    assert len(vision) > 30
    assert all(torch.equal(loaded[name], state[name]) for name in vision)


@pytest.mark.parametrize(
    "old",
    [
        {"model.vision_tower.": "model.vision_tower.vision_model."},  # transformers 4.52 to 4.57
        {  # before
            "model.vision_tower.": "vision_tower.vision_model.",
            "model.multi_modal_projector.": "multi_modal_projector.",
            "model.language_model.": "language_model.model.",
        },
    ],
)
def test_an_adapter_of_an_earlier_transformers_is_understood(tmp_path, old):
    model = save_tiny("llava", tmp_path / "base")
    settings = {"target_modules": LLAVA[:-1], "modules_to_save": ["linear_2"], "alpha_pattern": {"fc1": 3}}
    merged = adapt(tmp_path / "base", tmp_path / "adapter", model, **settings)
    path = tmp_path / "adapter/adapter_model.safetensors"

    def respelt(key):
        inner = key.removeprefix("base_model.model.")
        found = next((name for name in old if inner.startswith(name)), None)
        return f"base_model.model.{old[found]}{inner.removeprefix(found)}" if found else key

    tensors = load_file(path)
    assert {respelt(key) for key in tensors} != set(tensors)
    save_file({respelt(key): values for key, values in tensors.items()}, path, metadata={"format": "pt"})
    wanted = lossmap.open_model(merged, IMAGE_PROCESSORS["llava"]())
    assert_embeds_alike(lossmap.open_model(tmp_path / "adapter", device="cpu"), wanted)


# The language side


@pytest.fixture(scope="module")
def speaking(tmp_path_factory):
    """The miniature LLaVA, an adapter of its whole, one of its language model alone, and both merged."""
    folder = tmp_path_factory.mktemp("speaking")
    whole = adapt(ZOO / "llava", folder / "whole", target_modules="all-linear")
    text = adapt(ZOO / "llava", folder / "text", target_modules=r".*language_model.*\.(q_proj|up_proj)")
    return folder, {"whole": whole, "text": text}


@pytest.mark.parametrize("name", ["whole", "text"])
def test_what_speaks_is_the_merged_language_model(speaking, name):
    folder, merged = speaking
    language = load_language_side(folder / name)
    loaded, wanted = language.model.state_dict(), merged[name].state_dict()
    assert loaded.keys() == {key for key in wanted if not is_vision_key(language.family, key)}
    for key, values in loaded.items():
        torch.testing.assert_close(values, wanted[key], rtol=0, atol=1e-6)
    base = load_language_side(ZOO / "llava")
    assert any(not torch.equal(values, loaded[key]) for key, values in base.model.state_dict().items())
    assert language.revision != base.revision


def test_an_adapter_of_the_language_model_alone_leaves_the_vision_side_as_it_is(speaking):
    folder, _ = speaking
    found, base = load_vision_side(folder / "text"), load_vision_side(ZOO / "llava")
    assert (found.digest, found.connector_digest) == (base.digest, base.connector_digest)
    assert_embeds_alike(found, base, atol=0)


def test_the_revision_of_what_speaks_covers_base_and_adapter(tmp_path):
    shutil.copytree(ZOO / "llava", tmp_path / "base")
    adapt(tmp_path / "base", tmp_path / "adapter", target_modules=["q_proj"])
    edit(tmp_path / "adapter", base_model_name_or_path="../base")
    seen = {load_language_side(tmp_path / "adapter").revision}
    for path in (tmp_path / "adapter/adapter_model.safetensors", tmp_path / "base/model.safetensors"):
        save_file({key: 1.1 * values for key, values in load_file(path).items()}, path, metadata={"format": "pt"})
        seen.add(load_language_side(tmp_path / "adapter").revision)
    assert len(seen) == 3


# Where the base lies


def test_a_base_is_found_from_the_adapters_folder(tmp_path, monkeypatch):
    save_tiny("llava", tmp_path / "base")
    adapt(tmp_path / "base", tmp_path / "adapter", target_modules=LLAVA)
    edit(tmp_path / "adapter", base_model_name_or_path="../base")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert resolve_checkpoint("../adapter").samefile(tmp_path / "base")
    assert [folder.resolve() for folder in folders_of("../adapter")] == [tmp_path / "adapter", tmp_path / "base"]
    assert fetch_configuration(tmp_path / "adapter").samefile(tmp_path / "base")
    study = {"study": "s", "models": {"m": {"checkpoint": "../adapter"}}, "datasets": {"d": photos(tmp_path)}}
    check_study(study)


def test_a_base_on_the_hub_is_had_at_its_commit(tmp_path, monkeypatch):
    base = tmp_path / "snapshot"
    save_tiny("llava", base)
    adapt(base, tmp_path / "adapter", target_modules=LLAVA)
    edit(tmp_path / "adapter", base_model_name_or_path="owner/model", revision=COMMIT)
    calls = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda name, revision, **_: calls.append((name, revision)) or str(base),
    )
    assert resolve_checkpoint(tmp_path / "adapter") == base
    assert set(calls) == {("owner/model", COMMIT)}
    assert folders_of(tmp_path / "adapter") == [tmp_path / "adapter"]
    assert checkpoint_problems(tmp_path / "adapter") == []  # its configuration is not here yet


# What is wrong with a folder


@pytest.fixture
def adapter(tmp_path):
    """An adapter of the miniature LLaVA, and a copy of that beside it."""
    shutil.copytree(ZOO / "llava", tmp_path / "base")
    adapt(tmp_path / "base", tmp_path / "adapter", target_modules=["q_proj", "linear_1"])
    return tmp_path / "adapter"


def no_weights(folder):
    (folder / "adapter_model.safetensors").unlink()


def pickled(folder):
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def cut_short(folder):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def no_json(folder):
    (folder / "adapter_config.json").write_text('{"peft_type": ')


def no_base(folder):
    edit(folder, base_model_name_or_path=None)


def base_elsewhere(folder):
    edit(folder, base_model_name_or_path="/home/you/llava")


def base_not_pinned(folder):
    edit(folder, base_model_name_or_path="llava-hf/llava-1.5-7b-hf")


def base_on_a_branch(folder):
    edit(folder, base_model_name_or_path="llava-hf/llava-1.5-7b-hf", revision="main")


def base_an_adapter(folder):
    shutil.copytree(folder, folder.parent / "first")
    edit(folder, base_model_name_or_path="../first")


def base_of_no_family(folder):
    (folder.parent / "base/config.json").write_text('{"model_type": "bert"}')


def base_without_weights(folder):
    (folder.parent / "base/model.safetensors").unlink()


def not_lora(folder):
    edit(folder, peft_type="IA3")


def of_the_original_llava(folder):
    (folder / "config.json").write_text('{"mm_vision_tower": "openai/clip-vit-large-patch14-336"}')


def begins_otherwise(folder):
    edit(folder, init_lora_weights="pissa_niter_16")


def of_parameters(folder):
    edit(folder, target_parameters=["experts.gate_up_proj"])


SPOILT = [
    (no_weights, "adapter: has no adapter_model.safetensors. Add it."),
    (
        pickled,
        "has no adapter_model.safetensors, only adapter_model.bin, a pickled file.* Save the adapter anew",
    ),
    (cut_short, "adapter_model.safetensors: is damaged or cut short|adapter_model.safetensors: can't be read"),
    (no_json, "adapter_config.json: can't be read as an adapter's configuration. Get the file again"),
    (no_base, "adapter_config.json: has no base_model_name_or_path.* Write the base's folder there"),
    (
        base_elsewhere,
        "config.json: base_model_name_or_path is /home/you/llava, and there is no such folder. Write",
    ),
    (
        base_not_pinned,
        "_path is llava-hf/llava-1.5-7b-hf, .* needs a commit, and there is no revision",
    ),
    (base_on_a_branch, "needs a commit, and revision is 'main'. Write the commit .* as revision, 40 hex digits"),
    (base_an_adapter, "base_model_name_or_path is ../first, which is an adapter, too. Merge that one"),
    (base_of_no_family, "base.config.json: model_type is 'bert', which Lossmap doesn't know.* Known families"),
    (base_without_weights, "base: has no model.safetensors"),
    (not_lora, "is an adapter .IA3. of .*base .adapter_config.json.. Merge it"),
    (of_the_original_llava, "is a LoRA adapter of .*; that is then in the original LLaVA format, so convert it"),
    (
        begins_otherwise,
        "init_lora_weights is 'pissa_niter_16', which changes the base's weights.* Save the adapter",
    ),
    (of_parameters, "target_parameters is set, with which Lossmap can't merge"),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILT, ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_wrong_with_an_adapter_is_one_fault_of_the_study_and_of_opening_it(adapter, spoil, message):
    spoil(adapter)
    study = {"study": "s", "models": {"m": {"checkpoint": str(adapter)}}, "datasets": {"d": photos(adapter.parent)}}
    with pytest.raises(LossmapError, match=f"1 fault:\n  - models: m: .*({message})"):
        check_study(study)
    with pytest.raises(LossmapError, match=message):
        load_vision_side(adapter)


def strange_tensor(tensors):
    tensors["base_model.model.model.vision_tower.no_such_layer.lora_A.weight"] = torch.zeros(2, 4)


def half_a_pair(tensors):
    tensors.pop(next(key for key in tensors if "vision_tower" in key and "lora_B" in key))


def another_shape(tensors):
    key = next(key for key in tensors if "multi_modal_projector.linear_1.lora_A" in key)
    tensors[key] = torch.zeros(2, 7)


def another_rank(tensors):
    for key in tensors:
        tensors[key] = tensors[key].repeat(2, 1) if "lora_A" in key else tensors[key].repeat(1, 2)


def no_number(tensors):
    tensors[next(key for key in tensors if "vision_tower" in key)].fill_(float("nan"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (strange_tensor, "fit no module of a llava model:.*no_such_layer.lora_A.weight.*base_model_name_or_path"),
        (half_a_pair, "can't be merged into .*base .missing: .*lora_B"),
        (another_shape, "can't be merged into .*linear_1"),
        (another_rank, "can't be merged into .*size mismatch"),
        (no_number, "can't be merged into .*NaN"),
    ],
)
def test_an_adapter_that_does_not_fit_its_base_is_named(adapter, spoil, message):
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    spoil(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(LossmapError) as caught:
        load_vision_side(adapter)
    assert re.search(f"adapter_model.safetensors: .*{message}", str(caught.value), flags=re.DOTALL)


def test_a_model_that_peft_wraps_in_memory_is_as_good_as_its_folder(tmp_path):
    save_tiny("llava", tmp_path / "base")
    adapt(tmp_path / "base", tmp_path / "adapter", target_modules=LLAVA)
    loaded = peft.PeftModel.from_pretrained(tiny_model("llava"), tmp_path / "adapter")
    wanted = lossmap.open_model(loaded, IMAGE_PROCESSORS["llava"]())
    assert_embeds_alike(lossmap.open_model(tmp_path / "adapter", device="cpu"), wanted, atol=1e-5)


def test_without_peft_the_error_says_what_to_install(adapter, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(LossmapError, match=f"{adapter}: is a LoRA adapter, .*not installed here: pip install peft"):
        load_vision_side(adapter)
