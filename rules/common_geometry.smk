"""Named input functions and settings of the rules of geometry: alignment, margins, indexes, probe."""


def probe_losses(wildcards):
    """Patch losses to compare the responses with, where there are any."""
    if wildcards.dataset not in EVALUATED:
        return []
    return [f"results/{wildcards.study}/patch_loss/{wildcards.dataset}/{wildcards.model}.zarr"]
