"""A LoRA adapter merged into the part of its base that is loaded."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel

from lossmap.errors import LossmapError
from lossmap.vlm.adapters import ADAPTER_WEIGHTS, Adapter
from lossmap.vlm.foreign_formats import ADAPTER

PREFIX = "base_model.model."  # what peft writes before the name that a module has in the model
PART = re.compile(r"(.+)\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)(?:\.(weight|bias))?")
NAME = "default"  # peft's, of a model's only adapter


def merge_adapter(model: PreTrainedModel, adapter: Adapter, config: PreTrainedConfig, wanted: Callable) -> None:
    """Add to a model's weights what an adapter adds, as peft does. The model is changed, and holds nothing of peft.

    What the adapter adds to other parts of the whole model than these is left out.

    Parameters: model, of the class that generates or the base model within it, reduced or not; config, of the whole
        model; wanted, whether a weight of this name is among those that were loaded.
    Raises: LossmapError if the adapter doesn't fit the model, or its files can't be read.
    """
    path = adapter.folder / ADAPTER_WEIGHTS
    settings = _settings(adapter.folder)
    with torch.device("meta"):
        whole = AutoModelForImageTextToText.from_config(config)
    spelt = _spelling(whole)
    outer = "" if hasattr(model, "model") else "model."  # before names of a base model in the whole one
    mine = {name for name, _ in [*model.named_modules(), *model.named_parameters()]}
    layers: dict[str, str] = {}  # name in this model -> name in the adapter
    low_rank, full, strange = {}, {}, []
    for key, values in _read(path).items():
        part = PART.fullmatch(key.removeprefix(PREFIX))
        given = part[1] if part else key.removeprefix(PREFIX).replace(".base_layer.", ".")
        name = spelt(given, weight=not part)
        if name is None:
            strange.append(key)
            continue
        name = name.removeprefix(outer)
        if name not in mine or not wanted(f"{name}." if part else name):
            continue
        if not part:
            full[name] = values
            continue
        layers[name] = given
        ending = f".{part[3] or 'weight'}" if "embedding" not in part[2] else ""
        low_rank[f"whole.{name}.{part[2]}.{NAME}{ending}"] = values
    if strange:
        raise LossmapError.listing(
            f"{path}: holds tensors that fit no module of a {config.model_type} model:",
            sorted(strange),
            f"Check that base_model_name_or_path in {ADAPTER} is what the adapter was trained on.",
        )
    try:
        if layers:
            _merge(model, settings, layers, low_rank)
        for name, values in full.items():
            _replace(model, name, values)
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError, NotImplementedError) as error:
        raise LossmapError(
            f"{path}: can't be merged into {adapter.base} ({' '.join(str(error).split())}). Check {ADAPTER} beside it,"
            " and that its base_model_name_or_path is what the adapter was trained on."
        ) from None


def _settings(folder: Path) -> Any:
    """The LoraConfig in an adapter's folder."""
    try:
        from peft import LoraConfig
    except ModuleNotFoundError:
        raise LossmapError(
            f"{folder}: is a LoRA adapter, which peft merges, and peft is not installed here: pip install peft."
        ) from None
    try:
        with warnings.catch_warnings(action="ignore"):  # of settings that a later peft has, which are for training
            return LoraConfig.from_pretrained(str(folder))
    except Exception as error:  # whatever peft stumbles on
        raise LossmapError(
            f"{folder / ADAPTER}: peft can't read it ({type(error).__name__}: {' '.join(str(error).split())}). Get the"
            " file again, or save the adapter with a version of peft as that here."
        ) from None


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise LossmapError(f"{path}: can't be read as safetensors ({error}). Get the file again.") from None


def _spelling(whole: PreTrainedModel) -> Callable[..., str | None]:
    """Name of a module, or of a weight, as an adapter has it, of this or an earlier transformers -> that in the whole
    model; None where it has none of this name."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    renamings = [one for one in get_model_conversion_mapping(whole) if isinstance(one, WeightRenaming)]
    weights = set(whole.state_dict())
    modules = {name for name, _ in whole.named_modules()}

    def spelt(name: str, weight: bool) -> str | None:
        known, end = (weights, "") if weight else (modules, ".weight")
        for base in (name, f"model.{name}", name.removeprefix("model.")):
            renamed, _ = rename_source_key(base + end, renamings, [])
            for found in (base, renamed.removesuffix(end), f"model.{renamed.removesuffix(end)}"):
                if found in known:
                    return found
        return None

    return spelt


def _merge(model: nn.Module, settings: Any, layers: dict[str, str], low_rank: dict[str, torch.Tensor]) -> None:
    """Layers by their full names: what patterns mean was settled when the adapter was made, on the whole model."""
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel
    from peft.utils.other import get_pattern_key

    def each(patterns: dict, usual: int) -> dict[str, int]:
        found = {name: get_pattern_key(list(patterns), given) for name, given in layers.items()}
        return {re.escape(f"whole.{name}"): patterns.get(pattern, usual) for name, pattern in found.items()}

    exact = LoraConfig(
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        target_modules=[f"whole.{name}" for name in layers],
        rank_pattern=each(settings.rank_pattern, settings.r),
        alpha_pattern=each(settings.alpha_pattern, settings.lora_alpha),
        use_rslora=settings.use_rslora,
        use_dora=settings.use_dora,
        lora_bias=settings.lora_bias,
        fan_in_fan_out=settings.fan_in_fan_out,
    )
    holder = nn.Module()
    holder.whole = model
    adapted = LoraModel(holder, {NAME: exact}, NAME)
    # As peft does when it loads an adapter: its products in float32, whatever the base is in.
    low_rank = {key: values.float() for key, values in low_rank.items()}
    for key, values in adapted.model.named_parameters():
        if "lora_" in key:
            values.data = values.data.float()
    loaded = adapted.model.load_state_dict(low_rank, strict=False)
    lacking = [key for key in loaded.missing_keys if ".lora_" in key]
    if lacking or loaded.unexpected_keys:
        raise ValueError(f"missing: {sorted(lacking)[:3]}, unexpected: {sorted(loaded.unexpected_keys)[:3]}")
    adapted.merge_and_unload()  # peft's safe_merge rounds twice in half precision
    for name in layers:
        if not all(values.isfinite().all() for values in model.get_submodule(name).parameters()):
            raise ValueError(f"{name}: NaN or infinity")


def _replace(model: nn.Module, name: str, values: torch.Tensor) -> None:
    """A weight that the adapter holds whole. Where it was shared with another module, it is not any more."""
    place, _, last = name.rpartition(".")
    module = model.get_submodule(place)
    old = getattr(module, last)
    if old.shape != values.shape:
        raise ValueError(f"{name}: {tuple(values.shape)}, not {tuple(old.shape)}")
    new = values.to(old.device, old.dtype)
    setattr(module, last, nn.Parameter(new, requires_grad=False) if isinstance(old, nn.Parameter) else new)
