"""Summaries of geometry -> its tables: similarity, margins, probe."""

from pathlib import Path

from lossmap.study.geometry_tables import MEASURES, readable, sentences, with_moved
from lossmap.study.tables import about_copies, read_all, write_csv, write_html

INTERVAL = (
    " In brackets: interval for the population of which the images are a sample. "
    "The CSV file holds every k and the chance levels."
)
TITLES = {
    "similarity": "Similarity of embeddings before and after the connector",
    "margins": "Why neighbours change: near-ties, or moved across a clear margin",
    "probe": "How much of each patch the connector sees",
}
NOTES = {
    "similarity": (
        "All on mean-pooled embeddings; neighbours by cosine (for the intrinsic dimension by Euclidean distance). CKA: "
        "debiased linear centred kernel alignment, 0 for unrelated embeddings, 1 for the same up to rotation and "
        "scale. Overlap (k-NN overlap ratio, KNOR): share of the k nearest that are the same on both sides; by cosine, "
        "where Figure 3 shows it by Euclidean distance. Trustworthiness: few strangers among the neighbours after; "
        "continuity: few neighbours before are lost far away; 1 is perfect. Order kept: whether an image's k "
        "neighbours keep their order, by Kendall's tau and Spearman's rho, 1 the same, 0 chance; an agreement of the "
        "same distances on both sides, with nothing to adjust for. Effective rank: how many directions the embeddings "
        "use. Intrinsic dimension: of the surface on which they lie, from the two nearest neighbours (TwoNN). The "
        "intervals of CKA and effective rank are those of the bootstrap to first order; those of measures of "
        "neighbours count each image as a query and as a neighbour of others."
    ),
    "margins": (
        "Neighbours by cosine of mean-pooled embeddings; overlap (k-NN overlap ratio, KNOR): the share of them that is "
        "kept (Figure 3 shows it by Euclidean distance). Near-ties, moved, within the connector's own change: shares "
        "of the lost. Each lost neighbour is compared with the image that took its place. Near-tie: their cosines "
        "before the connector differ by no more than a random projection to the connector's output width would blur "
        "(two standard deviations). The rest was moved across a clear margin: not for want of room, so by the "
        "connector. Within the connector's own change: the difference is at most twice the median change of a cosine "
        "beyond the best line; a connector that changes much makes ties of much. Closeness kept: how near the "
        "neighbours after were before, from 0, a random image, to 1, the neighbours before. Distance ratio: after over "
        "before, relative to the median pair: an empirical bi-Lipschitz constant. Quantiles are over pairs of images, "
        "an evenly spread part of them where there are more than 16,384. Bound: overlap >= 1 - ties / k and >= 1 - "
        "sqrt(ties) / k, ties being the pairs of a neighbour and a stranger within twice the image's largest change; "
        "above 0 it says something; both shares are of the given images, without interval."
    ),
    "probe": (
        "One patch before the connector is moved by a small step, and the distance that the connector's output moves "
        "is measured per length of the step; 1: as a connector that only scales. Random directions, and towards the "
        "same patch of another image. Spread: standard deviation over an image's patches as a share of their mean. Not "
        "seen: patches with less than a tenth of their image's mean response. Rho with loss: rank correlation, over an "
        "image's patches, with the loss of the best reconstructor; partial, and the finding: given the norm of the "
        "patches before the connector, since patches with more in them move the output more and are harder to rebuild; "
        "raw: without that."
    ),
}


def run(*, summaries: list[Path], csv: Path, html: Path, finding: Path, spec: dict) -> None:
    """Gather one table over all models and datasets.

    spec: table (similarity, margins or probe), confidence.
    """
    name = spec["table"]
    summary = with_moved(read_all(summaries))
    write_csv(summary[summary["measure"].isin(MEASURES[name])], csv)
    write_html(readable(summary, name), html, TITLES[name], NOTES[name] + INTERVAL)
    interval = f"In brackets: {spec['confidence']:.0%} interval for the population of which the images are a sample."
    copies = [f"- {line}" for line in about_copies(summary)] if "copies" in summary else []
    finding.write_text("\n".join([*sentences(summary, name), *copies, "", interval, ""]))
