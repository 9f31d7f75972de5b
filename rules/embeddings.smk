"""Manifests -> embedding stores."""


rule extract:
    """Embeddings before and after the connector, for one range of images."""
    input:
        # Not by its date or content: of all that it lists, a part reads its own images, which `images` below stands for.
        images=ancient("results/{study}/data/{dataset}/images.parquet"),
        checkpoint=checkpoint_files,
    output:
        part=directory("results/{study}/embeddings/{dataset}/{model}/part-{first}-{stop}.zarr"),
    log:
        "results/{study}/logs/extract/{dataset}/{model}/part-{first}-{stop}.log",
    cache: True
    conda:
        "../envs/torch.yaml"
    threads: threads_of_extraction
    resources:
        gpu=1,
    params:
        # All that the result depends on stands here: the cache between workflows sees no wildcards.
        spec=spec("extract"),
        first=lambda wildcards: wildcards.first,
        stop=lambda wildcards: wildcards.stop,
        images=digest_of_images,
        checkpoint=digest_of(checkpoint_files),
        version=product_version("embeddings"),
        family=family_of("embeddings"),
    shell:
        "python -m lossmap extract --images {input.images:q} --part {output.part:q} --first {params.first}"
        " --stop {params.stop} --spec {params.spec:q} --threads {threads} 2> {log:q}"


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
        version=product_version("embeddings"),
    shell:
        "python -m lossmap index_embeddings --parts {input.parts:q} --index {output.index:q} 2> {log:q}"
