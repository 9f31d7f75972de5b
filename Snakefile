"""Lossmap: what a vision-language model loses at its connector.

published dataset -> manifest -> embeddings -> measures -> tables, figures -> report
                                    |  \\-> reconstructors -> patch losses -/
                                    \\-> captions, answers -> scores -----/
"""


report: "workflow/report/workflow.rst"


include: "rules/common.smk"
include: "rules/miniature.smk"
include: "rules/data.smk"
include: "rules/embeddings.smk"
include: "rules/neighbours.smk"


if "reconstruction" in config:

    include: "rules/reconstruction.smk"


include: "rules/behaviour.smk"


if "readers" in config:

    include: "rules/readers.smk"


if config["geometry"]["datasets"]:

    include: "rules/geometry.smk"


if config["compare"]:

    include: "rules/comparisons.smk"


include: "rules/exhibits.smk"
include: "rules/report.smk"


localrules:
    all,
    figures,
    tables,
    embeddings,
    manifests,


rule all:
    default_target: True
    input:
        measures(),


rule figures:
    """Every figure, with its table."""
    input:
        files_of_exhibits("pdf", "png"),


rule tables:
    """Every table, with its figure."""
    input:
        files_of_exhibits("csv", "rst", "html"),


rule embeddings:
    """Embeddings of every dataset of the study, measured or not."""
    input:
        index_of_every_store(),


rule manifests:
    """Check and read every dataset of the study."""
    input:
        expand(
            "results/{study}/data/{dataset}/manifest.json",
            study=config["study"],
            dataset=config["datasets"],
        ),


# `snakemake galleries`: all exhibits of a kind; of a kind with a single one, `snakemake figure3` is its own rule.
for kind in sorted({exhibit.kind for exhibit in EXHIBITS if exhibit.kind != exhibit.name}):

    rule:
        name:
            kind
        input:
            files_of_exhibits(kinds=[kind]),
        localrule: True


keep_hashes()
