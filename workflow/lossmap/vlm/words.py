"""A model's own token embeddings, frozen: what questions are to readers. No model is built."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoTokenizer

from lossmap.errors import LossmapError
from lossmap.vlm.adapters import ADAPTER_WEIGHTS
from lossmap.vlm.checkpoints import adapter_of, resolve_checkpoint
from lossmap.vlm.loading import read_tensors

TABLES = ("embed_tokens.weight", "shared.weight")  # how a token embedding's name ends


class Words:
    """Tokens of texts, and the vectors that a language model has for them.

    vectors (vocabulary, width): in the dtype of the checkpoint.
    """

    def __init__(self, tokenizer: Any, vectors: torch.Tensor):
        self.tokenizer, self.vectors = tokenizer, vectors

    def tokens(self, texts: list[str]) -> list[list[int]]:
        """Token numbers of each text, without those that mark beginning and end.

        Raises: LossmapError if nothing is left of a text.
        """
        found = self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        for text, tokens in zip(texts, found, strict=True):
            if not tokens:
                raise LossmapError(f"The tokenizer makes nothing of the text {text!r}. Correct the question or option.")
        return found


def load_words(checkpoint: str | Path, revision: str | None = None) -> Words:
    """Read a checkpoint's token embeddings and its tokenizer, and nothing else of it.

    Parameters: as `load_language_side`.
    Raises: LossmapError if the checkpoint can't be had, or lacks them; if an adapter has token embeddings of its own.
    """
    folder = resolve_checkpoint(checkpoint, revision, vision_only=False)
    adapter = adapter_of(checkpoint)
    if adapter is not None:
        with safe_open(adapter.folder / ADAPTER_WEIGHTS, framework="pt") as file:
            if changed := [key for key in file.keys() if "embed_tokens" in key]:  # noqa: SIM118, this is no dict
                raise LossmapError(
                    f"{checkpoint}: the adapter changes token embeddings ({changed[0]}), which readers can't merge."
                    " Merge it into its base first, or leave this model out of readers."
                )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise LossmapError(
            f"{folder}: its tokenizer can't be loaded ({' '.join(str(error).split())}). Add its files, or leave this"
            " model out of readers."
        ) from None
    return Words(tokenizer, _vectors(folder))


def _vectors(folder: Path) -> torch.Tensor:
    """The token embeddings of a checkpoint: the one table of that name."""
    found = read_tensors(folder, lambda key: key.endswith(TABLES), vision_only=False)
    if not found or any(not torch.equal(table, next(iter(found.values()))) for table in found.values()):
        raise LossmapError(
            f"{folder}: {len(found)} tables of token embeddings were found (named ...{' or ...'.join(TABLES)}:"
            f" {', '.join(found) or 'none'}); wanted one. Complete the checkpoint, or leave this model out of readers."
        )
    return next(iter(found.values()))
