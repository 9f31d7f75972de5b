"""Named input functions and settings of the rules of behaviour: predictions, scores, examples."""


def language_files(wildcards):
    """What the language side of a model is made of."""
    return files_of_checkpoint(wildcards.model, "*.json", "*.jinja", "*.model", "*.txt", "*.safetensors")


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
