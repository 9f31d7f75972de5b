"""Reconstructors on disk: what was saved comes back; nothing else is ever taken for it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from lossmap.errors import LossmapError
from lossmap.reconstruct.linear import build_linear
from lossmap.reconstruct.networks import build_network
from lossmap.reconstruct.saving import load_reconstructor, load_tensors, save_reconstructor, save_tensors

SHAPES = {
    "pre_shape": [16, 3],
    "post_shape": [4, 7],
    "blocks": [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]],
}
NOWHERE = {**SHAPES, "blocks": None}
ARCHITECTURES = [
    {"kind": "mlp", "widths": [12], "dropout": 0.5, **SHAPES},
    {"kind": "mlp", "widths": [12], "held_out_error": 0.25, **NOWHERE},
    {"kind": "transformer", "width": 8, "layers": 1, "heads": 2, "dropout": 0.5, **NOWHERE},
    {"kind": "mean", "held_out_error": 1.0, **SHAPES},
    {"kind": "position_mean", **SHAPES},
    {"kind": "ridge", "regulariser": 0.1, **SHAPES},
    {"kind": "ridge", **NOWHERE},
]
DIGEST = "0123456789abcdef" * 4


def built(architecture):
    torch.manual_seed(1)
    settings = {key: value for key, value in architecture.items() if key not in (*SHAPES, "held_out_error")}
    shapes = [architecture[name] for name in SHAPES]
    if architecture["kind"] not in ("mlp", "transformer"):
        module = build_linear(settings, *shapes)
        for values in module.parameters():
            values.data.normal_()
        return module
    return build_network(settings, *shapes)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: f"{a['kind']}, blocks: {a['blocks'] is not None}")
def test_a_reconstructor_comes_back(architecture, tmp_path):
    module, path = built(architecture), tmp_path / "r.safetensors"
    save_reconstructor(module, architecture, DIGEST, path)
    random_state = torch.get_rng_state()
    loaded, stated = load_reconstructor(path, DIGEST)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert stated == architecture
    assert not loaded.training
    post = torch.randn(5, 4, 7)
    assert torch.equal(loaded(post), module.eval()(post))
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_reconstructor_is_the_same_file(tmp_path):
    contents = set()
    for i in range(5):
        save_reconstructor(built(ARCHITECTURES[2]), ARCHITECTURES[2], DIGEST, tmp_path / f"{i}.safetensors")
        contents.add((tmp_path / f"{i}.safetensors").read_bytes())
    assert len(contents) == 1


def test_a_file_that_could_not_be_replaced_is_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"a": torch.ones(2)}, {"number": 1})
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        save_tensors(path, {"a": torch.zeros(2)}, {"number": 2})
    tensors, description = load_tensors(path)
    assert (tensors["a"].tolist(), description) == ([1, 1], {"number": 1})


def test_other_statistics_are_an_error(tmp_path):
    save_reconstructor(built(ARCHITECTURES[0]), ARCHITECTURES[0], DIGEST, tmp_path / "r.safetensors")
    with pytest.raises(
        LossmapError, match=r"r.safetensors: was trained .* other statistics \(0123456789ab, not ffffffff"
    ):
        load_reconstructor(tmp_path / "r.safetensors", "f" * 64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": [13]}, "weights are not those of its architecture: .*size mismatch for first.weight"),
        ({"widths": [12, 12]}, "not those of its architecture: .*Missing key"),
        ({"post_shape": [4, 8]}, "not those of its architecture: .*size mismatch for first.weight"),
        ({"kind": "ridge"}, "not those of its architecture: .*Unexpected key"),
        ({"blocks": None}, "not those of its architecture: .*across"),
        ({"kind": "forest"}, "kind is 'forest'"),
    ],
)
def test_weights_of_another_architecture_are_an_error(changes, message, tmp_path):
    save_reconstructor(built(ARCHITECTURES[0]), {**ARCHITECTURES[0], **changes}, DIGEST, tmp_path / "r.safetensors")
    with pytest.raises(LossmapError, match=f"(?s){message}"):
        load_reconstructor(tmp_path / "r.safetensors", DIGEST)


def test_a_file_of_something_else_is_named(tmp_path):
    path = tmp_path / "r.safetensors"
    with pytest.raises(LossmapError, match="r.safetensors: can't be read as weights of Lossmap"):
        load_reconstructor(path)
    path.write_bytes(b"\x80\x04 a pickle")
    with pytest.raises(LossmapError, match="can't be read as weights of Lossmap .*Delete it and run again"):
        load_reconstructor(path)
    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(LossmapError, match="can't be read as weights of Lossmap"):
        load_reconstructor(path)
    save_tensors(path, {"a": torch.ones(2)}, {"format": "another/1"})
    with pytest.raises(LossmapError, match="its format is 'another/1', wanted lossmap-reconstructor/1"):
        load_reconstructor(path)


def test_a_shortened_file_is_an_error(tmp_path):
    path = tmp_path / "r.safetensors"
    save_reconstructor(built(ARCHITECTURES[0]), ARCHITECTURES[0], DIGEST, path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(LossmapError, match="can't be read"):
        load_reconstructor(path)


def test_any_reader_of_safetensors_can_read_the_weights(tmp_path):
    module, path = built(ARCHITECTURES[0]), tmp_path / "r.safetensors"
    save_reconstructor(module, ARCHITECTURES[0], DIGEST, path)
    assert {name: tuple(values.shape) for name, values in load_file(path).items()} == {
        name: tuple(values.shape) for name, values in module.state_dict().items()
    }
    header = path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")]
    description = json.loads(json.loads(header)["__metadata__"]["lossmap"])
    assert description["architecture"] == ARCHITECTURES[0]
