"""Tables -> figures, each as PDF for print and as PNG for the report."""

if "figure2" in config:

    rule draw_figure2:
        """What the overlap ratio is, on one query of the study."""
        input:
            lists=figure2_source("results/{study}/neighbours/{dataset}/{model}/lists.parquet"),
            images=figure2_source("results/{study}/data/{dataset}/images.parquet"),
        output:
            pdf="results/{study}/figures/figure2.pdf",
            png=report(
                "results/{study}/figures/figure2.png",
                caption="../workflow/report/figure2.rst",
                category="Neighbours",
                labels={"result": "What the overlap is", "kind": "figure"},
            ),
        log:
            "results/{study}/logs/draw_figure2.log",
        conda:
            "../envs/analysis.yaml"
        params:
            spec=figure2_settings(),
            code=code_hash("draw_figure2"),
        shell:
            "python -m lossmap draw_figure2 --lists {input.lists:q} --images {input.images:q} --pdf {output.pdf:q}"
            " --png {output.png:q} --spec {params.spec:q} 2> {log:q}"


rule draw_figure3:
    """Overlap by k, a panel per dataset."""
    input:
        table="results/{study}/tables/figure3.csv",
        finding="results/{study}/tables/figure3.rst",
    output:
        pdf="results/{study}/figures/figure3.pdf",
        png=report(
            "results/{study}/figures/figure3.png",
            caption="../workflow/report/figure3.rst",
            category="Neighbours",
            labels={"result": "Overlap by k", "kind": "figure"},
        ),
    log:
        "results/{study}/logs/draw_figure3.log",
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_hash("draw_figure3"),
    shell:
        "python -m lossmap draw_figure3 --table {input.table:q} --pdf {output.pdf:q} --png {output.png:q} 2> {log:q}"


rule draw_galleries:
    """Queries of highest, median and lowest overlap, with their nearest images before and after the connector."""
    input:
        lists=expand("results/{{study}}/neighbours/{{dataset}}/{model}/lists.parquet", model=config["models"]),
        images="results/{study}/data/{dataset}/images.parquet",
    output:
        pdf=expand("results/{{study}}/figures/galleries-{{dataset}}-{model}.pdf", model=config["models"]),
        png=[
            report(
                f"results/{{study}}/figures/galleries-{{dataset}}-{model}.png",
                caption="../workflow/report/galleries.rst",
                category="Geometry",
                labels={"result": f"Neighbours: {{dataset}}, {model}", "kind": "figure"},
            )
            for model in config["models"]
        ],
    log:
        "results/{study}/logs/draw_galleries/{dataset}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        spec=gallery_settings,
        code=code_hash("draw_galleries"),
    shell:
        "python -m lossmap draw_galleries --lists {input.lists:q} --images {input.images:q} --pdf {output.pdf:q}"
        " --png {output.png:q} --spec {params.spec:q} 2> {log:q}"
