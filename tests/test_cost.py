"""What models and reconstructors take, without weights: by hand, and against the same computation really done."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from test_views import CUT, WIDER
from tiny_models import CONFIGS, NEEDS_SIDE, SIDE, save_config, save_tiny
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForImageTextToText

from lossmap.errors import LossmapError
from lossmap.reconstruct.controls import SETTINGS, make_connector
from lossmap.reconstruct.linear import Ridge
from lossmap.reconstruct.networks import build_network, parameters
from lossmap.study.cost.dry_run import META, Cost, DryRun
from lossmap.study.cost.models import language_cost, vision_cost
from lossmap.study.cost.networks import connector_cost, network_cost
from lossmap.vlm.connector_size import connector_parameters
from lossmap.vlm.families import FAMILIES, is_vision_key
from lossmap.vlm.loading import load_vision_side
from lossmap.vlm.preprocessing import load_preprocessor

ROOT = Path(__file__).parents[1]
PAPER = {
    "llava": "llava-hf/llava-1.5-7b-hf/b234b804b114d9e37bb655e11cbbb5f5e971b7a9",
    "idefics2": "HuggingFaceM4/idefics2-8b/2c42686c57fe21cf0348c9ce1077d094b72e7698",
    "qwen2_5_vl": "Qwen/Qwen2.5-VL-7B-Instruct/cc594898137f460bfe9f0759e9844b3ce807cfb5",
}


def folder_of(model_type):
    return ROOT / "workflow/studies/configurations" / PAPER[model_type]


@pytest.fixture(scope="module")
def paper():
    """The vision sides of the paper's three models."""
    sizes = {"llava": None, "idefics2": 336, "qwen2_5_vl": 336}
    return {name: vision_cost(folder_of(name), size, "bfloat16", name) for name, size in sizes.items()}


def on_meta(module):
    with META:
        return module()


def test_operations_and_memory_by_hand():
    layers = [on_meta(lambda a=a, b=b: torch.nn.Linear(a, b, bias=False)) for a, b in ((3, 5), (5, 7))]
    given = torch.ones(2, 3)
    with torch.no_grad(), DryRun() as cost:
        first = layers[0](given)
        assert cost == Cost(flops=2 * 2 * 3 * 5, memory=4 * 2 * 5)
        made = layers[1](first).view(14)  # a view holds nothing of its own
    assert made.device == META
    assert cost == Cost(flops=60 + 2 * 2 * 5 * 7, memory=4 * (2 * 5 + 2 * 7))


def test_what_is_let_go_is_not_held():
    layer = on_meta(lambda: torch.nn.Linear(4, 4, bias=False))
    with torch.no_grad(), DryRun() as cost:
        values = torch.ones(1, 4)
        for _ in range(50):
            values = layer(values)
    assert cost == Cost(flops=50 * 2 * 16, memory=2 * 16)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_what_meets_no_weight_is_really_computed(mode):
    layer = on_meta(lambda: torch.nn.Linear(4, 4))
    with mode(), DryRun() as cost:
        mask = torch.ones(3, dtype=torch.bool, device=META)  # as models make them: where their weights are
        assert mask.all()
        assert mask.to(META).nonzero().tolist() == [[0], [1], [2]]
        assert torch.arange(5, device=META).sum() == 10
        assert layer(torch.ones(3, 4))[mask.nonzero()[:, 0]].shape == (3, 4)
    assert cost.flops == 2 * 3 * 16


def test_attention_is_counted_and_its_matrix_not_held():
    query, key = torch.empty(1, 4, 100, 8, device=META), torch.empty(1, 2, 100, 8, device=META)
    with torch.no_grad(), DryRun() as cost:
        torch.nn.functional.scaled_dot_product_attention(query, key, key, enable_gqa=True)
    assert cost.flops == 4 * 4 * 100 * 100 * 8
    assert cost.memory < 4 * 4 * 100 * 100


def size_of(model_type):
    return SIDE if model_type in NEEDS_SIDE else None


