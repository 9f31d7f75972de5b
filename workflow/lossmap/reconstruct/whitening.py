"""Training in whitened coordinates: the same network, in which small directions of post are learned as fast as large.

Features of post are strongly correlated: its directions differ in variance by factors of 10,000 and more, and what is
only in the small ones is learned last, or never, for a step of gradient descent along a direction goes with its
variance. So the weights of the first layer are written as U W, where U is what is learned and W, fixed, is the inverse
square root of post's mean square matrix. When training is over, U W is the layer's weight, and the network is as if
there had been no W.
"""

from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lossmap.measures.moments import RunningCovariance
from lossmap.reconstruct.batches import Batches
from lossmap.reconstruct.pairs import Pairs
from lossmap.reconstruct.ragged import Ragged

IMAGES = 1024  # that W is measured on
FLOOR = 1e-3  # of the mean variance: directions of less are rounding, of half precision and of this


class _Times(nn.Module):
    def __init__(self, matrix: Tensor):
        super().__init__()
        self.matrix = matrix  # no buffer: it is the same in every process

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            return weight @ self.matrix


def measure_whitening(batches: Batches, accelerator: Accelerator) -> Tensor:
    """W (width, width), float32, symmetric: post @ W has a mean square matrix near the identity.

    Measured on the batches of the first steps, in all processes together.
    """
    width = cast(Pairs, batches.pairs).post_shape[1]
    sums = RunningCovariance(width, accelerator.device)
    for inputs, _ in batches.steps(0, min(len(batches), -(-IMAGES // batches.batch))):
        sums.update(inputs.rows if isinstance(inputs, Ragged) else inputs.flatten(0, 1))
    products = sums.about(torch.zeros(width, dtype=torch.float64, device=accelerator.device))
    count = torch.tensor(sums.count, device=accelerator.device)
    values, vectors = torch.linalg.eigh(accelerator.reduce(products, "sum") / accelerator.reduce(count, "sum"))
    values = values.clamp(min=0) + FLOOR * values.mean()
    return (vectors * values.rsqrt() @ vectors.T).float()


def whiten(network: nn.Module, whitening: Tensor) -> None:
    """From now on the network learns U, and its first layer multiplies with U W. U starts as the layer's weight."""
    parametrize.register_parametrization(cast(nn.Linear, network.first), "weight", _Times(whitening))


def fold(network: nn.Module) -> None:
    """End of `whiten`: U W becomes the first layer's weight."""
    parametrize.remove_parametrizations(cast(nn.Linear, network.first), "weight")
