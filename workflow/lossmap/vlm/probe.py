"""Patch probe: how far what leaves the connector moves when one patch of what enters it moves a little."""

from collections.abc import Callable
from typing import NamedTuple

import torch


class Response(NamedTuple):
    """How far post moves per unit that a patch of pre moves, (images, patches) float32; root mean square of directions.

    random: in directions drawn at random, all alike: estimates the Frobenius norm of the patch's Jacobian over the root
        of the number of features. towards: in the directions of the same patch of other images.
    """

    random: torch.Tensor
    towards: torch.Tensor


@torch.inference_mode()
def probe_patches(
    connector: Callable, pre, others, directions: int, step: float, seed: int, batch_size: int
) -> Response:
    """Move one patch of pre at a time by a small step and measure how far post moves, per unit of the step.

    Parameters: connector: pre (b, patches, features) -> post (b, ...). pre (images, patches, features): what to probe.
        others, the same shape: other images, towards which patches are moved. directions: how many random ones. step:
        length of a step, as a share of the root mean square length of all patches. seed: of the directions. batch_size:
        the largest b.
    Returns: Response. 0 for a patch that the connector does not see; s everywhere for a connector that scales by s. nan
        in `towards` where the other image's patch is the same.
    Raises: ValueError if the shapes differ, or directions or step are not positive.
    """
    if pre.shape != others.shape:
        raise ValueError(f"pre has shape {tuple(pre.shape)} and others {tuple(others.shape)}; wanted the same")
    if directions < 1 or not step > 0:
        raise ValueError(f"directions is {directions} and step {step}; wanted both above 0")
    pre, others = pre.float(), others.float()
    patches, features = pre.shape[1:]
    length = step * float(pre.square().sum(2).mean().sqrt())
    around: list[torch.Tensor] = []
    towards: list[torch.Tensor] = []
    for i, (image, other) in enumerate(zip(pre, others, strict=True)):
        generator = torch.Generator().manual_seed((seed + i) % 2**63)
        moves = torch.randn((directions, patches, features), generator=generator)
        moves = torch.cat([moves / moves.norm(dim=2, keepdim=True), _towards(image, other)[None]])
        start = connector(image[None]).flatten(1).double()
        patch = torch.arange(patches).repeat(len(moves))
        moved = []
        for some in torch.arange(len(patch)).split(batch_size):
            batch = image.repeat(len(some), 1, 1)
            batch[torch.arange(len(some)), patch[some]] += length * moves.flatten(0, 1)[some]
            moved.append((connector(batch).flatten(1).double() - start).norm(dim=1).cpu())
        lengths = torch.cat(moved).view(len(moves), patches)
        around.append(lengths[:-1].square().mean(0).sqrt() / length)
        towards.append(lengths[-1] / length)
    return Response(torch.stack(around).float(), torch.stack(towards).float())


def _towards(image, other):
    """(patches, features): from each patch to the other image's, scaled to length 1; nan where both are the same."""
    apart = other - image
    lengths = apart.norm(dim=1, keepdim=True)
    return torch.where(lengths > 0, apart / lengths, torch.nan)
