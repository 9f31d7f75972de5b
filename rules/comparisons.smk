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
