"""The four miniature models, untrained: the real transformers classes with few and narrow layers, and a processor
each."""

from typing import Any, cast

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    Idefics2Config,
    Idefics2ForConditionalGeneration,
    Idefics2Processor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    MistralConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Config,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics2.configuration_idefics2 import Idefics2PerceiverConfig, Idefics2VisionConfig
from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil
from transformers.models.internvl.configuration_internvl import InternVLVisionConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from lossmap.vlm.processors import image_processor_only

IMAGE, PATCH, GRID = 64, 8, 8  # side of the square view and of a patch in pixels, patches per side
TILE, TILES = 32, 6  # of the model that cuts tiles: side in pixels, and how many at most
LATENTS = 16  # tokens of the perceiver
WIDTH = 96  # of the vision tower and of the language model
MODELS = ("llava", "idefics2", "qwen2_5_vl", "internvl")

LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() }}: "
    "{% for c in message['content'] %}{% if c['type'] == 'image' %}<image>\n{% endif %}{% endfor %}"
    "{% for c in message['content'] %}{% if c['type'] == 'text' %}{{ c['text'] }} {% endif %}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
IDEFICS2_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].capitalize() }}:"
    "{% for c in message['content'] %}{% if c['type'] == 'text' %}{{ ' ' + c['text'] }}"
    "{% elif c['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for c in message['content'] %}{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INTERNVL_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for c in message['content'] %}{% if c['type'] == 'image' %}<IMG_CONTEXT>\n"
    "{% elif c['type'] == 'text' %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ROLES = ("USER", "ASSISTANT", "User", "Assistant", "user", "assistant")


def make_tokenizer(words, specials, *, pad, eos, bos=None, extra) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words; punctuation and line breaks are tokens of their own, decoding restores ordinary
    spacing."""
    vocabulary: dict[str, int] = {}
    for token in ["<unk>", *specials, "\n", ":", *ROLES, *words]:
        vocabulary.setdefault(token, len(vocabulary))
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(" ", "removed"),
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Punctuation(),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token=pad,
        eos_token=eos,
        bos_token=bos,
        padding_side="left",
        extra_special_tokens=extra,
    )


def _sincos_positions(grid: int = GRID) -> torch.Tensor:
    """(grid * grid, WIDTH) float32: sines and cosines of row and column. Learned tables start from here: from noise,
    the towers stay for a thousand steps on a plateau where they know colours and no shapes."""
    rates = 1 / 50 ** (np.arange(WIDTH // 4) / (WIDTH // 4))
    row, column = np.divmod(np.arange(grid * grid), grid)
    angles = np.concatenate([row[:, None] * rates, column[:, None] * rates], 1)
    return torch.from_numpy(np.concatenate([np.sin(angles), np.cos(angles)], 1)).float() * 0.5


def _tower(side: int, layers: int = 4) -> dict[str, Any]:
    """Settings of a vision tower whose input is side x side pixels."""
    sizes = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_attention_heads": 4, "patch_size": PATCH}
    return sizes | {"num_hidden_layers": layers, "image_size": side}


def _language(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Settings of a language model that reads and says a tokenizer's tokens."""
    sizes = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_attention_heads": 4, "num_hidden_layers": 3}
    begin = tokenizer.pad_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    marks = {"bos_token_id": begin, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return {"vocab_size": len(tokenizer), "max_position_embeddings": 512} | sizes | marks


def _llava(words) -> tuple[PreTrainedModel, ProcessorMixin]:
    tokenizer = make_tokenizer(
        words, ["<s>", "</s>", "<pad>", "<image>"], pad="<pad>", eos="</s>", bos="<s>", extra={"image_token": "<image>"}
    )
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": IMAGE}, crop_size={"height": IMAGE, "width": IMAGE})
    processor = LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**_tower(IMAGE, layers=5), projection_dim=WIDTH),
        text_config=LlamaConfig(**_language(tokenizer), num_key_value_heads=4),
        image_token_index=cast(int, tokenizer.convert_tokens_to_ids("<image>")),
        image_seq_length=GRID * GRID,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    model = LlavaForConditionalGeneration(config)
    model.model.vision_tower.embeddings.position_embedding.weight.data[1:] = _sincos_positions()
    return model, processor


