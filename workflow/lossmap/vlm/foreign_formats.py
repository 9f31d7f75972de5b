"""Checkpoints that hold a model otherwise than Lossmap reads it: what they are, and what to do."""

import json
from pathlib import Path

ADAPTER = "adapter_config.json"
ORIGINAL_LLAVA = (
    "{folder}: is in the original LLaVA format, of its authors' code. Convert it with transformers'"
    " convert_llava_weights_to_hf.py (for LLaVA-NeXT or -OneVision, the script of that name) and give that folder."
)


def foreign_format(folder: Path) -> str | None:
    """What a folder holds instead of a model in transformers' format, with the remedy; None if it shows no such thing.

    Found: adapters but for LoRA's (see `adapters.read_adapter`), the original LLaVA code's and Mistral's own formats,
    quantised weights.
    """
    adapter, config = json_object(folder / ADAPTER), json_object(folder / "config.json")
    original = bool({"mm_vision_tower", "mm_projector_type"} & set(config))
    kind = adapter.get("peft_type", "LORA")
    if (folder / ADAPTER).is_file() and (kind != "LORA" or original):
        base = adapter.get("base_model_name_or_path", "another model")
        named = "a LoRA adapter" if kind == "LORA" else f"an adapter ({kind})"
        then = "; that is then in the original LLaVA format, so convert it, too" if original else ""
        return (
            f"{folder}: is {named} of {base} ({ADAPTER}). Merge it (peft's merge_and_unload, then save_pretrained with"
            f" the processor) and give that folder{then}."
        )
    if original:
        return ORIGINAL_LLAVA.format(folder=folder)
    if not config and (folder / "params.json").is_file():
        return f"{folder}: is in Mistral's own format (params.json). Give the checkpoint in transformers' format."
    quantised = config.get("quantization_config") or config.get("compression_config")
    if quantised:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else None
        return (
            f"{folder}: config.json says that its weights are quantised ({method or 'quantization_config'}), which"
            " Lossmap does not read. Give the checkpoint that it was made of."
        )
    return None


def json_object(path: Path) -> dict:
    """The object in a JSON file; empty if the file is not there, or holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
