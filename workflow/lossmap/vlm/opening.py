"""Opening a model to measure it: a checkpoint, or one that is already loaded."""

import tempfile
from pathlib import Path
from typing import Any, cast

import torch

from lossmap.errors import LossmapError
from lossmap.vlm.families import FAMILIES, is_vision_key
from lossmap.vlm.loading import VisionSide, load_vision_side
from lossmap.vlm.preprocessing import read_preprocessor
from lossmap.vlm.receives import ALL
from lossmap.vlm.view_limits import PROCESSOR, SQUARE, View


def open_model(
    model: str | Path | torch.nn.Module,
    processor: Any = None,
    *,
    revision: str | None = None,
    image_size: int | None = None,
    view: View | None = None,
    dtype: str | None = None,
    device: str | None = None,
    receives: str = ALL,
) -> VisionSide:
    """A model's vision tower and connector, ready for `embed`.

    Parameters: model, a checkpoint (a folder, of a model or of a LoRA adapter, or a hub id with revision; the vision
        side alone is loaded), or a model of transformers in memory: the base class or the one that generates, on any
        device, in any precision, in training or not, with or without an adapter by peft, loaded or merged. It is used
        as it is, and left as it was. processor: of a model in memory, its processor or image processor. revision: of a
        hub id, the commit, 40 hex digits. view: how images are seen: "processor", as the model's own image processor
        resizes and cuts them; "square", in one square view; or limits of the processor, such as {"max_pixels": 1003520}
        or {"tiles": 4}; by default square where image_size is given, else processor. image_size: of a square view, its
        side in pixels, for families that take any (Qwen, Idefics, SmolVLM, Mistral). dtype and device: of a checkpoint;
        by default "float32", and a GPU where there is one. receives: of a DeepStack model (Qwen3-VL), "all": pre and
        post of all its connectors, side by side along the features; "sequence": of the merger alone.
    Returns: VisionSide.
    Raises: LossmapError if the checkpoint can't be had, the family is not known, the processor is missing or makes
        other pixels than Lossmap would, weights are not in memory, or revision, dtype or device are given with a
            model in memory.
    """
    view = view or (SQUARE if image_size else PROCESSOR)
    if isinstance(model, str | Path):
        if processor is not None:
            raise LossmapError(f"{model}: a checkpoint brings its own processor. Leave processor out.")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return load_vision_side(model, revision, dtype or "float32", device, image_size, view, receives)
    given = [name for name, value in (("revision", revision), ("dtype", dtype), ("device", device)) if value]
    if given:
        raise LossmapError(f"A model in memory is used as it is: leave out {', '.join(given)}.")
    return _of_memory(model, processor, image_size, view, receives)


def _of_memory(model: torch.nn.Module, processor: Any, image_size: int | None, view: View, receives: str) -> VisionSide:
    if hasattr(model, "get_base_model"):  # peft's wrapper; the adapter's layers stay where they are, inside the model
        model = cast(Any, model).get_base_model()
    base: Any = getattr(model, "base_model", model)  # of the class that generates; a base model is its own
    model_type = getattr(getattr(base, "config", None), "model_type", None)
    called = f"{getattr(model, 'name_or_path', '') or 'The model'} ({type(model).__name__})"
    if model_type not in FAMILIES or not FAMILIES[model_type].fits(base):
        raise LossmapError(
            f"{called}: is no vision-language model that Lossmap knows (its model_type is {model_type!r})."
            f" Known families: {', '.join(FAMILIES)}. Of others, `lossmap doctor --checkpoint FOLDER` finds the"
            " connector."
        )
    if processor is None:
        raise LossmapError(
            f"{called}: give its processor, too, which says how images become pixels: open_model(model, processor),"
            " with processor = AutoProcessor.from_pretrained(...)."
        )
    if any(values.is_meta for name, values in base.named_parameters() if is_vision_key(FAMILIES[model_type], name)):
        raise LossmapError(
            f"{called}: weights of its vision side are not in memory (left on disk, or in main memory, by device_map)."
            " Load the model with the vision side on one device."
        )
    image_processor = getattr(processor, "image_processor", processor)
    with tempfile.TemporaryDirectory() as folder:  # from here on it is read as a checkpoint's are
        try:
            base.config.save_pretrained(folder)
            image_processor.save_pretrained(folder)
        except Exception as error:  # whatever their classes raise
            raise LossmapError(
                f"{called}: its configuration or its image processor can't be written as JSON"
                f" ({type(error).__name__}: {error}). Give those that the model was loaded with."
            ) from None
        preprocessor = read_preprocessor(Path(folder), image_size, called, view)
    revision = getattr(base.config, "_commit_hash", None)
    checkpoint = getattr(model, "name_or_path", "") or None
    family = FAMILIES[model_type]
    return VisionSide(model_type, family, base.config, base, preprocessor, revision, checkpoint, view, receives)
