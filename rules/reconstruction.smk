"""Embedding stores -> reconstructors of a ladder -> patch losses, and whose fault they are."""


include: "common_reconstruction.smk"


wildcard_constraints:
    connector="|".join(map(re.escape, [OWN, *RECONSTRUCTION["controls"]])),
    network="|".join(map(re.escape, RECONSTRUCTION["networks"])),
    rung="|".join(map(re.escape, [*LINEAR, *RECONSTRUCTION["networks"]])),
    share="[0-9]+",


checkpoint check_training_images:
    """No image trains a reconstructor and is measured with it. Nothing is embedded before this is known."""
    input:
        training=f"results/{{study}}/data/{RECONSTRUCTION['train']}/images.parquet",
        evaluated=expand(
            "results/{{study}}/data/{dataset}/images.parquet",
            dataset=sorted({RECONSTRUCTION["ladder"], *RECONSTRUCTION["evaluate"]}),
        ),
        thumbnails=expand(
            "results/{{study}}/data/{dataset}/thumbnails.parquet",
            dataset=sorted({RECONSTRUCTION["train"], RECONSTRUCTION["ladder"], *RECONSTRUCTION["evaluate"]}),
        ),
    output:
        counts="results/{study}/reconstructors/images.json",
        near_copies="results/{study}/reconstructors/near_copies.parquet",
    log:
        "results/{study}/logs/check_training_images.log",
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_hash("check_training_images"),
    shell:
        "python -m lossmap check_training_images --training {input.training:q} --evaluated {input.evaluated:q}"
        " --counts {output.counts:q} --near-copies {output.near_copies:q} 2> {log:q}"


rule measure_statistics:
    """Mean and standard deviation per feature over the training set, for the connector and each control."""
    input:
        embeddings=TRAINING_STORE,
    output:
        statistics=expand(
            "results/{{study}}/reconstructors/{{model}}/{connector}/statistics.safetensors",
            connector=connectors_of(RECONSTRUCTION),
        ),
    log:
        "results/{study}/logs/measure_statistics/{model}.log",
    conda:
        "../envs/torch.yaml"
    threads: threads_of_store
    resources:
        gpu=1,
    params:
        spec=spec("measure_statistics"),
        version=product_version("statistics"),
    shell:
        "python -m lossmap measure_statistics --embeddings {input.embeddings:q}"
        " --reconstructors results/{wildcards.study}/reconstructors/{wildcards.model} --spec {params.spec:q}"
        " --threads {threads} 2> {log:q}"


rule fit_linear:
    """The rungs in closed form: mean, mean of each patch position, ridge."""
    input:
        embeddings=TRAINING_STORE,
        statistics=rules.measure_statistics.output.statistics,
    output:
        reconstructors=expand(
            "results/{{study}}/reconstructors/{{model}}/{connector}/{rung}-{share}.safetensors",
            connector=connectors_of(RECONSTRUCTION),
            rung=LINEAR,
            share=RECONSTRUCTION["shares"],
        ),
    log:
        "results/{study}/logs/fit_linear/{model}.log",
    conda:
        "../envs/torch.yaml"
    threads: threads_of_store
    resources:
        gpu=1,
    params:
        spec=spec("fit_linear"),
        version=product_version("linear"),
    shell:
        "python -m lossmap fit_linear --embeddings {input.embeddings:q}"
        " --reconstructors results/{wildcards.study}/reconstructors/{wildcards.model} --spec {params.spec:q}"
        " --threads {threads} 2> {log:q}"


rule train_reconstructor:
    """One network of the ladder, trained from ridge on to undo one connector on one share of the images."""
    input:
        embeddings=TRAINING_STORE,
        statistics="results/{study}/reconstructors/{model}/{connector}/statistics.safetensors",
        ridge="results/{study}/reconstructors/{model}/{connector}/ridge-{share}.safetensors",
    output:
        reconstructor="results/{study}/reconstructors/{model}/{connector}/{network}-{share}.safetensors",
        history="results/{study}/reconstructors/{model}/{connector}/{network}-{share}.history.csv",
    log:
        "results/{study}/logs/train_reconstructor/{model}/{connector}/{network}-{share}.log",
    cache: True
    conda:
        "../envs/torch.yaml"
    threads: RECONSTRUCTION["training"]["threads"] * RECONSTRUCTION["training"]["processes"]
    resources:
        gpu=RECONSTRUCTION["training"]["processes"],
    params:
        # The cache between workflows sees no wildcards, and the statistics of all connectors come from one job.
        connector=lambda wildcards: wildcards.connector,
        spec=spec("train_reconstructor"),
        launcher=training_launcher(),
        version=product_version("networks"),
    shell:
        "python -m {params.launcher}lossmap train_reconstructor --embeddings {input.embeddings:q} --statistics {input.statistics:q}"
        " --ridge {input.ridge:q} --reconstructor {output.reconstructor:q} --history {output.history:q} --spec {params.spec:q} 2> {log:q}"


