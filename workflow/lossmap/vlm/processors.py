"""Processors (image processor + tokenizer + chat template) that need no torchvision.

Processors of families that also take video demand a video processor, and video processors demand torchvision, even for
images alone. Lossmap reads images only, so it uses each family's own processor class less its video part. The image
part is pinned to transformers' PIL backend, so that a machine with torchvision gives the same pixels as one without.
"""

from functools import cache
from pathlib import Path
from typing import Any


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

    class ImageOnly(processor_class):
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in processor_class.get_attributes() if name != "video_processor"]

    ImageOnly.__name__ = ImageOnly.__qualname__ = processor_class.__name__
    return ImageOnly


def load_processor(folder: Path | str) -> Any:
    """The processor of a checkpoint folder: a PIL image processor, a tokenizer and the chat template; no video.

    Parameters: folder, a checkpoint folder (see `resolve_checkpoint` for hub ids); it must hold the tokenizer's files.
    Returns: a transformers processor of the checkpoint's own class.
    Raises: what transformers raises if a file of the tokenizer or the image processor is missing.
    """
    from transformers import AutoConfig
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    processor_class = image_processor_only(PROCESSOR_MAPPING[type(config)])
    return processor_class.from_pretrained(folder, local_files_only=True, backend="pil")
