"""What every decoder of a ladder leaves of every image: the rows that `ladder.Ladder` is made of."""

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from lossmap.reconstruct.evaluation import Reconstructor, evaluate
from lossmap.reconstruct.pairs import pairs_of
from lossmap.reconstruct.ragged import image_means, squared
from lossmap.reconstruct.statistics import Statistics

TRAINED = ["held_out_error", "converged", "halfway_error", "passes", "learning_rate"]  # how a decoder came to be


def measure_ladder(
    store,
    climbed: Iterable[tuple[str, Statistics, list[Reconstructor]]],
    dataset: str,
    model: str,
    batch_size: int,
    device="cpu",
) -> pd.DataFrame:
    """A row per connector, decoder, share of the training images, and image. Embeddings are read once per connector.

    Parameters: store, a Dataset of embeddings that trained nothing; climbed, of each connector its name, statistics and
        decoders, which are let go before the next are taken; dataset and model, names for the rows; batch_size, images
        reconstructed at once.
    Raises: LossmapError if a reconstruction is not finite.
    """
    frames, image_ids = [], store["image_id"].values
    for connector, statistics, decoders in climbed:
        pairs = pairs_of(store, statistics, device)
        blocks = []
        with tqdm(total=len(pairs), unit="image", desc=connector) as progress:
            for rows, found in evaluate(pairs, decoders, batch_size):
                variance = image_means(squared(found[0].norm)) / pairs.pre_shape[1]
                means = [(image_means(loss.squared_error), image_means(loss.cosine_error), variance) for loss in found]
                blocks.append(torch.stack([torch.stack(values) for values in means]).cpu().numpy())
                progress.update(rows.stop - rows.start)
        about: dict[str, Any] = {"dataset": dataset, "model": model, "connector": connector}
        about["kind"] = json.loads(statistics.connector)["kind"]
        about |= {"lossless": pairs.connector.lossless, "known_fvu": pairs.connector.known_fvu}
        about |= dict(zip(("pre_numbers", "post_numbers"), pairs.numbers, strict=True))
        for one, values in zip(decoders, np.concatenate(blocks, axis=2), strict=True):
            which = {"decoder": one.name, "architecture": one.kind, "share": one.share, "parameters": one.parameters}
            losses = dict(zip(("squared_error", "cosine_error", "variance"), values, strict=True))
            how = {name: getattr(one, name) for name in TRAINED}
            columns = {**about, **which, **how, "image_id": image_ids, **losses}
            frames.append(pd.DataFrame(columns).astype({"known_fvu": "float64"}))
        del decoders, one
    return pd.concat(frames)
