"""Named input functions and settings of the rules of geometry: alignment, margins, indexes, galleries, probe."""

GEOMETRY = config["geometry"]["datasets"]


def of_geometry(name, datasets=GEOMETRY):
    """A file of every model for each dataset whose geometry is measured; models in the order of the config."""
    return expand(f"results/{config['study']}/{name}", dataset=datasets, model=config["models"])


def probe_losses(wildcards):
    """Patch losses to compare the responses with, where there are any."""
    if wildcards.dataset not in EVALUATED:
        return []
    return [f"results/{wildcards.study}/patch_loss/{wildcards.dataset}/{wildcards.model}.zarr"]


def geometry_table_settings(**more):
    """Settings of a table over all models."""
    return canonical({"confidence": config["statistics"]["confidence"], **more})


def model_names():
    return canonical({"models": list(config["models"])})
