"""Two models of the study -> how they differ on the same images."""


include: "common_comparisons.smk"


rule share_pre:
    """Keep what two models have in common before the connector on disk once."""
    input:
        base="results/{study}/embeddings/{dataset}/{base}.json",
        tuned="results/{study}/embeddings/{dataset}/{tuned}.json",
    output:
        report="results/{study}/comparisons/{base}/{tuned}/{dataset}.json",
    log:
        "results/{study}/logs/share_pre/{base}/{tuned}/{dataset}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_hash("share_pre"),
    shell:
        "python -m lossmap share_pre --base {input.base:q} --tuned {input.tuned:q} --report {output.report:q} 2> {log:q}"


rule compare_models:
    """Paired differences of a fine-tuned model and its base."""
    input:
        unpack(compared_files),
    output:
        table="results/{study}/comparisons/{base}/{tuned}.parquet",
    log:
        "results/{study}/logs/compare_models/{base}/{tuned}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        files=compared_options,
        spec=spec("compare_models"),
        code=code_hash("compare_models"),
    shell:
        "python -m lossmap compare_models --table {output.table:q} {params.files:q} --spec {params.spec:q} 2> {log:q}"


rule tabulate_comparisons:
    """Paired differences of all pairs of models."""
    input:
        comparisons=[f"results/{{study}}/comparisons/{base}/{tuned}.parquet" for base, tuned in config["compare"]],
    output:
        csv="results/{study}/tables/comparisons.csv",
        html=report(
            "results/{study}/tables/comparisons.html",
            caption="../workflow/report/comparisons.rst",
            category="Comparisons",
            labels={"result": "Fine-tuned models and their bases", "kind": "table"},
        ),
        finding="results/{study}/tables/comparisons.rst",
    log:
        "results/{study}/logs/tabulate_comparisons.log",
    conda:
        "../envs/analysis.yaml"
    params:
        spec=canonical({"confidence": config["statistics"]["confidence"]}),
        code=code_hash("tabulate_comparisons"),
    shell:
        "python -m lossmap tabulate_comparisons --comparisons {input.comparisons:q} --csv {output.csv:q}"
        " --html {output.html:q} --finding {output.finding:q} --spec {params.spec:q} 2> {log:q}"


rule draw_comparisons:
    """Paired differences, a row of panels per pair of models."""
    input:
        table="results/{study}/tables/comparisons.csv",
        finding="results/{study}/tables/comparisons.rst",
    output:
        pdf="results/{study}/figures/comparisons.pdf",
        png=report(
            "results/{study}/figures/comparisons.png",
            caption="../workflow/report/comparisons.rst",
            category="Comparisons",
            labels={"result": "Fine-tuned models and their bases", "kind": "figure"},
        ),
    log:
        "results/{study}/logs/draw_comparisons.log",
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_hash("draw_comparisons"),
    shell:
        "python -m lossmap draw_comparisons --table {input.table:q} --pdf {output.pdf:q} --png {output.png:q} 2> {log:q}"
