"""Named input functions and settings of the rules of behaviour: predictions, scores, examples."""


def generation_settings(section):
    """How a model is made to speak about a dataset."""

    def of_model(wildcards):
        model = config["models"][wildcards.model]
        loaded = {key: model.get(key) for key in ("checkpoint", "revision", "image_size")}
        told = {key: config[section].get(key) for key in WORDING[section]}
        return canonical({**loaded, **config["generation"], **told})

    return of_model


# What a task's settings say of the model's output.
WORDING = {"captions": ("prompts", "max_new_tokens"), "answers": ("max_new_tokens",), "choices": ()}


def language_files(wildcards):
    """What the language side of a model is made of."""
    return files_of_checkpoint(wildcards.model, "*.json", "*.jinja", "*.model", "*.txt", "*.safetensors")


def answer_score_settings(wildcards):
    how = {"dataset": wildcards.dataset, "model": wildcards.model, "score": config["answers"]["score"]}
    return settings("statistics", **how)


def relation_settings(*keys):
    """Settings of a relation between score and loss."""
    told = {key: config["answers"][key] for key in keys}
    return lambda wildcards: settings(
        "statistics",
        dataset=wildcards.dataset,
        model=wildcards.model,
        permutations=config["relations"]["permutations"],
        **told,
    )


def example_settings(wildcards):
    return canonical(
        {
            "model": wildcards.model,
            "dataset": wildcards.dataset,
            "task": wildcards.task,
            "number": max(EXAMPLES, config["browser"]["examples"] // len(example_tables())),
            "right": config["answers"]["right"],
            "relevance_threshold": config["answers"]["threshold"],
        }
    )


def example_texts(wildcards):
    """What was predicted and how it was scored, what people said, and which patches hold the answer, where a dataset has
    masks: nothing where nothing was asked."""
    if wildcards.task == "images":
        return {}
    name = "captions" if wildcards.task == "captions" else "questions"
    what = f"{wildcards.dataset}/{wildcards.model}"
    texts = {
        "references": f"results/{wildcards.study}/data/{wildcards.dataset}/{name}.parquet",
        "predictions": f"results/{wildcards.study}/predictions/{what}/{wildcards.task}.parquet",
        "scores": f"results/{wildcards.study}/scores/{what}/{wildcards.task}.parquet",
    }
    if name == "questions" and "masks" in config["datasets"][wildcards.dataset]:
        texts["relevance"] = f"results/{wildcards.study}/scores/{what}/relevance.parquet"
    return texts


def example_options(wildcards):
    """The same as options of the command."""
    return [word for name, path in example_texts(wildcards).items() for word in (f"--{name}", path)]


def example_tables():
    """Examples of every model, dataset and task whose losses are measured."""
    folder = f"results/{config['study']}/examples"
    return [
        f"{folder}/{dataset}/{model}/{task}.parquet"
        for task, dataset in examples_of(config)
        for model in config["models"]
    ]
