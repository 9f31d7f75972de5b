"""Readers: small networks that answer a question from the embeddings of an image.

A reader is one vector for each question. One ladder of capacities: `blocks: 0` is linear on tokens, each after a norm,
pooled by an attention that the question steers; in each of one or more blocks the vector attends to the words, then to
the image, then goes through a layer. More vectors, one for each word, cost several times as much and learned no faster.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, scaled_dot_product_attention

from lossmap.readers.asked import Asked
from lossmap.readers.places import PLACES
from lossmap.reconstruct.networks import check_heads
from lossmap.reconstruct.ragged import Runs


class Reader(nn.Module):
    """Images with questions -> a score of each answer: (questions, answers), or (questions, options) of choices.

    Parameters: features of an embedding, without its place; None for a reader of the question alone; words, width of
        word vectors; answers, how many it knows, None where it scores the options that a question comes with; blocks,
        width, heads and dropout of the network.
    Raises: LossmapError if heads don't share the width.
    """

    def __init__(
        self, features: int | None, words: int, answers: int | None, blocks: int, width: int, heads: int, dropout: float
    ):
        super().__init__()
        check_heads(width, heads)
        self.word, self.word_norm = nn.Linear(words, width), nn.LayerNorm(width)
        self.see = See(features, width) if features else None
        self.start = nn.Parameter(nn.init.normal_(torch.empty(width), std=0.02)) if blocks else None
        kind = Block if blocks else Pooled
        self.blocks = nn.ModuleList(kind(width, heads, dropout, features is not None) for _ in range(max(1, blocks)))
        self.norm = nn.LayerNorm(width) if blocks else nn.Identity()
        self.answer = nn.Linear(width, answers or 1)
        self.choices = answers is None

    def forward(self, asked: Asked) -> Tensor:
        texts = asked.words.rows.flatten(0, 1)
        words = self.word(asked.vectors[texts])
        words = self.word_norm(words) + waves(words.shape[1], words.shape[2], words.device)
        image = Seen(self.see, asked) if self.see is not None else None
        hidden: Any = None if self.start is None else self.start.expand(len(words), 1, -1)
        for block in self.blocks:
            hidden = block(hidden, words, texts != 0, image)
        scores = self.answer(self.norm(hidden[:, 0]))
        if not self.choices:
            return scores
        options = asked.words.rows
        return scores.view(options.shape[:2]).masked_fill((options == 0).all(dim=2), -torch.inf)


class See(nn.Module):
    """Rows of embeddings, each followed by its place -> (rows, width). What an embedding holds and where it lies have
    equal weight at first: else a reader is long in finding where to look."""

    def __init__(self, features: int, width: int):
        super().__init__()
        self.what, self.where = nn.Linear(features, width), nn.Linear(PLACES, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, rows: Tensor) -> Tensor:
        what, where = rows.split([rows.shape[1] - PLACES, PLACES], dim=1)
        return self.norms[0](self.what(what)) + self.norms[1](self.where(where))


class Seen:
    """The images of a batch, each padded to the longest, and which texts are about which: rows of `texts` of an image
    lie together. Padding is never attended to."""

    def __init__(self, see: See, asked: Asked):
        seen = cast(Runs, asked.seen)
        self.device = seen.device
        tokens, length = torch.from_numpy(seen.counts), int(seen.counts.max())
        every = torch.arange(length)
        self.there = (every < tokens[:, None]).to(self.device)
        values = see(seen.rows)
        self.equal = bool((tokens == length).all())
        if self.equal:
            self.values = values.view(len(seen), length, -1)
        else:
            self.values = values.new_zeros(len(seen), length, values.shape[1])
            self.values[self.there] = values
        asked_of = torch.from_numpy(asked.words.counts) * asked.words.rows.shape[1]
        self.most = int(asked_of.max())
        image = torch.repeat_interleave(torch.arange(len(seen)), asked_of)
        rank = torch.arange(len(image)) - (asked_of.cumsum(0) - asked_of)[image]
        self.rows = (image * self.most + rank).to(self.device)
        self.images = len(seen)

    def attended(self, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        """query (texts, length, width), key and value (images, tokens, width) -> (texts, length, width)."""
        _, length, width = query.shape
        spread = query.new_zeros(self.images * self.most, length, width).index_copy(0, self.rows, query)
        spread = spread.view(self.images, self.most * length, width)
        mask = None if self.equal else self.there[:, None, None, :]
        found = attention(spread, key, value, heads, mask)
        return found.reshape(self.images * self.most, length, width)[self.rows]


class Block(nn.Module):
    """One vector of each text to its words, to the image, and through a layer; each after a norm."""

    def __init__(self, width: int, heads: int, dropout: float, sees: bool):
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.to_words = Attending(width, heads)
        self.to_image = Attending(width, heads) if sees else None
        self.norm = nn.LayerNorm(width)
        self.layer = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, hidden: Tensor, words: Tensor, there: Tensor, image: Seen | None) -> Tensor:
        hidden = hidden + self.drop(self.to_words(hidden, words, there[:, None, None, :]))
        if self.to_image is not None:
            hidden = hidden + self.drop(self.to_image(hidden, cast(Seen, image)))
        return hidden + self.drop(self.layer(self.norm(hidden)))


class Attending(nn.Module):
    """Multi-head attention of (texts, 1, width) to words (texts, length, width) or to images."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.norm = heads, nn.LayerNorm(width)
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)

    def forward(self, hidden: Tensor, among: "Tensor | Seen", mask: Tensor | None = None) -> Tensor:
        query = self.query(self.norm(hidden))
        key, value = self.key_value(among.values if isinstance(among, Seen) else among).chunk(2, dim=-1)
        if isinstance(among, Seen):
            return self.out(among.attended(query, key, value, self.heads))
        return self.out(attention(query, key, value, self.heads, mask))


