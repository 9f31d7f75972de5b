"""Multiple choice: the plain way's numbers from one pass, whatever the batch; letters as the chat template has them."""

from types import SimpleNamespace

import pytest
import torch
from test_generation import FAMILIES, MAIN, embedded, language_side, scenes, whole
from tiny_models import NEEDS_SIDE, SIDE, TEXT_WIDTH
from tiny_processors import save_speaking

from lossmap.errors import LossmapError
from lossmap.miniature import language as miniature
from lossmap.vlm.choices import letter_log_probabilities, letter_tokens, option_log_probabilities
from lossmap.vlm.generation import load_language_side
from lossmap.vlm.prompts import choice_prompt

PROMPTS = [
    choice_prompt("What digit is at the top left?", ["one", "two", "three", "four"]),
    choice_prompt("How many digits are there?", ["three", "one"]),
    choice_prompt("Which sentence describes this image best?", ["a red two and a blue one", "a green six", "a one"]),
]
COUNTS = [4, 2, 3]
WORDS = [" red", " green nine", " a large red two in the top left"]  # one token and more


def plain(model, language, prompts, post, options):
    """Each option apart, spelt out after its prompt, unpadded, with nothing cached."""
    rows = []
    for prompt, image in zip(prompts, post, strict=True):
        row = []
        for option in options:
            inputs = language.encode([prompt], post.shape[1])
            length = inputs["input_ids"].shape[1]
            for name, filled in (("input_ids", torch.tensor([option])), ("attention_mask", torch.ones(1, len(option)))):
                inputs[name] = torch.cat([inputs[name], filled.to(inputs[name].dtype)], 1)
            for name, kind in (("mm_token_type_ids", 0), ("token_type_ids", 1)):  # PaliGemma's answers are of type 1
                if name in inputs:
                    kind = 0 if language.model_type == "gemma3" else kind
                    inputs[name] = torch.cat([inputs[name], torch.full((1, len(option)), kind)], 1)
            with torch.inference_mode():
                logits = model(**inputs, mm_encoder_outputs=language.image(image[None])).logits[0].log_softmax(-1)
            row.append(logits[length - 1 : -1].gather(1, torch.tensor(option)[:, None]).sum().item())
        rows.append(row)
    return torch.tensor(rows)


@pytest.mark.parametrize("name", MAIN)
def test_one_pass_gives_the_plain_ways_log_probabilities(name):
    language, post = language_side(name), embedded(name, scenes(14)[0][:3])
    letters = letter_tokens(language, 4)
    assert [len(tokens) for tokens in letters] == [1, 1, 1, 1]
    words = [language.processor.tokenizer(word, add_special_tokens=False)["input_ids"] for word in WORDS]
    assert [len(tokens) for tokens in words] == [1, 2, 8]
    expected = plain(whole(name)[0], language, PROMPTS, post, letters + words)
    found = option_log_probabilities(language, PROMPTS, post, letters + words)
    torch.testing.assert_close(found[:, :4], expected[:, :4], atol=1e-5, rtol=0)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-6)  # sums to -90 with words that aren't there
    scores = letter_log_probabilities(language, PROMPTS, post, COUNTS)
    assert [len(row) for row in scores] == COUNTS
    for row, reference in zip(scores, expected.tolist(), strict=True):
        assert row == pytest.approx(reference[: len(row)], abs=1e-5)
        assert max(row) <= 0
        assert torch.tensor(row).exp().sum() <= 1 + 1e-6


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_family_goes_on_from_its_cache(tmp_path, model_type):
    model = save_speaking(model_type, tmp_path)
    language = load_language_side(tmp_path, image_size=SIDE if model_type in NEEDS_SIDE else None)
    tokens = dict.fromkeys(("llava", "vipllava", "paligemma", "deepseek_vl", "janus"), 64)
    tokens |= {"llava_next": 65, "llava_onevision": 65, "gemma3": 4, "idefics2": 4, "smolvlm": 4}
    width = TEXT_WIDTH * (1 + len(language.family.further(model.config)))
    post = torch.randn(2, tokens.get(model_type, 16), width, generator=torch.Generator().manual_seed(1))
    prompts, options = ["What is in this image ?", "Which one ?"], [[10], [11, 12, 13]]
    expected = plain(model, language, prompts, post, options)
    torch.testing.assert_close(
        option_log_probabilities(language, prompts, post, options), expected, atol=1e-5, rtol=1e-6
    )


def test_the_batch_changes_nothing():
    language, post = language_side("qwen2_5_vl"), embedded("qwen2_5_vl", scenes(14)[0])
    prompts = [PROMPTS[i % 3] for i in range(14)]
    together = torch.tensor(letter_log_probabilities(language, prompts, post, [2] * 14))
    for size in (1, 7):
        parts = [slice(i, i + size) for i in range(0, 14, size)]
        apart = [row for p in parts for row in letter_log_probabilities(language, prompts[p], post[p], [2] * size)]
        torch.testing.assert_close(torch.tensor(apart), together, atol=1e-5, rtol=0)
    assert together.argmax(1).unique().numel() > 1


def test_the_letter_that_is_generated_is_the_likeliest():
    images, _ = scenes(14)
    language, post = language_side("llava"), embedded("llava", images)
    prompts = [PROMPTS[0]] * 14
    said = language.decode(language.generate(prompts, post, 4))
    scores = torch.tensor(letter_log_probabilities(language, prompts, post, [4] * 14))
    assert said == [miniature.LETTERS[i] for i in scores.argmax(1)]


def stub(between, tokens, unknown=None):
    """A language side of which only the chat template and the tokenizer matter."""

    def chat(prompt, answer=None):
        return f"USER: {prompt} ASSISTANT:" + ("" if answer is None else f"{between}{answer}</s>")

    return SimpleNamespace(chat=chat, tokens=tokens, unknown=unknown, model_type="stub")


def test_a_letter_follows_a_blank_where_the_template_has_one():
    def tokens(text):
        return [ord(c) for c in text]

    assert letter_tokens(stub(" ", tokens), 2) == [[32, 65], [32, 66]]
    assert letter_tokens(stub("", tokens), 2) == [[65], [66]]
    assert letter_tokens(stub(" <think></think> ", tokens), 1) == [[65]]


def test_letters_that_the_tokenizer_cannot_tell_apart_are_refused():
    with pytest.raises(
        LossmapError, match="llava: its tokenizer has no tokens of its own for the letter E, so options"
    ):
        letter_tokens(language_side("llava"), 5)  # whose words end at D
    for tokens in (lambda text: [hash(text)], lambda text: [1]):
        with pytest.raises(LossmapError, match="stub: its tokenizer has no tokens of its own for the letter A"):
            letter_tokens(stub("", tokens), 2)