@pytest.mark.parametrize("model_type", CONFIGS)
def test_every_family_costs_without_weights_what_it_costs_with_them(tmp_path, model_type):
    save_tiny(model_type, tmp_path)
    cost = vision_cost(tmp_path, size_of(model_type), "float32", "tiny")
    vision = load_vision_side(tmp_path, image_size=size_of(model_type))
    batch = vision.preprocessor.prepare([Image.new("RGB", (90, 70), (150, 90, 30))])
    vision.model.requires_grad_(False)
    # The CPU's own kernel of attention is not known to torch's counter.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        pre, post = vision.embed(vision.preprocessor.normalise(batch))
    extra = vision.family.extra  # rows that no token stands for
    assert (cost.pre_shape, cost.post_shape) == (pre[:, extra:].shape[1:], post.shape[1:])
    assert (cost.pre_grid, cost.post_grid) == (vision.pre_grid, vision.post_grid)
    height, width = vision.preprocessor.input_size
    assert cost.seen == f"{width} x {height}"
    assert cost.patches == extra + cost.pre_shape[0]
    assert cost.parameters == sum(values.numel() for values in vision.model.parameters())
    assert cost.weights == 4 * cost.parameters
    # Of mllama a product of two masks, each of 4 tiles of 65 rows raised to 72, in which no weight takes part.
    masks = 2 * (4 * 72) ** 2 if model_type == "mllama" else 0
    assert cost.flops == counter.get_total_flops() - masks
    assert 4 * max(pre.numel(), post.numel()) <= cost.activations


@pytest.mark.parametrize("model_type", ["llava", "idefics2", "qwen2_5_vl"])
def test_the_miniature_models_have_the_shapes_that_they_put_out(model_type):
    folder = ROOT / "workflow/zoo" / model_type
    side = 64 if model_type == "qwen2_5_vl" else None  # which takes any
    cost, vision = vision_cost(folder, side, "float32", "mini"), load_vision_side(folder, image_size=side)
    assert (cost.pre_shape, cost.post_shape) == ((64, vision.pre_dim), (vision.post_tokens, vision.post_dim))
    assert cost.parameters == sum(values.numel() for values in vision.model.parameters())


def test_weights_need_not_be_there(tmp_path):
    save_tiny("llava", tmp_path)
    with_weights = vision_cost(tmp_path, None, "float32", "tiny")
    (tmp_path / "model.safetensors").unlink()
    assert vision_cost(tmp_path, None, "float32", "tiny") == with_weights
    with pytest.raises(LossmapError, match=r"^tiny \(llava\): takes inputs of 64 x 64 pixels only"):
        vision_cost(tmp_path, 32, "float32", "tiny")


def test_shapes_of_the_papers_models(paper):
    # Table 1
    assert (paper["llava"].pre_shape, paper["llava"].post_shape) == ((576, 1024), (576, 4096))
    assert (paper["idefics2"].pre_shape, paper["idefics2"].post_shape) == ((576, 1152), (64, 4096))
    assert (paper["qwen2_5_vl"].pre_shape, paper["qwen2_5_vl"].post_shape) == ((576, 1280), (144, 3584))
    assert paper["idefics2"].post_grid is None
    assert all(one.pre_grid == (24, 24) and one.seen == "336 x 336" for one in paper.values())


# The hub's pages say 7.06, 8.40 and 8.29 billion; connectors as in Table 1.
@pytest.mark.parametrize(
    ("model_type", "everything", "connector"),
    [("llava", 7.063e9, 20_979_712), ("idefics2", 8.403e9, 743_219_200), ("qwen2_5_vl", 8.292e9, 44_574_464)],
)
def test_the_shipped_configurations_are_of_models_of_the_published_size(model_type, everything, connector):
    folder = folder_of(model_type)
    with META:
        model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder))
    assert sum(values.numel() for values in model.parameters()) == pytest.approx(everything, abs=0.5e6)
    assert connector_parameters(folder) == connector


