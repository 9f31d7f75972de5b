"""A checkpoint's folder in a study: what is wrong with it is told by its files alone, before anything is loaded."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub.file_download import repo_folder_name
from safetensors.torch import load_file, save_file
from tiny_models import CONFIGS, NEEDS_SIDE, SIDE, save_config, save_tiny
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from lossmap.errors import LossmapError
from lossmap.study.settings import check_study
from lossmap.vlm import checkpoint_check, checkpoints
from lossmap.vlm.checkpoint_check import checkpoint_problems
from lossmap.vlm.families import FAMILIES
from lossmap.vlm.input_size import (
    DEFAULTS,
    LARGEST_TILE,
    LONGEST_OF_PIXTRAL,
    read_settings,
    shape_problems,
    size_problem,
)
from lossmap.vlm.preprocessing import load_preprocessor

ROOT = Path(__file__).parents[1]
ZOO = ROOT / "workflow/zoo"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def model(tmp_path):
    """A copy of the miniature LLaVA."""
    return Path(shutil.copytree(ZOO / "llava", tmp_path / "model"))


def edit(path, **values):
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **values}))


def rewritten(folder, change):
    """The folder, its tensors' names changed, or left out where `change` says None."""
    tensors = load_file(folder / "model.safetensors")
    kept = {change(key): tensor for key, tensor in tensors.items() if change(key)}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def sharded(folder):
    """The folder, vision and language weights in a file each."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = {key: f"model-0000{1 + ('language_model' in key)}-of-00002.safetensors" for key in tensors}
    for name in set(names.values()):
        save_file(
            {key: tensors[key] for key in tensors if names[key] == name}, folder / name, metadata={"format": "pt"}
        )
    (folder / INDEX).write_text(json.dumps({"weight_map": names}))


@pytest.mark.parametrize("name", ["llava", "idefics2", "qwen2_5_vl", "internvl"])
@pytest.mark.parametrize("asked", [False, True])
def test_the_shipped_models_have_no_problem(name, asked):
    assert checkpoint_problems(ZOO / name, asked=asked, view="processor") == []
    side = 64 if name == "qwen2_5_vl" else None  # which takes any
    assert checkpoint_problems(ZOO / name, side, asked=asked) == []


def test_the_check_imports_nothing_heavy():
    code = "import sys, lossmap.vlm.checkpoint_check; assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(ROOT / "workflow")})


# Other formats


def adapter_beside_weights(folder):
    (folder / "adapter_config.json").write_text('{"peft_type": "IA3"}')


def original(folder):
    edit(folder / "config.json", mm_vision_tower="openai/clip-vit-large-patch14-336", mm_projector_type="mlp2x_gelu")


def original_of_another_type(folder):
    edit(folder / "config.json", mm_vision_tower="google/siglip", model_type="llava_qwen")


def original_by_its_weights(folder):
    rewritten(folder, lambda key: key.replace("multi_modal_projector.linear_1", "model.mm_projector.0"))


def gguf(folder):
    (folder / "model.safetensors").rename(folder / "model-Q4_K_M.gguf")


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def pointer(folder):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1700000\n"
    (folder / "model.safetensors").write_text(text)


def cut_short(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-1000])


def no_weights(folder):
    (folder / "model.safetensors").write_text("<html>Sign in to download</html>")


def another_family(folder):
    edit(folder / "config.json", model_type="qwen2_5_vl_next")


def language_model_alone(folder):
    (folder / "config.json").write_text('{"model_type": "llama", "hidden_size": 64}')


def quantised(folder):
    edit(folder / "config.json", quantization_config={"quant_method": "awq", "bits": 4})


def no_connector(folder):
    rewritten(folder, lambda key: None if "multi_modal_projector" in key else key)


def no_tower(folder):
    rewritten(folder, lambda key: None if "vision_tower" in key else key)


def no_processor(folder):
    (folder / "processor_config.json").unlink()


def saved_one_deeper(folder):
    inner = folder / "checkpoint-500"
    shutil.copytree(folder, folder.parent / "copy")
    for path in folder.iterdir():
        path.unlink()
    shutil.move(folder.parent / "copy", inner)


def own_format_of_mistral(folder):
    (folder / "config.json").unlink()
    (folder / "params.json").write_text("{}")


def shard_missing(folder):
    sharded(folder)
    (folder / "model-00001-of-00002.safetensors").unlink()


def index_of_another(folder):
    sharded(folder)
    names = json.loads((folder / INDEX).read_text())["weight_map"]
    (folder / INDEX).write_text(
        json.dumps({"weight_map": {**names, "vision_tower.new": "model-00001-of-00002.safetensors"}})
    )


FORMATS = [
    (adapter_beside_weights, "is an adapter .IA3. of another model"),
    (original, "is in the original LLaVA format.* transformers' convert_llava_weights_to_hf.py"),
    (original_of_another_type, "is in the original LLaVA format"),
    (original_by_its_weights, "is in the original LLaVA format"),
    (gguf, "holds weights as GGUF only"),
    (pickled, "holds weights as pickled files .* Convert them to safetensors"),
    (pointer, "model.safetensors: is a pointer that git left in the file's place. Run git lfs pull"),
    (cut_short, "model.safetensors: is damaged or cut short: [0-9,]+ bytes, where its header speaks of [0-9,]+. Get"),
    (no_weights, "model.safetensors: can't be read as safetensors"),
    (another_family, "model_type is 'qwen2_5_vl_next', which Lossmap doesn't know .near: qwen2_5_vl.. Known"),
    (language_model_alone, "model_type is 'llama'.* It has no vision_config: it may be a language model alone"),
    (quantised, "weights are quantised .awq., which Lossmap does not read"),
    (no_connector, "holds no weights of the connector .multi_modal_projector."),
    (no_tower, "holds no weights of the vision tower"),
    (no_processor, "has no preprocessor_config.json .nor processor_config.json."),
    (saved_one_deeper, "has no config.json.* Its sub-folder checkpoint-500 has one"),
    (own_format_of_mistral, "is in Mistral's own format"),
    (shard_missing, "weight files that model.safetensors.index.json names are missing: model-00001-of-00002"),
    (index_of_another, "model-00001-of-00002.safetensors: lacks vision_tower.new and 0 other tensors that"),
]


@pytest.mark.parametrize(("spoil", "message"), FORMATS, ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_no_whole_checkpoint_is_told_by_the_studys_check(model, spoil, message):
    spoil(model)
    study = {"study": "s", "models": {"m": {"checkpoint": str(model)}}, "datasets": {"d": photos(model.parent)}}
    with pytest.raises(LossmapError, match=f"1 fault:\n  - models: m: {model}.*{message}"):
        check_study(study)


def photos(folder):
    (folder / "photos").mkdir(exist_ok=True)
    return {"format": "image_folder", "images": str(folder / "photos")}


def test_a_checkpoint_that_is_a_file_is_named(model):
    checkpoint = str(model / "model.safetensors")
    study = {"study": "s", "models": {"m": {"checkpoint": checkpoint}}, "datasets": {"d": photos(model.parent)}}
    with pytest.raises(LossmapError, match=f"{checkpoint} is a file; give the folder"):
        check_study(study)


# The language side, where it is asked


def no_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink()


def sentencepiece_only(folder):
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")


def tokenizer_pointer(folder):
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n")


def tokenizer_cut_short(folder):
    content = (folder / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").write_bytes(content[: len(content) // 2])


def no_template(folder):
    (folder / "chat_template.jinja").unlink()


def language_shard_missing(folder):
    sharded(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def language_left_out(folder):
    rewritten(folder, lambda key: None if "language_model" in key else key)


@pytest.mark.parametrize(
    ("spoil", "messages"),
    [
        (no_tokenizer, ["has no tokenizer.json, which captions", "no tokenizer_config.json", "has no chat template"]),
        (sentencepiece_only, ["has no tokenizer.json.*save it anew with transformers' AutoTokenizer"]),
        (tokenizer_pointer, ["tokenizer.json: is a pointer that git left"]),
        (tokenizer_cut_short, ["tokenizer.json: is damaged or cut short"]),
        (no_template, ["has no chat template .*by which llava is asked"]),
        (language_shard_missing, ["index.json names are missing: model-00002-of-00002.safetensors. Add them"]),
        (language_left_out, ["holds no weights of the language model"]),
    ],
)
@pytest.mark.parametrize("section", ["captions", "answers", "choices"])
def test_what_only_text_needs_is_missed_where_text_is_asked(model, spoil, messages, section):
    spoil(model)
    study = yaml.safe_load((ROOT / "config.yaml").read_text())
    study["models"] = {"llava-mini": {"checkpoint": str(model)}, "idefics2-mini": {"checkpoint": str(ZOO / "idefics2")}}
    for name in {"captions", "answers", "choices"} - {section}:
        study[name]["datasets"] = []
    del study["readers"]
    with pytest.raises(LossmapError) as caught:
        check_study(study)
    for message in messages:
        assert re.search(f"models: llava-mini: {model}.*{message}", str(caught.value))
    assert str(caught.value).count("models: ") == len(messages)
    study[section]["datasets"] = []
    for figure in ("figure1", "figure7", "figure12"):
        study.pop(figure)
    check_study(study)


def test_a_model_that_can_not_be_asked_is_told_so(model):
    [problem] = checkpoint_check.language_problems(model, "qwen3_vl", "sequence")
    assert re.search("given features of several tower layers .DeepStack. beside .*Set receives: all, or leave", problem)
    for model_type in ("qwen3_vl", "smolvlm", "mistral3"):
        assert checkpoint_check.language_problems(model, model_type) == []
    for model_type, why in checkpoint_check.MUTE.items():
        [problem] = checkpoint_check.language_problems(model, model_type)
        assert problem.endswith(f"{why}. Leave this model out of captions, answers and choices.")
    no_template(model)
    assert checkpoint_check.language_problems(model, "paligemma") == []  # no checkpoint of its has one


def test_receives_is_checked_before_anything_is_loaded(tmp_path):
    save_tiny("qwen3_vl", tmp_path / "deepstack")
    assert checkpoint_problems(tmp_path / "deepstack", receives="sequence") == []
    save_tiny("llava", tmp_path / "llava")
    [problem] = checkpoint_problems(tmp_path / "llava", receives="sequence")
    assert "receives is sequence, but its language model is given nothing else of an image" in problem
    assert checkpoint_check.configuration_problems(tmp_path / "llava", None, False, "a/b", receives="sequence") == [
        problem.replace(str(tmp_path / "llava"), "a/b")
    ]


@pytest.mark.parametrize("where", ["chat_template.json", "tokenizer_config.json", "processor_config.json"])
def test_a_chat_template_may_stand_in_other_files(model, where):
    no_template(model)
    if where == "chat_template.json":
        (model / where).write_text('{"chat_template": "{{ messages }}"}')
    else:
        edit(model / where, chat_template="{{ messages }}")
    assert checkpoint_problems(model, asked=True) == []


# Sizes


@pytest.mark.parametrize("model_type", CONFIGS)
def test_sizes_are_told_alike_by_the_files_alone_and_at_loading(tmp_path, model_type):
    save_config(model_type, tmp_path)
    for side in (None, 8, 16, 60, SIDE, 96, 128, 520):
        found = size_problem(tmp_path, side)
        if found is None:
            load_preprocessor(tmp_path, image_size=side)
        else:
            with pytest.raises(LossmapError) as caught:
                load_preprocessor(tmp_path, image_size=side)
            assert str(caught.value) == found
    assert size_problem(tmp_path, SIDE) is None


@pytest.mark.parametrize("model_type", DEFAULTS)
def test_what_a_configuration_leaves_out_is_taken_as_transformers_takes_it(model_type):
    config = CONFIG_MAPPING[model_type](vision_config={})
    if model_type in NEEDS_SIDE:
        config = CONFIG_MAPPING[model_type](vision_config={"model_type": "pixtral"})
    for name, value in DEFAULTS[model_type].items():
        if isinstance(value, dict):
            assert {key: getattr(getattr(config, name), key) for key in value} == value
        else:
            assert getattr(config, name) == value


def test_defaults_are_known_of_families_without_a_size_of_their_own_and_where_hub_files_leave_them_out():
    of_any_size = {name for name, family in FAMILIES.items() if family.view in ("any", "longest")}
    assert set(DEFAULTS) == of_any_size | {"vipllava", "blip-2"}


@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "idefics2", "mistral3"])
def test_published_models_of_any_size_want_image_size(tmp_path, model_type):
    """Their files say much less than those that transformers saves."""
    published = {"qwen": {"min_pixels": 3136, "max_pixels": 12845056}, "mistral3": {"size": {"longest_edge": 1540}}}
    settings = published.get(model_type.partition("2")[0].partition("3")[0], published.get(model_type, {}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, "vision_config": {"patch_size": 14}}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    unit = 14 if model_type == "idefics2" else 28
    assert f"image_size to the side of the square that every image is resized to, a multiple of {unit}, say 336" in (
        size_problem(tmp_path)
    )
    assert size_problem(tmp_path, 168) is None


def test_a_size_in_pixels_fixes_the_side_where_both_limits_agree(tmp_path):
    save_config("qwen2_vl", tmp_path)
    content = json.loads((tmp_path / "preprocessor_config.json").read_text())
    del content["size"]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**content, "min_pixels": 4096, "max_pixels": 4096}))
    assert read_settings(tmp_path)["size"] == {"shortest_edge": 4096, "longest_edge": 4096}
    assert size_problem(tmp_path) is None
    assert load_preprocessor(tmp_path).input_size == (64, 64)


def test_a_hub_checkpoint_is_checked_as_far_as_its_configuration_is_here(tmp_path, monkeypatch):
    study = {
        "study": "s",
        "models": {"m": {"checkpoint": "owner/model", "revision": COMMIT}},
        "datasets": {"d": photos(tmp_path)},
    }
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    check_study(study)  # nothing is known of it
    cached = tmp_path / repo_folder_name(repo_id="owner/model", repo_type="model") / "snapshots" / COMMIT
    cached.mkdir(parents=True)
    (cached / "config.json").write_text("{}")
    check_study(study)  # the rest is still to come
    save_config("qwen2_5_vl", cached, processor={"size": {"shortest_edge": 3136, "longest_edge": 12845056}})
    check_study(study)  # its own processor takes any size
    study["models"]["m"]["view"] = {"tiles": 4}
    with pytest.raises(LossmapError, match="models: m: owner/model .qwen2_5_vl.: view asks for tiles, .* max_pixels"):
        check_study(study)
    study["models"]["m"]["view"] = "square"
    with pytest.raises(
        LossmapError, match="models: m: owner/model .qwen2_5_vl.: takes images of any size. Set the model"
    ):
        check_study(study)
    study["models"]["m"]["image_size"] = 64
    check_study(study)


@pytest.mark.parametrize(
    "given", [{}, {"HF_HOME": "/x"}, {"XDG_CACHE_HOME": "/y"}, {"HF_HOME": "/x", "HF_HUB_CACHE": "/z"}]
)
def test_the_hubs_cache_is_looked_for_where_the_hubs_client_has_it(given):
    names = ("HF_HOME", "XDG_CACHE_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
    environment = {key: value for key, value in os.environ.items() if key not in names} | given
    code = (
        "from huggingface_hub.constants import HF_HUB_CACHE; from lossmap.vlm.checkpoints import _hub_cache; "
        "assert str(_hub_cache()) == HF_HUB_CACHE, (str(_hub_cache()), HF_HUB_CACHE)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment | {"PYTHONPATH": str(ROOT / "workflow")})


def test_the_papers_models_are_known_without_the_hub(tmp_path):
    study = yaml.safe_load((ROOT / "workflow/studies/paper.yaml").read_text())
    models = {name: dict(model) for name, model in study["models"].items()}
    for model in models.values():
        assert checkpoints.known_configuration(model["checkpoint"], model["revision"])
        model.pop("image_size", None)
    with pytest.raises(LossmapError, match="2 faults:(.*\n)+.*HuggingFaceM4/idefics2-8b.*\n.*Qwen2.5-VL-7B-Instruct"):
        check_study({"study": "s", "models": models, "datasets": {"d": photos(tmp_path)}})


# Shapes


def test_shapes_that_a_familys_processor_refuses_are_named(tmp_path):
    shapes = [("a.jpg", 640, 427), ("b.png", 201, 1), ("c.png", 3, 601), ("d.png", 400, 2), ("e.png", 400_000, 1)]
    limits = {name: 200 for name, family in FAMILIES.items() if "image_grid_thw" in family.inputs}
    limits |= dict.fromkeys(("mistral3", "lighton_ocr"), SIDE)
    for model_type in CONFIGS:
        save_config(model_type, tmp_path / model_type)
        found = shape_problems(tmp_path / model_type, shapes)
        refused = [name for name, w, h in shapes if max(w, h) / min(w, h) > limits.get(model_type, 10**9)]
        assert [line.partition(":")[0] for line in found] == refused
    [_, _, last] = shape_problems(tmp_path / "qwen2_vl", shapes)
    assert last == (
        "e.png: 400000 x 1 pixels; image processors of qwen2_vl take shapes up to 200:1. Crop the image, or take it out"
        " of the dataset."
    )


@pytest.mark.parametrize(("model_type", "limit"), [("qwen2_vl", 200), ("mistral3", SIDE)])
def test_the_limit_is_that_of_the_processor_itself(tmp_path, model_type, limit):
    from PIL import Image
    from transformers import AutoImageProcessor

    save_config(model_type, tmp_path)
    processor = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    processor([Image.new("RGB", (limit * 3, 3))], return_tensors="pt")
    with pytest.raises((ValueError, ZeroDivisionError)):
        processor([Image.new("RGB", (limit * 3 + 1, 3))], return_tensors="pt")


def test_defaults_of_image_processors_are_those_of_their_classes():
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
    from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    assert Idefics3ImageProcessorPil.max_image_size == SmolVLMImageProcessorPil.max_image_size == LARGEST_TILE
    assert PixtralImageProcessorPil.size == {"longest_edge": LONGEST_OF_PIXTRAL}
