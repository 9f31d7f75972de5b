"""The registry: each family on a random tiny model, patches put back where they lie in the image."""

import copy
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from received import base_of, received
from tiny_models import CONFIGS, NEEDS_SIDE, PATCH, SIDE, TEXT_WIDTH, WIDTH, save_config, save_tiny

from lossmap.errors import LossmapError
from lossmap.vlm.families import FAMILIES, is_vision_key, read_family
from lossmap.vlm.input_size import embedding_shapes
from lossmap.vlm.loading import load_vision_side
from lossmap.vlm.tap import ONE_VIEW, Tap

torch.set_num_threads(1)
QWEN = [name for name, family in FAMILIES.items() if "image_grid_thw" in family.inputs]


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(60, 200, (height, width, 3), dtype=np.uint8)


def embed(vision, images):
    """Those rows of pre and of post that have a place, less what follows the latter."""
    batch = vision.preprocessor.prepare([Image.fromarray(image) for image in images])
    pre, post = vision.embed(vision.preprocessor.normalise(batch, vision.device, vision.dtype))
    return pre[:, vision.family.extra :], post[:, vision.family.before :]


STACKED = [name for name, family in FAMILIES.items() if family.stacked]


@pytest.fixture(scope="module", params=[(name, "all") for name in CONFIGS] + [(name, "sequence") for name in STACKED])
def pair(request, tmp_path_factory):
    """The whole model and its vision side, loaded from a checkpoint."""
    model_type, receives = request.param
    folder = tmp_path_factory.mktemp(model_type)
    model = save_tiny(model_type, folder)
    if FAMILIES[model_type].view == "base":
        model.config.image_grid_pinpoints = [[0, 0]]  # no tiles: the base view alone
    side = SIDE if model_type in NEEDS_SIDE else None
    return model, load_vision_side(folder, image_size=side, receives=receives)


def given(parts, vision):
    """What the language model is given, as `receives` has it: (images, tokens, features). parts: from `received`."""
    return torch.cat([torch.stack(list(out)) for out in parts[: len(vision.taps)]], dim=-1)


def test_the_registry_holds_the_families_that_the_tiny_models_cover():
    assert set(FAMILIES) == set(CONFIGS)


def test_shapes_are_known_by_the_configuration_alone(pair, tmp_path_factory):
    _, vision = pair
    folder = tmp_path_factory.mktemp("configuration")
    save_config(vision.model_type, folder)
    shapes = embedding_shapes(folder, SIDE if vision.model_type in NEEDS_SIDE else None, vision.receives)
    assert (shapes.pre_grid, shapes.post_grid) == (vision.pre_grid, vision.post_grid)
    assert shapes.pre_shape == (vision.pre_grid[0] * vision.pre_grid[1], vision.pre_dim)
    assert shapes.post_shape == (vision.post_tokens, vision.post_dim)


def with_each_cell_changed(image, cell):
    """The image, then a copy for each cell of a grid, in raster order, with that cell other noise."""
    images = [image]
    for y in range(0, len(image), cell):
        for x in range(0, len(image), cell):
            changed = image.copy()
            changed[y : y + cell, x : x + cell] = noise(cell, cell, seed=1)
            images.append(changed)
    return images


def without_attention(vision):
    """The same vision side with the tower's attention silenced, so that no patch hears of another."""
    silent = copy.copy(vision)
    silent.model = copy.deepcopy(vision.model)
    pinpoints = ONE_VIEW if vision.family.view == "base" else None
    silent._tap = Tap(silent.model, vision.taps, pinpoints, vision.family.argument)
    silenced = 0
    for module in silent.model.modules():  # of convolutions that overlap, what they see of neighbours
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size > module.stride:
            middle = module.weight.data[:, :, 1, 1].clone()
            module.weight.data.zero_()[:, :, 1, 1] = middle
    for name, parameter in silent.model.named_parameters():
        if re.search(
            r"(vision_model.*self_attn\.(projection|o_proj)|self_attn\.out_proj|(attn|attention)\.projection_layer|attn\.proj|attention\.out_proj|attention\.o_proj|self_attn\.o_proj\.linear)\.",
            name,
        ):
            parameter.data.zero_()
            silenced += 1
    assert silenced >= 2
    return silent


