"""Checkpoints, embedding stores, ladder -> Table 1: the models' connectors and what reconstructs their input."""

from pathlib import Path

import pandas as pd

from lossmap.store.index import open_store
from lossmap.study.paper import beside
from lossmap.study.tables import write_csv, write_html
from lossmap.vlm.checkpoints import resolve_checkpoint
from lossmap.vlm.connector_size import connector_parameters

VALUES = ["connector_params_m", "reconstructor_params_m"]
NOTE = (
    "Pre: patches and features that enter the connector; post: tokens and features that leave it. Parameters are in "
    "millions: of the connector, counted from the model's configuration, and of the reconstructor with the lowest "
    "held-out error (of a network, without those of the ridge that it adds to). Reported: the paper's value, where the "
    "study has its model; its reconstructor is a 3-layer MLP for LLaVA and a 16-layer transformer for the others."
)


def run(*, embeddings: list[Path], ladder: Path, csv: Path, html: Path, finding: Path, spec: dict) -> None:
    """Tabulate shapes and sizes of all models.

    embeddings: an index of each model's embeddings, of any data set, in the order of the spec. ladder: table of the
    ladder as CSV. spec: models, a list of {name, checkpoint, revision}: their order says whose index is which.
    """
    best = pd.read_csv(ladder).query("kind == 'own' and best").set_index("model")
    rows = []
    for model, index in zip(spec["models"], embeddings, strict=True):
        name = model["name"]
        store = open_store(index)
        (patches, features), (tokens, width) = (store[side].shape[1:] for side in ("pre", "post"))
        row = {"model": name, "pre_patches": patches, "pre_dim": features, "post_patches": tokens, "post_dim": width}
        folder = resolve_checkpoint(model["checkpoint"], model.get("revision"))
        row["connector_params_m"] = connector_parameters(folder) / 1e6
        row["reconstructor"] = best.loc[name, "rung"]
        row["reconstructor_params_m"] = best.loc[name, "parameters"] / 1e6
        rows.append(row | {"input": _input(store.attrs["preprocessing"])})
    table = pd.DataFrame(rows)
    checkpoints = {model["name"]: model["checkpoint"] for model in spec["models"]}
    table = beside(table, "table1", [], VALUES, checkpoints)
    write_csv(table, csv)
    write_html(_readable(table), html, "Table 1: connectors and reconstructors", NOTE)
    finding.write_text("\n".join([*(f"- {_sentence(row)}" for row in table.to_dict("records")), ""]))


def _input(preprocessing: dict) -> str:
    """What the model sees of an image, from its preprocessing as the store tells it."""
    if preprocessing.get("pad"):
        return f"{_by(preprocessing['crop'] or preprocessing['size'])} px, between margins"
    if preprocessing["crop"]:
        return f"{_by(preprocessing['crop'])} px, centre crop"
    shape = "squashed" if preprocessing.get("view") in ("any", "longest") else "resized"
    return f"{shape} to {_by(preprocessing['size'])} px"


def _by(sides: list[int]) -> str:
    return " x ".join(str(side) for side in sides[::-1])  # stored as height, width


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    columns = {"model": table["model"]}
    for side in ("pre", "post"):
        pairs = zip(table[f"{side}_patches"], table[f"{side}_dim"], strict=True)
        columns[side] = [f"{rows} x {features}" for rows, features in pairs]
    columns["connector parameters"] = table["connector_params_m"]
    columns["connector parameters, reported"] = table["connector_params_m_reported"]
    columns["reconstructor"] = table["reconstructor"]
    columns["reconstructor parameters"] = table["reconstructor_params_m"]
    columns["reconstructor parameters, reported"] = table["reconstructor_params_m_reported"]
    return pd.DataFrame(columns | {"input": table["input"]})


def _sentence(row: dict) -> str:
    """What goes in, what comes out, and how many numbers that is."""
    before, after = row["pre_patches"] * row["pre_dim"], row["post_patches"] * row["post_dim"]
    return (
        f"**{row['model']}**: {row['pre_patches']} x {row['pre_dim']} to {row['post_patches']} x {row['post_dim']} "
        f"({before:,} numbers to {after:,}), by a connector of {row['connector_params_m']:.3g} million parameters."
    )
