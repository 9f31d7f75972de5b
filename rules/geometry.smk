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


rule tabulate_table5:
    """Table 5: whether a rotation undoes the connector."""
    input:
        summaries=of_geometry("geometry/{dataset}/{model}/summary.parquet"),
    output:
        csv="results/{study}/tables/table5.csv",
        html=report(
            "results/{study}/tables/table5.html",
            caption="../workflow/report/table5.rst",
            category="Geometry",
            labels={"result": "Table 5: Procrustes", "kind": "table"},
        ),
        finding="results/{study}/tables/table5.rst",
    log:
        "results/{study}/logs/tabulate_table5.log",
    conda:
        "../envs/analysis.yaml"
    params:
        spec=geometry_table_settings(checkpoints=checkpoint_of_model()),
        code=code_hash("tabulate_table5"),
    shell:
        "python -m lossmap tabulate_table5 --summaries {input.summaries:q} --csv {output.csv:q} --html {output.html:q}"
        " --finding {output.finding:q} --spec {params.spec:q} 2> {log:q}"


rule tabulate_table7:
    """Table 7: overlap by index."""
    input:
        summaries=of_geometry("geometry/{dataset}/{model}/indexes_summary.parquet"),
    output:
        csv="results/{study}/tables/table7.csv",
        html=report(
            "results/{study}/tables/table7.html",
            caption="../workflow/report/table7.rst",
            category="Geometry",
            labels={"result": "Table 7: overlap by index", "kind": "table"},
        ),
        finding="results/{study}/tables/table7.rst",
    log:
        "results/{study}/logs/tabulate_table7.log",
    conda:
        "../envs/analysis.yaml"
    params:
        spec=geometry_table_settings(checkpoints=checkpoint_of_model(), sink_ratio=config["geometry"]["sink_ratio"]),
        code=code_hash("tabulate_table7"),
    shell:
        "python -m lossmap tabulate_table7 --summaries {input.summaries:q} --csv {output.csv:q} --html {output.html:q}"
        " --finding {output.finding:q} --spec {params.spec:q} 2> {log:q}"


rule tabulate_geometry:
    """Similarity, margins and probe, each a table over all models and datasets."""
    input:
        summaries=lambda wildcards: of_geometry(
            f"geometry/{{dataset}}/{{model}}/{'probe_summary' if wildcards.table == 'probe' else 'summary'}.parquet"
        ),
    output:
        csv="results/{study}/tables/{table}.csv",
        html=report(
            "results/{study}/tables/{table}.html",
            caption="../workflow/report/geometry_tables.rst",
            category="Geometry",
            labels=lambda wildcards: {
                "result": {"similarity": "Other measures", "margins": "Near-ties", "probe": "Patch probe"}[
                    wildcards.table
                ],
                "kind": "table",
            },
        ),
        finding="results/{study}/tables/{table}.rst",
    log:
        "results/{study}/logs/tabulate_geometry/{table}.log",
    wildcard_constraints:
        table="similarity|margins|probe",
    conda:
        "../envs/analysis.yaml"
    params:
        spec=lambda wildcards: geometry_table_settings(table=wildcards.table),
        code=code_hash("tabulate_geometry"),
    shell:
        "python -m lossmap tabulate_geometry --summaries {input.summaries:q} --csv {output.csv:q} --html {output.html:q}"
        " --finding {output.finding:q} --spec {params.spec:q} 2> {log:q}"


rule tabulate_random_projection:
    """Dimensions that a random projection needs, and what it keeps."""
    input:
        summaries=of_geometry("geometry/{dataset}/{model}/summary.parquet"),
        dimensions=of_geometry("geometry/{dataset}/{model}/dimensions.parquet"),
        projections=of_geometry("geometry/{dataset}/{model}/projections.parquet"),
    output:
        csv="results/{study}/tables/random_projection.csv",
        html=report(
            "results/{study}/tables/random_projection.html",
            caption="../workflow/report/random_projection.rst",
            category="Geometry",
            labels={"result": "Dimensions needed", "kind": "table"},
        ),
        finding="results/{study}/tables/random_projection.rst",
    log:
        "results/{study}/logs/tabulate_random_projection.log",
    conda:
        "../envs/analysis.yaml"
    params:
        spec=geometry_table_settings(),
        code=code_hash("tabulate_random_projection"),
    shell:
        "python -m lossmap tabulate_random_projection --summaries {input.summaries:q} --dimensions {input.dimensions:q}"
        " --projections {input.projections:q} --csv {output.csv:q} --html {output.html:q}"
        " --finding {output.finding:q} --spec {params.spec:q} 2> {log:q}"


