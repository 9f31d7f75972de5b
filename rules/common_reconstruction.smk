"""Named input functions and settings of the rules of reconstruction: reconstructors, patch losses."""

RECONSTRUCTION = config["reconstruction"]
TRAINING_STORE = f"results/{{study}}/embeddings/{RECONSTRUCTION['train']}/{{model}}.json"
IMAGES_AT_ONCE = 16  # that are reconstructed, where no batch is given


def rungs_of(model, connector=OWN):
    """The ladder, from the weakest: what needs no training, then the networks in the order of the config."""
    return [*LINEAR, *networks_of(RECONSTRUCTION, model, connector)]


def statistics_settings():
    return canonical({"connectors": connectors_of(RECONSTRUCTION), "seed": RECONSTRUCTION["seed"]})


def linear_settings():
    split = {key: RECONSTRUCTION[key] for key in ("held_out", "shares", "seed")}
    return canonical({"connectors": connectors_of(RECONSTRUCTION), **split})


def training_settings(wildcards):
    network = {key: value for key, value in RECONSTRUCTION["networks"][wildcards.network].items() if key != "models"}
    split = {key: RECONSTRUCTION[key] for key in ("held_out", "shares", "seed", "training")}
    return canonical({"network": network, "share": int(wildcards.share), **split})


def training_launcher():
    """What starts a training of several processes, one for each GPU where there are any; nothing for a single one."""
    processes = RECONSTRUCTION["training"]["processes"]
    return f"torch.distributed.run --standalone --nproc-per-node {processes} -m " if processes > 1 else ""


def reconstructor_files(model, connector, shares=None):
    """The reconstructors of one connector of a model, and its statistics."""
    folder = f"results/{config['study']}/reconstructors/{model}/{connector}"
    return [
        f"{folder}/statistics.safetensors",
        *expand(
            f"{folder}/{{rung}}-{{share}}.safetensors",
            rung=rungs_of(model, connector),
            share=shares or RECONSTRUCTION["shares"],
        ),
    ]


def ladder_files(wildcards):
    return [
        path for connector in connectors_of(RECONSTRUCTION) for path in reconstructor_files(wildcards.model, connector)
    ]


def ladder_settings(wildcards):
    rungs = {name: rungs_of(wildcards.model, name) for name in connectors_of(RECONSTRUCTION)}
    how = {"shares": RECONSTRUCTION["shares"], "batch_size": RECONSTRUCTION["training"]["batch"] or IMAGES_AT_ONCE}
    return canonical({"dataset": RECONSTRUCTION["ladder"], "model": wildcards.model, "connectors": rungs, **how})


def patch_loss_files(wildcards):
    return reconstructor_files(wildcards.model, OWN, [max(RECONSTRUCTION["shares"])])


def patch_loss_settings(wildcards):
    how = {"share": max(RECONSTRUCTION["shares"]), "batch_size": RECONSTRUCTION["training"]["batch"] or IMAGES_AT_ONCE}
    where = {"dataset": wildcards.dataset, "model": wildcards.model, "rungs": rungs_of(wildcards.model)}
    return settings("statistics", **where, **how)


def connector_settings():
    keys = ("checkpoint", "revision")
    models = [{"name": name, **{key: model.get(key) for key in keys}} for name, model in config["models"].items()]
    return canonical({"models": models})
