"""Checkpoints of published models as a partial download leaves them, with random weights of the vision side."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText

# Sizes, settings and names of tensors as published; no weights. connectors: modules whose inputs are measured.
# spelling: how names of transformers' modules begin -> how they do in the checkpoint. vision: how names of the vision
# side begin there. files: of the whole checkpoint. asked: what the model's own processor asks its image processor for.
PUBLISHED = json.loads(Path(__file__).with_name("published.json").read_text())
INDEX = "model.safetensors.index.json"


def write_partial(name: str, folder: Path) -> None:
    """Write configuration, image processor's settings, an index that names all files of the checkpoint, and of these
    files those that hold the vision side alone."""
    about = PUBLISHED[name]
    _write(folder, "config.json", about["config"])
    _write(folder, "preprocessor_config.json", about["processor"])
    with torch.device("meta"):
        shapes = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder)).state_dict()
    random = torch.Generator().manual_seed(0)
    parts: dict[str, dict[str, torch.Tensor]] = {prefix: {} for prefix in about["vision"]}
    weight_map, total = {}, 0
    for module, values in shapes.items():
        key = _spelt(module, about["spelling"])
        prefix = next(filter(key.startswith, parts), None)
        dtype = getattr(torch, about["dtype"])
        if prefix:
            parts[prefix][key] = _random(module, values.shape, random).to(dtype)
        place = list(parts).index(prefix) if prefix else len(parts) + len(weight_map) % (about["files"] - len(parts))
        weight_map[key] = f"model-{place + 1:05d}-of-{about['files']:05d}.safetensors"
        total += values.numel() * dtype.itemsize
    for tensors in parts.values():
        save_file(tensors, folder / weight_map[next(iter(tensors))], metadata={"format": "pt"})
    _write(folder, INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def write_complete(name: str, partial: Path, folder: Path) -> None:
    """The same with a language model of no layers and one word, whose weights are there, so that transformers reads the
    checkpoint by itself."""
    about = PUBLISHED[name]
    config = AutoConfig.from_pretrained(partial)
    for part in (config, config.get_text_config()):
        part.pad_token_id = None
    config.get_text_config().num_hidden_layers, config.get_text_config().vocab_size = 0, 1
    if getattr(config.get_text_config(), "layer_types", None):
        config.get_text_config().layer_types = []
    config.save_pretrained(folder)
    _write(folder, "preprocessor_config.json", about["processor"])
    with torch.device("meta"):
        shapes = AutoModelForImageTextToText.from_config(config).state_dict()
    weight_map = {}
    for file in partial.glob("*.safetensors"):
        (folder / file.name).symlink_to(file)
        weight_map |= dict.fromkeys(load_file(file), file.name)
    spelt = {_spelt(module, about["spelling"]): values.shape for module, values in shapes.items()}
    rest = {key: torch.zeros(shape) for key, shape in spelt.items() if key not in weight_map}
    save_file(rest, folder / "language.safetensors", metadata={"format": "pt"})
    _write(folder, INDEX, {"metadata": {}, "weight_map": weight_map | dict.fromkeys(rest, "language.safetensors")})


def _write(folder: Path, name: str, content: dict) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content, indent=2))


def _spelt(module: str, spelling: dict[str, str]) -> str:
    return next((new + module.removeprefix(old) for old, new in spelling.items() if module.startswith(old)), module)


def _random(module: str, shape: torch.Size, random: torch.Generator) -> torch.Tensor:
    """Small, so that nothing overflows; scales of norms around 1."""
    values = torch.empty(shape).normal_(std=0.02, generator=random)
    return values + 1 if values.ndim == 1 and not module.endswith("bias") else values