def test_operations_of_the_papers_models_by_hand(paper):
    def layers(count, tokens, width, inner, matrices=2):
        """Encoder layers: four square maps, attention between all tokens, and the maps to `inner` and back."""
        return count * (8 * tokens * width**2 + 4 * tokens**2 * width + 2 * matrices * tokens * width * inner)

    patches, rgb = 576, 3 * 14**2
    # CLIP's last layer is not read; its class token is one more.
    llava = layers(23, 577, 1024, 4096) + 2 * 576 * rgb * 1024 + 2 * 576 * 1024 * 4096 + 2 * 576 * 4096**2
    assert paper["llava"].flops == pytest.approx(llava, rel=0.01)
    # The resampler's latents look at the patches and at each other, in three layers with four key-value heads of 96.
    kv, seen = 4 * 96, 576 + 64
    resampler = 2 * 64 * 4096 * 1536 * 2 + 2 * 2 * seen * 4096 * kv + 4 * 64 * seen * 1536 + 6 * 64 * 4096 * 4 * 4096
    projection = 2 * 576 * 14336 * (2 * 1152 + 4096)
    idefics2 = layers(27, patches, 1152, 4304) + 2 * patches * rgb * 1152 + 3 * resampler + projection
    assert paper["idefics2"].flops == pytest.approx(idefics2, rel=0.02)
    # Four of 32 layers look at all patches, the others at windows of 64.
    windows = 28 * 4 * 576 * (576 - 64) * 1280
    merger = 2 * 144 * 5120 * (5120 + 3584)
    qwen = layers(32, patches, 1280, 3420, matrices=3) - windows + 2 * patches * 2 * rgb * 1280 + merger
    assert paper["qwen2_5_vl"].flops == pytest.approx(qwen, rel=0.01)


def test_a_language_model_by_hand():
    cost = language_cost(folder_of("llava"), "bfloat16", 640)
    width, inner, words = 4096, 11008, 32064
    per_token = 2 * 32 * (4 * width**2 + 3 * width * inner)
    assert cost.parameters == 2 * words * width + per_token // 2 + 65 * width
    assert cost.weights == 2 * cost.parameters
    assert cost.prompt_flops == 640 * per_token + 32 * 4 * 640**2 * width + 2 * width * words
    assert cost.token_flops == per_token + 32 * 4 * 641 * width + 2 * width * words
    assert cost.cache == 640 * cost.token_cache == 640 * 2 * 2 * 32 * width
    assert cost.cache < cost.activations < 2 * cost.cache
    # Idefics2's and Qwen's keys and values have fewer heads.
    assert language_cost(folder_of("qwen2_5_vl"), "bfloat16", 208).token_cache == 2 * 2 * 28 * 4 * 128


# Whose language models are laid out otherwise, and aren't asked for text.
UNASKED = {"kosmos-2", "blip-2", "mllama", "idefics"}


@pytest.mark.parametrize("model_type", sorted(set(CONFIGS) - UNASKED))
def test_every_family_has_a_language_model(tmp_path, model_type):
    model = save_tiny(model_type, tmp_path)
    cost = language_cost(tmp_path, "float32", 20)
    family = FAMILIES[model_type]
    unheard = [v for n, v in model.named_parameters() if is_vision_key(family, n, family.spoken)]
    vision = sum(values.numel() for values in unheard)
    assert cost.parameters == sum(values.numel() for values in model.parameters()) - vision
    assert 0 < cost.token_flops < cost.prompt_flops


GRID, PRE, POST, POST_GRID = (4, 4), (16, 6), (4, 8), (2, 2)
EACH_KIND = sorted(set(SETTINGS) - {"pca"})


@pytest.mark.parametrize("post_grid", [POST_GRID, None])
@pytest.mark.parametrize("kind", EACH_KIND)
def test_a_connector_costs_what_it_computes(kind, post_grid):
    cost = connector_cost({"kind": kind}, GRID, PRE, POST, post_grid)
    connector = make_connector({"kind": kind}, GRID, PRE, POST, seed=0, post_grid=post_grid)
    assert cost.post_shape == connector.post_shape
    blocks = [None if one is None else one.tolist() for one in (cost.blocks, connector.blocks)]
    assert blocks[0] == blocks[1]
    assert cost.reads_post == (kind in ("own", "other_image", "other_image_and_patch"))
    pre, post = torch.randn(1, *PRE), torch.randn(1, *POST)
    with FlopCounterMode(display=False) as counter:
        connector([0], pre, post, post)
    assert cost.flops == counter.get_total_flops()
    ridge = Ridge(PRE, connector.post_shape, connector.blocks)
    with FlopCounterMode(display=False) as counter:
        ridge(torch.randn(1, *connector.post_shape))
    assert cost.ridge_flops == counter.get_total_flops()
    assert cost.linear_disk == 4 * (ridge.weight.numel() + ridge.bias.numel() + 16 * 6)


