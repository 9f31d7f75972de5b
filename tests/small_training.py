"""Trainings of a second: pairs in memory that a small network learns."""

import math

import numpy as np
import torch
from accelerate import Accelerator

from lossmap.reconstruct.batches import Batches, HeldOut
from lossmap.reconstruct.linear import Ridge
from lossmap.reconstruct.networks import BeyondRidge, build_network
from lossmap.reconstruct.training import Schedule, Workplace, train

PLAIN = {"kind": "mlp", "widths": [16], "dropout": 0.0}
NOISY = {"kind": "transformer", "width": 8, "layers": 1, "heads": 2, "dropout": 0.3}


class Teacher:
    """Pairs in memory: 4 tokens of 6 correlated features, and what a random network makes of them."""

    index, device, pre_shape, post_shape = "toy.json", "cpu", (4, 5), (4, 6)
    ragged, image_bytes = False, 4 * (4 * 5 + 4 * 6)

    def __init__(self, n=400, spoilt=()):
        generator = torch.Generator().manual_seed(1)
        mixing = torch.randn(6, 6, generator=generator) @ torch.diag(torch.tensor([3, 1, 0.3, 0.1, 0.03, 0.01]))
        latent = torch.randn(n, 4, 6, generator=generator)
        weights = torch.randn(6, 5, generator=generator) / 6**0.5
        self.post, self.pre = latent @ mixing.T, torch.tanh(latent @ weights)
        self.pre[list(spoilt)] = math.nan

    def read(self, images):
        return self.post[images], self.pre[images]

    load = read

    def blocks(self, images, size=64):
        for first in range(0, len(images), size):
            yield self.read(images[first : first + size])


def run_training(
    work, architecture=PLAIN, pairs=None, batches=None, binding=None, minutes=1e9, accelerator=None, **changes
):
    """A short training on the teacher. Returns the network and how it went."""
    # One made at import would lose its state to a test that resets accelerate's.
    accelerator = accelerator or Accelerator(cpu=True)
    pairs = pairs or Teacher()
    batches = batches or Batches(pairs, np.arange(320), 16, seed=5)
    held_out = HeldOut(pairs, np.arange(320, 400), 16)
    torch.manual_seed(0)
    network = build_network(architecture, pairs.pre_shape, pairs.post_shape, [[0], [1], [2], [3]])
    schedule = Schedule(**({"steps": 60, "round": 20, "patience": 9, "learning_rate": 0.01} | changes))
    return network, train(network, batches, held_out, schedule, 7, accelerator, Workplace(work, binding or {}, minutes))


def held_out_error_of(network, pairs=None):
    post, pre = (pairs or Teacher()).read(slice(320, 400))
    with torch.inference_mode():
        return float((network.eval()(post) - pre).square().mean())


def weights_of(network):
    return torch.cat([values.flatten() for values in network.state_dict().values()])


def linear_start(pairs, alone=False):
    """A network that begins as least squares on the pairs' training images, and least squares' held-out error."""
    post, pre = (values.flatten(0, 1) for values in pairs.read(slice(320)))
    ridge = Ridge(pairs.pre_shape, pairs.post_shape, [[0], [1], [2], [3]])
    augmented = torch.cat([post, torch.ones(len(post), 1)], 1)
    solution = torch.linalg.lstsq(augmented, pre).solution
    ridge.load_state_dict({"weight": solution[:-1], "bias": solution[-1]})
    torch.manual_seed(0)
    network = build_network({**PLAIN, "widths": [32]}, pairs.pre_shape, pairs.post_shape, [[0], [1], [2], [3]])
    return BeyondRidge(ridge, network, alone).silence(), held_out_error_of(ridge, pairs)


def train_from(network, pairs, work, **changes):
    batches, held_out = Batches(pairs, np.arange(320), 16, seed=5), HeldOut(pairs, np.arange(320, 400), 16)
    schedule = Schedule(**({"steps": 800, "round": 25} | changes))
    return train(network, batches, held_out, schedule, 7, Accelerator(cpu=True), Workplace(work, {}, 1e9))