def _idefics2(words) -> tuple[PreTrainedModel, ProcessorMixin]:
    tokenizer = make_tokenizer(
        words,
        ["<s>", "</s>", "<fake_token_around_image>", "<image>", "<end_of_utterance>"],
        pad="<unk>",
        eos="</s>",
        bos="<s>",
        extra={"image_token": "<image>", "image_boundary_token": "<fake_token_around_image>"},
    )
    image_processor = Idefics2ImageProcessorPil(
        size={"shortest_edge": IMAGE, "longest_edge": IMAGE}, do_image_splitting=False
    )
    processor = Idefics2Processor(image_processor, tokenizer, image_seq_len=LATENTS, chat_template=IDEFICS2_TEMPLATE)
    config = Idefics2Config(
        vision_config=Idefics2VisionConfig(**_tower(IMAGE)).to_dict(),
        perceiver_config=Idefics2PerceiverConfig(
            hidden_size=WIDTH,
            resampler_n_latents=LATENTS,
            resampler_depth=2,
            resampler_n_heads=4,
            resampler_head_dim=24,
            num_key_value_heads=4,
        ).to_dict(),
        text_config=MistralConfig(**_language(tokenizer), num_key_value_heads=2, head_dim=24).to_dict(),
        image_token_id=cast(int, tokenizer.convert_tokens_to_ids("<image>")),
        tie_word_embeddings=False,
    )
    model = Idefics2ForConditionalGeneration(config)
    # All ones by default: every latent, and so every output token, would stay the same.
    torch.nn.init.normal_(model.model.connector.perceiver_resampler.latents)
    model.model.vision_model.embeddings.position_embedding.weight.data[:] = _sincos_positions()
    return model, processor


def _qwen2_5_vl(words) -> tuple[PreTrainedModel, ProcessorMixin]:
    specials = [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|image_pad|>",
        "<|video_pad|>",
    ]
    tokenizer = make_tokenizer(
        words, specials, pad="<|endoftext|>", eos="<|im_end|>", extra={"image_token": "<|image_pad|>"}
    )
    image_processor = Qwen2VLImageProcessorPil(
        patch_size=PATCH,
        merge_size=2,
        temporal_patch_size=2,
        size={"shortest_edge": IMAGE * IMAGE, "longest_edge": IMAGE * IMAGE * 3 // 2},  # pixels, at least and at most
    )
    processor = image_processor_only(Qwen2_5_VLProcessor)(image_processor, tokenizer, chat_template=QWEN_TEMPLATE)
    ids = {token: cast(int, tokenizer.convert_tokens_to_ids(token)) for token in specials}
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 4,
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "num_heads": 4,
            "patch_size": PATCH,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 32,
            "out_hidden_size": WIDTH,
            "fullatt_block_indexes": [1, 3],
        },
        text_config=_language(tokenizer)
        | {
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 4, 4], "rope_theta": 10000.0},
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    return Qwen2_5_VLForConditionalGeneration(config), processor


def _internvl(words) -> tuple[PreTrainedModel, ProcessorMixin]:
    marks = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    marks["video_token"] = "<video>"
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *marks.values()]
    tokenizer = make_tokenizer(words, specials, pad="<|endoftext|>", eos="<|im_end|>", extra=marks)
    image_processor = GotOcr2ImageProcessorPil(
        size={"height": TILE, "width": TILE}, crop_to_patches=True, min_patches=1, max_patches=TILES
    )
    tokens = (TILE // PATCH // 2) ** 2
    processor = image_processor_only(InternVLProcessor)(
        image_processor, tokenizer, image_seq_length=tokens, chat_template=INTERNVL_TEMPLATE
    )
    ids = {token: cast(int, tokenizer.convert_tokens_to_ids(token)) for token in specials}
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(**_tower(TILE)).to_dict(),
        text_config=Qwen2Config(**_language(tokenizer), num_key_value_heads=2).to_dict(),
        image_token_id=ids["<IMG_CONTEXT>"],
        image_seq_length=tokens,
        downsample_ratio=0.5,
        tie_word_embeddings=False,
    )
    model = InternVLForConditionalGeneration(config)
    model.model.vision_tower.embeddings.position_embeddings.data[0, 1:] = _sincos_positions(TILE // PATCH)
    return model, processor


def build(name: str, words: list[str], seed: int) -> tuple[PreTrainedModel, ProcessorMixin]:
    """An untrained miniature model and its processor.

    name: one of MODELS; words: the vocabulary, punctuation included; seed: of the initial weights.
    """
    torch.manual_seed(seed)
    builder = {"llava": _llava, "idefics2": _idefics2, "qwen2_5_vl": _qwen2_5_vl, "internvl": _internvl}[name]
    model, processor = builder(words)
    model.generation_config.do_sample = False
    return model, processor
