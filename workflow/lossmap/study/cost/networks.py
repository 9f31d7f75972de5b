"""What reconstructors take, from their settings and the shapes of embeddings: operations, memory, disk."""

from dataclasses import dataclass
from math import prod

import torch
from torch.nn.functional import mse_loss

from lossmap.reconstruct.controls import SETTINGS, OfBlocks, make_connector
from lossmap.reconstruct.linear import build_linear, outputs_of
from lossmap.reconstruct.networks import build_network, parameters
from lossmap.reconstruct.specs import LINEAR
from lossmap.study.cost.dry_run import META, DryRun

FLOAT, DOUBLE = 4, 8  # bytes
HELD = 5  # numbers for each weight in training: itself, its gradient, two moments, the best so far


@dataclass(frozen=True)
class ConnectorCost:
    """A connector as it stands before a reconstructor; see `Connector`.

    reads_post: whether it takes post as stored, of whatever image. flops: operations to make its post of one image's
    pre, in float32; 0 where it takes post. statistics_flops: to
    measure its statistics, for each image. linear_flops: to fit the linear decoders, for each image, in float32.
    linear_memory: bytes held while they are fitted. ridge_flops: operations of ridge for one image. linear_disk: bytes
    of all linear decoders of one share.
    """

    post_shape: tuple[int, int]
    blocks: torch.Tensor | None
    reads_post: bool
    flops: int
    statistics_flops: int
    linear_flops: int
    linear_memory: int
    ridge_flops: int
    linear_disk: int


@dataclass(frozen=True)
class NetworkCost:
    """A network of the ladder.

    forward_flops, training_flops: operations for one image, without and with the way back. memory: bytes held in
    training, at most: all in float32, and attention between all pairs of tokens held at once. disk: bytes of its file.
    """

    parameters: int
    forward_flops: int
    training_flops: int
    memory: int
    disk: int


def connector_cost(
    spec: dict,
    pre_grid: tuple[int, int],
    pre_shape: tuple[int, int],
    post_shape: tuple[int, int],
    post_grid: tuple[int, int] | None,
) -> ConnectorCost:
    """Parameters and errors: as `make_connector`, for the model of these shapes."""
    layers = spec.get("layers", SETTINGS["invertible_mlp"]["layers"])
    rotations = {"rotation": 1, "invertible_mlp": 1 + layers}.get(spec["kind"], 0)
    # Random rotations take a minute to draw, and their tokens are those of the identity.
    drawn = {"kind": "identity"} if rotations else spec
    connector = make_connector(drawn, pre_grid, pre_shape, post_shape, seed=0, post_grid=post_grid)
    (tokens, width), blocks = connector.post_shape, connector.blocks
    rows = 1 if blocks is None else len(blocks)
    inputs, flops, statistics = 0 if blocks is None else blocks.shape[1] * pre_shape[1], 0, 0
    if rotations:
        flops = statistics = 2 * rows * width * (inputs + (rotations - 1) * width)
    elif spec["kind"] == "pca":
        flops, statistics = 2 * rows * inputs * width, rows * inputs**2
    outputs = outputs_of(pre_shape, blocks)
    with META:
        modules = [build_linear({"kind": kind}, pre_shape, connector.post_shape, blocks) for kind in LINEAR]
    return ConnectorCost(
        post_shape=(tokens, width),
        blocks=blocks,
        reads_post=not isinstance(connector, OfBlocks),
        flops=flops,
        statistics_flops=statistics,
        linear_flops=flops + rows * width * (width + 2 * outputs),
        # Normal equations of training and held-out images, and the weights before and after they are joined.
        linear_memory=2 * DOUBLE * (width + outputs) * width + 2 * FLOAT * width * outputs,
        ridge_flops=2 * rows * width * outputs,
        linear_disk=FLOAT * sum(map(parameters, modules)),
    )


def network_cost(architecture: dict, pre_shape: tuple[int, int], connector: ConnectorCost, images: int) -> NetworkCost:
    """Parameters: architecture, see `build_network`; images, that one process takes at once in training.
    Raises: LossmapError as `build_network`."""
    with META:
        network = build_network(architecture, pre_shape, connector.post_shape, connector.blocks)
    post = torch.empty(1, *connector.post_shape, device=META)
    with torch.no_grad(), DryRun() as forward:
        network(post)
    with DryRun() as step:
        loss = mse_loss(network(post), torch.empty(1, *pre_shape, device=META))
        activations = step.memory
        loss.backward()
    count = parameters(network)
    pair = prod(connector.post_shape) + prod(pre_shape)
    return NetworkCost(
        parameters=count,
        forward_flops=forward.flops,
        training_flops=step.flops,
        memory=HELD * FLOAT * count + images * (activations + FLOAT * pair),
        disk=FLOAT * count,
    )
