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


if config["geometry"]["datasets"]:

    include: "rules/geometry.smk"


if config["compare"]:

    include: "rules/comparisons.smk"


include: "rules/tables.smk"
include: "rules/figures.smk"
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
    input:
        paths_of(FIGURES, "figures", ["pdf", "png"]),


rule tables:
    input:
        paths_of(TABLES, "tables", ["csv", "html"]),


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


# `snakemake figure3`: one figure or table, and what it needs; `galleries` are one of each dataset and model.
for result in sorted({name.split("-")[0] for name in [*FIGURES, *TABLES]}):

    rule:
        name:
            result
        input:
            paths_of([name for name in FIGURES if name.split("-")[0] == result], "figures", ["pdf", "png"]),
            paths_of([name for name in TABLES if name == result], "tables", ["csv", "html"]),
        localrule: True
