"""Chosen answers -> Figures 1 and 7."""

from pathlib import Path

import numpy as np
import pandas as pd

from lossmap.figures.patch_maps import draw_answers, draw_sentence, shown
from lossmap.figures.style import save, use_style
from lossmap.measures.coverage import region_means
from lossmap.study.example_pictures import picture
from lossmap.study.examples import CASES, case, worst_patches


def run(*, examples: Path, pdf: Path, png: Path, finding: Path) -> None:
    """Draw which patches were lost in the answers of one model: highest and lowest loss in the patches with the answer,
    among wrong and among right answers. finding: the same in sentences."""
    use_style()
    chosen = pd.read_parquet(examples)
    if chosen["relevant"].isna().all():
        why = "No question has a patch of which its answer mask covers enough, so that none is shown."
        save(draw_sentence(why), pdf, png)
        finding.write_text(f"- {why}\n")
        return
    cases = pd.concat([case(chosen, *each) for each in CASES], ignore_index=True)
    error, relevant = np.stack(cases["squared_error"]), np.stack(cases["relevant"])
    cases["other_loss"] = region_means(error, ~relevant)
    worst = [worst_patches(values) for values in cases["norm_difference"]]
    save(draw_answers(cases, [picture(row) for row in cases.itertuples()], worst), pdf, png)
    found = {(row.outcome, row.which): row for row in cases.itertuples()}
    lines = [_sentence(found.get(each), *each) for each in CASES]
    if unranked := chosen["unranked"].iloc[0]:
        lines.append(f"- {unranked} questions are not ranked: the answer mask covers no patch enough.")
    finding.write_text("\n".join(lines) + "\n")


def _sentence(row, outcome: str, which: str) -> str:
    if row is None:
        return f"- **{outcome} answer, {which} loss**: there is none."
    return (
        f"- **{outcome} answer, {which} loss** (rank {row.rank} of {row.of} ranked {outcome} answers): squared error "
        f"{row.loss:.3f} in the patches with the answer, {shown(row.other_loss)} in the others; {row.scored} "
        f"{row.score:.2g}."
    )
