"""Embeddings -> captions, answers, choices -> scores -> their relation to patch losses, and examples."""


include: "common_behaviour.smk"


wildcard_constraints:
    task="captions|answers|choices|images",


rule caption_images:
    """Captions of all images of a dataset, from the stored embeddings."""
    input:
        embeddings="results/{study}/embeddings/{dataset}/{model}.json",
        checkpoint=language_files,
    output:
        captions="results/{study}/predictions/{dataset}/{model}/captions.parquet",
    log:
        "results/{study}/logs/caption_images/{dataset}/{model}.log",
    conda:
        "../envs/torch.yaml"
    threads: threads_of_store
    resources:
        gpu=1,
    params:
        spec=spec("caption_images"),
        checkpoint=digest_of(language_files),
        version=product_version("captions"),
        family=family_of("captions"),
    shell:
        "python -m lossmap caption_images --embeddings {input.embeddings:q} --captions {output.captions:q}"
        " --spec {params.spec:q} --threads {threads} 2> {log:q}"


rule answer_questions:
    """Short answers to all questions of a dataset, from the stored embeddings."""
    input:
        embeddings="results/{study}/embeddings/{dataset}/{model}.json",
        questions="results/{study}/data/{dataset}/questions.parquet",
        checkpoint=language_files,
    output:
        answers="results/{study}/predictions/{dataset}/{model}/answers.parquet",
    log:
        "results/{study}/logs/answer_questions/{dataset}/{model}.log",
    conda:
        "../envs/torch.yaml"
    threads: threads_of_store
    resources:
        gpu=1,
    params:
        spec=spec("answer_questions"),
        checkpoint=digest_of(language_files),
        version=product_version("answers"),
        family=family_of("answers"),
    shell:
        "python -m lossmap answer_questions --embeddings {input.embeddings:q} --questions {input.questions:q}"
        " --answers {output.answers:q} --spec {params.spec:q} --threads {threads} 2> {log:q}"


rule choose_options:
    """The likeliest option of each question of a dataset, from the stored embeddings."""
    input:
        embeddings="results/{study}/embeddings/{dataset}/{model}.json",
        questions="results/{study}/data/{dataset}/questions.parquet",
        checkpoint=language_files,
    output:
        choices="results/{study}/predictions/{dataset}/{model}/choices.parquet",
    log:
        "results/{study}/logs/choose_options/{dataset}/{model}.log",
    conda:
        "../envs/torch.yaml"
    threads: threads_of_store
    resources:
        gpu=1,
    params:
        spec=spec("choose_options"),
        checkpoint=digest_of(language_files),
        version=product_version("choices"),
        family=family_of("choices"),
    shell:
        "python -m lossmap choose_options --embeddings {input.embeddings:q} --questions {input.questions:q}"
        " --choices {output.choices:q} --spec {params.spec:q} --threads {threads} 2> {log:q}"


rule score_captions:
    """CIDEr of each caption and of all, by the references of the dataset."""
    input:
        predictions="results/{study}/predictions/{dataset}/{model}/captions.parquet",
        references="results/{study}/data/{dataset}/captions.parquet",
    output:
        scores="results/{study}/scores/{dataset}/{model}/captions.parquet",
        summary="results/{study}/scores/{dataset}/{model}/captions_summary.parquet",
    log:
        "results/{study}/logs/score_captions/{dataset}/{model}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        spec=spec("score_captions"),
        code=code_hash("score_captions"),
    shell:
        "python -m lossmap score_captions --predictions {input.predictions:q} --references {input.references:q}"
        " --scores {output.scores:q} --summary {output.summary:q} --spec {params.spec:q} 2> {log:q}"


rule score_answers:
    """VQA accuracy, or exact match, of each answer and of all."""
    input:
        predictions="results/{study}/predictions/{dataset}/{model}/answers.parquet",
        questions="results/{study}/data/{dataset}/questions.parquet",
    output:
        scores="results/{study}/scores/{dataset}/{model}/answers.parquet",
        summary="results/{study}/scores/{dataset}/{model}/answers_summary.parquet",
    log:
        "results/{study}/logs/score_answers/{dataset}/{model}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        spec=spec("score_answers"),
        code=code_hash("score_answers"),
    shell:
        "python -m lossmap score_answers --predictions {input.predictions:q} --questions {input.questions:q}"
        " --scores {output.scores:q} --summary {output.summary:q} --spec {params.spec:q} 2> {log:q}"


