"""Embeddings, questions -> readers -> where a model's wrong answers are lost."""


include: "common_readers.smk"


rule train_readers:
    """Readers of what enters and of what leaves a model's connector, and of questions alone."""
    input:
        embeddings=f"results/{{study}}/embeddings/{READERS['train']}/{{model}}.json",
        questions=f"results/{{study}}/data/{READERS['train']}/questions.parquet",
        checkpoint=language_files,
    output:
        readers="results/{study}/readers/{model}/readers.safetensors",
        held_out="results/{study}/readers/{model}/held_out.parquet",
        history="results/{study}/readers/{model}/history.csv",
    log:
        "results/{study}/logs/train_readers/{model}.log",
    conda:
        "../envs/torch.yaml"
    threads: READERS["training"]["threads"]
    resources:
        gpu=1,
    params:
        spec=spec("train_readers"),
        checkpoint=digest_of(language_files),
        version=product_version("readers"),
    shell:
        "python -m lossmap train_readers --embeddings {input.embeddings:q} --questions {input.questions:q}"
        " --readers {output.readers:q} --held-out {output.held_out:q} --history {output.history:q}"
        " --spec {params.spec:q} 2> {log:q}"


rule read_answers:
    """What every reader of a model answers to the questions of a dataset."""
    input:
        embeddings="results/{study}/embeddings/{dataset}/{model}.json",
        questions="results/{study}/data/{dataset}/questions.parquet",
        readers="results/{study}/readers/{model}/readers.safetensors",
        checkpoint=language_files,
    output:
        readings="results/{study}/readers/{model}/answers/{dataset}.parquet",
    log:
        "results/{study}/logs/read_answers/{dataset}/{model}.log",
    conda:
        "../envs/torch.yaml"
    threads: threads_of_store
    resources:
        gpu=1,
    params:
        spec=spec("read_answers"),
        checkpoint=digest_of(language_files),
        version=product_version("readings"),
    shell:
        "python -m lossmap read_answers --embeddings {input.embeddings:q} --questions {input.questions:q}"
        " --readers {input.readers:q} --readings {output.readings:q} --spec {params.spec:q} --threads {threads} 2> {log:q}"


rule measure_where_lost:
    """Where the answers are lost that a model gets wrong: before the connector, at it, or in the language model."""
    input:
        readings="results/{study}/readers/{model}/answers/{dataset}.parquet",
        held_out="results/{study}/readers/{model}/held_out.parquet",
        scores=f"results/{{study}}/scores/{{dataset}}/{{model}}/{READ_TASK}.parquet",
        questions="results/{study}/data/{dataset}/questions.parquet",
    output:
        summary="results/{study}/scores/{dataset}/{model}/where_lost.parquet",
        readers="results/{study}/scores/{dataset}/{model}/readers.parquet",
    log:
        "results/{study}/logs/measure_where_lost/{dataset}/{model}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        spec=spec("measure_where_lost"),
        code=code_hash("measure_where_lost"),
    shell:
        "python -m lossmap measure_where_lost --readings {input.readings:q} --held-out {input.held_out:q}"
        " --scores {input.scores:q} --questions {input.questions:q} --summary {output.summary:q}"
        " --readers {output.readers:q} --spec {params.spec:q} 2> {log:q}"
