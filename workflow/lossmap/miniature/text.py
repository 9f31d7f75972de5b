"""The text side of a miniature model: prompts and answers as token batches, and the forward pass on cached image
features."""

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from transformers.modeling_outputs import BaseModelOutputWithPooling

from lossmap.store.layouts import Layout
from lossmap.vlm.generation import ONE_TENSOR

_SLOT = "QUESTION"  # no word of the vocabulary
IGNORED = -100  # label of a token that is not learned


@dataclass(frozen=True)
class Batch:
    """Left-padded token ids, their attention mask and the labels: answer tokens, all else IGNORED. Each (sequences,
    length). further: what else the language model takes."""

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    further: dict[str, torch.Tensor] = field(default_factory=dict)


class Encoder:
    """Prompts and answers -> batches, as the model's own processor would tokenise them."""

    def __init__(self, processor):
        self.processor, self.tokenizer = processor, processor.tokenizer
        content = [{"type": "image"}, {"type": "text", "text": _SLOT}]
        self.template = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        self._around: dict[tuple[int, int], tuple[list[int], list[int], dict[str, torch.Tensor]]] = {}
        self._known: dict[str, list[int]] = {}

    def _of(self, layout: Layout) -> tuple[list[int], list[int], dict[str, torch.Tensor]]:
        """The tokens before and after a question about an image of this size, and the grid that the processor gives."""
        size = layout.width, layout.height
        if size not in self._around:
            made = self.processor(images=[[Image.new("RGB", size)]], text=[self.template], return_tensors="pt")
            ids = made["input_ids"][0].tolist()
            slot = ids.index(self.tokenizer.unk_token_id)
            grid = {"image_grid_thw": made["image_grid_thw"]} if "image_grid_thw" in made else {}
            self._around[size] = ids[:slot], ids[slot + 1 :], grid
        return self._around[size]

    def _tokens(self, text: str) -> list[int]:
        if text not in self._known:
            if len(self._known) > 50_000:
                self._known.clear()
            self._known[text] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._known[text]

    def __call__(self, layout: Layout, prompts: list[str], answers: list[str]) -> Batch:
        """A batch of prompts about images of one layout, each followed by its answer and the end token."""
        before, after, grid = self._of(layout)
        rows = []
        for prompt, answer in zip(prompts, answers, strict=True):
            rows.append(
                (before + self._tokens(prompt) + after, [*self._tokens(" " + answer), self.tokenizer.eos_token_id])
            )
        length = max(len(asked) + len(said) for asked, said in rows)
        ids = torch.full((len(rows), length), self.tokenizer.pad_token_id)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
        for i, (asked, said) in enumerate(rows):
            ids[i, length - len(asked) - len(said) :] = torch.tensor(asked + said)
            mask[i, length - len(asked) - len(said) :] = 1
            labels[i, length - len(said) :] = torch.tensor(said)
        further = {}
        if grid:
            is_image = ids == self.processor.image_token_id
            further = {
                "image_grid_thw": grid["image_grid_thw"].expand(len(ids), 3),
                "mm_token_type_ids": is_image.long(),
            }
        return Batch(ids, mask, labels, further)


def answer_logits(model, post: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that predict the answer tokens, and those tokens. post: (sequences, tokens, features), what the language
    model is given of each one's image.

    Returns (answer tokens of all sequences, vocabulary) and (answer tokens,).
    """
    each: Any = post if model.config.model_type in ONE_TENSOR else list(post)
    hidden = model.model(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=each)},
        use_cache=False,
        **batch.further,
    ).last_hidden_state
    wanted = batch.labels[:, 1:] != IGNORED
    return model.lm_head(hidden[:, :-1][wanted]), batch.labels[:, 1:][wanted]


def answer_loss(model, post: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy over all answer tokens of the batch."""
    return F.cross_entropy(*answer_logits(model, post, batch))


@torch.no_grad()
def answered(model, post: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(sequences,) bool: whether greedy generation gives exactly this answer.

    It does if and only if, with the answer given, every one of its tokens is the likeliest next one: no
    token-by-token loop is needed.
    """
    logits, tokens = answer_logits(model, post, batch)
    lengths = (batch.labels != IGNORED).sum(1)
    right = (logits.argmax(-1) == tokens).split(lengths.tolist())
    return torch.stack([part.all() for part in right])
