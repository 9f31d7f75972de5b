"""Shapes and sizes of the models' connectors, and of what reconstructs their input (the paper's Table 1)."""

import pandas as pd

from lossmap.study.paper import beside
from lossmap.study.specs import Spec
from lossmap.study.tables import cells

TITLE, TOPIC, PAPER = "What are the connectors, and what reconstructs their input?", "loss", "Table 1"
ABOUT = """
**The connectors**: what enters (pre: patches x features), what leaves (post: tokens x features), how large the
connector is, counted from the model's configuration, and how large the decoder with the lowest held-out error is."""
COLUMNS = (
    *("model", "pre_patches", "pre_features", "post_tokens", "post_features", "connector_parameters_m", "decoder"),
    *("decoder_parameters_m", "input", "receives"),
)
NOTE = (
    "Pre: patches and features that enter the connector; post: tokens and features that leave it; where images differ "
    "in layout, those of the median image. Parameters are in millions: of the connector, counted from the model's "
    "configuration, and of the decoder with the lowest held-out error (of a network, without those of the ridge that "
    "it adds to). Reported: the paper's value, where the study has its model; its decoder is a 3-layer MLP for LLaVA "
    "and a 16-layer transformer for the others."
)


class Settings(Spec):
    checkpoints: dict[str, str]


def needs(study):
    if "reconstruction" not in study:
        return {}
    return {"connectors": "reconstructors/connectors.parquet", "ladder": "reconstructors/ladder.parquet"}


def table(settings, connectors, ladder):
    rows = pd.read_parquet(connectors[0])
    best = pd.read_parquet(ladder[0]).query("connector_kind == 'own' and best").set_index("model").loc[rows["model"]]
    rows.insert(5, "connector_parameters_m", rows.pop("connector_parameters") / 1e6)
    rows.insert(6, "decoder", best["decoder"].to_numpy())
    rows.insert(7, "decoder_parameters_m", best["parameters"].to_numpy() / 1e6)
    return beside(rows, "table1", [], ["connector_parameters_m", "decoder_parameters_m"], settings.checkpoints)


def page(table, settings):
    shapes = (table["pre_patches"], table["pre_features"]), (table["post_tokens"], table["post_features"])
    shown = {"model": table["model"]}
    for name, (rows, features) in zip(("pre", "post"), shapes, strict=True):
        shown[name] = [f"{n} x {width}" for n, width in zip(rows, features, strict=True)]
    sizes = [f"connector_parameters_m{end}" for end in ("", "_reported")]
    sizes += ["decoder", *(f"decoder_parameters_m{end}" for end in ("", "_reported")), "input", "receives"]
    return pd.DataFrame(shown | cells(table, sizes))


def findings(table, settings):
    """What goes in, what comes out, and how many dimensions that is, a line per model."""
    lines = []
    for row in table.to_dict("records"):
        before, after = row["pre_patches"] * row["pre_features"], row["post_tokens"] * row["post_features"]
        which = f" ({row['receives']})" if isinstance(row["receives"], str) else ""
        lines.append(
            f"- **{row['model']}**: {row['pre_patches']} x {row['pre_features']} to {row['post_tokens']} x "
            f"{row['post_features']} ({before:,} dimensions to {after:,}), by a connector of "
            f"{row['connector_parameters_m']:.3g} million parameters{which}."
        )
    return lines