def assert_only_own_changes(embedded, own_count):
    """Image i + 1 differs from image 0 in row i alone."""
    change = (embedded[1:] - embedded[0]).norm(dim=2)[:, :own_count]
    own = change.diagonal()
    assert change.shape == (own_count, own_count)
    assert (own > 0.01).all()
    assert ((change - torch.diag(own)).abs() < 1e-3 * own.min()).all()


def test_without_attention_a_changed_patch_changes_its_own_raster_row_and_no_other(pair):
    _, vision = pair
    pre, _ = embed(without_attention(vision), with_each_cell_changed(noise(SIDE, SIDE), PATCH))
    assert_only_own_changes(pre, 64)


def test_without_attention_a_changed_patch_changes_its_own_token_and_no_other(pair):
    _, vision = pair
    if vision.post_grid is None:
        assert vision.family.latents
        return
    rows, cols = vision.post_grid
    _, post = embed(without_attention(vision), with_each_cell_changed(noise(SIDE, SIDE), SIDE // rows))
    assert_only_own_changes(post, rows * cols)


def test_with_attention_a_changed_patch_changes_its_own_raster_row_most(pair):
    _, vision = pair
    pre, _ = embed(vision, with_each_cell_changed(noise(SIDE, SIDE), PATCH))
    assert (pre[1:] - pre[0]).norm(dim=2).argmax(1).tolist() == list(range(64))


def test_a_changed_square_of_a_wide_photograph_lands_where_the_geometry_says(pair):
    _, vision = pair
    width, height = 240, 176
    geometry = vision.preprocessor.geometry(width, height)
    photograph = noise(width, height)
    within = {"padded": [(1, 0), (2, 6), (6, 3)], "corner": [(0, 0), (2, 6), (4, 3)]}  # margins
    for row, col in within.get(vision.family.view, [(0, 0), (2, 6), (7, 3)]):
        left, top, right, bottom = (round(v) for v in geometry.patch_box(row, col))
        changed = photograph.copy()
        changed[top:bottom, left:right] = (255, 0, 255)
        pre, _ = embed(vision, [photograph, changed])
        assert (pre[1] - pre[0]).norm(dim=1).argmax() == row * geometry.cols + col


def test_vision_side_is_bit_identical_to_the_whole_model(pair):
    model, vision = pair
    family, base = vision.family, base_of(model)
    images = [noise(SIDE, SIDE, seed) for seed in range(3)]
    batch = vision.preprocessor.prepare([Image.fromarray(image) for image in images])
    inputs = vision.preprocessor.normalise(batch)
    seen = {}
    hooks = [
        base.get_submodule(name).register_forward_pre_hook(
            lambda module, args, named, at=i: seen.update(
                {at: named.get(family.argument, next(iter((*args, *named.values()))))}
            ),
            with_kwargs=True,
        )
        for i, name in enumerate(vision.taps)
    ]
    wanted = given(received(model, inputs), vision)
    for hook in hooks:
        hook.remove()
    pre, post = vision.embed(inputs)
    assert torch.equal(post, wanted)
    if vision.model_type == "mllama":
        seen = {at: one[:, 0, 0] for at, one in seen.items()}  # the tiles that follow the first are empty
    # The hook's rows are those of pre, in whatever order: each row of one is a row of the other.
    extra = family.extra
    assert torch.equal(pre[:, :extra], seen[0].reshape(3, -1, seen[0].shape[-1])[:, :extra] if extra else pre[:, :0])
    seen = {at: one[:, extra:] if extra else one for at, one in seen.items()}
    rows = pre[:, extra:].flatten(0, 1)
    hooked = [family.to_raster(seen[i], model.config, vision.pre_grid) for i in range(len(vision.taps))]
    assert torch.equal(rows, torch.cat([one.reshape(len(rows), -1) for one in hooked], dim=-1))
    assert pre.shape == (3, extra + 64, vision.pre_dim)
    assert vision.pre_dim == WIDTH * len(vision.taps)
    width = WIDTH if vision.model_type == "idefics" else TEXT_WIDTH
    assert post.shape == (3, vision.post_tokens, width * len(vision.taps))


@pytest.mark.parametrize("model_type", STACKED)
def test_a_changed_patch_lands_in_its_raster_row_of_every_connector(tmp_path, model_type):
    save_tiny(model_type, tmp_path)
    vision = without_attention(load_vision_side(tmp_path))
    assert len(vision.taps) == 3
    pre, post = embed(vision, with_each_cell_changed(noise(SIDE, SIDE), PATCH))
    for part in pre.chunk(3, dim=-1):
        assert_only_own_changes(part, 64)
    _, post = embed(vision, with_each_cell_changed(noise(SIDE, SIDE), 2 * PATCH))
    for part in post.chunk(3, dim=-1):
        assert_only_own_changes(part, 16)


@pytest.mark.parametrize("model_type", STACKED)
def test_the_sequence_is_the_first_part_of_all(tmp_path, model_type):
    save_tiny(model_type, tmp_path)
    whole, alone = (load_vision_side(tmp_path, receives=receives) for receives in ("all", "sequence"))
    assert whole.provenance["receives"] == "all"
    assert alone.provenance["receives"] == "sequence"
    assert whole.digest == alone.digest
    assert whole.connector_digest != alone.connector_digest
    for found, wanted in zip(embed(whole, [noise(SIDE, SIDE)]), embed(alone, [noise(SIDE, SIDE)]), strict=True):
        assert torch.equal(found[..., : wanted.shape[-1]], wanted)


def test_receives_means_nothing_to_a_model_without_deepstack(tmp_path):
    save_tiny("llava", tmp_path)
    with pytest.raises(LossmapError, match="receives is sequence, but its language model is given nothing else"):
        load_vision_side(tmp_path, receives="sequence")
    with pytest.raises(LossmapError, match="receives is 'both'. Write all or sequence"):
        load_vision_side(tmp_path, receives="both")
    assert "receives" not in load_vision_side(tmp_path).provenance


def test_connectors_that_are_called_in_another_order_are_refused(tmp_path):
    """Then number i of `deepstack_features` is not of number i of the list."""
    save_tiny("qwen3_vl", tmp_path)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    content["vision_config"]["deepstack_visual_indexes"] = [1, 0]
    path.write_text(json.dumps(content))
    with pytest.raises(LossmapError, match="not one of each of visual.merger, .*in this order.*indexes rise.*sequence"):
        load_vision_side(tmp_path)
    assert load_vision_side(tmp_path, receives="sequence").pre_dim == WIDTH


def test_a_batch_embeds_as_its_images_do_alone(pair):
    _, vision = pair
    images = [noise(SIDE, SIDE, seed) for seed in range(3)]
    pre, post = embed(vision, images)
    for i, image in enumerate(images):
        alone = embed(vision, [image])
        torch.testing.assert_close(pre[i : i + 1], alone[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(post[i : i + 1], alone[1], rtol=1e-4, atol=1e-5)


def test_threads_that_embed_at_the_same_time_do_not_mix_their_images(pair):
    _, vision = pair
    batches = [[noise(SIDE, SIDE, 3 * i + j) for j in range(2)] for i in range(16)]
    alone = [embed(vision, batch) for batch in batches]
    with ThreadPoolExecutor(8, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        together = list(pool.map(lambda batch: embed(vision, batch), batches))
    for (pre, post), (wanted_pre, wanted_post) in zip(together, alone, strict=True):
        assert torch.equal(pre, wanted_pre)
        assert torch.equal(post, wanted_post)


@pytest.mark.parametrize("side", [48, 80, 96])
def test_qwen_windows_that_do_not_divide_the_image_are_unshuffled_too(tmp_path, side):
    save_tiny("qwen2_5_vl", tmp_path)
    vision = load_vision_side(tmp_path, image_size=side)
    rows, cols = vision.pre_grid
    assert (rows, cols) == (side // PATCH, side // PATCH)
    vision = without_attention(vision)
    assert_only_own_changes(embed(vision, with_each_cell_changed(noise(side, side), PATCH))[0], rows * cols)
    assert_only_own_changes(embed(vision, with_each_cell_changed(noise(side, side), 2 * PATCH))[1], rows * cols // 4)


def test_a_last_strip_narrower_than_a_patch_changes_nothing(tmp_path):
    save_tiny("llava", tmp_path)
    for name, old, new in [
        ("config.json", '"image_size": 64', '"image_size": 68'),
        ("preprocessor_config.json", ": 64", ": 68"),
    ]:
        path = tmp_path / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    vision = load_vision_side(tmp_path)
    image = noise(68, 68)
    outside, inside = image.copy(), image.copy()
    outside[:, 64:], inside[:, 63:] = 0, 0
    pre, _ = embed(vision, [image, outside, inside])
    assert torch.equal(pre[0], pre[1])
    assert not torch.equal(pre[0], pre[2])


def test_idefics2_latents_have_no_place(tmp_path):
    save_tiny("idefics2", tmp_path)
    assert load_vision_side(tmp_path).post_grid is None


def test_pre_and_post_grids_have_the_ratio_of_the_family(pair):
    _, vision = pair
    ratio = {"gemma3": 4, "smolvlm": 4, "got_ocr2": 4, **dict.fromkeys(("idefics", "idefics2", "kosmos-2", "blip-2"))}
    halved = ("minicpmv4_6", "ovis2", "gemma4", "aya_vision", "internvl", "idefics3", *QWEN, "mistral3", "lighton_ocr")
    ratio |= dict.fromkeys(halved, 2)
    merge = ratio.get(vision.model_type, 1)
    assert vision.pre_grid == (8, 8)
    assert vision.post_grid == (None if merge is None else (8 // merge, 8 // merge))


def test_vision_keys_are_told_from_the_language_models_in_every_spelling():
    for key in ("vision_tower.vision_model.x", "model.vision_tower.x", "multi_modal_projector.linear_1.weight"):
        assert is_vision_key(FAMILIES["llava"], key)
    for key in ("language_model.model.embed_tokens.weight", "model.language_model.layers.0.x", "lm_head.weight"):
        assert not is_vision_key(FAMILIES["llava"], key)
    assert is_vision_key(FAMILIES["llava_next"], "image_newline")
    assert is_vision_key(FAMILIES["idefics2"], "model.connector.modality_projection.up_proj.weight")
    assert is_vision_key(FAMILIES["qwen2_5_vl"], "visual.blocks.0.x")
    assert not is_vision_key(FAMILIES["qwen2_5_vl"], "model.layers.0.mlp.up_proj.weight")


def test_a_family_that_is_not_known_is_named_with_those_that_are(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "instructblip"}')
    with pytest.raises(LossmapError, match="model_type is 'instructblip'.*Known families: llava, llava_next"):
        read_family(tmp_path)


@pytest.mark.parametrize("content", ["{", "[1]", None])
def test_a_configuration_that_can_not_be_read_is_named(tmp_path, content):
    if content:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(LossmapError, match="config.json: can't be read as a model's configuration"):
        read_family(tmp_path)


def test_reading_the_registry_needs_neither_torch_nor_transformers():
    code = "import sys; import lossmap.vlm.families; assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    path = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=path)
