"""Published datasets -> manifests."""


checkpoint read_dataset:
    """Check a dataset in its published format and list its images, captions and questions."""
    input:
        dataset_files,
    output:
        images="results/{study}/data/{dataset}/images.parquet",
        captions="results/{study}/data/{dataset}/captions.parquet",
        questions="results/{study}/data/{dataset}/questions.parquet",
        summary="results/{study}/data/{dataset}/manifest.json",
        thumbnails="results/{study}/data/{dataset}/thumbnails.parquet",
        digests="results/{study}/data/{dataset}/images.sha256",
    log:
        "results/{study}/logs/read_dataset/{dataset}.log",
    conda:
        "../envs/analysis.yaml"
    threads: 8
    params:
        spec=spec("read_dataset"),
        sources=source_state,
        code=code_hash("read_dataset"),
    shell:
        "python -m lossmap read_dataset --images {output.images:q} --captions {output.captions:q}"
        " --questions {output.questions:q} --summary {output.summary:q} --thumbnails {output.thumbnails:q}"
        " --digests {output.digests:q} --spec {params.spec:q} --threads {threads} 2> {log:q}"
