"""What a training lowers: a sum over what a batch asks for, and over how much that is."""

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from lossmap.reconstruct.ragged import flat


class Objective(Protocol):
    """A mean error, as a sum over a count, so that the parts of a batch add up."""

    def total(self, outputs: Any, targets: Any) -> Tensor:
        """Sum of the errors, in float32, with gradient."""

    def exact_total(self, outputs: Any, targets: Any) -> Tensor:
        """The same in float64, of held-out images."""

    def count(self, targets: Any) -> int:
        """Of how many."""


class SquaredError:
    """Of every feature of every patch."""

    def total(self, outputs: Any, targets: Any) -> Tensor:
        return mse_loss(flat(outputs), flat(targets), reduction="sum")

    def exact_total(self, outputs: Any, targets: Any) -> Tensor:
        return (flat(outputs) - flat(targets)).square().sum(dtype=torch.float64)

    def count(self, targets: Any) -> int:
        return flat(targets).numel()
