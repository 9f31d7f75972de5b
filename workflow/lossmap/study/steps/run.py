"""Study -> everything that it asks for: Snakemake, with the workflow that is part of this package."""

import os
import sys

from lossmap.vlm.checkpoints import CHECKOUT


def run(*options: str) -> None:
    """Run a study in this folder: results go to results/, Snakemake's own notes to .snakemake/.

    It is `snakemake --snakefile <that of this package>`, and takes all that Snakemake takes: targets first (a figure's
    or table's name, embeddings, manifests; all, if none is given), then options. For example

        lossmap run --cores 8                                the default study, or config.yaml of this folder
        lossmap run --cores 8 --configfile mine.yaml         a study of your own
        lossmap run figure3 --cores 8 --configfile mine.yaml one figure or table, and what it needs
        lossmap run -n --configfile mine.yaml                only check the study, and list the jobs

    `python -m snakemake --help` explains them all.
    """
    sys.stdout.flush()
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(CHECKOUT / "Snakefile"), *options]
    os.execv(sys.executable, command)
