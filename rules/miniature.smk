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
        spec=canonical({key: config["miniature"][key] for key in ("seed", "images")}),
        folder=MINIATURE,
        code=code_hash("draw_miniature"),
    shell:
        "python -m lossmap draw_miniature --folder {params.folder:q} --spec {params.spec:q} 2> {log}"
