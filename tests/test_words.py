"""Token embeddings of a checkpoint, wherever they lie."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lossmap.errors import LossmapError
from lossmap.vlm.words import load_words

ZOO = Path(__file__).parents[1] / "workflow/zoo"


@pytest.fixture
def sharded(tmp_path):
    """A shipped model whose language model lies in a shard without vision tensors."""
    folder = Path(shutil.copytree(ZOO / "llava", tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards = {"model-00001-of-00002.safetensors": {}, "model-00002-of-00002.safetensors": {}}
    for name, values in tensors.items():
        shards[[*shards]["language_model" in name or "lm_head" in name]][name] = values
    for name, part in shards.items():
        assert part
        save_file(part, folder / name, metadata={"format": "pt"})
    places = {key: name for name, part in shards.items() for key in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def test_words_of_a_sharded_checkpoint_are_those_of_one_in_a_file(sharded):
    whole, parts = load_words(ZOO / "llava"), load_words(sharded)
    assert torch.equal(whole.vectors, parts.vectors)
    assert whole.tokens(["What color is the digit ?"]) == parts.tokens(["What color is the digit ?"])


def test_a_checkpoint_without_them_is_refused(sharded):
    (sharded / "model-00002-of-00002.safetensors").unlink()
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    index["weight_map"] = {k: name for k, name in index["weight_map"].items() if name.startswith("model-00001")}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(LossmapError, match="0 tables of token embeddings"):
        load_words(sharded)


def test_a_text_of_which_nothing_is_left_is_named():
    with pytest.raises(LossmapError, match="makes nothing of the text ''"):
        load_words(ZOO / "llava").tokens([""])
