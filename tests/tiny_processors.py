"""Processors for tiny models: the families' own classes, on a few words."""

import json
from pathlib import Path

from tiny_models import IMAGE_PROCESSORS, PATCH, SIDE, save_tiny
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.gemma4.feature_extraction_gemma4 import Gemma4AudioFeatureExtractor

from lossmap.vlm.processors import processor_class_of

WORDS = [
    "What",
    "Which",
    "one",
    "is",
    "in",
    "this",
    "image",
    "red",
    "green",
    "answer",
    "A",
    "B",
    "C",
    "D",
    "?",
    ".",
    ":",
]
WORDS += ["USER", "ASSISTANT"]
# Token 3 is the image's in every tiny model. How each family calls it, and what else it marks images with.
MARKS = {
    "idefics2": ["<image>", "<fake_token_around_image>", "<end_of_utterance>"],
    "idefics3": ["<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>"],
    "gemma3": ["<image_soft_token>", "<start_of_image>", "<end_of_image>"],
    "aya_vision": ["<|IMG_PATCH|>", "<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "TILE", "TILE_GLOBAL"],
    "llava_onevision": ["<image>", "<video>"],
    "internvl": ["<IMG_CONTEXT>", "<img>", "</img>", "<video>"],
    "qwen2_vl": ["<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>"],
    "qwen2_5_vl": ["<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>"],
    "qwen3_vl": ["<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>"],
    "smolvlm": ["<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>"],
    "mistral3": ["[IMG]", "[IMG_BREAK]", "[IMG_END]"],
}
MARKS |= dict.fromkeys(("qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "exaone4_5"), MARKS["qwen2_vl"])
GLM = ("glm4v", "glm4v_moe", "glm46v", "glm_ocr")
MARKS |= {name: ["<|image|>", "<|video|>"] for name in GLM}
MARKS["gemma4"] = ["<|image|>", "<|image>", "<image|>", "<|audio|>", "<|audio>", "<audio|>", "<|video|>"]
MARKS["ovis2"] = ["<IMG_ATOM>", "<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>", "<image>"]
MARKS["got_ocr2"] = ["<imgpad>", "<img>", "</img>"]
NAMES = {
    "idefics2": {"image_token": "<image>", "image_boundary_token": "<fake_token_around_image>"},
    "gemma3": {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"},
    "internvl": {
        "context_image_token": "<IMG_CONTEXT>",
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "video_token": "<video>",
    },
    "qwen2_vl": {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
    "qwen2_5_vl": {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
    "qwen3_vl": {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
}
NAMES |= dict.fromkeys(("qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "exaone4_5"), NAMES["qwen2_vl"])
NAMES |= {name: {"image_token": "<|image|>", "video_token": "<|video|>"} for name in GLM}
NAMES["gemma4"] = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
}
NAMES["janus"] = {"image_token": "<image>", "boi_token": "<begin>", "eoi_token": "<end>"}
NAMES["lighton_ocr"] = {"image_token": "<image>", "image_break_token": "<break>", "image_end_token": "<end>"}
_CLIP = {"patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
OPTIONS = {
    "llava": _CLIP,
    "vipllava": _CLIP,
    "lighton_ocr": {"patch_size": PATCH},
    "deepseek_vl": {"num_image_tokens": 64},
    "janus": {"num_image_tokens": 64},
    "llava_next": _CLIP,
    "llava_onevision": {"num_image_tokens": 64, "vision_feature_select_strategy": "full"},
    "gemma3": {"image_seq_length": 4},
    "aya_vision": {"patch_size": PATCH, "img_size": SIDE, "downsample_factor": 2},
    "internvl": {"image_seq_length": 16},
    "ovis2": {"image_seq_length": 16},
    "idefics2": {"image_seq_len": 4},
    "idefics3": {"image_seq_len": 16},
    "smolvlm": {"image_seq_len": 4},
    "mistral3": {"patch_size": PATCH, "spatial_merge_size": 2},
}
PLACE = {  # what stands for an image in a chat, before the processor expands it
    "aya_vision": "<image>",
    "ovis2": "<image>",
    "gemma3": "<start_of_image>",
    "qwen2_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "qwen2_5_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "qwen3_vl": "<|vision_start|><|image_pad|><|vision_end|>",
}
PLACE |= dict.fromkeys(("qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "exaone4_5"), PLACE["qwen2_vl"])
TEMPLATE = (
    "{% for m in messages %}{{ m['role'].upper() }}:{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %} PLACE {% else %} {{ c['text'] }}{% endif %}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def tiny_tokenizer(model_type: str) -> PreTrainedTokenizerFast:
    """Token 0 pads, 1 begins, 2 ends, 3 is an image's; fewer than the models' 40 in all."""
    marks = MARKS.get(model_type, ["<image>"])
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", *marks, "<unk>", "\n", *WORDS])}
    assert len(vocabulary) <= 40
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(" ", "removed"),
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Punctuation(),
        ]
    )
    tokenizer.add_special_tokens(["<pad>", "<s>", "</s>", *marks])
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    plain = ("llava", "vipllava", "paligemma", "deepseek_vl")
    names = NAMES.get(model_type, {"image_token": "<image>"} if model_type in plain else {})
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=names,
    )


def save_speaking(model_type: str, folder: Path, **how):
    """`save_tiny` with a tokenizer and a chat template (PaliGemma's checkpoints have none); returns the model."""
    model = save_tiny(model_type, folder, **how)
    (Path(folder) / "preprocessor_config.json").unlink()
    image_processor = IMAGE_PROCESSORS[model_type]()
    if model_type == "paligemma":
        image_processor.image_seq_length = 64
    processor_class = processor_class_of(
        CONFIG_MAPPING[model_type], "Glm46VProcessor" if model_type == "glm_ocr" else None
    )
    place = PLACE.get(model_type, MARKS.get(model_type, ["<image>"])[0])
    template = None if model_type == "paligemma" else TEMPLATE.replace("PLACE", place)
    parts = {"image_processor": image_processor, "tokenizer": tiny_tokenizer(model_type)}
    if "feature_extractor" in processor_class.get_attributes():
        parts["feature_extractor"] = Gemma4AudioFeatureExtractor()
    processor = processor_class(**parts, chat_template=template, **OPTIONS.get(model_type, {}))
    processor.save_pretrained(folder)
    return model


def edit_json(path: Path, **changes) -> None:
    """Change some values of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
