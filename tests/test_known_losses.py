"""Controls of known loss through the whole ladder, networks included: what is lost is found, and nothing else."""

import pandas as pd
import pytest
from specs import checked
from toy_store import embeddings, write_store

from lossmap.study.steps import fit_linear, judge_connector, measure_ladder, measure_statistics, train_reconstructor

CONNECTORS = {
    "own": {"kind": "own"},
    "identity": {"kind": "identity"},
    "invertible-mlp": {"kind": "invertible_mlp"},
    "other-image": {"kind": "other_image"},
    "other-image-and-patch": {"kind": "other_image_and_patch"},
}
NETWORKS = {
    "mlp-8": {"kind": "mlp", "widths": [8], "dropout": 0},
    "mlp-32": {"kind": "mlp", "widths": [32], "dropout": 0},
    "mlp-256": {"kind": "mlp", "widths": [256], "dropout": 0},
    "transformer": {"kind": "transformer", "width": 16, "layers": 1, "heads": 2, "dropout": 0},
}
TRAINED = {
    "own": ["mlp-32"],
    "identity": [],
    "invertible-mlp": ["mlp-8", "mlp-32", "mlp-256"],
    "other-image": ["mlp-32", "transformer"],
    "other-image-and-patch": ["mlp-32", "transformer"],
}
LINEAR = ["mean", "position_mean", "ridge"]
TRAINING = {"epochs": None, "batch": 16, "learning_rate": None, "weight_decay": 0.01, "clip": 1.0}
TRAINING |= {"patience": 3, "accumulate": 1, "buffer": 4096, "memory": 2**30}
TRAINING |= {"threads": 1, "processes": 1, "checkpoint_minutes": 10}
SPLIT = {"held_out": 0.2, "seed": 0}


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """The ladder of a toy model on images that trained nothing, and the words of its verdict."""
    folder = tmp_path_factory.mktemp("known")
    pre, post = embeddings(1000)
    train = write_store(folder / "train.json", pre[:800], post[:800])
    test = write_store(folder / "test.json", pre[800:], post[800:])
    out = folder / "out"
    measure_statistics.run(
        embeddings=train, reconstructors=out, spec=checked("measure_statistics", {"connectors": CONNECTORS, "seed": 0})
    )
    linear = {"connectors": CONNECTORS, "shares": [100], **SPLIT}
    fit_linear.run(embeddings=train, reconstructors=out, spec=checked("fit_linear", linear))
    for connector, names in TRAINED.items():
        for name in names:
            how = {"network": NETWORKS[name], "share": 100, "shares": [100], "training": TRAINING, **SPLIT}
            train_reconstructor.run(
                embeddings=train,
                statistics=out / connector / "statistics.safetensors",
                ridge=out / connector / "ridge-100.safetensors",
                reconstructor=out / connector / f"{name}-100.safetensors",
                history=out / connector / f"{name}-100.history.csv",
                spec=checked("train_reconstructor", how),
            )
    decoders = {name: [*LINEAR, *TRAINED[name]] for name in CONNECTORS}
    how = {"dataset": "test", "model": "toy", "connectors": decoders, "shares": [100], "batch_size": 64}
    how = checked("measure_ladder", how)
    measure_ladder.run(embeddings=test, reconstructors=out, ladder=folder / "ladder.parquet", spec=how)
    pd.DataFrame({"dataset": [], "image_id": []}, dtype="str").to_parquet(folder / "near_copies")
    judge_connector.run(
        ladders=[folder / "ladder.parquet"],
        near_copies=folder / "near_copies",
        ladder=folder / "judged.parquet",
        verdict=folder / "verdict.parquet",
        spec=checked("judge_connector", {"settled_within": 0.01, "confidence": 0.95, "resamples": 200, "seed": 0}),
    )
    table = pd.read_parquet(folder / "judged.parquet").set_index(["connector", "decoder"])["fvu"]
    return table, pd.read_parquet(folder / "verdict.parquet").loc[0, ["summary", "details"]]


def test_nothing_is_lost_by_identity(judged):
    assert judged[0]["identity", "ridge"] < 1e-3


def test_the_ladder_falls_toward_zero_on_an_invertible_network_and_the_verdict_says_so(judged):
    table, verdict = judged
    control = table["invertible-mlp"]
    assert control["mlp-8"] > control["mlp-32"] > control["mlp-256"]
    assert control["mlp-256"] < 0.6 * control["ridge"]
    assert control["mlp-256"] < 0.1
    assert "(invertible-mlp, the matched control)" in verdict["details"]
    assert (
        "Whether a larger share of the images would do better on invertible-mlp was not tested." in verdict["details"]
    )
    assert verdict["summary"].endswith("; not tested whether settled")


def test_another_image_tells_positions_and_no_decoder_finds_more(judged):
    control = judged[0]["other-image"]
    assert (control > control["position_mean"] - 0.02).all()


def test_another_image_and_patch_tell_nothing_to_any_decoder(judged):
    assert (judged[0]["other-image-and-patch"] >= 0.98).all()


def test_the_best_decoder_beats_the_mean_and_ridge(judged):
    own = judged[0]["own"]
    assert own.min() <= own["ridge"] < own["mean"] == pytest.approx(1, abs=0.05)
