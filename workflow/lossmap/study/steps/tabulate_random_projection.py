"""Summaries, dimensions needed, projections -> what a random projection needs and keeps."""

from pathlib import Path

from lossmap.study.geometry_tables import (
    random_projection_sentences,
    random_projection_table,
    readable_random_projection,
)
from lossmap.study.tables import read_all, write_csv, write_html

TITLE = "Dimensions that a random projection needs to keep the neighbours"
NOTE = (
    "A random projection to the dimension given (Johnson-Lindenstrauss, with the constant of Dasgupta and Gupta) keeps "
    "every distance well enough for all k neighbours of the images whose margin is clear enough; the share of images "
    "with the smallest margins, which are near-ties, is given up. Neighbours by cosine of mean-pooled embeddings; "
    "overlap (k-NN overlap ratio, KNOR): the share of them that is kept. Overlap of projections: measured; to the "
    "connector's output width: mean of up to 8. Width of equal overlap: of random projections that keep as much as the "
    "connector (–: fewer than 2, or more than its own). Guaranteed beyond the sample: share of images whose margin "
    "holds for the population that the images are a sample of (Dvoretzky-Kiefer-Wolfowitz); for the others no finite "
    "dimension is guaranteed. In brackets: bootstrap interval over queries, about their neighbours among the given "
    "images only."
)


def run(
    *,
    summaries: list[Path],
    dimensions: list[Path],
    projections: list[Path],
    csv: Path,
    html: Path,
    finding: Path,
    spec: dict,
) -> None:
    """Gather what a random projection would need, and what it keeps, over all models and datasets.

    spec: confidence.
    """
    table = random_projection_table(read_all(summaries), read_all(dimensions), read_all(projections))
    write_csv(table, csv)
    write_html(
        readable_random_projection(table),
        html,
        "Dimensions that a random projection needs to keep the neighbours",
        NOTE,
    )
    interval = f"In brackets: {spec['confidence']:.0%} bootstrap interval over queries, among the given images only."
    finding.write_text("\n".join([*random_projection_sentences(table), "", interval, ""]))
