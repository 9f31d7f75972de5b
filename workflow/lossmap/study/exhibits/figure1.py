"""Which patches were lost in right and in wrong answers of one model (the paper's Figure 1)."""

import numpy as np
import pandas as pd

from lossmap.study.examples import CASES, case, worst_patches
from lossmap.study.specs import Spec

TITLE, TOPIC, PAPER = "Which patches were lost, and what was answered?", "behaviour", "Figure 1"
ABOUT = """
**Which patches were lost, and what was answered**: {s.model} on {s.dataset}. Rows are chosen by rule: the highest and
the lowest loss (squared error of the best decoder, mean over the patches with the answer) among wrong and among
right answers, so that what speaks against a link between loss and error is shown beside what speaks for it. Left: the
image with the patch grid and the outline of the answer mask; what the model did not see is pale. Middle: norm of each
patch minus norm of its reconstruction, blue where the original is larger. Right: both, and the ten patches of largest
absolute difference of norms. One colour means one value in all rows."""
COLUMNS = (
    *("dataset", "model", "outcome", "which", "rank", "of", "unranked", "loss", "other_loss", "scored", "score"),
    *("image_id", "question_id", "question", "prediction", "decoder"),
)
NONE = "No question has a patch of which its answer mask covers enough, so that none is shown."


class Settings(Spec):
    SECTIONS = ("figure1",)
    dataset: str
    model: str


def needs(study, figure="figure1"):
    if figure not in study:
        return {}
    return {"examples": "examples/{dataset}/{model}/answers.parquet".format(**study[figure])}


def table(settings, examples):
    """A row per answer that is shown."""
    return _shown(examples).rename(columns={"reconstructor": "decoder"})[[*COLUMNS]]


def _shown(examples):
    """Highest and lowest loss in the patches with the answer, among wrong and among right answers."""
    from lossmap.measures.coverage import region_means

    chosen = pd.read_parquet(examples[0])
    if chosen["relevant"].isna().all():
        return chosen.iloc[:0].assign(which=None, other_loss=None)
    rows = pd.concat([case(chosen, *each) for each in CASES], ignore_index=True)
    each = zip(rows["squared_error"], rows["relevant"], strict=True)
    others = [error[~relevant & ~np.isnan(error)] for error, relevant in each]
    return rows.assign(other_loss=[region_means(error[None], np.ones((1, len(error)), bool))[0] for error in others])


def findings(table, settings):
    """The loss of each answer that is shown."""
    if table.empty:
        return [f"- {NONE}"]
    found = {(row.outcome, row.which): row for row in table.itertuples()}
    lines = [_sentence(found.get(each), *each) for each in CASES]
    if unranked := table["unranked"].iloc[0]:
        lines.append(f"- {unranked} questions are not ranked: the answer mask covers no patch enough.")
    return lines


def _sentence(row, outcome, which):
    if row is None:
        return f"- **{outcome} answer, {which} loss**: there is none."
    other = "none" if pd.isna(row.other_loss) else f"{row.other_loss:.3f}"
    return (
        f"- **{outcome} answer, {which} loss** (rank {row.rank} of {row.of} ranked {outcome} answers): squared error "
        f"{row.loss:.3f} in the patches with the answer, {other} in the others; {row.scored} {row.score:.2g}."
    )


def draw(table, settings, examples):
    from lossmap.figures.patch_maps import draw_answers, draw_sentence
    from lossmap.store.maps import visible
    from lossmap.study.example_pictures import picture

    if table.empty:
        return draw_sentence(NONE)
    rows = _shown(examples)
    pictures = [picture(row) for row in rows.itertuples()]
    maps = zip(rows["norm_difference"], pictures, strict=True)
    worst = [worst_patches(visible(layout, values)) for values, (_, _, layout) in maps]
    return draw_answers(rows, pictures, worst)
