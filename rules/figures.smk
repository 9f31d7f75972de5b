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


if EVALUATED:

    rule draw_loss_maps:
        """What was lost where, on the images of highest, median and lowest loss."""
        input:
            images="results/{study}/data/{dataset}/images.parquet",
            # Of a folder only the date counts, so the table that is written with it tells when it is another.
            patch_loss=ancient(expand("results/{{study}}/patch_loss/{{dataset}}/{model}.zarr", model=config["models"])),
            written_with=expand("results/{{study}}/patch_loss/{{dataset}}/{model}.parquet", model=config["models"]),
            embeddings=expand("results/{{study}}/embeddings/{{dataset}}/{model}.json", model=config["models"]),
        output:
            pdf=expand("results/{{study}}/figures/loss_maps-{{dataset}}-{model}.pdf", model=config["models"]),
            png=[
                report(
                    f"results/{{study}}/figures/loss_maps-{{dataset}}-{model}.png",
                    caption="../workflow/report/loss_maps.rst",
                    category="Reconstruction",
                    labels={"result": f"Loss maps: {{dataset}}, {model}", "kind": "figure"},
                )
                for model in config["models"]
            ],
            finding="results/{study}/tables/loss_maps-{dataset}.rst",
        log:
            "results/{study}/logs/draw_loss_maps/{dataset}.log",
        conda:
            "../envs/analysis.yaml"
        params:
            spec=canonical({"models": list(config["models"])}),
            code=code_hash("draw_loss_maps"),
        shell:
            "python -m lossmap draw_loss_maps --images {input.images:q} --patch-loss {input.patch_loss:q}"
            " --embeddings {input.embeddings:q} --pdf {output.pdf:q} --png {output.png:q}"
            " --finding {output.finding:q} --spec {params.spec:q} 2> {log:q}"
