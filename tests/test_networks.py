"""The networks: the paper's sizes to the parameter, what each patch may see, every error; and connectors' sizes."""

import pytest
import torch
from transformers import Idefics2Config, LlavaConfig, Qwen2_5_VLConfig

from lossmap.errors import LossmapError
from lossmap.reconstruct.networks import build_network, parameters
from lossmap.vlm.connector_size import connector_parameters

EACH = [[patch] for patch in range(576)]  # LLaVA's tokens stand for one patch each
PAPER = {"kind": "transformer", "width": 2048, "layers": 16, "heads": 16}
MLP = {"kind": "mlp", "widths": [12, 10]}
TRANSFORMER = {"kind": "transformer", "width": 8, "layers": 2, "heads": 2}
SQUARES = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]  # 2x2 blocks of 4x4 patches


def counted(*arguments):
    with torch.device("meta"):
        return parameters(build_network(*arguments))


# The paper states millions: LLaVA 27, Idefics2 844, Qwen2.5-VL 843. (It cuts decimals: 844.9 and 843.6.)
@pytest.mark.parametrize(
    ("architecture", "pre", "post", "blocks", "expected"),
    [
        ({"kind": "mlp", "widths": [4096, 2048]}, (576, 1024), (576, 4096), EACH, 27_282_432),
        (PAPER, (576, 1152), (64, 4096), None, 844_886_848),
        (PAPER, (576, 1280), (144, 3584), None, 843_570_112),
        # Its ablation's MLP-39M and transformer-40M have no stated widths; these come to as many.
        ({"kind": "mlp", "widths": [3584, 3072, 2560, 1536]}, (576, 1024), (576, 4096), EACH, 39_092_736),
        ({"kind": "transformer", "width": 768, "layers": 4, "heads": 12}, (576, 1024), (576, 4096), EACH, 40_351_168),
    ],
)
def test_the_papers_sizes(architecture, pre, post, blocks, expected):
    assert counted(architecture, pre, post, blocks) == expected


def test_the_papers_transformer_is_the_sum_of_its_parts():
    h, m, tokens, before, after = 2048, 576, 64, 4096, 1152
    read = (before + 1) * 2 * h + (2 * h + 1) * h
    layer = 4 * (h + 1) * h + (h + 1) * 4 * h + (4 * h + 1) * h + 4 * h
    across = (tokens + 1) * 2 * m + (2 * m + 1) * m
    write = (h + 1) * 2 * h + (2 * h + 1) * after
    assert counted(PAPER, (m, after), (tokens, before)) == read + tokens * h + 16 * layer + across + write


CLIP = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
SIGLIP = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
PERCEIVER = {"resampler_n_latents": 64, "resampler_depth": 3, "resampler_n_heads": 16, "resampler_head_dim": 96}
SEVEN_B = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}


