"""What extraction costs: a dataset's images through the vision side of a model, and the store that they fill."""

from math import prod

from lossmap.data.counts import Count
from lossmap.study.cost.models import VisionCost
from lossmap.study.cost.rates import Rates
from lossmap.study.cost.work import BYTES, EXTRACTION, Work
from lossmap.study.derived import measured_datasets, part_ranges


def stored_datasets(config: dict) -> list[str]:
    """Datasets that the study's default target embeds: those that it measures, or all where it measures none."""
    return measured_datasets(config) or list(config["datasets"])


def stored_bytes(config: dict, model: VisionCost) -> tuple[int, int]:
    """Bytes of one image before and after the connector, as stored."""
    how = config["extraction"]
    rows = (model.patches, model.pre_shape[1]), model.post_shape
    pre, post = (BYTES[how["dtype"]] * prod(shape) for shape in rows)
    return pre, post if how["store_post"] else 0


def plan_extraction(config: dict, counts: dict[str, Count], name: str, model: VisionCost, rates: Rates) -> list[Work]:
    """One entry for each dataset whose number of images is known."""
    how, works = config["extraction"], []
    pre, post = stored_bytes(config, model)
    for dataset in stored_datasets(config):
        if (images := counts[dataset].images) is None:
            continue
        folder = f"results/{config['study']}/embeddings/{dataset}/{name}"
        ranges = part_ranges(images, how["part_size"])
        parts = {f"{folder}/{name}": (stop - first) * (pre + post) for first, stop, name in ranges}
        works.append(
            Work(
                EXTRACTION,
                name,
                dataset,
                {"extract": len(parts)},
                images * model.flops,
                rates.seconds(images * model.flops, how["compute_dtype"]),
                model.weights + model.at_once(how["batch_size"]) * model.activations,
                outputs=parts,
                images=images,
                pre=pre,
                post=post,
            )
        )
    return works
