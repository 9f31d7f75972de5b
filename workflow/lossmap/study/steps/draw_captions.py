"""Chosen captions -> Figure 12."""

from pathlib import Path

import pandas as pd

from lossmap.figures.patch_maps import draw_captions
from lossmap.figures.style import save, use_style
from lossmap.study.example_pictures import picture
from lossmap.study.examples import case


def run(*, examples: list[Path], pdf: Path, png: Path, finding: Path) -> None:
    """Draw, for each model, the images of highest and lowest loss with their captions. examples: a table per model.
    finding: the same in sentences."""
    use_style()
    tables = map(pd.read_parquet, examples)
    shown = pd.concat(
        [case(table, None, which) for table in tables for which in ("highest", "lowest")], ignore_index=True
    )
    save(draw_captions(shown, [picture(row) for row in shown.itertuples()]), pdf, png)
    finding.write_text("".join(map(_sentence, shown.itertuples())))


def _sentence(row) -> str:
    return (
        f"- **{row.model}, {row.which} loss** (rank {row.rank} of {row.of} images): squared error {row.loss:.3f}, "
        f"CIDEr {row.score:.1f}.\n"
    )