@pytest.mark.parametrize(
    ("config", "expected", "millions"),
    [
        (
            LlavaConfig(
                vision_config={"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14, **CLIP},
                text_config={"model_type": "llama", "intermediate_size": 11008, "vocab_size": 32064, **SEVEN_B},
            ),
            20_979_712,
            21,
        ),
        (
            Idefics2Config(
                vision_config={"image_size": 980, "patch_size": 14, **SIGLIP},
                perceiver_config={"hidden_size": 4096, "num_key_value_heads": 4, **PERCEIVER},
                text_config={"model_type": "mistral", "intermediate_size": 14336, "vocab_size": 32003, **SEVEN_B},
            ),
            743_219_200,
            743,
        ),
        (
            Qwen2_5_VLConfig(
                vision_config={"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 3584},
                text_config={"hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28},
            ),
            44_574_464,
            45,
        ),
    ],
    ids=["llava-1.5-7b", "idefics2-8b", "qwen2.5-vl-7b"],
)
def test_connectors_of_the_papers_models(config, expected, millions):
    assert connector_parameters(config) == expected
    assert round(expected / 1e6) == millions


def test_a_connector_of_a_checkpoint_folder(pytestconfig):
    zoo = pytestconfig.rootpath / "workflow/zoo"
    assert connector_parameters(zoo / "llava") == 2 * (96 * 96 + 96)


def test_a_folder_without_a_known_configuration_is_named(tmp_path):
    with pytest.raises(LossmapError, match="config.json: can't be read"):
        connector_parameters(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(LossmapError, match="config.json: model_type is 'bert', which Lossmap doesn't know"):
        connector_parameters(tmp_path)


def changed_patches(network, token, tokens, width):
    """Which patches change when one token does."""
    post = torch.randn(3, tokens, width)
    other = post.clone()
    other[:, token] += 1
    with torch.inference_mode():
        return ((network(post) - network(other)).abs().amax(dim=(0, 2)) > 1e-6).nonzero().flatten().tolist()


@pytest.mark.parametrize("architecture", [MLP, TRANSFORMER])
@pytest.mark.parametrize(("tokens", "blocks"), [(16, [[i] for i in range(16)]), (4, SQUARES), (5, SQUARES), (6, None)])
def test_every_token_gives_patches(architecture, tokens, blocks):
    torch.manual_seed(0)
    network = build_network(architecture, (16, 3), (tokens, 7), blocks).eval()
    assert network(torch.randn(2, tokens, 7)).shape == (2, 16, 3)
    changed = changed_patches(network, 1, tokens, 7)
    if architecture is MLP and blocks is not None:
        assert changed == sorted(blocks[1])
    else:
        assert changed == list(range(16))


def test_a_token_after_the_last_block_is_not_read_by_an_mlp():
    network = build_network(MLP, (16, 3), (5, 7), SQUARES).eval()
    assert changed_patches(network, 4, 5, 7) == []


def test_a_tokens_numbers_go_to_the_patches_of_its_block():
    network = build_network({"kind": "mlp", "widths": []}, (16, 2), (4, 8), SQUARES)
    with torch.no_grad():
        network.first.weight.copy_(torch.eye(8))
        network.first.bias.zero_()
    pre = torch.randn(2, 16, 2)
    post = pre[:, torch.tensor(SQUARES)].flatten(2)
    assert torch.equal(network(post), pre)


def test_patches_differ_even_where_tokens_have_no_place():
    network = build_network(MLP, (16, 3), (6, 7)).eval()
    assert network(torch.zeros(1, 6, 7)).std(dim=1).min() > 0


def test_the_same_seed_gives_the_same_weights_and_layers_differ():
    networks = []
    for _ in range(2):
        torch.manual_seed(3)
        networks.append(build_network(TRANSFORMER, (16, 3), (6, 7)))
    one, other = (network.state_dict() for network in networks)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(*(layer.linear1.weight for layer in networks[0].encoder))


def test_indices_are_no_parameters():
    outputs = 4 * 3 * (10 + 1)
    expected = 12 * (7 + 1) + 24 + 10 * (12 + 1) + 20 + outputs
    assert parameters(build_network(MLP, (16, 3), (4, 7), SQUARES)) == expected


@pytest.mark.parametrize(
    ("architecture", "blocks", "message"),
    [
        ({"kind": "forest"}, None, "kind is 'forest'. Choose one of mlp, transformer"),
        ({}, None, "kind is None"),
        ({"kind": "mlp"}, None, "can't be built .*missing .*'widths'.* Correct its settings"),
        ({"kind": "mlp", "widths": [4], "heads": 2}, None, "can't be built .*'heads'"),
        ({**TRANSFORMER, "heads": 3}, None, "width 8 isn't a multiple of heads, 3"),
        (MLP, SQUARES[:3], r"blocks of shape \(3, 4\) don't give each of 16 patches to one of 4 tokens"),
        (MLP, [[i] for i in range(16)], r"blocks of shape \(16, 1\) don't give each of 16 patches to one of 4 tokens"),
        (MLP, [SQUARES[0], *SQUARES[:3]], r"blocks of shape \(4, 4\) don't give each"),
    ],
)
def test_an_impossible_network_is_named(architecture, blocks, message):
    with pytest.raises(LossmapError, match=message):
        build_network(architecture, (16, 3), (4, 7), blocks)
