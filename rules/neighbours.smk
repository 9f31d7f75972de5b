"""Embedding stores -> neighbour lists -> overlap and retrieval."""


rule find_neighbours:
    """Each image's nearest neighbours before and after the connector."""
    input:
        embeddings="results/{study}/embeddings/{dataset}/{model}.json",
        images="results/{study}/data/{dataset}/images.parquet",
    output:
        lists="results/{study}/neighbours/{dataset}/{model}/lists.parquet",
    log:
        "results/{study}/logs/find_neighbours/{dataset}/{model}.log",
    conda:
        "../envs/torch.yaml"
    threads: threads_of_store
    resources:
        gpu=1,
    params:
        spec=spec("find_neighbours"),
        code=code_hash("find_neighbours"),
    shell:
        "python -m lossmap find_neighbours --embeddings {input.embeddings:q} --images {input.images:q}"
        " --lists {output.lists:q} --spec {params.spec:q} --threads {threads} 2> {log:q}"


rule measure_overlap:
    """Share of each image's nearest neighbours that survive the connector."""
    input:
        lists="results/{study}/neighbours/{dataset}/{model}/lists.parquet",
    output:
        overlap="results/{study}/neighbours/{dataset}/{model}/overlap.parquet",
        summary="results/{study}/neighbours/{dataset}/{model}/overlap_summary.parquet",
    log:
        "results/{study}/logs/measure_overlap/{dataset}/{model}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        spec=spec("measure_overlap"),
        code=code_hash("measure_overlap"),
    shell:
        "python -m lossmap measure_overlap --lists {input.lists:q} --overlap {output.overlap:q}"
        " --summary {output.summary:q} --spec {params.spec:q} 2> {log:q}"


rule measure_retrieval:
    """Whether a query finds an image of its class, before and after the connector."""
    input:
        lists="results/{study}/neighbours/{dataset}/{model}/lists.parquet",
        images="results/{study}/data/{dataset}/images.parquet",
    output:
        queries="results/{study}/neighbours/{dataset}/{model}/retrieval.parquet",
        summary="results/{study}/neighbours/{dataset}/{model}/retrieval_summary.parquet",
    log:
        "results/{study}/logs/measure_retrieval/{dataset}/{model}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        spec=spec("measure_retrieval"),
        code=code_hash("measure_retrieval"),
    shell:
        "python -m lossmap measure_retrieval --lists {input.lists:q} --images {input.images:q}"
        " --queries {output.queries:q} --summary {output.summary:q} --spec {params.spec:q} 2> {log:q}"
