"""Tables, figures -> the report: one archive that opens in any browser, without a network."""


rule make_report:
    """The report, by the Snakemake that runs the study: it knows how each result came about."""
    input:
        tables=paths_of(TABLES, "tables", ["html"]),
        figures=paths_of(FIGURES, "figures", ["png"]),
        pages=PAGES,
    output:
        "results/{study}/report.zip",
    log:
        "results/{study}/logs/make_report.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        texts=texts_digest(),
    shell:
        "report {output:q} {input.tables:q} {input.figures:q} {input.pages:q} > {log:q} 2>&1"
