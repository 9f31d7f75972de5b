"""Measures -> exhibits: one rule for each table or figure of the study, made from its file in lossmap/study/exhibits."""

for exhibit in EXHIBITS:

    rule:
        name:
            exhibit.name
        input:
            **{
                # Of a folder only the date counts, so a table that is written with it tells when it is another.
                label: [
                    in_results(path) if path.suffix != ".zarr" else ancient(in_results(path))
                    for path in map(Path, paths)
                ]
                for label, paths in exhibit.inputs.items()
            },
        output:
            **outputs_of(exhibit),
        log:
            f"results/{config['study']}/logs/exhibits/{exhibit.name}.log",
        conda:
            "../envs/analysis.yaml"
        params:
            name=exhibit.name,
            results=lambda wildcards, output: Path(output.csv).parents[1].as_posix(),
            inputs=named_inputs(exhibit),
            settings=canonical(exhibit.settings.model_dump()),
            spec=spec("make_exhibit"),
            code=exhibit_hash(exhibit.kind),
        shell:
            "python -m lossmap make_exhibit {params.name:q} --results {params.results:q} --inputs {params.inputs:q}"
            " --settings {params.settings:q} --spec {params.spec:q} 2> {log:q}"
