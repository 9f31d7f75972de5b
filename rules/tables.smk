"""Measures -> tables, each as CSV, as HTML, and as the sentences that the report shows beside it."""


rule tabulate_overlap:
    """Overlap of every model, dataset and k: the table behind Figure 3."""
    input:
        summaries=summaries_of("overlap", "overlap_summary"),
    output:
        csv="results/{study}/tables/figure3.csv",
        html=report(
            "results/{study}/tables/figure3.html",
            caption="../workflow/report/figure3.rst",
            category="Neighbours",
            labels={"result": "Overlap by k", "kind": "table"},
        ),
        finding="results/{study}/tables/figure3.rst",
    log:
        "results/{study}/logs/tabulate_overlap.log",
    conda:
        "../envs/analysis.yaml"
    params:
        spec=table_settings("overlap"),
        code=code_hash("tabulate_overlap"),
    shell:
        "python -m lossmap tabulate_overlap --summaries {input.summaries:q} --csv {output.csv:q} --html {output.html:q}"
        " --finding {output.finding:q} --spec {params.spec:q} 2> {log:q}"


rule tabulate_retrieval:
    """Retrieval by class of every model, by Euclidean distance (Table 2) or inner product (Table 8)."""
    input:
        summaries=summaries_of("retrieval", "retrieval_summary"),
    output:
        csv="results/{study}/tables/{table}.csv",
        html=report(
            "results/{study}/tables/{table}.html",
            caption="../workflow/report/retrieval.rst",
            category="Retrieval",
            labels=retrieval_labels,
        ),
        finding="results/{study}/tables/{table}.rst",
    log:
        "results/{study}/logs/tabulate_retrieval/{table}.log",
    wildcard_constraints:
        table="table2|table8",
    conda:
        "../envs/analysis.yaml"
    params:
        spec=retrieval_table_settings,
        code=code_hash("tabulate_retrieval"),
    shell:
        "python -m lossmap tabulate_retrieval --summaries {input.summaries:q} --csv {output.csv:q} --html {output.html:q}"
        " --finding {output.finding:q} --spec {params.spec:q} 2> {log:q}"
