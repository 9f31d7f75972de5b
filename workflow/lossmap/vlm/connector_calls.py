"""How an image is sent through a vision side (`Family.run`), and pre through what makes post of it (`Family.apply`).

Importing it needs neither torch nor transformers.
"""


def image_features(model, family, inputs):
    """What `get_image_features` gives."""
    return model.get_image_features(**inputs)


def kosmos2(model, family, inputs):
    """The same, which Kosmos-2's class that generates has no function for."""
    import torch

    made = model.vision_model(**inputs)
    patches = torch.nn.functional.normalize(model.vision_model.model.post_layernorm(made[0]), dim=-1)
    made.pooler_output = family.apply(model, family.connector, (patches,))
    return made


def tower_then_connector(model, family, inputs):
    """All that leaves the tower enters the connector. BLIP-2's base model gives the tower's output for image features;
    what its language model receives, the class that generates makes of it."""
    made = model.vision_model(**inputs)
    made.pooler_output = family.apply(model, family.connector, (made[0],))
    return made


def tiles_of_images(model, family, inputs):
    """Llama 3.2 Vision: the tower is given empty tiles, too, and looks at them; the language model is not. Of images
    with as many tiles each; tiles come one after another."""
    made = model.vision_model(**inputs)
    count = int(inputs["aspect_ratio_mask"][0].sum())
    tiles = made[0][:, 0, :count].flatten(0, 1).contiguous()  # as in the model itself: it rounds by that in bfloat16
    made.pooler_output = family.apply(model, family.connector, (tiles,))
    return made


def connector_alone(model, connector, given):
    """post (tokens, features_out), however shaped, of what a connector takes."""
    return model.get_submodule(connector)(*given)


def first_of(model, connector, given):
    """Kosmos-2: beside post, the connector gives its attention."""
    return connector_alone(model, connector, given)[0]


def asked_by_queries(model, connector, given):
    """BLIP-2: what learned queries make of patches, projected. The Q-Former computes in float32 where the rest is in
    float16."""
    import torch

    (patches,) = given
    queries = model.query_tokens.expand(len(patches), -1, -1)
    every = torch.ones(patches.shape[:-1], dtype=torch.long, device=patches.device)
    former = model.get_submodule(connector)
    made = former(query_embeds=queries, encoder_hidden_states=patches, encoder_attention_mask=every)[0]
    return model.language_projection(made.to(model.language_projection.weight.dtype))


def then_merger(model, connector, given):
    """GLM: a convolution takes each square to a vector, and the merger that vector."""
    return model.visual.merger(connector_alone(model, connector, given).flatten(1))


def each_in_a_list(model, connector, given):
    """MiniCPM-V: a tensor for each view."""
    import torch

    return torch.stack(connector_alone(model, connector, given))


def pooled_then_embedded(model, connector, given):
    """Gemma 4: means over squares of patches, standardised where the configuration says so, then the projection."""
    tower = model.vision_tower
    pooled, _ = connector_alone(model, connector, given)
    if tower.config.standardize:
        pooled = (pooled - tower.std_bias.float()) * tower.std_scale.float()
    return model.embed_vision(pooled.to(given[0].dtype))


def words_of_a_table(model, connector, given):
    """Ovis2: each token is a mean over a table of visual words, weighted by their probabilities, or the likeliest."""
    import torch

    tower, table = model.vision_tower, model.visual_embeddings_table
    logits = tower.head_norm(connector_alone(model, connector, given))
    shares = logits.softmax(-1)
    if tower.config.tokenize_function == "st_argmax":
        shares = torch.nn.functional.one_hot(shares.argmax(-1), shares.shape[-1]).to(logits.dtype)
    return table(torch.nn.functional.pad(shares, (0, tower.num_visual_indicator_tokens)))


def visual_marks(model):
    """Ovis2: what stands for the marks around an image and between its tiles: the last words of the table."""
    return {"visual_indicator_features": model.visual_embeddings_table.weight[-len(model.visual_indicator_token_ids) :]}
