"""Processors (image processor + tokenizer + chat template) that need no torchvision.

Processors of families that also take video demand a video processor, and video processors demand torchvision, even for
images alone. Lossmap reads images only, so it uses each family's own processor class less its video part. The image
part is pinned to transformers' PIL backend, so that a machine with torchvision gives the same pixels as one without.
Mistral 3's class can't be imported without torchvision, of which it uses nothing: it is imported beside its PIL part.
"""

import sys
from functools import cache
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

from lossmap.vlm.foreign_formats import json_object


@cache
def image_processor_only(processor_class: Any) -> Any:
    """The same processor class, less its video part.

    Parameters: processor_class, a transformers `ProcessorMixin` subclass, say `Qwen2_5_VLProcessor`.
    Returns: a subclass of the same name (so that what it saves is an ordinary checkpoint, which transformers reads
        anywhere), made as `image_processor_only(cls)(image_processor, tokenizer, chat_template=...)`; the class
        itself if it has no video part.
    """
    if "video_processor" not in processor_class.get_attributes():
        return processor_class

    from transformers import ProcessorMixin

    class NoVideo(ProcessorMixin):  # stands behind the family's class
        def __init__(self, *args: Any, video_processor: None = None, **kwargs: Any):
            super().__init__(*args, **kwargs)

    class ImageOnly(processor_class, NoVideo):
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in processor_class.get_attributes() if name != "video_processor"]

    ImageOnly.__name__ = ImageOnly.__qualname__ = processor_class.__name__
    if signature(processor_class).parameters["video_processor"].default is Parameter.empty:
        _spare_video(ImageOnly)
    return ImageOnly


def _spare_video(image_only: Any) -> None:
    """Have a class do without its video part that demands one, as SmolVLM's does even where there is no video."""
    init = image_only.__init__
    # transformers reads the names of its arguments, so that it must stay the same function but for a default.
    image_only.__init__ = FunctionType(
        init.__code__, init.__globals__, init.__name__, (None, *init.__defaults__), init.__closure__
    )
    image_only.video_processor = SimpleNamespace(num_frames=None, fps=None)  # looked up for every chat
    if init.__globals__.get("num2words", init) is None:  # which says how many frames a video has
        init.__globals__["num2words"] = _no_video


def _no_video(*_: Any) -> str:
    raise ImportError("Videos need the package num2words.")


def processor_class_of(config_class: type, named: str | None = None) -> Any:
    """The processor class of a family, less its video part; no torchvision is needed. named: what a checkpoint calls
    it, for families of which transformers knows none by their configuration (GLM-OCR)."""
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    unknown = config_class not in PROCESSOR_MAPPING and named
    found: Any = getattr(transformers, named) if unknown and named else PROCESSOR_MAPPING[config_class]
    if getattr(found, "is_dummy", False):
        found = _beside_pil(found.__module__, found.__name__)
    return image_processor_only(found)


def _beside_pil(module: str, name: str) -> Any:
    """A processor class whose module imports an image processor for torchvision, with that for PIL in its place."""
    package = module.rpartition(".")[0]
    family = package.rpartition(".")[2]
    wanted = f"{package}.image_processing_{family}"
    sys.modules[wanted] = import_module(f"{package}.image_processing_pil_{family}")
    try:
        return getattr(import_module(module), name)
    finally:
        del sys.modules[wanted]


def load_processor(folder: Path | str) -> Any:
    """The processor of a checkpoint folder: a PIL image processor, a tokenizer and the chat template; no video.

    Parameters: folder, a checkpoint folder (see `resolve_checkpoint` for hub ids); it must hold the tokenizer's files.
    Returns: a transformers processor of the checkpoint's own class.
    Raises: what transformers raises if a file of the tokenizer or the image processor is missing.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    files = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
    named = next(filter(None, (json_object(Path(folder) / name).get("processor_class") for name in files)), None)
    return processor_class_of(type(config), named).from_pretrained(folder, local_files_only=True, backend="pil")
