"""Embeddings, connector -> how much of each patch the connector sees."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lossmap.errors import LossmapError
from lossmap.measures.relations import spearman_rho
from lossmap.measures.seeds import seed_for
from lossmap.measures.statistics import bootstrap_mean
from lossmap.store.patch_losses import open_patch_losses
from lossmap.study.specs import ProbePatches
from lossmap.vlm.probe import probe_patches
from lossmap.vlm.recompute import load_connector
from lossmap.vlm.stored import open_embeddings

UNSEEN = 0.1  # a patch of less than this share of its image's mean response is not seen
RESPONSES = ("random", "towards")


def run(
    *,
    embeddings: Path,
    patches: Path,
    summary: Path,
    spec: ProbePatches,
    patch_loss: Path | None = None,
    threads: int = 1,
) -> None:
    """Move one patch at a time by a small step, and measure how far the connector's output moves.

    patches: one row per image and patch; summary: one row per measure, with interval over images. A response is
    relative: 1 is that of a connector that only scales. patch_loss: the dataset's patch losses, to compare with, given
    the patches' norm before the connector: patches with more in them move the output more, and are harder to rebuild.
    spec: dataset, model, images (how many, drawn by seed), directions (random ones), step (as a share of the root mean
    square length of all patches), batch_size, checkpoint, revision, image_size, confidence, resamples, seed. The
    connector runs in float32, on the GPU where there is one.
    """
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    store = open_embeddings(embeddings, device)
    n = store.sizes["image"]
    seed = seed_for(spec.seed, "probe_patches", spec.dataset, spec.model)
    chosen = np.sort(np.random.default_rng(seed).permutation(n)[: spec.images])
    pre, others = _with_others(store, chosen)
    losses = None if patch_loss is None else _losses(patch_loss, store["image_id"].values[chosen])
    post_length = np.linalg.norm(store["post"][chosen].values.astype(np.float32), axis=(1, 2))
    connector = load_connector(**spec.opening, dtype="float32", device=device)
    how = spec.model_dump(include={*("directions", "step", "batch_size")})
    response = probe_patches(connector.post, pre, others, **how, seed=seed)

    gain = post_length / pre.norm(dim=(1, 2)).numpy()
    rows, cols = store.attrs["pre_grid"]
    table = pd.DataFrame(
        {
            "image_id": np.repeat(store["image_id"].values[chosen], rows * cols),
            "row": np.tile(np.repeat(np.arange(rows), cols), len(chosen)),
            "col": np.tile(np.arange(cols), rows * len(chosen)),
        }
    )
    maps = {name: getattr(response, name).numpy() / gain[:, None] for name in RESPONSES}
    for name, values in maps.items():
        if np.isnan(values).any():
            image = store["image_id"].values[chosen[np.isnan(values).any(1).argmax()]]
            raise LossmapError(
                f"{embeddings}: every other image has a patch in common with image {image}, so that there is no way "
                "from one to the other. Leave the dataset out of geometry, or give it more images."
            )
        table[name] = values.ravel()
    if losses is not None:
        maps["loss"] = losses
        table["loss"] = losses.ravel()
    table.to_parquet(patches, index=False)
    _summary(maps, pre.norm(dim=2).numpy(), spec).to_parquet(summary, index=False)


def _with_others(store, chosen: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """(images, patches, features) twice: the chosen images before the connector, and for each another image, half the
    dataset on; where that has a patch in common, being the same picture perhaps, the next that has none."""
    n, rows = store.sizes["image"], (chosen + store.sizes["image"] // 2) % store.sizes["image"]
    pre, others = (torch.from_numpy(store["pre"][each].values).float() for each in (chosen, rows))
    for _ in range(n - 1):
        same = (pre == others).all(dim=2).any(dim=1)
        if not same.any():
            break
        rows = np.where(same.numpy(), (rows + 1) % n, rows)
        others[same] = torch.from_numpy(store["pre"][rows[same.numpy()]].values).float()
    return pre, others


def _losses(path: Path, image_ids: np.ndarray) -> np.ndarray:
    """(images, patches): squared errors of the best reconstructor."""
    losses = open_patch_losses(path)
    missing = sorted(set(image_ids) - set(losses["image_id"].values))
    if missing:
        raise LossmapError(f"{path}: lacks image {missing[0]}, which the embeddings have. Delete {path} and run again.")
    best = losses["squared_error"].sel(reconstructor=losses.attrs["best"])
    place = {image: i for i, image in enumerate(losses["image_id"].values)}
    return best[[place[image] for image in image_ids]].values.reshape(len(image_ids), -1)


def _summary(maps: dict[str, np.ndarray], norms: np.ndarray, spec: ProbePatches) -> pd.DataFrame:
    """Means over images of what each image's map comes to. maps, norms (images, patches)."""
    rows = []

    def add(measure: str, values: np.ndarray) -> None:
        defined = values[~np.isnan(values)]
        how = (spec.resamples, spec.confidence, spec.seed)
        mean, low, high = bootstrap_mean(defined, *how) if len(defined) else [np.nan] * 3
        place = {"dataset": spec.dataset, "n": len(defined), "model": spec.model, "measure": measure}
        rows.append({**place, "k": None, "value": mean, "low": low, "high": high, "chance": np.nan})

    for name in RESPONSES:
        values, mean = maps[name], maps[name].mean(1)
        add(f"response_{name}", mean)
        add(f"response_{name}_spread", np.divide(values.std(1), mean, out=np.full_like(mean, np.nan), where=mean > 0))
        add(f"response_{name}_unseen", (values < UNSEEN * mean[:, None]).mean(1))
        if "loss" in maps:
            images = list(zip(values, maps["loss"], norms, strict=True))
            add(f"response_{name}_loss", np.array([spearman_rho(one, two) for one, two, _ in images]))
            add(
                f"response_{name}_loss_partial", np.array([spearman_rho(one, two, [norm]) for one, two, norm in images])
            )
    return pd.DataFrame(rows).astype({"k": "Int64"})
