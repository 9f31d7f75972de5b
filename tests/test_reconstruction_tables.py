"""Tables 1, 3, 6 and 9 hold the study's losses, and the paper's numbers stand beside the right rows."""

import numpy as np
import pandas as pd
import pytest
from specs import PLAIN_FIGURES

from lossmap.store import PartWriter, write_index
from lossmap.study.specs import DescribeConnectors
from lossmap.study.steps import describe_connectors, make_exhibit

LLAVA = "llava-hf/llava-1.5-7b-hf"
NETWORKS = ["mlp-3", "transformer"]


def summary(path, dataset="coco-karpathy", n=5000, model="llava", unfinished=None, near_copies=0):
    rows = []
    for reconstructor, loss in (("ridge", 0.3), ("mlp-3", 0.1), ("transformer", 0.2)):
        row = {"dataset": dataset, "n": n, "model": model, "reconstructor": reconstructor, "parameters": 27_000_000}
        row |= {"kind": "mlp", "share": 100}
        for name in ("loss", "fvu", "cosine_error", "norm_difference", "absolute_norm_difference"):
            row |= {name: loss, f"{name}_low": loss - 0.01, f"{name}_high": loss + 0.01}
        row |= {f"fvu_without_near_copies{end}": loss + 0.05 for end in ("", "_low", "_high")}
        row |= {"near_copies": near_copies, "converged": reconstructor != unfinished}
        rows.append(row | {"loss_std": 0.02, "best": reconstructor == "mlp-3"})
    pd.DataFrame(rows).to_parquet(path)
    return path


def made(name, folder, settings, **files):
    """Makes an exhibit. Returns its table, its page and its caption."""
    inputs = [f"{label}={path}" for label, paths in files.items() for path in paths]
    make_exhibit.run(name, results=folder, inputs=inputs, settings=settings, spec=PLAIN_FIGURES)
    base = folder / "tables" / name
    page, caption = (base.with_suffix(ending).read_text() for ending in (".html", ".rst"))
    return pd.read_csv(base.with_suffix(".csv")), page, caption


def tabulate(folder, paths, table="table3", checkpoint=LLAVA):
    settings = {"checkpoints": {"llava": checkpoint, "mine": "x"}, "confidence": 0.95}
    settings |= {"networks": NETWORKS} if table == "table6" else {}
    return made(table, folder, settings, summaries=paths)


def test_table3_holds_the_best_reconstructor_with_the_papers_loss_beside(tmp_path):
    table, page, finding = tabulate(tmp_path, [summary(tmp_path / "a"), summary(tmp_path / "b", model="mine")])
    assert table["decoder"].tolist() == ["mlp-3", "mlp-3"]
    assert table["loss_reported"].tolist()[0] == 0.087
    assert table["loss_std_reported"].tolist()[0] == 0.016
    assert table["loss_reported"].isna().tolist() == [False, True]
    assert ">0.100 [0.090, 0.110]</td>" in page
    assert ">0.087<" in page
    assert "How well are patches recovered, on captioned images?" in page
    assert "the best decoder makes" in page
    assert "**llava** is reconstructed with a loss of 0.100 [0.090, 0.110] on coco-karpathy (mlp-3)." in finding
    assert "95% bootstrap" in finding


def test_losses_without_near_copies_stand_beside_where_there_are_any(tmp_path):
    _, page, finding = tabulate(tmp_path, [summary(tmp_path / "a")])
    assert "near-cop" not in (page + finding).lower()
    _, page, finding = tabulate(tmp_path, [summary(tmp_path / "a", near_copies=7), summary(tmp_path / "b", "vizwiz")])
    assert "FVU without near-copies" in page
    assert ">0.150 [0.150, 0.150]</td>" in page
    assert "images that are also training images, encoded anew or resized" in page
    assert "- 7 of 5000 images of coco-karpathy are near-copies of training images" in finding
    assert "of vizwiz are near-copies" not in finding


@pytest.mark.parametrize(
    ("dataset", "n", "table", "reported"),
    [
        ("vizwiz", 1131, "table9", 0.115),
        ("vizwiz", 400, "table9", None),  # a part of the paper's set
        ("foodieqa", 389, "table9", 0.113),
        ("photos", 5000, "table9", None),
        ("coco-karpathy", 400, "table3", None),
    ],
)
def test_reported_losses_are_of_the_papers_whole_sets(tmp_path, dataset, n, table, reported):
    found, *_ = tabulate(tmp_path, [summary(tmp_path / "a", dataset, n)], table)
    value = found["loss_reported"][0]
    assert value == reported if reported else np.isnan(value)


def test_table6_holds_every_network_and_its_own_reported_loss(tmp_path):
    table, page, finding = tabulate(tmp_path, [summary(tmp_path / "a", "vizwiz", 1131)], "table6")
    assert table["decoder"].tolist() == NETWORKS
    assert table["loss_reported"].tolist() == [0.050, 0.237]
    assert table["loss_std_reported"].tolist() == [0.013, 0.019]
    assert "each network, trained on the largest share of the images, makes" in page
    assert "0.100 [0.090, 0.110] on vizwiz (mlp-3), 0.200 [0.190, 0.210] on vizwiz (transformer)" in finding
    table, _, _ = tabulate(tmp_path, [summary(tmp_path / "a", "vizwiz", 1131)], "table6", "HuggingFaceM4/idefics2-8b")
    assert table["loss_reported"].isna().all()


