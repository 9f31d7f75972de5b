"""Random tiny models of all families: the real transformers classes with few and narrow layers, built in moments."""

import copy
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForImageTextToText,
    AyaVisionConfig,
    Blip2Config,
    DeepseekVLConfig,
    Ernie4_5_VLMoeConfig,
    Exaone4_5_Config,
    Gemma3Config,
    Gemma4Config,
    Glm4vConfig,
    Glm4vMoeConfig,
    Glm46VConfig,
    GlmOcrConfig,
    GotOcr2Config,
    Idefics2Config,
    Idefics3Config,
    IdeficsConfig,
    InternVLConfig,
    JanusConfig,
    Kosmos2Config,
    LightOnOcrConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaOnevisionConfig,
    MiniCPMV4_6Config,
    Mistral3Config,
    MllamaConfig,
    Ovis2Config,
    PaliGemmaConfig,
    Qwen2_5_VLConfig,
    Qwen2VLConfig,
    Qwen3_5Config,
    Qwen3_5MoeConfig,
    Qwen3VLConfig,
    Qwen3VLMoeConfig,
    SmolVLMConfig,
    VideoLlavaConfig,
    VipLlavaConfig,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.deepseek_vl.image_processing_pil_deepseek_vl import DeepseekVLImageProcessorPil
