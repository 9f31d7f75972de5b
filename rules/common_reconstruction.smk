"""Named input functions and settings of the rules of reconstruction: reconstructors, patch losses."""

RECONSTRUCTION = config["reconstruction"]
TRAINING_STORE = f"results/{{study}}/embeddings/{RECONSTRUCTION['train']}/{{model}}.json"


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
            f"{folder}/{{decoder}}-{{share}}.safetensors",
            decoder=decoders_of(RECONSTRUCTION, model, connector),
            share=shares or RECONSTRUCTION["shares"],
        ),
    ]


def ladder_files(wildcards):
    return [
        path for connector in connectors_of(RECONSTRUCTION) for path in reconstructor_files(wildcards.model, connector)
    ]


def patch_loss_files(wildcards):
    return reconstructor_files(wildcards.model, OWN, [max(RECONSTRUCTION["shares"])])
