"""Whether a rotation undoes the connector (the paper's Table 5)."""

import pandas as pd

from lossmap.study.captions import BOOTSTRAP
from lossmap.study.exhibit import of_all
from lossmap.study.paper import beside
from lossmap.study.specs import WithConfidence
from lossmap.study.tables import interval, read_all

SEEDBENCH = 5624  # images of SEED-Bench, on which the paper reports
TITLE, TOPIC, PAPER = "Does a rotation undo the connector?", "geometry", "Table 5"
HEADLINE = 1
ABOUT = """
**Can the connector be undone by a rotation?** Mean-pooled embeddings after the connector are rotated onto those
before it (orthogonal Procrustes). FVU: the fraction of the variance before the connector that a map fitted on half of
the images leaves unexplained on the other half, each half in turn; it compares between models. 0: nothing is lost but
the coordinate system. Residual: the Euclidean distance that is left between an image's two embeddings, in the unit of
the embeddings before, as the paper reports it; it grows with that unit, so that models do not compare. A rotation
that fails where any linear map succeeds says that the connector stretches and squeezes directions, which moves
neighbours; what the linear map leaves, too, is bent, lost, or could not be learned from so few images. Chance: the
same with images paired at random."""
# What is left of the images' distances, and the shares of variance -> the measure of the summaries.
RESIDUALS = {
    "residual_mean": "procrustes_error",
    "residual_std": "procrustes_error_std",
    "residual_min": "procrustes_error_min",
    "residual_max": "procrustes_error_max",
}
MAPS = ("unexplained_rotation", "unexplained_rotation_standardised", "unexplained_ridge")
COLUMNS = ("dataset", "n", "model", *RESIDUALS, *MAPS)
PAGE = [
    *("dataset", "model", "unexplained_rotation_standardised", "unexplained_rotation_standardised_chance"),
    *("unexplained_ridge", "unexplained_ridge_chance", "residual_mean", "residual_mean_reported", "n"),
]
NOTE = (
    "Embeddings after the connector, mean-pooled, are rotated onto those before it by the orthogonal map that leaves "
    "the least squared error (Procrustes; principal components where there are more features after, zeros where there "
    "are fewer). FVU: fraction of the variance of standardised features before the connector that a map fitted on one "
    "half of the images leaves unexplained on the other half, each half in turn, 0 none, 1 all: by a rotation and one "
    "scale, and by any linear map (ridge). Few images for many features leave more, even where nothing is lost. "
    "Residual: mean Euclidean distance of an image's two embeddings after the rotation, in the unit of the embeddings "
    "before, so that models do not compare. Chance: with images paired at random. In brackets: {s.confidence:.0%} "
    "bootstrap interval over images. Reported: the paper's values, where the study has its model and dataset. The CSV "
    "file also holds the residual's chance level, its standard deviation, smallest and largest over images, and the "
    "FVU by a rotation of features that are not standardised."
)


class Settings(WithConfidence):
    checkpoints: dict[str, str]


def needs(study):
    datasets = study["geometry"]["datasets"]
    return datasets and {"summaries": of_all(study, "geometry/{dataset}/{model}/summary.parquet", datasets)}


def table(settings, summaries):
    """A row per dataset and model."""
    groups = read_all(summaries).groupby(["dataset", "model"], sort=False)
    rows = beside(pd.DataFrame([_row(*group) for group in groups]), "table5", [], list(RESIDUALS), settings.checkpoints)
    theirs = (rows["dataset"] == "seedbench") & (rows["n"] == SEEDBENCH)
    rows.loc[~theirs, [f"{name}_reported" for name in RESIDUALS]] = float("nan")
    return rows


def _row(place, group):
    measures = group.set_index("measure")
    row = {"dataset": place[0], "n": measures.loc["procrustes_error", "n"], "model": place[1]}
    row |= {name: measures.loc[measure, "value"] for name, measure in RESIDUALS.items()}
    for name, measure in {"residual_mean": "procrustes_error", **dict(zip(MAPS, MAPS, strict=True))}.items():
        row[name] = measures.loc[measure, "value"]
        row |= {f"{name}_{end}": measures.loc[measure, end] for end in ("low", "high", "chance")}
    return row


def findings(table, settings):
    """What a rotation and what any linear map leave, a line per model and dataset."""
    lines = []
    for row in table.to_dict("records"):
        rotation, ridge = (
            f"{interval(row, name, 3)} (chance {row[f'{name}_chance']:.3f})"
            for name in ("unexplained_rotation_standardised", "unexplained_ridge")
        )
        lines.append(
            f"- **{row['model']}** on {row['dataset']}, fraction of the variance of standardised features left "
            f"unexplained: {rotation} by a rotation, {ridge} by any linear map."
        )
    return [*lines, "", BOOTSTRAP.format(settings.confidence)]
