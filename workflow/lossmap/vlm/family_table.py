"""The table of families in the documentation, made of the registry."""

from typing import Any, NamedTuple

from lossmap.vlm import patch_orders
from lossmap.vlm.checkpoint_check import MUTE
from lossmap.vlm.families import FAMILIES, Family


class About(NamedTuple):
    """What the registry doesn't hold. covers: published models; special: what sets the family apart."""

    covers: str
    special: str = ""


CLASS_CUT = "the class token is cut off before the connector"
CLASS_FIRST = "the class token is a row of pre without a place, before the patches"
NEWLINE = "a learned newline token follows the grid, in tiles each of their rows"
WINDOWS = "attention in windows, by which patches are ordered"
MEANS = "the connector takes means over squares of patches"
CONVOLUTION = "a convolution, then the merger: pre enters the convolution"
ABOUT = {
    "llava": About("LLaVA-1.5", CLASS_CUT),
    "llava_next": About("LLaVA-1.6 (NeXT)", f"{CLASS_CUT}; {NEWLINE}"),
    "llava_onevision": About("LLaVA-OneVision", NEWLINE),
    "paligemma": About("PaliGemma, PaliGemma 2", "no chat template: the image, then the prompt"),
    "gemma3": About("Gemma 3, from 4B on", MEANS),
    "gemma4": About("Gemma 4", "pre is what the tower pools: means over squares of patches, then a projection"),
    "aya_vision": About("Aya Vision"),
    "internvl": About("InternVL 3 and 3.5 in transformers' format", "squares of patches enter side by side"),
    "ovis2": About("Ovis2", "squares of patches enter side by side; tokens are means over a table of visual words"),
    "minicpmv4_6": About(
        "MiniCPM-V 4.6", "the tower itself merges 2 x 2 patches; R x C counts what it merges them into"
    ),
    "idefics2": About("Idefics2", "queries: tokens have no place"),
    "idefics3": About("Idefics3"),
    "smolvlm": About("SmolVLM, SmolVLM2"),
    "qwen2_vl": About("Qwen2-VL"),
    "qwen2_5_vl": About("Qwen2.5-VL", WINDOWS),
    "qwen3_vl": About("Qwen3-VL", "several connectors: see [DeepStack](families.md#deepstack)"),
    "qwen3_vl_moe": About("Qwen3-VL with experts", "several connectors: see [DeepStack](families.md#deepstack)"),
    "qwen3_5": About("Qwen3.5"),
    "qwen3_5_moe": About("Qwen3.5 with experts"),
    "exaone4_5": About("EXAONE 4.5", WINDOWS),
    "ernie4_5_vl_moe": About("ERNIE 4.5 VL", "its connector takes a still image as two equal frames"),
    "mistral3": About("Mistral Small 3.1 and later"),
    "glm4v": About("GLM-4.1V", CONVOLUTION),
    "glm4v_moe": About("GLM-4.5V", CONVOLUTION),
    "glm46v": About("GLM-4.6V", CONVOLUTION),
    "glm_ocr": About("GLM-OCR", CONVOLUTION),
    "lighton_ocr": About("LightOnOCR", "a last row or column of patches may be in no token"),
    "vipllava": About("ViP-LLaVA", f"pre is several layers side by side; {CLASS_CUT}"),
    "video_llava": About("Video-LLaVA, images", f"{CLASS_CUT}; its second tower, of videos, isn't loaded"),
    "got_ocr2": About("GOT-OCR 2", "pre follows the tower's neck; each token sees patches around its own 4 x 4, too"),
    "deepseek_vl": About("DeepSeek-VL 1.3B"),
    "blip-2": About("BLIP-2", f"{CLASS_FIRST}; a Q-Former's queries: tokens have no place"),
    "mllama": About(
        "Llama 3.2 Vision",
        f"{CLASS_FIRST} of each tile, and its token before theirs; pre is the tower's last layer, then several others,"
        " feature by feature; the language model reads post by cross-attention",
    ),
    "idefics": About(
        "IDEFICS (the first)",
        f"{CLASS_FIRST}; queries: tokens have no place; E is D: the language model reads post by cross-attention",
    ),
    "kosmos-2": About("Kosmos-2", f"{CLASS_FIRST}; patches are of length 1; queries: tokens have no place"),
    "janus": About("Janus-Pro, Janus 1.3B", "what it draws images with isn't loaded"),
}
ORDER = {
    patch_orders.raster: "raster",
    patch_orders.pixel_shuffled: "squares in raster order, their patches side by side",
    patch_orders.strided: "squares in raster order, their patches side by side",
    patch_orders.merge_blocks: "squares in raster order",
    patch_orders.windows: "squares by window",
    patch_orders.unpadded: "raster, then padding",
    patch_orders.maps: "a map",
    patch_orders.map_blocks: "squares in raster order, each a small map",
}
SQUARE = {
    "whole": "all of it, or a central crop, as the processor says",
    "base": "all of it",
    "any": "all of it, squashed",
    "longest": "scaled along the longer side, then squashed",
    "padded": "all of it, between margins of the mean colour",
    "corner": "all of it, black below or to the right",
}
OWN = {
    None: "the same",
    "native": "its own shape",
    "native_frames": "its own shape; limits count both frames of a still image",
    "longest": "its own shape",
    "longest_in_patches": "its own shape",
    "budget": "its own shape, scaled to a number of tokens",
    "bounded": "its own shape, quarters where asked for",
    "any_resolution": "whole, then tiles between margins",
    "tiles": "tiles, then whole",
    "whole_first": "whole, then tiles where asked for",
    "slices": "whole in its own shape, then slices",
    "split": "tiles, then whole",
    "pan_and_scan": "whole, then parts where asked for",
    "canvas": "tiles, black below or to the right",
}
HEAD = ("family (`model_type`)", "covers", "tap", "pre", "order at the tap", "post", "square view", "own view", "text")