from transformers.models.ernie4_5_vl_moe.image_processing_pil_ernie4_5_vl_moe import (
    Ernie4_5_VLMoeImageProcessorPil,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil
from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil
from transformers.models.glm46v.image_processing_pil_glm46v import Glm46VImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil
from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.minicpmv4_6.image_processing_pil_minicpmv4_6 import MiniCPMV4_6ImageProcessorPil
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil
from transformers.models.ovis2.image_processing_pil_ovis2 import Ovis2ImageProcessorPil
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from transformers.models.video_llava.image_processing_video_llava import VideoLlavaImageProcessor

SIDE, PATCH, WIDTH, TEXT_WIDTH = 64, 8, 32, 48
EDGES = {"shortest_edge": SIDE, "longest_edge": SIDE}
SQUARE = {"height": SIDE, "width": SIDE}
PIXELS = {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE}
TWO_FRAMES = {"shortest_edge": 2 * SIDE * SIDE, "longest_edge": 2 * SIDE * SIDE}
# Families whose tiny processors leave the side of a square open.
NEEDS_SIDE = ("gemma4", "minicpmv4_6", "mistral3", "lighton_ocr")
TILES = [[SIDE, 2 * SIDE], [2 * SIDE, SIDE]]

_layers = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": PATCH,
}
_clip = {"model_type": "clip_vision_model", **_layers}
_siglip = {"model_type": "siglip_vision_model", "vision_use_head": False, **_layers}
_text = {
    "vocab_size": 40,
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": 2 * TEXT_WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_qwen_vision = {"depth": 3, "num_heads": 4, "patch_size": PATCH, "spatial_merge_size": 2, "temporal_patch_size": 2}
_qwen_text = {
    **_text,
    "rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 10000.0},
}
_qwen3_vision = {
    **_qwen_vision,
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "out_hidden_size": TEXT_WIDTH,
    "num_position_embeddings": 64,
}
_experts = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
_qwen3_5_text = {
    **_qwen_text,
    "rope_parameters": {**_qwen_text["rope_parameters"], "mrope_section": [1, 1, 1], "partial_rotary_factor": 0.5},
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 12,
    "linear_value_head_dim": 12,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
}
_glm_vision = {**_qwen3_vision, "image_size": SIDE}
_glm_text = {
    **_qwen_text,
    "rope_parameters": {**_qwen_text["rope_parameters"], "mrope_section": [1, 1, 1], "partial_rotary_factor": 0.5},
}
_glm_experts = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
_perceiver = {
    "hidden_size": TEXT_WIDTH,
    "resampler_n_latents": 4,
    "resampler_depth": 2,
    "resampler_n_heads": 4,
    "resampler_head_dim": 8,
    "num_key_value_heads": 2,
}


def _of(kind: str) -> dict:
    return {"model_type": kind, **_text}


CONFIGS = {
    "llava": lambda: LlavaConfig(vision_config=_clip, text_config=_of("llama"), image_token_index=3),
    "llava_next": lambda: LlavaNextConfig(
        vision_config=_clip, text_config=_of("llama"), image_token_index=3, image_grid_pinpoints=TILES
    ),
    "llava_onevision": lambda: LlavaOnevisionConfig(
        vision_config=_siglip, text_config=_of("qwen2"), image_token_index=3, image_grid_pinpoints=TILES
    ),
    "paligemma": lambda: PaliGemmaConfig(
        vision_config=_siglip, text_config=_of("gemma"), image_token_index=3, projection_dim=TEXT_WIDTH
    ),
    "gemma3": lambda: Gemma3Config(
        vision_config=_siglip, text_config=_of("gemma3_text"), image_token_index=3, mm_tokens_per_image=4
    ),
    "gemma4": lambda: Gemma4Config(
        vision_config={
            **{name: size for name, size in _layers.items() if name != "image_size"},
            "num_key_value_heads": 4,
            "head_dim": WIDTH // 4,
            "pooling_kernel_size": 2,
            "position_embedding_size": 160,
            "standardize": True,
        },
        text_config={
            **_of("gemma4_text"),
            "layer_types": ["sliding_attention", "full_attention"],
            "global_head_dim": 12,
            "hidden_size_per_layer_input": 4,
            "vocab_size_per_layer_input": 40,
            "use_bidirectional_attention": "vision",
            "num_kv_shared_layers": 0,
        },
        audio_config=None,
        image_token_id=3,
        video_token_id=39,
        audio_token_id=38,
    ),
    "aya_vision": lambda: AyaVisionConfig(vision_config=_siglip, text_config=_of("cohere2"), image_token_index=3),
    "internvl": lambda: InternVLConfig(vision_config=_layers, text_config=_of("qwen2"), image_token_id=3),
    "ovis2": lambda: Ovis2Config(
        vision_config={**_layers, "hidden_stride": 2, "vocab_size": 21},
        text_config=_of("qwen2"),
        hidden_size=TEXT_WIDTH,
        vocab_size=40,
        image_token_id=3,
        visual_indicator_token_ids=[4, 5, 6, 7, 8],
    ),
    "minicpmv4_6": lambda: MiniCPMV4_6Config(
        vision_config={**_layers, "patch_size": PATCH // 2},
        text_config={"model_type": "qwen3_5_text", **_qwen3_5_text},
        insert_layer_id=1,
        image_token_id=3,
    ),
    "idefics2": lambda: Idefics2Config(
        vision_config={**_layers, "image_size": 2 * SIDE},
        perceiver_config=_perceiver,
        text_config=_of("mistral"),
        image_token_id=3,
    ),
    "idefics3": lambda: Idefics3Config(vision_config=_layers, text_config=_of("llama"), image_token_id=3),
    "smolvlm": lambda: SmolVLMConfig(vision_config=_layers, text_config=_of("llama"), image_token_id=3, scale_factor=4),
    "qwen2_vl": lambda: Qwen2VLConfig(
        vision_config={**_qwen_vision, "embed_dim": WIDTH, "hidden_size": TEXT_WIDTH, "mlp_ratio": 2},
        text_config=_qwen_text,
        image_token_id=3,
    ),
    "qwen2_5_vl": lambda: Qwen2_5_VLConfig(
        vision_config={
            **_qwen_vision,
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
            "out_hidden_size": TEXT_WIDTH,
            "window_size": 4 * PATCH,
            "fullatt_block_indexes": [2],
        },
        text_config=_qwen_text,
        image_token_id=3,
    ),
    "qwen3_vl": lambda: Qwen3VLConfig(
        vision_config={**_qwen3_vision, "deepstack_visual_indexes": [0, 1]}, text_config=_qwen_text, image_token_id=3
    ),
    "qwen3_vl_moe": lambda: Qwen3VLMoeConfig(
        vision_config={**_qwen3_vision, "deepstack_visual_indexes": [0, 1]},
        text_config={**_qwen_text, **_experts},
        image_token_id=3,
    ),
    "qwen3_5": lambda: Qwen3_5Config(vision_config=_qwen3_vision, text_config=_qwen3_5_text, image_token_id=3),
    "qwen3_5_moe": lambda: Qwen3_5MoeConfig(
        vision_config=_qwen3_vision, text_config={**_qwen3_5_text, **_experts}, image_token_id=3
    ),
    "exaone4_5": lambda: Exaone4_5_Config(
        vision_config={
            **_qwen3_vision,
            "num_key_value_heads": 2,
            "window_size": 4 * PATCH,
            "fullatt_block_indexes": [2],
        },
        text_config={**_of("exaone4"), "layer_types": ["full_attention"] * 2},
        image_token_id=3,
    ),
    "ernie4_5_vl_moe": lambda: Ernie4_5_VLMoeConfig(
        vision_config={
            **{name: size for name, size in _qwen_vision.items() if name != "temporal_patch_size"},
            "hidden_size": WIDTH,
            "intermediate_size": 2 * WIDTH,
        },
        text_config={
            **{name: size for name, size in _text.items() if name != "head_dim"},
            "moe_intermediate_size": [16, 8],
            "moe_k": 2,
            "moe_num_experts": 4,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 10000.0},
        },
        image_token_id=3,
    ),
    "mistral3": lambda: Mistral3Config(
        vision_config={"model_type": "pixtral", **_layers}, text_config=_of("mistral"), image_token_index=3
    ),
    "glm4v": lambda: Glm4vConfig(vision_config=_glm_vision, text_config=_glm_text, image_token_id=3),
    "glm4v_moe": lambda: Glm4vMoeConfig(
        vision_config=_glm_vision, text_config={**_glm_text, **_glm_experts}, image_token_id=3
    ),
    "glm46v": lambda: Glm46VConfig(
        vision_config={"model_type": "glm4v_vision", **_glm_vision},
        text_config={"model_type": "glm4v_text", **_glm_text},
        image_token_id=3,
    ),
    "glm_ocr": lambda: GlmOcrConfig(vision_config=_glm_vision, text_config=_glm_text, image_token_id=3),
    "lighton_ocr": lambda: LightOnOcrConfig(
        vision_config={"model_type": "pixtral", **_layers}, text_config=_of("qwen3"), image_token_id=3
    ),
    "vipllava": lambda: VipLlavaConfig(
        vision_config={**_clip, "hidden_size": WIDTH // 2},
        text_config=_of("llama"),
        image_token_index=3,
        vision_feature_layers=[-2, 1],
    ),
    "video_llava": lambda: VideoLlavaConfig(
        vision_config=_clip, text_config=_of("llama"), image_token_index=3, video_token_index=39
    ),
    "got_ocr2": lambda: GotOcr2Config(
        vision_config={
            **_layers,
            "output_channels": WIDTH,
            "window_size": 4,
            "global_attn_indexes": [1],
            "mlp_dim": 2 * WIDTH,
        },
        text_config=_of("qwen2"),
        image_token_index=3,
    ),
    "deepseek_vl": lambda: DeepseekVLConfig(vision_config=_siglip, text_config=_of("llama"), image_token_id=3),
    "blip-2": lambda: Blip2Config(
        vision_config=_layers,
        qformer_config={
            "hidden_size": WIDTH // 2,
            "intermediate_size": WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "encoder_hidden_size": WIDTH,
        },
        text_config={
            "model_type": "opt",
            "vocab_size": 40,
            "hidden_size": TEXT_WIDTH,
            "word_embed_proj_dim": TEXT_WIDTH,
            "ffn_dim": 2 * TEXT_WIDTH,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 256,
        },
        num_query_tokens=4,
        image_token_index=3,
    ),
    "mllama": lambda: MllamaConfig(
        vision_config={
            **{name: size for name, size in _layers.items() if name != "num_attention_heads"},
            "hidden_size": WIDTH // 2,
            "attention_heads": 4,
            "num_global_layers": 1,
            "intermediate_layers_indices": [1],
            "vision_output_dim": WIDTH,
        },
        text_config={
            **{name: size for name, size in _text.items() if name != "head_dim"},
            "cross_attention_layers": [1],
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
        image_token_index=3,
    ),
    "idefics": lambda: IdeficsConfig(
        vision_config={
            **{name: size for name, size in _layers.items() if name != "hidden_size"},
            "embed_dim": WIDTH,
        },
        perceiver_config={
            "resampler_n_latents": 4,
            "resampler_depth": 2,
            "resampler_n_heads": 4,
            "resampler_head_dim": 8,
        },
        use_resampler=True,
        **{name: size for name, size in _text.items() if name not in ("head_dim", "num_key_value_heads")},
    ),
    "kosmos-2": lambda: Kosmos2Config(
        vision_config=_layers,
        text_config={
            "vocab_size": 40,
            "embed_dim": TEXT_WIDTH,
            "ffn_dim": 2 * TEXT_WIDTH,
            "layers": 2,
            "attention_heads": 4,
            "max_position_embeddings": 256,
        },
        latent_query_num=4,
    ),
    "janus": lambda: JanusConfig(
        vision_config={**_layers, "mlp_ratio": 2, "projection_dim": TEXT_WIDTH, "depth": 2},
        vq_config={
            "base_channels": 32,
            "channel_multiplier": [1],
            "embed_dim": 8,
            "num_embeddings": 8,
            "latent_channels": 8,
            "num_res_blocks": 1,
            "num_patches": 6,
            "image_token_embed_dim": 16,
            "projection_dim": TEXT_WIDTH,
        },
        text_config=_of("llama"),
        image_token_id=3,
    ),
}

IMAGE_PROCESSORS = {
    "llava": lambda: CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SQUARE),
    "llava_next": lambda: LlavaNextImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size=SQUARE, image_grid_pinpoints=TILES
    ),
    "llava_onevision": lambda: LlavaOnevisionImageProcessorPil(size=SQUARE, image_grid_pinpoints=TILES),
    "paligemma": lambda: SiglipImageProcessorPil(size=SQUARE),
    "gemma3": lambda: Gemma3ImageProcessorPil(size=SQUARE),
    "gemma4": lambda: Gemma4ImageProcessorPil(patch_size=PATCH, pooling_kernel_size=2, max_soft_tokens=70),
    "aya_vision": lambda: GotOcr2ImageProcessorPil(size=SQUARE, crop_to_patches=True),
    "internvl": lambda: GotOcr2ImageProcessorPil(size=SQUARE, crop_to_patches=True),
    "ovis2": lambda: Ovis2ImageProcessorPil(size=SQUARE, crop_to_patches=True),
    "minicpmv4_6": lambda: MiniCPMV4_6ImageProcessorPil(patch_size=PATCH // 2, scale_resolution=SIDE),
    "idefics2": lambda: Idefics2ImageProcessorPil(size=EDGES, do_image_splitting=True),
    "idefics3": lambda: Idefics3ImageProcessorPil(
        size={"longest_edge": 4 * SIDE}, max_image_size={"longest_edge": SIDE}
    ),
    "smolvlm": lambda: SmolVLMImageProcessorPil(size={"longest_edge": 4 * SIDE}, max_image_size={"longest_edge": SIDE}),
    "qwen2_vl": lambda: Qwen2VLImageProcessorPil(patch_size=PATCH, size=PIXELS),
    "qwen2_5_vl": lambda: Qwen2VLImageProcessorPil(patch_size=PATCH, size=PIXELS),
    **dict.fromkeys(
        ("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"),
        lambda: Qwen2VLImageProcessorPil(patch_size=PATCH, size=PIXELS, image_mean=[0.5] * 3, image_std=[0.5] * 3),
    ),
    "exaone4_5": lambda: Qwen2VLImageProcessorPil(patch_size=PATCH, size=PIXELS),
    "ernie4_5_vl_moe": lambda: Ernie4_5_VLMoeImageProcessorPil(patch_size=PATCH, size=PIXELS),
    "mistral3": lambda: PixtralImageProcessorPil(
        patch_size={"height": PATCH, "width": PATCH}, size={"longest_edge": SIDE}
    ),
    **dict.fromkeys(("glm4v", "glm4v_moe"), lambda: Glm4vImageProcessorPil(patch_size=PATCH, size=TWO_FRAMES)),
    **dict.fromkeys(("glm46v", "glm_ocr"), lambda: Glm46VImageProcessorPil(patch_size=PATCH, size=TWO_FRAMES)),
    "lighton_ocr": lambda: PixtralImageProcessorPil(
        patch_size={"height": PATCH, "width": PATCH}, size={"longest_edge": SIDE}
    ),
    "vipllava": lambda: CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SQUARE),
    "video_llava": lambda: VideoLlavaImageProcessor(size={"shortest_edge": SIDE}, crop_size=SQUARE),
    "got_ocr2": lambda: GotOcr2ImageProcessorPil(size=SQUARE),
    "deepseek_vl": lambda: DeepseekVLImageProcessorPil(size=SQUARE),
    "blip-2": lambda: BlipImageProcessorPil(size=SQUARE),
    "mllama": lambda: MllamaImageProcessorPil(size=SQUARE),
    "idefics": lambda: IdeficsImageProcessorPil(size=SQUARE),
    "kosmos-2": lambda: CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SQUARE),
    "janus": lambda: JanusImageProcessorPil(size=SQUARE),
}


