"""Embedding stores -> reconstructors of a ladder -> patch losses, and whose fault they are."""


include: "common_reconstruction.smk"


wildcard_constraints:
    connector="|".join(map(re.escape, [OWN, *RECONSTRUCTION["controls"]])),
    network="|".join(map(re.escape, RECONSTRUCTION["networks"])),
    decoder="|".join(map(re.escape, [*LINEAR, *RECONSTRUCTION["networks"]])),
    share="[0-9]+",


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
    """The decoders in closed form: mean, mean of each patch position, ridge."""
    input:
        embeddings=TRAINING_STORE,
        statistics=rules.measure_statistics.output.statistics,
    output:
        reconstructors=expand(
            "results/{{study}}/reconstructors/{{model}}/{connector}/{decoder}-{share}.safetensors",
            connector=connectors_of(RECONSTRUCTION),
            decoder=LINEAR,
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
    """What every decoder leaves of every image, through the model's connector and each control."""
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
    """Whether the connector loses, or the decoder is too weak: the verdict, and the ladder behind it."""
    input:
        ladders=[in_results(path) for path in of_all(config, "reconstructors/{model}/ladder.parquet")],
        near_copies="results/{study}/reconstructors/near_copies.parquet",
    output:
        ladder="results/{study}/reconstructors/ladder.parquet",
        verdict="results/{study}/reconstructors/verdict.parquet",
    log:
        "results/{study}/logs/judge_connector.log",
    conda:
        "../envs/analysis.yaml"
    params:
        spec=spec("judge_connector"),
        code=code_hash("judge_connector"),
    shell:
        "python -m lossmap judge_connector --ladders {input.ladders:q} --near-copies {input.near_copies:q}"
        " --ladder {output.ladder:q} --verdict {output.verdict:q} --spec {params.spec:q} 2> {log:q}"


rule describe_connectors:
    """What enters and leaves each model's connector, and how large it is."""
    input:
        embeddings=[
            in_results(path)
            for path in of_all(config, "embeddings/{dataset}/{model}.json", [RECONSTRUCTION["ladder"]])
        ],
    output:
        table="results/{study}/reconstructors/connectors.parquet",
    log:
        "results/{study}/logs/describe_connectors.log",
    conda:
        "../envs/torch.yaml"
    params:
        spec=spec("describe_connectors"),
        code=code_hash("describe_connectors"),
    shell:
        "python -m lossmap describe_connectors --embeddings {input.embeddings:q} --table {output.table:q}"
        " --spec {params.spec:q} 2> {log:q}"