class Pooled(nn.Module):
    """The mean of a text's words, and the image's tokens pooled by an attention that this mean steers: nothing that
    follows is more than linear."""

    def __init__(self, width: int, heads: int, dropout: float, sees: bool):
        super().__init__()
        self.heads, self.drop = heads, nn.Dropout(dropout)
        self.query = nn.Linear(width, width) if sees else None
        self.key = nn.Linear(width, width) if sees else None

    def forward(self, hidden: None, words: Tensor, there: Tensor, image: Seen | None) -> Tensor:
        known = there.unsqueeze(-1)
        mean = (words * known).sum(dim=1, keepdim=True) / known.sum(dim=1, keepdim=True).clamp_min(1)
        if image is None:
            return mean
        query, key = cast(nn.Linear, self.query)(mean), cast(nn.Linear, self.key)(image.values)
        return mean + self.drop(image.attended(query, key, image.values, self.heads))


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    """(n, rows, width) each -> (n, rows of query, width), each head on its part of the width. mask: true where keys
    may be attended to."""

    def parted(values: Tensor) -> Tensor:
        return values.unflatten(-1, (heads, -1)).transpose(1, 2)

    found = scaled_dot_product_attention(parted(query), parted(key), parted(value), attn_mask=mask)
    return found.transpose(1, 2).flatten(2)


def waves(length: int, width: int, device: Any) -> Tensor:
    """(length, width): which word of a text each is.

    Source: Vaswani et al. 2017, arXiv:1706.03762.
    """
    place = torch.arange(length, device=device)[:, None]
    rate = 10000.0 ** (-torch.arange(0, width, 2, device=device) / width)
    return torch.cat([(place * rate).sin(), (place * rate).cos()], dim=1)[:, :width]


class CrossEntropy:
    """Of the right answer, in nats a question: an `Objective`."""

    def total(self, outputs: Tensor, targets: Runs) -> Tensor:
        return cross_entropy(outputs.float(), targets.rows, reduction="sum")

    def exact_total(self, outputs: Tensor, targets: Runs) -> Tensor:
        return -log_softmax(outputs.double(), dim=-1).gather(1, targets.rows[:, None]).sum()

    def count(self, targets: Runs) -> int:
        return len(targets.rows)
