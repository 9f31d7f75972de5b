"""Whether it is the connector that loses, or the decoder that is too weak."""

import pandas as pd

from lossmap.reconstruct.verdict import Interval, percent_within, points
from lossmap.study.captions import BOOTSTRAP
from lossmap.study.columns import COMPARED
from lossmap.study.specs import Spec

TITLE, TOPIC, PAPER = "Does the connector lose, or is the decoder too weak?", "loss", None
HEADLINE = 1
ABOUT = """
**Is it the connector that loses, or the decoder that is too weak?** What the best decoder leaves unexplained bounds
the connector's loss from above. Controls from which nothing is lost, given to the same decoders, show how much of
that is the decoder's own weakness; the matched control is the one that they undo worst. Both count only once the
ladder of decoders has settled: all networks have converged, and neither twice the parameters nor twice the training
images promises to lower them by more than {s.tolerance}, by a power law through the last two points of each curve."""
COLUMNS = (
    *("dataset", "n", "model", "summary", "settled", "pre_dimensions"),
    *(f"{name}_{key}" for name in COMPARED for key in ("name", "decoder", "dimensions", "fvu")),
    *("matched_control_difference", "linear_compression_difference", "extrapolated_fvu", "extrapolated_difference"),
    *("falls", "not_converged", "untested", "details", "near_copies", "model_connector_fvu_without_near_copies"),
)
PAGE = [
    *("model", "model_connector_fvu", "matched_control_fvu", "matched_control_difference", "settled"),
    *("extrapolated_fvu", "model_connector_decoder"),
]
NOTE = (
    "All numbers are shares of the variance, 0 to 1. Unexplained: what the best decoder leaves after the model's "
    "connector; an upper bound of what is lost there, for a better decoder can only lower it. Matched control: the "
    "same for that of the controls from which nothing is lost that the decoders undo worst, so the decoder's "
    "weakness on a map of that kind. Difference: what is attributed to the connector; an estimate, which holds if "
    "the connector's map is no harder to undo than the control's. Settled: all networks converged, and neither "
    "twice the parameters nor twice the images promises to lower the connector's or the control's share by more "
    "than {s.settled_within:g}, by a power law through the last two points of each curve; not tested: also where no"
    " network recovers more than ridge, here or on a lossless control. Ten times the ladder: from what ten times "
    "the parameters and images would leave, by the same curves, to the upper end of what is left now; 0 where the "
    "ladder has no such curve. Ladders of more or fewer images and networks should agree within this range. Linear "
    "compression: what the ladder leaves of the leading principal components of each block of patches, as many "
    "dimensions as the connector puts out or fewer. Position control: of another image's output. Every feature "
    "counts alike, whatever the language model makes of it. In brackets: bootstrap interval over images, the same "
    "images on both sides of a difference; it does not cover another training run, nor a larger ladder."
)


class Settings(Spec):
    SECTIONS = ("reconstruction", "statistics")
    settled_within: float
    confidence: float

    @property
    def tolerance(self) -> str:
        return points(self.settled_within)


def needs(study):
    return {"verdict": "reconstructors/verdict.parquet"} if "reconstruction" in study else {}


def table(settings, verdict):
    return pd.read_parquet(verdict[0])


def findings(table, settings):
    """The verdict in a line and, under it, all that it rests on; for each model."""
    lines = []
    for row in table.to_dict("records"):
        lines += [f"- **{row['model']}**: {row['summary']}.", "", f"  {row['details']}{_without(row)}", ""]
    return [*lines, BOOTSTRAP.format(settings.confidence)]


def _without(row):
    """What is left without near-copies of training images, where there are any."""
    if not row["near_copies"]:
        return ""
    known = f" {row['near_copies']:,} of the {row['n']:,} images are near-copies of training images"
    name = "model_connector_fvu_without_near_copies"
    if pd.isna(row[name]):
        return f"{known}."
    rest = Interval(*(row[name + end] for end in ("", "_low", "_high")))
    return f"{known}; without them {percent_within(rest)} is left."
