"""What reconstruction costs: linear decoders, networks, and the losses of all of them."""

from math import prod

from lossmap.data.counts import Count
from lossmap.reconstruct.sizes import batch_size, round_steps, share_sizes, step_limit
from lossmap.reconstruct.specs import LINEAR as LINEAR_DECODERS
from lossmap.study.cost.extraction import stored_bytes
from lossmap.study.cost.ladder import ladder_cost
from lossmap.study.cost.models import VisionCost
from lossmap.study.cost.rates import Rates
from lossmap.study.cost.work import BYTES, LINEAR, LOSSES, NETWORKS, Work
from lossmap.study.definition import OWN


def plan_reconstruction(
    config: dict, counts: dict[str, Count], name: str, model: VisionCost, rates: Rates
) -> list[Work]:
    """Closed-form decoders, networks, losses; nothing where the number of images of one of the datasets is unknown."""
    how = config["reconstruction"]
    images = counts[how["train"]].images
    if images is None or any(counts[dataset].images is None for dataset in {how["ladder"], *how["evaluate"]}):
        return []
    batch, _ = _training(how, images)
    ladder, (pre, post) = ladder_cost(how, name, model, batch), stored_bytes(config, model)
    read = {at: pre + post * connector.reads_post for at, connector in ladder.connectors.items()}
    return [
        _linear_decoders(config, counts, name, ladder, read, rates),
        *_networks(config, counts, name, ladder, read, model, rates),
        _losses(config, counts, name, ladder, read, model, rates),
    ]


def _linear_decoders(config, counts, name, ladder, read, rates):
    how = config["reconstruction"]
    images, connectors = counts[how["train"]].images, ladder.connectors
    flops = images * sum(one.statistics_flops + one.linear_flops for one in connectors.values())
    return Work(
        LINEAR,
        name,
        jobs={"measure_statistics": 1, "fit_linear": 1},
        flops=flops,
        seconds=rates.seconds(flops, "float32"),
        memory=max(one.linear_memory for one in connectors.values()),
        reads=images * sum(read.values()),
        outputs={
            f"{_reconstructors(config, name)}/{connector}/ridge-{share}.safetensors": one.linear_disk
            for connector, one in connectors.items()
            for share in how["shares"]
        },
    )


def _training(reconstruction: dict, images: int) -> tuple[int, int]:
    """Images in a batch, and steps of a training at most."""
    given = reconstruction["training"]
    held_out, shares = share_sizes(images, reconstruction["held_out"], reconstruction["shares"])
    batch = given["batch"] or batch_size(min(shares.values()))
    return batch, step_limit((images - held_out) // batch, given["epochs"])


def _networks(config, counts, name, ladder, read, model, rates):
    how, settings = config["reconstruction"], config["reconstruction"]["training"]
    images, shares = counts[how["train"]].images, len(how["shares"])
    held_out, _ = share_sizes(images, how["held_out"], how["shares"])
    # All shares may take as many steps: those of the whole training set. Most come to rest earlier.
    batch, steps = _training(how, images)
    looks = 1 + -(-steps // round_steps(held_out, batch))
    trained, mapped, reads = 0, 0, 0
    for (at, _), one in ladder.networks.items():
        connector = ladder.connectors[at]
        trained += shares * (steps * batch * one.training_flops + looks * held_out * one.forward_flops)
        held = 4 * (prod(connector.post_shape) + prod(model.pre_shape)) * images <= settings["memory"]
        passed = shares * (images if held else steps * batch + looks * held_out)
        mapped, reads = mapped + passed * connector.flops, reads + passed * read[at]
    if not ladder.networks:
        return []
    work = Work(
        NETWORKS,
        name,
        jobs={"train_reconstructor": shares * len(ladder.networks)},
        flops=trained + mapped,
        # Controls are computed in float32, whenever their images are read.
        seconds=rates.seconds(trained) + rates.seconds(mapped, "float32"),
        memory=max(one.memory for one in ladder.networks.values()),
        reads=reads,
        outputs={
            f"{_reconstructors(config, name)}/{connector}/{network}-{share}.safetensors": one.disk
            for (connector, network), one in ladder.networks.items()
            for share in how["shares"]
        },
    )
    return [work]


def _losses(config, counts, name, ladder, read, model, rates):
    how = config["reconstruction"]
    shares, images = len(how["shares"]), counts[how["ladder"]].images
    flops, reads, outputs = 0, images * sum(read.values()), {}
    for at, connector in ladder.connectors.items():
        flops += images * (connector.flops + shares * ladder.decoder_flops(at))
    # For each patch, three losses of every decoder, and its norm.
    numbers = 3 * (len(LINEAR_DECODERS) + len(ladder.of(OWN))) + 1
    for dataset in how["evaluate"]:
        images = counts[dataset].images
        flops, reads = flops + images * ladder.decoder_flops(OWN), reads + images * read[OWN]
        path = f"results/{config['study']}/patch_loss/{dataset}/{name}.zarr"
        outputs[path] = BYTES["float32"] * images * model.pre_shape[0] * numbers
    return Work(
        LOSSES,
        name,
        jobs={"measure_ladder": 1, "measure_patch_loss": len(how["evaluate"])},
        flops=flops,
        seconds=rates.seconds(flops, "float32"),
        memory=max(  # the decoders of a connector, all shares together
            shares * (connector.linear_disk + sum(one.disk for one in ladder.of(at)))
            for at, connector in ladder.connectors.items()
        ),
        reads=reads,
        outputs=outputs,
    )


def _reconstructors(config, name):
    return f"results/{config['study']}/reconstructors/{name}"
