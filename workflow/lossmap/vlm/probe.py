"""Patch probe: how far what leaves the connector moves when one patch of what enters it moves a little."""

from operator import attrgetter
from typing import NamedTuple

import torch
from PIL import Image

from lossmap.vlm.loading import VisionSide


class Response(NamedTuple):
    """How far post moves per unit that a patch of pre moves, (images, patches) float32; root mean square of directions.

    random: in directions drawn at random, all alike: estimates the Frobenius norm of the patch's Jacobian over the root
        of the number of features. towards: in the directions of the same patch of other images.
    """

    random: torch.Tensor
    towards: torch.Tensor


class ConnectorAlone:
    """A model's connector without its vision tower, for batches of pre as it lies in a store.

    Parameters: vision, the model's vision side. images: how many go through the connector at once; fewer are filled up.
    The model runs once, on plain images, to see what else the connector is given and in what order it takes patches.
    """

    def __init__(self, vision: VisionSide, images: int):
        self.connector = attrgetter(vision.family.connector)(vision.model)
        self.images = images
        calls = []
        hook = self.connector.register_forward_pre_hook(
            lambda module, args, kwargs: calls.append((args, dict(kwargs))), with_kwargs=True
        )
        try:
            # Not black: Idefics2 takes that for padding.
            plain = [Image.new("RGB", vision.pre_grid[::-1], (150, 90, 30))] * images
            prepared = vision.preprocessor.prepare(plain)
            vision.embed(vision.preprocessor.normalise(prepared, vision.device, vision.dtype))
        finally:
            hook.remove()
        self.args, self.kwargs = calls[0]
        given = self.args[0] if self.args else next(iter(self.kwargs.values()))
        self.given_shape, self.dtype, self.device = given.shape, given.dtype, given.device
        # Which number of pre in raster order each number of the connector's input is.
        numbers = torch.arange(given.numel(), device=given.device).view(given.shape)
        self.order = vision.family.to_raster(numbers, vision.config, vision.pre_grid).reshape(-1).argsort()

    def __call__(self, pre: torch.Tensor) -> torch.Tensor:
        """pre (b, patches, features) in raster order, b up to `images` -> (b, numbers) post, tokens in the connector's
        own order. Gradients flow if they are on."""
        filled = pre if len(pre) == self.images else torch.cat([pre, pre[-1:].expand(self.images - len(pre), -1, -1)])
        given = filled.to(self.device, self.dtype).reshape(-1)[self.order].view(self.given_shape)
        if self.args:
            post = self.connector(given, *self.args[1:], **self.kwargs)
        else:
            post = self.connector(**{**self.kwargs, next(iter(self.kwargs)): given})
        return post.reshape(self.images, -1)[: len(pre)]


@torch.inference_mode()
def probe_patches(connector, pre, others, directions: int, step: float, seed: int) -> Response:
    """Move one patch of pre at a time by a small step and measure how far post moves, per unit of the step.

    Parameters: connector: pre (b, patches, features) -> post (b, numbers); its attribute images bounds b. pre (images,
        patches, features): what to probe. others, the same shape: other images, towards which patches are moved.
        directions: how many random ones. step: length of a step, as a share of the root mean square length of all
        patches. seed: of the directions.
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
    responses = [], []
    for i, (image, other) in enumerate(zip(pre, others, strict=True)):
        generator = torch.Generator().manual_seed((seed + i) % 2**63)
        moves = torch.randn((directions, patches, features), generator=generator)
        moves = torch.cat([moves / moves.norm(dim=2, keepdim=True), _towards(image, other)[None]])
        start = connector(image[None]).double()
        patch = torch.arange(patches).repeat(len(moves))
        moved = []
        for some in torch.arange(len(patch)).split(connector.images):
            batch = image.repeat(len(some), 1, 1)
            batch[torch.arange(len(some)), patch[some]] += length * moves.flatten(0, 1)[some]
            moved.append((connector(batch).double() - start).norm(dim=1).cpu())
        moved = torch.cat(moved).view(len(moves), patches)
        responses[0].append(moved[:-1].square().mean(0).sqrt() / length)
        responses[1].append(moved[-1] / length)
    return Response(*(torch.stack(values).float() for values in responses))


def _towards(image, other):
    """(patches, features): from each patch to the other image's, scaled to length 1; nan where both are the same."""
    apart = other - image
    lengths = apart.norm(dim=1, keepdim=True)
    return torch.where(lengths > 0, apart / lengths, torch.nan)
