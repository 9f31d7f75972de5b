"""The text side of a miniature model: prompts and answers as token batches, and the forward pass on cached image
features."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from transformers.modeling_outputs import BaseModelOutputWithPooling

from lossmap.miniature.build import GRID, IMAGE_TOKENS
from lossmap.miniature.vision import connect

_IMAGE_TOKEN = {"llava": "<image>", "idefics2": "<image>", "qwen2_5_vl": "<|image_pad|>"}
_AROUND = {"llava": "", "idefics2": "<fake_token_around_image>", "qwen2_5_vl": ""}
_SLOT = "QUESTION"
IGNORED = -100  # label of a token that is not learned


@dataclass(frozen=True)
class Batch:
    """Left-padded token ids, their attention mask and the labels: answer tokens, all else IGNORED. Each (sequences,
    length)."""

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor


class Encoder:
    """Prompts and answers -> batches, as the model's own processor would tokenise them."""

    def __init__(self, name: str, processor):
        self.name, self.tokenizer = name, processor.tokenizer
        content = [{"type": "image"}, {"type": "text", "text": _SLOT}]
        template = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        image = _AROUND[name] + _IMAGE_TOKEN[name] * IMAGE_TOKENS[name] + _AROUND[name]
        self.template = template.replace(_IMAGE_TOKEN[name], image)
        self._known: dict[str, list[int]] = {}

    def _tokens(self, text: str) -> list[int]:
        if text not in self._known:
            if len(self._known) > 50_000:
                self._known.clear()
            self._known[text] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._known[text]

    def __call__(self, prompts: list[str], answers: list[str]) -> Batch:
        """A batch of prompts, each followed by its answer and the end token."""
        before, after = (self._tokens(part) for part in self.template.split(_SLOT))
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
        return Batch(ids, mask, labels)


def answer_logits(name: str, model, features: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that predict the answer tokens, and those tokens. features: from `tower_features`, one row a sequence.

    Returns (answer tokens of all sequences, vocabulary) and (answer tokens,).
    """
    each: Any = list(connect(name, model, features))  # whose type is told as one tensor
    post = BaseModelOutputWithPooling(pooler_output=each)
    extra = {}
    if name == "qwen2_5_vl":
        image_token = model.config.image_token_id
        extra = {
            "mm_token_type_ids": (batch.ids == image_token).long(),
            "image_grid_thw": torch.tensor([[1, GRID, GRID]]).expand(len(batch.ids), 3),
        }
    hidden = model.model(
        input_ids=batch.ids, attention_mask=batch.mask, mm_encoder_outputs={"image": post}, use_cache=False, **extra
    ).last_hidden_state
    wanted = batch.labels[:, 1:] != IGNORED
    return model.lm_head(hidden[:, :-1][wanted]), batch.labels[:, 1:][wanted]


def answer_loss(name: str, model, features: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy over all answer tokens of the batch."""
    return F.cross_entropy(*answer_logits(name, model, features, batch))


@torch.no_grad()
def answered(name: str, model, features: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(sequences,) bool: whether greedy generation gives exactly this answer.

    It does if and only if, with the answer given, every one of its tokens is the likeliest next one: no
    token-by-token loop is needed.
    """
    logits, tokens = answer_logits(name, model, features, batch)
    lengths = (batch.labels != IGNORED).sum(1)
    right = (logits.argmax(-1) == tokens).split(lengths.tolist())
    return torch.stack([part.all() for part in right])