rule draw_figure6:
    """Figure 6: embeddings before, after, and after rotated onto before."""
    input:
        alignments=of_geometry("geometry/{dataset}/{model}/alignment.parquet", GEOMETRY[:1]),
        finding="results/{study}/tables/table5.rst",
    output:
        pdf="results/{study}/figures/figure6.pdf",
        png=report(
            "results/{study}/figures/figure6.png",
            caption="../workflow/report/figure6.rst",
            category="Geometry",
            labels={"result": "Procrustes", "kind": "figure"},
        ),
    log:
        "results/{study}/logs/draw_figure6.log",
    conda:
        "../envs/analysis.yaml"
    params:
        spec=model_names(),
        code=code_hash("draw_figure6"),
    shell:
        "python -m lossmap draw_figure6 --alignments {input.alignments:q} --pdf {output.pdf:q}"
        " --png {output.png:q} --spec {params.spec:q} 2> {log:q}"


rule draw_margins:
    """What became of the neighbours, and how near the new ones were."""
    input:
        table="results/{study}/tables/margins.csv",
        finding="results/{study}/tables/margins.rst",
    output:
        pdf="results/{study}/figures/margins.pdf",
        png=report(
            "results/{study}/figures/margins.png",
            caption="../workflow/report/geometry_tables.rst",
            category="Geometry",
            labels={"result": "Near-ties", "kind": "figure"},
        ),
    log:
        "results/{study}/logs/draw_margins.log",
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_hash("draw_margins"),
    shell:
        "python -m lossmap draw_margins --table {input.table:q} --pdf {output.pdf:q}" " --png {output.png:q} 2> {log:q}"


rule draw_random_projection:
    """What random projections keep, beside the connectors."""
    input:
        projections=of_geometry("geometry/{dataset}/{model}/projections.parquet"),
        table="results/{study}/tables/random_projection.csv",
        finding="results/{study}/tables/random_projection.rst",
    output:
        pdf="results/{study}/figures/random_projection.pdf",
        png=report(
            "results/{study}/figures/random_projection.png",
            caption="../workflow/report/random_projection.rst",
            category="Geometry",
            labels={"result": "Random projections", "kind": "figure"},
        ),
    log:
        "results/{study}/logs/draw_random_projection.log",
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_hash("draw_random_projection"),
    shell:
        "python -m lossmap draw_random_projection --projections {input.projections:q} --table {input.table:q} --pdf {output.pdf:q}"
        " --png {output.png:q} 2> {log:q}"


rule draw_probe:
    """How much of each patch the connectors see."""
    input:
        patches=of_geometry("geometry/{dataset}/{model}/probe.parquet", GEOMETRY[:1]),
        embeddings=of_geometry("embeddings/{dataset}/{model}.json", GEOMETRY[:1]),
        images=f"results/{{study}}/data/{GEOMETRY[0]}/images.parquet",
        finding="results/{study}/tables/probe.rst",
    output:
        pdf="results/{study}/figures/probe.pdf",
        png=report(
            "results/{study}/figures/probe.png",
            caption="../workflow/report/geometry_tables.rst",
            category="Geometry",
            labels={"result": "Patch probe", "kind": "figure"},
        ),
    log:
        "results/{study}/logs/draw_probe.log",
    conda:
        "../envs/analysis.yaml"
    params:
        spec=model_names(),
        code=code_hash("draw_probe"),
    shell:
        "python -m lossmap draw_probe --patches {input.patches:q} --embeddings {input.embeddings:q}"
        " --images {input.images:q} --pdf {output.pdf:q}"
        " --png {output.png:q} --spec {params.spec:q} 2> {log:q}"