def test_a_network_that_has_not_converged_is_marked(tmp_path):
    path = summary(tmp_path / "a", "vizwiz", 1131, unfinished="transformer")
    table, page, finding = tabulate(tmp_path, [path], "table6")
    assert table["converged"].tolist() == [True, False]
    assert "<td>transformer (not converged)</td>" in page
    assert "on vizwiz (mlp-3), 0.200 [0.190, 0.210] on vizwiz (transformer (not converged))" in finding


def toy_store(folder, preprocessing, tokens=2):
    rng, index = np.random.default_rng(0), folder / "toy.json"
    arrays = {"pre": rng.normal(size=(2, 4, 6)), "post": rng.normal(size=(2, tokens, 5))}
    arrays |= {f"{name}_mean": values.mean(1) for name, values in arrays.items()}
    how = {"pre_grid": [2, 2], "post_grid": None, "preprocessing": preprocessing, "key": {}}
    writer = PartWriter(folder / "toy/part-0.zarr", ["a", "b"], (4, 6), (tokens, 5), "float16", how)
    writer.append(**arrays, box=np.zeros((2, 4)), size=np.ones((2, 2)))
    writer.close()
    write_index([folder / "toy/part-0.zarr"], index)
    return index


def ladder(folder, rows):
    pd.DataFrame(rows).to_parquet(folder / "ladder.parquet")
    return folder / "ladder.parquet"


def tabulated(folder, stores, models, ladder):
    """Table 1 of what describe_connectors measures."""
    described = [{"name": name, "checkpoint": checkpoint, "revision": "1" * 40} for name, checkpoint in models.items()]
    spec = DescribeConnectors(models=described)
    describe_connectors.run(embeddings=stores, table=folder / "connectors.parquet", spec=spec)
    files = {"connectors": [folder / "connectors.parquet"], "ladder": [ladder]}
    return made("table1", folder, {"checkpoints": models}, **files)


def table1(folder, monkeypatch, checkpoint, preprocessing, parameters=20_979_712):
    asked = []
    monkeypatch.setattr(describe_connectors, "resolve_checkpoint", lambda *which: asked.append(which) or folder)
    monkeypatch.setattr(describe_connectors, "connector_parameters", lambda *where: parameters)
    rows = {"model": "llava", "connector_kind": ["own", "own", "identity"], "best": [False, True, True]}
    rows |= {"decoder": ["ridge", "mlp-3", "ridge"], "parameters": [1, 27_300_000, 2]}
    stores = [toy_store(folder, preprocessing)]
    table, page, caption = tabulated(folder, stores, {"llava": checkpoint}, ladder(folder, rows))
    assert asked == [(checkpoint, "1" * 40)]
    return table.iloc[0], page, caption


def test_table1_tells_shapes_and_sizes(tmp_path, monkeypatch):
    row, page, finding = table1(tmp_path, monkeypatch, LLAVA, {"size": 336, "crop": [336, 320]})
    assert (row["pre_patches"], row["pre_features"], row["post_tokens"], row["post_features"]) == (4, 6, 2, 5)
    assert (row["decoder"], row["decoder_parameters_m"]) == ("mlp-3", 27.3)
    assert (row["connector_parameters_m_reported"], row["decoder_parameters_m_reported"]) == (21, 27)
    assert '>4 x 6</td><td class="number">2 x 5</td>' in page
    assert "centre crop, 320 x 336 px" in page
    assert "**llava**: 4 x 6 to 2 x 5 (24 dimensions to 10), by a connector of 21 million parameters." in finding


def test_table1_gives_each_model_its_own_shapes(tmp_path, monkeypatch):
    """Whatever their order: the second model's name comes first in the alphabet."""
    monkeypatch.setattr(describe_connectors, "resolve_checkpoint", lambda *which: tmp_path)
    monkeypatch.setattr(describe_connectors, "connector_parameters", lambda *where: 1)
    stores = []
    for name, tokens in (("b", 2), ("a", 3)):
        (tmp_path / name).mkdir()
        stores.append(toy_store(tmp_path / name, {"size": [8, 8], "crop": None}, tokens))
    rows = {"model": ["a", "b"], "connector_kind": "own", "best": True, "decoder": ["ridge", "mlp"], "parameters": 1}
    table, *_ = tabulated(tmp_path, stores, {"b": "b", "a": "a"}, ladder(tmp_path, rows))
    assert table.set_index("model")["post_tokens"].to_dict() == {"b": 2, "a": 3}
    assert table.set_index("model")["decoder"].to_dict() == {"b": "mlp", "a": "ridge"}


def test_table1_of_another_model_has_nothing_reported(tmp_path, monkeypatch):
    row, page, _ = table1(tmp_path, monkeypatch, "workflow/zoo/llava", {"size": [64, 96], "crop": None})
    assert np.isnan(row["connector_parameters_m_reported"])
    assert "resized to 96 x 64 px" in page
