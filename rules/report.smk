"""Exhibits -> the summary and the report, which open in any browser, without a network."""


rule make_summary:
    """What the study has found, question by question."""
    input:
        files_of_exhibits("rst", "png"),
    output:
        page="results/{study}/summary.html",
        text="results/{study}/summary.rst",
    log:
        "results/{study}/logs/make_summary.log",
    conda:
        "../envs/analysis.yaml"
    params:
        spec=summary_settings(),
        code=code_hash("make_summary"),
    shell:
        "python -m lossmap make_summary --results results/{wildcards.study} --page {output.page:q} --text {output.text:q}"
        " --spec {params.spec:q} 2> {log:q}"


rule make_report:
    """The report, by the Snakemake that runs the study: it knows how each result came about."""
    input:
        tables=files_of_exhibits("html"),
        figures=files_of_exhibits("png"),
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
