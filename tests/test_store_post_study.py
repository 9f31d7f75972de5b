"""A study with `store_post: false`: post is computed from pre wherever it is read, and results are those of stored
post within the rounding of the store."""

import numpy as np
import pandas as pd
import pytest
from small_study import MODELS, clone, small_study, snakemake

from lossmap.store import StoreError, open_store
from lossmap.store.images import Images
from lossmap.vlm.stored import open_embeddings

READERS = [  # one result of each rule that reads post
    f"results/small/patch_loss/coco-karpathy/{MODELS[1]}_summary.parquet",
    f"results/small/reconstructors/{MODELS[1]}/ladder.parquet",
    f"results/small/geometry/seedbench/{MODELS[1]}/indexes_summary.parquet",
    f"results/small/geometry/seedbench/{MODELS[1]}/probe_summary.parquet",
    f"results/small/scores/coco-karpathy/{MODELS[1]}/captions.parquet",
    f"results/small/scores/vizwiz/{MODELS[1]}/answers.parquet",
    f"results/small/scores/seedbench/{MODELS[1]}/choices.parquet",
]


@pytest.fixture(scope="module")
def without_post(tmp_path_factory):
    folder = clone(tmp_path_factory.mktemp("without_post") / "checkout")
    config = small_study()
    config["extraction"]["store_post"] = False
    done = snakemake(folder, *READERS, config=config)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_post_is_not_on_disk_and_is_the_same_within_rounding(study, without_post, monkeypatch):
    index = f"results/small/embeddings/coco-karpathy/{MODELS[1]}.json"
    assert not list((without_post / index).with_suffix("").glob("*/post"))
    with pytest.raises(StoreError, match="post is not stored"):
        open_store(without_post / index)["post"].load()
    stored = open_store(study / index)
    monkeypatch.chdir(without_post)  # the store names its checkpoint from where Snakemake runs
    made_again = open_embeddings(index)
    for image in range(stored.sizes["image"]):
        found, wanted = (Images(store).read("post", [image]).astype("float32") for store in (made_again, stored))
        assert np.linalg.norm(found - wanted) < 1e-3 * np.linalg.norm(wanted)  # half precision keeps 11 bits


@pytest.mark.parametrize("result", READERS)
def test_every_rule_that_reads_post_gives_the_same_within_rounding(study, without_post, result):
    a, b = (pd.read_parquet(folder / result) for folder in (study, without_post))
    assert list(a.columns) == list(b.columns)
    assert len(a) == len(b) > 0
    for column in a:
        if pd.api.types.is_float_dtype(a[column]):
            scale = max(1e-6, float(np.nanmax(np.abs(a[column])))) if a[column].notna().any() else 1
            assert np.allclose(a[column], b[column], rtol=0.02, atol=0.02 * scale, equal_nan=True), column
        else:
            agree = np.mean(
                [str(one) == str(other) for one, other in zip(a[column], b[column], strict=True)]
            )  # also where both are missing
            assert agree >= 0.9, column  # a caption may take another word where two were all but tied
