"""Embeddings, reconstructors -> what every rung leaves of every image, for the model's connector and each control."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from lossmap.reconstruct.evaluation import evaluate, load_rungs
from lossmap.reconstruct.pairs import pairs_of
from lossmap.reconstruct.statistics import Statistics
from lossmap.vlm.stored import open_embeddings

TRAINED = ["held_out_error", "converged", "halfway_error", "passes", "learning_rate"]  # how a rung came to be


def run(*, embeddings: Path, reconstructors: Path, ladder: Path, spec: dict, threads: int = 1) -> None:
    """Measure one model's ladder on one data set: a row per connector, rung, share of the training images, and image.

    reconstructors: the model's folder, with <connector>/statistics.safetensors and
    <connector>/<rung>-<share>.safetensors. spec: dataset, model, connectors (name: rungs), shares, batch_size. The
    embeddings are read once per connector. Runs on the GPU where there is one.
    """
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    store, frames = open_embeddings(embeddings, device), []
    for connector, rungs in spec["connectors"].items():
        statistics = Statistics.load(reconstructors / connector / "statistics.safetensors")
        pairs = pairs_of(store, statistics, device)
        rungs = load_rungs(reconstructors / connector, rungs, spec["shares"], statistics, device)
        blocks = []
        with tqdm(total=len(pairs), unit="image", desc=connector) as progress:
            for rows, found in evaluate(pairs, rungs, spec["batch_size"]):
                variance = found[0].norm.square().mean(dim=1) / pairs.pre_shape[1]
                means = [(loss.squared_error.mean(dim=1), loss.cosine_error.mean(dim=1), variance) for loss in found]
                blocks.append(torch.stack([torch.stack(values) for values in means]).cpu().numpy())
                progress.update(rows.stop - rows.start)
        about = {"dataset": spec["dataset"], "model": spec["model"], "connector": connector}
        about["kind"] = json.loads(statistics.connector)["kind"]
        about |= {"lossless": pairs.connector.lossless, "known_fvu": pairs.connector.known_fvu}
        about |= {"pre_numbers": int(np.prod(pairs.pre_shape)), "post_numbers": int(np.prod(pairs.post_shape))}
        for rung, values in zip(rungs, np.concatenate(blocks, axis=2), strict=True):
            which = {"rung": rung.rung, "architecture": rung.kind, "share": rung.share, "parameters": rung.parameters}
            losses = dict(zip(("squared_error", "cosine_error", "variance"), values, strict=True))
            image_ids = store["image_id"].values
            how = {name: getattr(rung, name) for name in TRAINED}
            columns = {**about, **which, **how, "image_id": image_ids, **losses}
            frames.append(pd.DataFrame(columns).astype({"known_fvu": "float64"}))
        del rungs, rung  # they can take gigabytes, and so can the next connector's
    pd.concat(frames).to_parquet(ladder, index=False)
