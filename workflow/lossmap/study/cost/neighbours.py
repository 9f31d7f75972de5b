"""What a search for neighbours costs."""

from math import prod

from lossmap.data.counts import Count
from lossmap.study.cost.models import VisionCost
from lossmap.study.cost.rates import Rates
from lossmap.study.cost.work import NEIGHBOURS, Work


def plan_neighbours(config: dict, counts: dict[str, Count], name: str, model: VisionCost, rates: Rates) -> list[Work]:
    """Searches among all pairs of a dataset's images; the probe's hours are left out, for it takes a few images."""
    sections = ("overlap", "retrieval", "geometry", "galleries")
    searched = {dataset for section in sections for dataset in config[section]["datasets"]}
    known = {dataset: images for dataset in searched if (images := counts[dataset].images) is not None}
    geometry = known.keys() & set(config["geometry"]["datasets"])
    pooled = model.pre_shape[1] + model.post_shape[1]
    flat = prod(model.pre_shape) + prod(model.post_shape)
    # Each by two metrics; of geometry, all patches too.
    numbers = {dataset: 2 * (pooled + flat * (dataset in geometry)) for dataset in known}
    flops = sum(2 * images**2 * numbers[dataset] for dataset, images in known.items())
    jobs = {"find_neighbours": len(known), "compare_indexes": len(geometry), "probe_patches": len(geometry)}
    work = Work(NEIGHBOURS, name, jobs=jobs, flops=flops, seconds=rates.seconds(flops, "float32"))
    return [work] if known else []
