"""What readers cost: small networks over all embeddings of the images that questions are about."""

from lossmap.data.counts import Count
from lossmap.reconstruct.sizes import PASSES
from lossmap.study.cost.models import VisionCost
from lossmap.study.cost.rates import Rates
from lossmap.study.cost.work import READERS, Work


def plan_readers(config: dict, counts: dict[str, Count], name: str, model: VisionCost, rates: Rates) -> list[Work]:
    """Training for as many passes as there may be at most, and one more pass over what is measured. The question's side
    is left out, which is small beside an image's."""
    readers = config["readers"]
    trained = counts[readers["train"]].images
    if trained is None:
        return []
    measured = [images for dataset in readers["datasets"] if (images := counts[dataset].images) is not None]
    passes = readers["training"]["epochs"] or PASSES
    pre, post = (model.patches, model.pre_shape[1]), model.post_shape
    flops = 0.0
    controls = [pre] * len(readers["controls"])  # which make fewer rows of it
    for rows, features in (pre, post, post, *controls):  # post again, for the control task
        for network in readers["networks"].values():
            width = network["width"]
            # Of a row: into the reader, and keys and values of each block; backwards, twice as much.
            forward = 2 * rows * width * (features + 2 * width * max(1, network["blocks"]))
            flops += len(readers["seeds"]) * forward * (3 * passes * trained + sum(measured))
    jobs = {"train_readers": 1, "read_answers": len(measured)}
    return [Work(READERS, name, jobs=jobs, flops=flops, seconds=rates.seconds(flops, "float32"))]
