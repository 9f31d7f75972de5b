"""What is measured of a model with DeepStack, in a study: who says it, and that neither passes for the other."""

import json

import numpy as np
import pandas as pd
import pytest
from specs import checked
from test_recompute import scenes, stored  # noqa: F401, a fixture
from tiny_models import TEXT_WIDTH, WIDTH
from tiny_processors import save_speaking

from lossmap.errors import LossmapError
from lossmap.study.captions import about_receives
from lossmap.study.products import family_key
from lossmap.study.specs import Extract, MakeExhibit
from lossmap.study.steps import caption_images, describe_connectors
from lossmap.vlm.embedding import embed
from lossmap.vlm.opening import open_model
from lossmap.vlm.receives import received

STUDY = {
    "models": {
        "whole": {"checkpoint": "q", "view": "square"},
        "merger": {"checkpoint": "q", "view": "square", "receives": "sequence"},
    },
    "extraction": {"batch_size": 2, "dtype": "float16", "compute_dtype": "float32", "store_post": True},
    "figures": {"scale": 1, "palette": "colorblind", "names": {}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, and embeddings of it by either setting."""
    folder = tmp_path_factory.mktemp("deepstack")
    save_speaking("qwen3_vl", folder / "model")
    return folder


@pytest.fixture(scope="module")
def stores(folder, scenes):  # noqa: F811
    found = {}
    for receives in ("all", "sequence"):
        (folder / receives).mkdir()
        found[receives] = stored(scenes, folder / "model", folder / receives, receives=receives)
    return found


def test_what_is_not_said_is_all_and_changes_no_key():
    whole, merger = (Extract.of(STUDY, model=name) for name in ("whole", "merger"))
    assert "receives" not in whole.model_dump()
    assert whole.opening["receives"] == "all"
    assert merger.model_dump()["receives"] == "sequence"
    assert "receives" not in json.dumps(family_key("embeddings", "qwen2_5_vl"))
    assert family_key("embeddings", "qwen3_vl")["entry"]["stacked"] == "visual.deepstack_merger_list"
    assert "stacked" not in family_key("embeddings", "qwen2_5_vl")["entry"]


def test_either_store_says_what_it_holds(stores):
    whole, merger = stores["all"], stores["sequence"]
    assert whole["pre"].shape[1:] == (64, 3 * WIDTH)
    assert whole["post"].shape[1:] == (16, 3 * TEXT_WIDTH)
    assert merger["pre"].shape[1:] == (64, WIDTH)
    assert merger["post"].shape[1:] == (16, TEXT_WIDTH)
    assert (whole.attrs["key"]["receives"], merger.attrs["key"]["receives"]) == ("all", "sequence")
    assert np.array_equal(whole["post"].values[..., :TEXT_WIDTH], merger["post"].values)


def test_captions_of_either_setting_are_of_all_or_refused(folder, stores, tmp_path):
    how = {"checkpoint": str(folder / "model"), "revision": None, "image_size": None, "compute_dtype": "float32"}
    how |= {"batch_size": 5, "prompts": "default", "max_new_tokens": 3}
    asked = checked("caption_images", how)
    caption_images.run(embeddings=folder / "all/index.json", captions=tmp_path / "captions.parquet", spec=asked)
    assert len(pd.read_parquet(tmp_path / "captions.parquet")) == 12
    with pytest.raises(LossmapError, match="receives: 'sequence' there, 'all' here"):
        caption_images.run(embeddings=folder / "sequence/index.json", captions=tmp_path / "none", spec=asked)
    alone = checked("caption_images", how | {"receives": "sequence"})
    with pytest.raises(LossmapError, match="DeepStack.*Set receives: all, or leave this model out"):
        caption_images.run(embeddings=folder / "sequence/index.json", captions=tmp_path / "none", spec=alone)


def test_embeddings_of_before_are_a_sequence():
    from lossmap.vlm.families import FAMILIES

    assert received({}, FAMILIES["qwen3_vl"]) == "sequence"
    assert received({"receives": "all"}, FAMILIES["qwen3_vl"]) == "all"
    assert received({}, FAMILIES["llava"]) == received({}, None) == "all"


def test_table1_says_which_connectors_are_measured(folder, stores, tmp_path):
    models = [
        {"name": name, "checkpoint": str(folder / "model"), "revision": None, "receives": receives}
        for name, receives in (("whole", "all"), ("merger", "sequence"))
    ]
    describe_connectors.run(
        embeddings=[folder / "all/index.json", folder / "sequence/index.json"],
        table=tmp_path / "table",
        spec=checked("describe_connectors", {"models": models}),
    )
    table = pd.read_parquet(tmp_path / "table").set_index("model")
    assert table["receives"].to_dict() == {"whole": "merger and DeepStack", "merger": "merger alone"}
    assert table["pre_features"].to_dict() == {"whole": 3 * WIDTH, "merger": WIDTH}
    assert table["connector_parameters"]["whole"] > 2 * table["connector_parameters"]["merger"]


def test_captions_name_the_models_of_which_the_merger_alone_is_measured():
    assert MakeExhibit.of(STUDY).sequence_alone == ["merger"]
    assert about_receives(["merger"]).startswith("Of merger, the merger's input and output alone are measured")
    assert about_receives([]) == ""
    usual = STUDY | {"models": {"whole": STUDY["models"]["whole"]}}
    assert "sequence_alone" not in MakeExhibit.of(usual).model_dump()


def test_the_library_takes_either(folder):
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    found = {
        receives: embed(open_model(folder / "model", receives=receives), image) for receives in ("all", "sequence")
    }
    assert [one.attrs["key"]["receives"] for one in found.values()] == ["all", "sequence"]
    assert found["all"].sizes["feature"] == 3 * found["sequence"].sizes["feature"]
