"""What a whole model of transformers gives its language model of an image: the comparison of what Lossmap embeds."""

from contextlib import contextmanager

import torch
from transformers import AutoModel


def received(model, inputs):
    """Post of images by the model's own code: a list of its parts (those of DeepStack follow the first), each a tensor
    or one for each image.

    model: of the class that generates, with weights; inputs: of its image processor.
    """
    with torch.inference_mode():
        if model.config.model_type in CROSS_ATTENTION:
            return [CROSS_ATTENTION[model.config.model_type](model, inputs)]
        made = base_of(model).get_image_features(**inputs)
    return [made.pooler_output, *(getattr(made, "deepstack_features", None) or ())]


def base_of(model):
    """What gives what the language model receives as `get_image_features`, or is given images whole; Kosmos-2's class
    that generates holds no base model, but its modules."""
    if model.config.model_type == "blip-2":
        return model
    if hasattr(model, "model"):
        return model.model
    base = AutoModel.from_config(model.config).eval()
    for name in ("vision_model", "image_to_text_projection"):
        setattr(base, name, getattr(model, name))
    return base


def _of_mllama(model, inputs):
    """Of what the language model is given beside words, the tiles that words may look at."""
    given = {}
    with _hooked(model.model.language_model, lambda module, args, named: given.update(named)):
        model(input_ids=torch.ones(len(inputs["pixel_values"]), 2, dtype=torch.int64), **inputs)
    shown = inputs["aspect_ratio_mask"].flatten(0, 1).bool()
    states = given["cross_attention_states"].unflatten(0, shown.shape)
    return [each[there].flatten(0, 1) for each, there in zip(states, shown, strict=True)]


def _of_idefics(model, inputs):
    """The third thing that a layer of cross-attention is given, after words and their mask."""
    given = []
    with _hooked(model.model.gated_cross_attn_layers[0], lambda module, args, named: given.append(args[2])):
        images = len(inputs["pixel_values"])
        model(
            input_ids=torch.ones(images, 2, dtype=torch.int64),
            pixel_values=inputs["pixel_values"].unsqueeze(1),
            image_attention_mask=torch.ones(images, 2, 1, dtype=torch.int64),
        )
    return given[0]


@contextmanager
def _hooked(module, keep):
    hook = module.register_forward_pre_hook(keep, with_kwargs=True)
    yield
    hook.remove()


CROSS_ATTENTION = {"mllama": _of_mllama, "idefics": _of_idefics}