rule measure_patch_loss:
    """What every reconstructor of a model leaves of each patch of a dataset."""
    input:
        embeddings="results/{study}/embeddings/{dataset}/{model}.json",
        near_copies="results/{study}/reconstructors/near_copies.parquet",
        reconstructors=patch_loss_files,
    output:
        losses=directory("results/{study}/patch_loss/{dataset}/{model}.zarr"),
        images="results/{study}/patch_loss/{dataset}/{model}.parquet",
        summary="results/{study}/patch_loss/{dataset}/{model}_summary.parquet",
    log:
        "results/{study}/logs/measure_patch_loss/{dataset}/{model}.log",
    conda:
        "../envs/torch.yaml"
    threads: threads_of_store
    resources:
        gpu=1,
    params:
        spec=spec("measure_patch_loss"),
        version=product_version("patch_losses"),
    shell:
        "python -m lossmap measure_patch_loss --embeddings {input.embeddings:q} --near-copies {input.near_copies:q}"
        " --reconstructors results/{wildcards.study}/reconstructors/{wildcards.model} --losses {output.losses:q}"
        " --images {output.images:q} --summary {output.summary:q} --spec {params.spec:q} --threads {threads} 2> {log:q}"


rule measure_ladder:
    """What every rung leaves of every image, through the model's connector and each control."""
    input:
        embeddings=f"results/{{study}}/embeddings/{RECONSTRUCTION['ladder']}/{{model}}.json",
        reconstructors=ladder_files,
    output:
        ladder="results/{study}/reconstructors/{model}/ladder.parquet",
    log:
        "results/{study}/logs/measure_ladder/{model}.log",
    conda:
        "../envs/torch.yaml"
    threads: threads_of_store
    resources:
        gpu=1,
    params:
        spec=spec("measure_ladder"),
        version=product_version("ladder"),
    shell:
        "python -m lossmap measure_ladder --embeddings {input.embeddings:q}"
        " --reconstructors results/{wildcards.study}/reconstructors/{wildcards.model} --ladder {output.ladder:q}"
        " --spec {params.spec:q} --threads {threads} 2> {log:q}"


rule judge_connector:
    """Whether the connector loses, or the reconstructor is too weak: the verdict, and the ladder behind it."""
    input:
        ladders=of_all_models("reconstructors/{model}/ladder.parquet"),
        near_copies="results/{study}/reconstructors/near_copies.parquet",
    output:
        ladder_csv="results/{study}/tables/ladder.csv",
        ladder_html=report(
            "results/{study}/tables/ladder.html",
            caption="../workflow/report/ladder.rst",
            category="Reconstruction",
            labels={"result": "Ladder of reconstructors", "kind": "table"},
        ),
        csv="results/{study}/tables/verdict.csv",
        html=report(
            "results/{study}/tables/verdict.html",
            caption="../workflow/report/verdict.rst",
            category="Reconstruction",
            labels={"result": "Verdict", "kind": "table"},
        ),
        finding="results/{study}/tables/verdict.rst",
    log:
        "results/{study}/logs/judge_connector.log",
    conda:
        "../envs/analysis.yaml"
    params:
        spec=settings("statistics", settled_within=RECONSTRUCTION["settled_within"]),
        code=code_hash("judge_connector"),
    shell:
        "python -m lossmap judge_connector --ladders {input.ladders:q} --near-copies {input.near_copies:q}"
        " --ladder-csv {output.ladder_csv:q}"
        " --ladder-html {output.ladder_html:q} --csv {output.csv:q} --html {output.html:q} --finding {output.finding:q}"
        " --spec {params.spec:q} 2> {log:q}"


