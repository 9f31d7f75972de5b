"""Manifests -> embedding stores."""


rule extract:
    """Embeddings before and after the connector, for one range of images."""
    input:
        images="results/{study}/data/{dataset}/images.parquet",
        checkpoint=checkpoint_files,
    output:
        part=directory("results/{study}/embeddings/{dataset}/{model}/part-{first}-{stop}.zarr"),
    log:
        "results/{study}/logs/extract/{dataset}/{model}/part-{first}-{stop}.log",
    conda:
        "../envs/torch.yaml"
    threads: 8
    params:
        spec=extraction_settings,
        code=code_hash("extract"),
    shell:
        "python -m lossmap extract --images {input.images} --part {output.part} --first {wildcards.first}"
        " --stop {wildcards.stop} --spec {params.spec:q} --threads {threads} 2> {log}"


rule index_embeddings:
    """The small file that stands for a store: its parts in order, with their digests."""
    input:
        parts=parts,
    output:
        index="results/{study}/embeddings/{dataset}/{model}.json",
    log:
        "results/{study}/logs/index_embeddings/{dataset}/{model}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_hash("index_embeddings"),
    shell:
        "python -m lossmap index_embeddings --parts {input.parts} --index {output.index} 2> {log}"
