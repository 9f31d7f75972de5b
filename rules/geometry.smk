"""Embeddings, neighbour lists -> how the connector moves the embeddings: alignment, margins, indexes, probe."""


include: "common_geometry.smk"


rule measure_geometry:
    """Alignment, similarity, margins, and what a random projection would need."""
    input:
        embeddings="results/{study}/embeddings/{dataset}/{model}.json",
        lists="results/{study}/neighbours/{dataset}/{model}/lists.parquet",
    output:
        alignment="results/{study}/geometry/{dataset}/{model}/alignment.parquet",
        neighbours="results/{study}/geometry/{dataset}/{model}/neighbours.parquet",
        summary="results/{study}/geometry/{dataset}/{model}/summary.parquet",
        dimensions="results/{study}/geometry/{dataset}/{model}/dimensions.parquet",
        projections="results/{study}/geometry/{dataset}/{model}/projections.parquet",
    log:
        "results/{study}/logs/measure_geometry/{dataset}/{model}.log",
    conda:
        "../envs/torch.yaml"
    threads: threads_of_store
    params:
        spec=spec("measure_geometry"),
        code=code_hash("measure_geometry"),
    shell:
        "python -m lossmap measure_geometry --embeddings {input.embeddings:q} --lists {input.lists:q}"
        " --alignment {output.alignment:q} --neighbours {output.neighbours:q} --summary {output.summary:q}"
        " --dimensions {output.dimensions:q} --projections {output.projections:q} --spec {params.spec:q} --threads {threads} 2> {log:q}"


rule compare_indexes:
    """Overlap by other ways to compare images: all patches, pooled, whitened, without sinks."""
    input:
        embeddings="results/{study}/embeddings/{dataset}/{model}.json",
        lists="results/{study}/neighbours/{dataset}/{model}/lists.parquet",
    output:
        overlap="results/{study}/geometry/{dataset}/{model}/indexes.parquet",
        summary="results/{study}/geometry/{dataset}/{model}/indexes_summary.parquet",
    log:
        "results/{study}/logs/compare_indexes/{dataset}/{model}.log",
    conda:
        "../envs/torch.yaml"
    threads: threads_of_store
    resources:
        gpu=1,
    params:
        spec=spec("compare_indexes"),
        code=code_hash("compare_indexes"),
    shell:
        "python -m lossmap compare_indexes --embeddings {input.embeddings:q} --lists {input.lists:q}"
        " --overlap {output.overlap:q} --summary {output.summary:q} --spec {params.spec:q} --threads {threads} 2> {log:q}"


rule probe_patches:
    """How far the connector's output moves when one patch is moved."""
    input:
        embeddings="results/{study}/embeddings/{dataset}/{model}.json",
        checkpoint=checkpoint_files,
        patch_loss=probe_losses,
    output:
        patches="results/{study}/geometry/{dataset}/{model}/probe.parquet",
        summary="results/{study}/geometry/{dataset}/{model}/probe_summary.parquet",
    log:
        "results/{study}/logs/probe_patches/{dataset}/{model}.log",
    conda:
        "../envs/torch.yaml"
    threads: threads_of_store
    resources:
        gpu=1,
    params:
        patch_loss=lambda wildcards, input: ["--patch-loss", *input.patch_loss] if input.patch_loss else [],
        spec=spec("probe_patches"),
        checkpoint=digest_of(checkpoint_files),
        version=product_version("probe"),
        family=family_of("probe"),
    shell:
        "python -m lossmap probe_patches --embeddings {input.embeddings:q} {params.patch_loss:q}"
        " --patches {output.patches:q} --summary {output.summary:q} --spec {params.spec:q} --threads {threads} 2> {log:q}"