def tiny_model(model_type: str, seed: int = 0):
    """A generation model of the family with random weights, none of them constant, in evaluation mode."""
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(copy.deepcopy(CONFIGS[model_type]()))
    with torch.no_grad():
        for parameter in model.parameters():  # initial values are ones and zeros in places, and small in others
            parameter.add_(torch.randn_like(parameter) * 0.1)
        for module in model.modules():  # convolutions that overlap see most of what lies in their middle, as trained do
            if isinstance(module, torch.nn.Conv2d) and module.kernel_size > module.stride:
                module.weight[:, :, 1, 1] *= 4
        for name, buffer in model.named_buffers():
            if name.endswith((".std_bias", ".std_scale")):
                buffer.copy_(torch.randn_like(buffer) * 0.1 + 1)
    return model.eval()


def save_tiny(model_type: str, folder: Path, shard: str = "1GB", spelling: str = "saved", seed: int = 0):
    """Save a tiny model and its image processor; returns the model.

    shard: largest shard. spelling: of the tensors' names: "saved", as transformers 5 writes them; "hub", as most
    checkpoints of earlier versions have them; "nested", under "model." as transformers 4.52 to 4.57 wrote them.
    """
    model = tiny_model(model_type, seed)
    model.save_pretrained(folder, max_shard_size=shard)
    IMAGE_PROCESSORS[model_type]().save_pretrained(folder)
    if spelling != "saved":
        respell(Path(folder), RENAMES[spelling][model_type])
    return model


