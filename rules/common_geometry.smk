"""Named input functions and settings of the rules of geometry: alignment, margins, indexes, probe."""


def geometry_settings(*keys):
    """Single settings of the section, with the dataset, the model and how to resample."""
    single = {key: config["geometry"][key] for key in keys}
    return lambda wildcards: settings("statistics", dataset=wildcards.dataset, model=wildcards.model, **single)


def probe_settings(wildcards):
    model = config["models"][wildcards.model]
    loaded = {key: model.get(key) for key in ("checkpoint", "revision", "image_size")}
    return settings("statistics", "probe", dataset=wildcards.dataset, model=wildcards.model, **loaded)


def probe_losses(wildcards):
    """Patch losses to compare the responses with, where there are any."""
    if wildcards.dataset not in EVALUATED:
        return []
    return [f"results/{wildcards.study}/patch_loss/{wildcards.dataset}/{wildcards.model}.zarr"]
