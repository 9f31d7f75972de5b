"""Numbers that a family's entry takes from a model's configuration: each of these is a function of it."""


def vision_width(config) -> int:
    """Of the tower's vectors, side by side where the connector is given several layers."""
    names = ("vision_feature_layer", "vision_feature_layers")  # ViP-LLaVA's hub checkpoints say the latter
    layers = next((getattr(config, name) for name in names if hasattr(config, name)), None)
    return config.vision_config.hidden_size * (len(layers) if isinstance(layers, list | tuple) else 1)


def text_width(config) -> int:
    """Of the language model's vectors."""
    text = config.text_config
    return next(getattr(text, name) for name in ("hidden_size", "embed_dim", "d_model") if hasattr(text, name))


def embedded(config) -> int:
    """Idefics: before the connector and after it; cross-attention takes vectors as wide as the tower's."""
    return config.vision_config.embed_dim


def final_and_intermediate(config) -> int:
    """Llama 3.2 Vision: of the tower's last layer and of several before it."""
    vision = config.vision_config
    return vision.hidden_size * (1 + len(vision.intermediate_layers_indices))


def inverse_ratio(config) -> int:
    return round(1 / config.downsample_ratio)


def one(config) -> int:
    return 1


def spatial_merge(config) -> int:
    return config.vision_config.spatial_merge_size


def pooled_squares(config) -> int:
    return config.vision_config.pooling_kernel_size


def merged_within(config) -> int:
    return 1 if config.downsample_mode == "4x" else 2


def merge_rounds(config) -> int:
    return config.merge_kernel_size[0] ** config.merger_times


def stride(config) -> int:
    return config.vision_config.hidden_stride


def resampled(config) -> int:
    return config.perceiver_config.resampler_n_latents


def deepstack(config) -> int:
    return len(config.vision_config.deepstack_visual_indexes)


def gemma3_pool(config) -> int:
    patches_per_side = config.vision_config.image_size // config.vision_config.patch_size
    return patches_per_side // round(config.mm_tokens_per_image**0.5)