def save_config(
    model_type: str, folder: Path, size: int = SIDE, patch: int = PATCH, processor: dict | None = None
) -> None:
    """Save what a preprocessor reads: configuration and image processor, and an empty weight file.

    size, patch: for LLaVA, of its vision tower. processor: settings of the image processor that differ.
    """
    config = copy.deepcopy(CONFIGS[model_type]())
    image_processor = IMAGE_PROCESSORS[model_type]().to_dict()
    if size != SIDE:
        config.vision_config.image_size, config.vision_config.patch_size = size, patch
        image_processor |= {"size": {"shortest_edge": size}, "crop_size": {"height": size, "width": size}}
    config.save_pretrained(folder)
    content = {**image_processor, **(processor or {})}
    (Path(folder) / "preprocessor_config.json").write_text(json.dumps(content, default=dict))
    save_file({}, Path(folder) / "model.safetensors", metadata={"format": "pt"})


RENAMES = {
    "hub": {
        "llava": {"vision_tower.": "vision_tower.vision_model."},
        "idefics2": {},  # as saved
        "qwen2_5_vl": {},
    },
    "nested": {
        "llava": {
            "vision_tower.": "model.vision_tower.vision_model.",
            "multi_modal_projector.": "model.multi_modal_projector.",
            "language_model.model.": "model.language_model.",
            "language_model.lm_head.": "lm_head.",
        },
        "idefics2": {"model.": ""},  # a base model's
        "qwen2_5_vl": {"visual.": "model.visual.", "model.": "model.language_model."},
    },
}


def respell(folder: Path, prefixes: dict[str, str]) -> None:
    """Rename tensors by their prefixes in every weight file of a folder, and in the index."""

    def renamed(key: str) -> str:
        for old, new in prefixes.items():
            if key.startswith(old):
                return new + key.removeprefix(old)
        return key

    for path in folder.glob("*.safetensors"):
        save_file({renamed(key): tensor for key, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    index = folder / "model.safetensors.index.json"
    if index.exists():
        content = json.loads(index.read_text())
        content["weight_map"] = {renamed(key): name for key, name in content["weight_map"].items()}
        index.write_text(json.dumps(content))