rule score_choices:
    """Whether each choice is right, and accuracy by category."""
    input:
        predictions="results/{study}/predictions/{dataset}/{model}/choices.parquet",
        questions="results/{study}/data/{dataset}/questions.parquet",
    output:
        scores="results/{study}/scores/{dataset}/{model}/choices.parquet",
        summary="results/{study}/scores/{dataset}/{model}/choices_summary.parquet",
    log:
        "results/{study}/logs/score_choices/{dataset}/{model}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        spec=spec("score_choices"),
        code=code_hash("score_choices"),
    shell:
        "python -m lossmap score_choices --predictions {input.predictions:q} --questions {input.questions:q}"
        " --scores {output.scores:q} --summary {output.summary:q} --spec {params.spec:q} 2> {log:q}"


rule measure_relevance:
    """Which share of each patch the answer mask covers."""
    input:
        questions="results/{study}/data/{dataset}/questions.parquet",
        embeddings="results/{study}/embeddings/{dataset}/{model}.json",
    output:
        relevance="results/{study}/scores/{dataset}/{model}/relevance.parquet",
    log:
        "results/{study}/logs/measure_relevance/{dataset}/{model}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        code=code_hash("measure_relevance"),
    shell:
        "python -m lossmap measure_relevance --questions {input.questions:q} --embeddings {input.embeddings:q}"
        " --relevance {output.relevance:q} 2> {log:q}"


rule relate_captions:
    """Whether images that lost more are described worse."""
    input:
        scores="results/{study}/scores/{dataset}/{model}/captions.parquet",
        patch_loss="results/{study}/patch_loss/{dataset}/{model}.parquet",
        maps="results/{study}/patch_loss/{dataset}/{model}.zarr",
    output:
        losses="results/{study}/scores/{dataset}/{model}/caption_losses.parquet",
        relations="results/{study}/scores/{dataset}/{model}/caption_relations.parquet",
    log:
        "results/{study}/logs/relate_captions/{dataset}/{model}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        spec=spec("relate_captions"),
        code=code_hash("relate_captions"),
    shell:
        "python -m lossmap relate_captions --scores {input.scores:q} --patch-loss {input.patch_loss:q}"
        " --maps {input.maps:q} --losses {output.losses:q} --relations {output.relations:q} --spec {params.spec:q} 2> {log:q}"


rule relate_answers:
    """Whether answers are worse where more is lost, in the patches with the answer and in the others."""
    input:
        scores="results/{study}/scores/{dataset}/{model}/answers.parquet",
        relevance="results/{study}/scores/{dataset}/{model}/relevance.parquet",
        patch_loss="results/{study}/patch_loss/{dataset}/{model}.zarr",
    output:
        losses="results/{study}/scores/{dataset}/{model}/answer_losses.parquet",
        relations="results/{study}/scores/{dataset}/{model}/answer_relations.parquet",
    log:
        "results/{study}/logs/relate_answers/{dataset}/{model}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        spec=spec("relate_answers"),
        code=code_hash("relate_answers"),
    shell:
        "python -m lossmap relate_answers --scores {input.scores:q} --relevance {input.relevance:q}"
        " --patch-loss {input.patch_loss:q} --losses {output.losses:q} --relations {output.relations:q}"
        " --spec {params.spec:q} 2> {log:q}"


rule choose_examples:
    """Examples of one model, dataset and task, by rule, with all that there is to show of them."""
    input:
        unpack(example_texts),
        images="results/{study}/data/{dataset}/images.parquet",
        patch_loss="results/{study}/patch_loss/{dataset}/{model}.zarr",
        embeddings="results/{study}/embeddings/{dataset}/{model}.json",
    output:
        table="results/{study}/examples/{dataset}/{model}/{task}.parquet",
    log:
        "results/{study}/logs/choose_examples/{dataset}/{model}/{task}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        texts=example_options,
        spec=spec("choose_examples"),
        code=code_hash("choose_examples"),
    shell:
        "python -m lossmap choose_examples --images {input.images:q} --patch-loss {input.patch_loss:q}"
        " --embeddings {input.embeddings:q} --table {output.table:q} {params.texts:q} --spec {params.spec:q} 2> {log:q}"


rule make_browser:
    """One page to browse examples, their images and the losses of their patches."""
    input:
        examples=example_tables(),
    output:
        page=report(
            "results/{study}/browser.html",
            caption="../workflow/report/browser.rst",
            category=TOPICS["examples"],
            labels={"result": "Browse examples", "kind": "page"},
        ),
    log:
        "results/{study}/logs/make_browser.log",
    conda:
        "../envs/analysis.yaml"
    params:
        spec=spec("make_browser"),
        code=code_hash("make_browser"),
    shell:
        "python -m lossmap make_browser --examples {input.examples:q} --page {output.page:q} --spec {params.spec:q} 2> {log:q}"
