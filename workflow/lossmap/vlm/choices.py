"""Multiple choice by the probability of each option's letter: one pass over image and question for all options."""

import copy
from itertools import pairwise

import torch

from lossmap.errors import LossmapError
from lossmap.vlm.generation import LanguageSide
from lossmap.vlm.prompts import LETTERS


def letter_log_probabilities(
    language: LanguageSide,
    prompts: list[str],
    post: torch.Tensor,
    options: list[int],
    size: tuple[int, int] | None = None,
) -> list[list[float]]:
    """Log-probability of each option's letter as the answer.

    Parameters: prompts (n,), from `choice_prompt`; post (n, tokens, features); options (n,), how many each has; size,
        see `LanguageSide.encode`.
    Returns: n lists of natural logarithms, as long as options says. Each is at most 0, and their exponentials sum to at
        most 1: the rest is other answers.
    Raises: LossmapError as `LanguageSide.generate`, and if the tokenizer can't tell the letters apart.
    """
    scores = option_log_probabilities(language, prompts, post, letter_tokens(language, max(options)), size)
    return [row[:count] for row, count in zip(scores.tolist(), options, strict=True)]


def option_log_probabilities(
    language: LanguageSide,
    prompts: list[str],
    post: torch.Tensor,
    options: list[list[int]],
    size: tuple[int, int] | None = None,
) -> torch.Tensor:
    """Log-probability of each of several texts as what follows each prompt.

    The prompt is read once; options share its key-value cache, and one of a single token needs nothing more.

    Parameters: prompts (n,); post (n, tokens, features); options (m,), token ids of each, at least one; size,
        see `LanguageSide.encode`.
    Returns: (n, m) float32, sums over an option's tokens.
    """
    inputs = language.encode(prompts, post.shape[1], size)
    first, seen = language.next_token(inputs, mm_encoder_outputs=language.image(post))
    columns = []
    for option in options:
        column, asked, past = first[:, option[0]].clone(), inputs, None
        for token, following in pairwise(option):
            # Copied, because reading on changes it.
            past, asked = copy.deepcopy(seen) if past is None else past, _longer(asked, token)
            then, past = language.next_token(asked, past_key_values=past)
            column += then[:, following]
        columns.append(column)
    return torch.stack(columns, 1).cpu()


def letter_tokens(language: LanguageSide, count: int) -> list[list[int]]:
    """Token ids of the first `count` letters where an answer begins, found by tokenising a prompt with and without.

    Whether an answer begins with a blank, which makes it another token, is what the chat template says.

    Raises: LossmapError if the tokenizer doesn't know a letter, or joins it with the end of the prompt.
    """
    asked = language.chat("Which?")
    before, found = language.tokens(asked), []
    for letter in LETTERS[:count]:
        answered = language.chat("Which?", letter)
        # What the template puts between the prompt and an answer, if that is but blanks.
        between = answered.removeprefix(asked).split(letter)[0] if answered.startswith(asked) else ""
        after = language.tokens(asked + ("" if between.strip() else between) + letter)
        found.append(after[len(before) :])
        if after[: len(before)] != before or not found[-1] or language.unknown in found[-1]:
            raise LossmapError(
                f"{language.model_type}: its tokenizer has no tokens of its own for the letter {letter}, so options"
                " can't be told apart by their letters. Leave this model or dataset out of choices."
            )
    return found


def _longer(inputs: dict[str, torch.Tensor], token: int) -> dict[str, torch.Tensor]:
    """A prompt with one more token. What tells images from text is of no use behind the image."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    more = ids.new_full((len(ids), 1), token)
    return {"input_ids": torch.cat([ids, more], 1), "attention_mask": torch.cat([mask, torch.ones_like(more)], 1)}