rule tabulate_table1:
    """Table 1: shapes and sizes of connectors and reconstructors."""
    input:
        embeddings=of_all_models(f"embeddings/{RECONSTRUCTION['ladder']}/{{model}}.json"),
        ladder="results/{study}/tables/ladder.csv",
    output:
        csv="results/{study}/tables/table1.csv",
        html=report(
            "results/{study}/tables/table1.html",
            caption="../workflow/report/table1.rst",
            category="Reconstruction",
            labels={"result": "Table 1: connectors", "kind": "table"},
        ),
        finding="results/{study}/tables/table1.rst",
    log:
        "results/{study}/logs/tabulate_table1.log",
    conda:
        "../envs/torch.yaml"
    params:
        spec=table1_settings(),
        code=code_hash("tabulate_table1"),
    shell:
        "python -m lossmap tabulate_table1 --embeddings {input.embeddings:q} --ladder {input.ladder:q} --csv {output.csv:q}"
        " --html {output.html:q} --finding {output.finding:q} --spec {params.spec:q} 2> {log:q}"


rule tabulate_reconstruction:
    """Tables 3 and 9: loss of each model's best reconstructor; Table 6: loss of every network."""
    input:
        summaries=lambda wildcards: of_all_models(
            "patch_loss/{dataset}/{model}_summary.parquet", RECONSTRUCTION["tables"][wildcards.table]
        ),
    output:
        csv="results/{study}/tables/{table}.csv",
        html=report(
            "results/{study}/tables/{table}.html",
            caption="../workflow/report/reconstruction_tables.rst",
            category="Reconstruction",
            labels={"result": "{table}", "kind": "table"},
        ),
        finding="results/{study}/tables/{table}.rst",
    log:
        "results/{study}/logs/tabulate_reconstruction/{table}.log",
    wildcard_constraints:
        table="table3|table6|table9",
    conda:
        "../envs/analysis.yaml"
    params:
        spec=reconstruction_table_settings,
        code=code_hash("tabulate_reconstruction"),
    shell:
        "python -m lossmap tabulate_reconstruction --summaries {input.summaries:q} --csv {output.csv:q}"
        " --html {output.html:q} --finding {output.finding:q} --spec {params.spec:q} 2> {log:q}"


rule draw_ladder:
    """The ladder of reconstructors, a panel per model."""
    input:
        table="results/{study}/tables/ladder.csv",
        finding="results/{study}/tables/verdict.rst",
    output:
        pdf="results/{study}/figures/ladder.pdf",
        png=report(
            "results/{study}/figures/ladder.png",
            caption="../workflow/report/ladder.rst",
            category="Reconstruction",
            labels={"result": "Ladder of reconstructors", "kind": "figure"},
        ),
    log:
        "results/{study}/logs/draw_ladder.log",
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_hash("draw_ladder"),
    shell:
        "python -m lossmap draw_ladder --table {input.table:q} --pdf {output.pdf:q} --png {output.png:q} 2> {log:q}"


rule draw_patch_losses:
    """How the loss differs between images: a histogram per dataset."""
    input:
        images=of_all_models("patch_loss/{dataset}/{model}.parquet", RECONSTRUCTION["evaluate"]),
    output:
        pdf="results/{study}/figures/patch_losses.pdf",
        png=report(
            "results/{study}/figures/patch_losses.png",
            caption="../workflow/report/patch_losses.rst",
            category="Reconstruction",
            labels={"result": "Loss of each image", "kind": "figure"},
        ),
    log:
        "results/{study}/logs/draw_patch_losses.log",
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_hash("draw_patch_losses"),
    shell:
        "python -m lossmap draw_patch_losses --images {input.images:q} --pdf {output.pdf:q} --png {output.png:q} 2> {log:q}"


rule draw_history:
    """How the networks learned."""
    input:
        histories=[
            f"results/{config['study']}/reconstructors/{model}/{connector}/{network}-{share}.history.csv"
            for model in config["models"]
            for connector in connectors_of(RECONSTRUCTION)
            for network in networks_of(RECONSTRUCTION, model, connector)
            for share in RECONSTRUCTION["shares"]
        ],
    output:
        pdf="results/{study}/figures/history.pdf",
        png=report(
            "results/{study}/figures/history.png",
            caption="../workflow/report/history.rst",
            category="Reconstruction",
            labels={"result": "Training", "kind": "figure"},
        ),
    log:
        "results/{study}/logs/draw_history.log",
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_hash("draw_history"),
    shell:
        "python -m lossmap draw_history --histories {input.histories:q} --pdf {output.pdf:q} --png {output.png:q} 2> {log:q}"
