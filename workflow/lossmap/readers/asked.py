"""What a reader is given: the embeddings of some images, and the words of the questions about them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lossmap.reconstruct.ragged import Runs


@dataclass(frozen=True, eq=False)
class Lexicon:
    """Questions as numbers of word vectors, which are frozen.

    numbers (n, options, length) int64: rows of vectors (words, width) float32, of which row 0 stands for no word. An
    option that a question doesn't have is all zeros.
    """

    numbers: Tensor
    vectors: Tensor

    def digest(self) -> str:
        """SHA-256 of both."""
        content = b"".join(values.contiguous().numpy().tobytes() for values in (self.numbers, self.vectors))
        return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True, eq=False)
class Asked:
    """Images with the questions about them; taken apart by images, as `Runs` are.

    seen: rows of embeddings, (rows, features) of each image; None for a reader of the question alone. words: of each
    question (options, length) numbers of rows of vectors, see `Lexicon`.
    """

    seen: Runs | None
    words: Runs
    vectors: Tensor

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, images: np.ndarray) -> "Asked":
        return replace(self, seen=None if self.seen is None else self.seen[images], words=self.words[images])

    def split(self, size: int) -> list["Asked"]:
        """`size` images in each, but for the last."""
        return self._pieces(None if self.seen is None else self.seen.split(size), self.words.split(size))

    def tensor_split(self, pieces: int) -> list["Asked"]:
        """So many pieces of about as many images."""
        seen = None if self.seen is None else self.seen.tensor_split(pieces)
        return self._pieces(seen, self.words.tensor_split(pieces))

    def _pieces(self, seen: list[Runs] | None, words: list[Runs]) -> list["Asked"]:
        return [replace(self, seen=None if seen is None else seen[i], words=some) for i, some in enumerate(words)]


def padded(tokens: Sequence[Sequence[Sequence[int]]], vectors: Tensor) -> Lexicon:
    """Token numbers of each text of each question -> a `Lexicon` of those that occur.

    Parameters: tokens, of a `Questions`' texts; vectors (vocabulary, width), of a model's own tokens.
    """
    used = sorted({token for texts in tokens for text in texts for token in text})
    row = {token: 1 + i for i, token in enumerate(used)}
    options = max(map(len, tokens))
    length = max(1, *(len(text) for texts in tokens for text in texts))
    numbers = torch.zeros(len(tokens), options, length, dtype=torch.int64)
    for i, texts in enumerate(tokens):
        for j, text in enumerate(texts):
            numbers[i, j, : len(text)] = torch.tensor([row[token] for token in text], dtype=torch.int64)
    return Lexicon(numbers, torch.cat([torch.zeros(1, vectors.shape[1]), vectors[used].float()]))