def test_a_principal_component_control_by_hand():
    cost = connector_cost({"kind": "pca", "rank": 3}, GRID, PRE, POST, POST_GRID)
    assert cost.post_shape == (4, 4 * 3)
    assert cost.flops == 2 * 4 * (4 * 6) * (4 * 3)
    assert cost.statistics_flops == 4 * (4 * 6) ** 2
    assert cost.linear_flops == cost.flops + 4 * 12 * (12 + 2 * 24)  # half of X^T X is enough, of X^T Y there is none
    assert cost.linear_memory == 2 * 8 * 12 * (12 + 24) + 2 * 4 * 12 * 24


@pytest.mark.parametrize("post_grid", [POST_GRID, None])
@pytest.mark.parametrize(
    "architecture",
    [{"kind": "mlp", "widths": [12, 10]}, {"kind": "transformer", "width": 8, "layers": 2, "heads": 2}],
    ids=["mlp", "transformer"],
)
def test_a_network_costs_what_it_computes(architecture, post_grid):
    connector = connector_cost({"kind": "own"}, GRID, PRE, POST, post_grid)
    cost = network_cost(architecture, PRE, connector, images=3)
    network = build_network(architecture, PRE, POST, connector.blocks)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss = network(torch.randn(1, *POST)).square().sum()
        forward = counter.get_total_flops()
        loss.backward()
    assert (cost.forward_flops, cost.training_flops) == (forward, counter.get_total_flops())
    assert cost.parameters == parameters(network)
    assert cost.disk == 4 * cost.parameters
    five_times = 5 * 4 * cost.parameters
    per_image = cost.memory - five_times
    assert per_image > 3 * 4 * (16 * 6 + 4 * 8)
    assert network_cost(architecture, PRE, connector, images=6).memory == five_times + 2 * per_image


def test_the_papers_largest_reconstructor_by_hand(paper):
    model = paper["qwen2_5_vl"]
    connector = connector_cost({"kind": "own"}, model.pre_grid, model.pre_shape, model.post_shape, model.post_grid)
    spec = {"kind": "transformer", "width": 2048, "layers": 16, "heads": 16}
    cost = network_cost(spec, model.pre_shape, connector, images=32)
    tokens, patches, h, inputs, outputs = 144, 576, 2048, 3584, 1280
    read = 2 * tokens * (inputs * 2 * h + 2 * h * h)
    layer = 2 * tokens * (4 * h * h + 8 * h * h) + 4 * tokens**2 * h
    across = 2 * h * (tokens * 2 * patches + 2 * patches * patches)
    write = 2 * patches * (h * 2 * h + 2 * h * outputs)
    assert cost.forward_flops == read + 16 * layer + across + write
    assert cost.parameters == 843_570_112
    assert cost.training_flops == pytest.approx(3 * cost.forward_flops, rel=0.01)


def test_an_impossible_control_is_named():
    with pytest.raises(LossmapError, match="Control identity: 3 x 3 patches can't be cut into 4 equal blocks"):
        connector_cost({"kind": "rotation"}, (3, 3), (9, 6), POST, None)


@pytest.mark.parametrize("model_type", CUT)
def test_views_cost_without_weights_what_they_cost_with_them(tmp_path, model_type):
    save_config(model_type, tmp_path, processor=WIDER.get(model_type, {}))
    cost = vision_cost(tmp_path, None, "float32", "tiny", "processor")
    shape = load_preprocessor(tmp_path, view="processor").layout(640, 480).shape
    assert cost.seen == f"640 x 480 in {len(shape.views)} view{'s' * (len(shape.views) > 1)}"
    assert (cost.patches, cost.post_shape[0]) == (shape.patches, shape.tokens)
    assert cost.pre_grid[0] * cost.pre_grid[1] == cost.pre_shape[0] <= shape.patches
    side = SIDE if FAMILIES[model_type].view == "any" else None
    plain = vision_cost(tmp_path, side, "float32", "tiny")
    # Of mllama the tower is given four tiles always.
    share = 1 if model_type == "mllama" else shape.patches / plain.patches * 0.8
    assert cost.flops > plain.flops * share
    assert cost.at_once(4) == min(4, max(1, 4 * 576 // shape.patches))
    assert plain.at_once(4) == 4
    assert cost.square in (None, plain.post_shape[0]) or FAMILIES[model_type].view == "any"
