"""Measures -> exhibits: one rule for each table or figure of the study, made from its file in lossmap/study/exhibits."""

for exhibit in EXHIBITS:

    rule:
        name:
            exhibit.name
        input:
            **{
                label: [f"results/{config['study']}/{path}" for path in paths]
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
            results=f"results/{config['study']}",
            inputs=named_inputs(exhibit),
            settings=canonical(exhibit.settings.model_dump()),
            spec=spec("make_exhibit"),
            code=exhibit_hash(exhibit.kind),
        shell:
            "python -m lossmap make_exhibit {params.name:q} --results {params.results:q} --inputs {params.inputs:q}"
            " --settings {params.settings:q} --spec {params.spec:q} 2> {log:q}"
