"""Lossmap: what a vision-language model loses at its connector.

published dataset -> manifest -> embeddings -> neighbours -> tables, figures -> report
"""

# A study given with --configfile replaces the default one; the two are never merged.
if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


report: "workflow/report/workflow.rst"


include: "rules/common.smk"
include: "rules/miniature.smk"
include: "rules/data.smk"
include: "rules/embeddings.smk"
include: "rules/neighbours.smk"
include: "rules/tables.smk"
include: "rules/figures.smk"
include: "rules/report.smk"


localrules:
    all,
    figures,
    tables,
    embeddings,
    manifests,
    figure2,
    figure3,
    table2,
    table8,


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


rule figure2:
    input:
        paths_of(["figure2"], "figures", ["pdf", "png"]),


rule figure3:
    input:
        paths_of(["figure3"], "figures", ["pdf", "png"]),


rule table2:
    input:
        paths_of(["table2"], "tables", ["csv", "html"]),


rule table8:
    input:
        paths_of(["table8"], "tables", ["csv", "html"]),
