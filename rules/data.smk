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


checkpoint check_training_images:
    """No image trains a reconstructor, or a reader, and is measured with it. Nothing is embedded before this is known."""
    input:
        training=lambda wildcards: manifest_files("images", TRAINED[wildcards.trained][:1]),
        evaluated=lambda wildcards: manifest_files("images", TRAINED[wildcards.trained][1:]),
        thumbnails=lambda wildcards: manifest_files("thumbnails", TRAINED[wildcards.trained]),
    output:
        counts="results/{study}/{trained}/images.json",
        near_copies="results/{study}/{trained}/near_copies.parquet",
    log:
        "results/{study}/logs/check_training_images/{trained}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_hash("check_training_images"),
    shell:
        "python -m lossmap check_training_images --training {input.training:q} --evaluated {input.evaluated:q}"
        " --trained {wildcards.trained} --counts {output.counts:q} --near-copies {output.near_copies:q} 2> {log:q}"
