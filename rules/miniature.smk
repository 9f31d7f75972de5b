"""The miniature datasets, in the formats of the published ones."""


rule draw_miniature:
    """Eight datasets of coloured scenes with real handwritten digits."""
    output:
        annotations=paths_in(ANNOTATIONS, MINIATURE),
        folders=directory(paths_in(FOLDERS, MINIATURE)),
    log:
        f"{MINIATURE}/draw_miniature.log",
    conda:
        "../envs/analysis.yaml"
    params:
        spec=spec("draw_miniature"),
        code=code_hash("draw_miniature"),
    shell:
        "python -m lossmap draw_miniature --spec {params.spec:q} 2> {log:q}"