def family_table() -> str:
    """The registry as a table in Markdown; squares of patches as in the configurations that transformers makes."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    lines = [f"| {' | '.join((*HEAD, 'special'))} |", "|---" * (len(HEAD) + 1) + "|"]
    for name, family in FAMILIES.items():
        cells = (f"`{name}`", ABOUT[name].covers, *_cells(family, _usual(CONFIG_MAPPING[name])))
        text = "no" if name in MUTE else "yes"
        lines.append(f"| {' | '.join((*cells, text, ABOUT[name].special))} |")
    return "\n".join(lines) + "\n"


def _usual(configuration: Any) -> Any:
    """What transformers takes where a configuration is silent, but for whether there is a vision encoder at all."""
    usual = configuration()
    return configuration(vision_config={}) if usual.vision_config is None else usual


def _cells(family: Family, config: Any) -> tuple[str, ...]:
    merge = family.merge(config) if family.merge else None
    parts = 1 + (family.stack_size(config) if family.stack_size else 0)
    before, after = (f"{parts} {width}" if parts > 1 else width for width in ("D", "E"))
    if merge is None:
        post = f"{family.latents(config) if family.latents else '?'} x {after}"
    else:
        post = {0: f"R/m x C/m x {after}", 1: f"R x C x {after}"}.get(merge, f"R/{merge} x C/{merge} x {after}")
    post = f"({family.before} + {post.removesuffix(f' x {after}')}) x {after}" if family.before else post
    more = f" and {family.newline} more" if family.newline else ""
    taps = ", ".join(f"`{tap}`" for tap in (family.connector, *([f"{family.stacked}.i"] if family.stacked else [])))
    pre = f"({family.extra} + R x C) x {before}" if family.extra else f"R x C x {before}"
    return taps, pre, ORDER[family.to_raster], post + more, SQUARE[family.view], OWN[family.own_view]
