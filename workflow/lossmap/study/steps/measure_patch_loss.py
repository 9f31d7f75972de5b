"""Embeddings, reconstructors -> what each reconstructor misses of every patch, and of every image."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from lossmap.measures.seeds import seed_for
from lossmap.measures.statistics import bootstrap_mean
from lossmap.measures.unexplained import unexplained
from lossmap.reconstruct.evaluation import best_of, image_means, load_decoders, measure_losses
from lossmap.reconstruct.pairs import pairs_of
from lossmap.reconstruct.statistics import Statistics
from lossmap.store.images import Images
from lossmap.store.patch_losses import PatchLossWriter
from lossmap.study.products import product_key
from lossmap.study.provenance import provenance
from lossmap.study.specs import MeasurePatchLoss
from lossmap.vlm.stored import open_embeddings


def run(
    *,
    embeddings: Path,
    near_copies: Path,
    reconstructors: Path,
    losses: Path,
    images: Path,
    summary: Path,
    spec: MeasurePatchLoss,
    threads: int = 1,
) -> None:
    """Measure the patch losses of one data set and model, with every decoder of the model's own connector.

    near_copies: the images that are near-copies of training images (see check_training_images): the summary gives loss
    and FVU without them too. reconstructors: the model's folder, with own/statistics.safetensors and
    own/<decoder>-<share>.safetensors. losses: a Zarr store (see lossmap.store.patch_losses); images: means over the
    patches of each image, those of all its views that are reconstructed; summary: means over images. spec: dataset,
    model, decoders, share, batch_size, confidence, resamples, seed. Runs on the GPU where there is one.
    """
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    statistics = Statistics.load(reconstructors / "own" / "statistics.safetensors")
    pairs = pairs_of(open_embeddings(embeddings, device), statistics, device)
    decoders = load_decoders(reconstructors / "own", spec.decoders, [spec.share], statistics, device)
    best = best_of(decoders).name
    image_ids, about = pairs.store["image_id"].values.tolist(), pairs.store.attrs
    how = {"decoders": spec.decoders, "share": spec.share} | {"statistics": statistics.digest}
    key = {**product_key("patch_losses"), "embeddings": about["key"], **how}
    more = {"best": best, "key": key, "provenance": provenance("measure_patch_loss", device=device)}
    names = [decoder.name for decoder in decoders]
    where = Images(pairs.store)
    patches = pairs.store.sizes["patch"] if where.ragged else None
    writer = PatchLossWriter(losses, names, image_ids, about["pre_grid"], more, patches)
    blocks, measured = [], 0
    with tqdm(total=len(pairs), unit="image", desc="patch losses") as progress:
        for batch in measure_losses(pairs, decoders, spec.batch_size):
            block = image_means(batch, pairs.pre_shape[1])
            count = len(block["variance"])
            if where.ragged:
                layouts = [where.layout(image) for image in range(measured, measured + count)]
                writer.append(**{name: values for name, values in batch.items() if name != "shapes"}, layouts=layouts)
            else:
                writer.append(**batch)
            blocks.append(block)
            measured += count
            progress.update(count)
    writer.close()
    per_image = {name: np.concatenate([block[name] for block in blocks], axis=-1) for name in blocks[0]}
    variance = per_image.pop("variance")
    copies = pd.read_parquet(near_copies)
    copied = np.isin(image_ids, copies.loc[copies["dataset"] == spec.dataset, "image_id"])
    frames, means = [], []
    for i, decoder in enumerate(decoders):
        values = {name: rows[i] for name, rows in per_image.items()}
        columns = {"image_id": image_ids, "reconstructor": decoder.name, **values, "variance": variance}
        frames.append(pd.DataFrame(columns).assign(best=decoder.name == best))
        means.append(_summary(decoder, values, variance, copied, spec) | {"best": decoder.name == best})
    pd.concat(frames).to_parquet(images, index=False)
    pd.DataFrame(means).to_parquet(summary, index=False)


def _summary(decoder, values: dict, variance: np.ndarray, copied: np.ndarray, spec: MeasurePatchLoss) -> dict:
    """One reconstructor over all images: means with intervals, and the spread of the squared error; loss and FVU also
    without those images that are near-copies of training images (NaN where all are)."""
    seed = seed_for(spec.seed, "measure_patch_loss", spec.dataset, spec.model)
    how: dict[str, Any] = {"resamples": spec.resamples, "confidence": spec.confidence, "seed": seed}
    about = dataclasses.asdict(dataclasses.replace(decoder, module=None))
    row = {"dataset": spec.dataset, "n": len(variance), "model": spec.model, "reconstructor": decoder.name}
    row |= {key: about[key] for key in ("kind", "share", "parameters", "held_out_error", "converged")}
    for name, column in (("loss", "squared_error"), *((name, name) for name in values if name != "squared_error")):
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), bootstrap_mean(values[column], **how), strict=True))
    row["loss_std"] = values["squared_error"].std()
    row |= _fvu("fvu", values["squared_error"], variance, how)
    row |= {"near_copies": int(copied.sum()), "loss_without_near_copies": float("nan")}
    if not copied.all():
        errors = values["squared_error"][~copied]
        row["loss_without_near_copies"] = errors.mean()
        return row | _fvu("fvu_without_near_copies", errors, variance[~copied], how)
    return row | dict.fromkeys((f"fvu_without_near_copies{end}" for end in ("", "_low", "_high")), float("nan"))


def _fvu(name: str, errors: np.ndarray, variance: np.ndarray, how: dict) -> dict:
    found = [float(value) for value in unexplained(errors, variance, **how)]
    return dict(zip((name, f"{name}_low", f"{name}_high"), found, strict=True))
