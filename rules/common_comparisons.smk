"""Named input functions and settings of the rules of comparisons."""

# What can be compared -> its files, of a dataset and a model, and the datasets that have them.
COMPARED = {
    "lists": ("neighbours/{dataset}/{model}/lists.parquet", config["overlap"]["datasets"]),
    "losses": ("patch_loss/{dataset}/{model}.parquet", EVALUATED),
    **{
        kind: (f"scores/{{dataset}}/{{model}}/{kind}.parquet", config[kind]["datasets"])
        for kind in ("captions", "answers", "choices")
    },
}
COMPARED_DATASETS = list(dict.fromkeys(name for _, datasets in COMPARED.values() for name in datasets))


def compared_files(wildcards):
    """Files of both models, the base's first, a pair for each dataset; what is equal before the connector."""
    top = f"results/{wildcards.study}"
    files = {
        kind: [
            f"{top}/{name.format(dataset=dataset, model=model)}"
            for dataset in datasets
            for model in (wildcards.base, wildcards.tuned)
        ]
        for kind, (name, datasets) in COMPARED.items()
        if datasets
    }
    pair = f"{top}/comparisons/{wildcards.base}/{wildcards.tuned}"
    return {**files, "shared": [f"{pair}/{dataset}.json" for dataset in COMPARED_DATASETS]}


def compared_options(wildcards, input):
    """The same as options of the command."""
    return [
        word
        for kind in (*COMPARED, "shared")
        for word in ([f"--{kind}", *input.get(kind, [])] if input.get(kind) else [])
    ]
