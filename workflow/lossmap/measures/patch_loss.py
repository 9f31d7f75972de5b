"""What a reconstruction of patch embeddings misses, patch by patch."""

from typing import NamedTuple

import torch


class PatchLosses(NamedTuple):
    """Three losses of each patch, and the norm that they are read against; each (B, M) float64, none with a unit."""

    squared_error: torch.Tensor  # mean over features, >= 0; 1 is what predicting the mean scores, on average
    norm_difference: (
        torch.Tensor
    )  # L2 norm of the patch minus that of its reconstruction; positive: reconstructed short
    cosine_error: torch.Tensor  # 1 - cosine, in [0, 2]
    norm: torch.Tensor  # L2 norm of the patch


def patch_losses(patches: torch.Tensor, reconstructed: torch.Tensor) -> PatchLosses:
    """Squared error, difference of norms and cosine error of each patch.

    Parameters: patches and reconstructed (B, M, D'), real, standardised per feature. Sums run in float64, over the
        features alone, so that a patch's losses do not depend on what else is in the batch.
    Returns: PatchLosses. Two zero vectors have cosine error 0, for they are equal; a zero vector and another have 1,
        for they share no direction: what predicting the mean (zero, once standardised) gets.
    Raises: ValueError if the shapes differ or are not (B, M, D'), or a value is not finite (the first patch is named).
    Source: Li et al. 2025, arXiv:2509.11986, eq. 9 (squared error) and section 5.3 (the other two).
    """
    if patches.ndim != 3 or 0 in patches.shape:
        raise ValueError(
            f"patches: have shape {tuple(patches.shape)}; wanted images by patches by features, none empty"
        )
    if reconstructed.shape != patches.shape:
        raise ValueError(f"reconstructed: has shape {tuple(reconstructed.shape)}; patches have {tuple(patches.shape)}")
    for name, values in (("patches", patches), ("reconstructed", reconstructed)):
        bad = ~torch.isfinite(values).all(dim=-1)
        if bad.any():
            image, patch = bad.nonzero()[0].tolist()
            raise ValueError(f"{name}: {int(bad.sum())} are not finite; the first is patch {patch} of image {image}")
    patches, reconstructed = patches.double(), reconstructed.double()
    norm, other = (torch.linalg.vector_norm(x, dim=-1) for x in (patches, reconstructed))
    # Unit vectors first: the product of two norms may fall below the smallest number where neither does.
    cosine = (_unit(patches, norm) * _unit(reconstructed, other)).sum(dim=-1)
    cosine = torch.where((norm == 0) & (other == 0), 1, cosine.clamp(-1, 1))
    return PatchLosses((patches - reconstructed).square().mean(dim=-1), norm - other, 1 - cosine, norm)


def _unit(vectors: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
    return vectors / torch.where(norm == 0, 1, norm).unsqueeze(-1)
