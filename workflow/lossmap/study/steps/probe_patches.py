"""Embeddings, connector -> how much of each patch the connector sees."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from lossmap.errors import LossmapError
from lossmap.measures.relations import spearman_rho
from lossmap.measures.seeds import seed_for
from lossmap.measures.statistics import bootstrap_mean
from lossmap.store.images import Images
from lossmap.store.layouts import Shape
from lossmap.store.maps import places
from lossmap.store.patch_losses import ImageLosses, targets
from lossmap.study.example_losses import best_losses, known_images
from lossmap.study.specs import ProbePatches
from lossmap.vlm.probe import probe_patches
from lossmap.vlm.recompute import load_connector
from lossmap.vlm.stored import open_embeddings

UNSEEN = 0.1  # a patch of less than this share of its image's mean response is not seen
RESPONSES = ("random", "towards")


class Group(NamedTuple):
    """Chosen images of one shape: which of the chosen, the patches that count, and of these the norms before the
    connector and the maps, (images, patches)."""

    positions: np.ndarray
    shape: Shape
    counted: np.ndarray
    norms: np.ndarray
    maps: dict[str, np.ndarray]


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
    losses = None if patch_loss is None else best_losses(patch_loss)
    connector = load_connector(**spec.opening, dtype="float32", device=device)
    images = Images(store)
    groups: list[Group] = []
    for positions, shape in images.alike(chosen):
        rows = chosen[positions]
        pre, others = _with_others(images, rows)
        post_length = np.linalg.norm(images.read("post", rows).astype(np.float32), axis=(1, 2))
        how: dict[str, Any] = spec.model_dump(include={*("directions", "step", "batch_size")})
        how["seed"] = seed + sum(len(group.positions) for group in groups)
        response = probe_patches(_post(connector, shape, images.ragged), pre, others, **how)
        gain = post_length / pre.norm(dim=(1, 2)).numpy()
        counted = targets(shape) if images.ragged else np.ones(shape.patches, bool)
        maps = {name: getattr(response, name).numpy() / gain[:, None] for name in RESPONSES}
        alone = images.ragged and (images.kinds == images.kinds[rows[0]]).sum() == 1
        for values in maps.values():
            bad = np.isnan(values[:, counted]).any(1)
            if bad.any() and not alone:
                image = store["image_id"].values[rows[bad.argmax()]]
                raise LossmapError(
                    f"{embeddings}: every other image has a patch in common with image {image}, so that there is no "
                    "way from one to the other. Leave the dataset out of geometry, or give it more images."
                )
        if losses is not None:
            maps["loss"] = _losses(losses, patch_loss, store["image_id"].values[rows])
        groups.append(Group(positions, shape, counted, pre.norm(dim=2).numpy(), maps))
    _table(groups, store["image_id"].values[chosen], images.ragged).to_parquet(patches, index=False)
    _summary(groups, len(chosen), spec).to_parquet(summary, index=False)


def _post(connector, shape: Shape, ragged: bool):
    """The connector of images of one shape; where images differ in layout, it is told theirs."""
    return (lambda pre: connector.post(pre, shape)) if ragged else connector.post


def _table(groups: list[Group], image_ids: np.ndarray, ragged: bool) -> pd.DataFrame:
    """A row per image and patch, image by image; NaN for patches that no token stands for."""
    of_image: dict[int, pd.DataFrame] = {}
    for group in groups:
        found = places(group.shape)
        for i, position in enumerate(group.positions):
            place = {"view": found.view} if ragged else {}
            columns = {"image_id": image_ids[position], **place, "row": found.row, "col": found.col}
            for name, maps in group.maps.items():
                values = np.where(group.counted, maps[i], np.nan) if ragged else maps[i]
                columns[name] = values[found.patch]
            of_image[position] = pd.DataFrame(columns)
    return pd.concat([of_image[i] for i in sorted(of_image)], ignore_index=True)


def _with_others(images: Images, chosen: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """(images, patches, features) twice: chosen images of one shape before the connector, and for each another of that
    shape, half of them on; where that has a patch in common, being the same picture perhaps, the next that has none."""
    alike = np.flatnonzero(images.kinds == images.kinds[chosen[0]])
    n, own = len(alike), np.searchsorted(alike, chosen)
    rows = (own + n // 2) % n
    pre, others = (torch.from_numpy(images.read("pre", alike[each])).float() for each in (own, rows))
    shape = images.shape(chosen[0])
    counted = torch.from_numpy(targets(shape).copy()) if images.ragged else torch.ones(shape.patches, dtype=torch.bool)
    for _ in range(n - 1):
        same = ((pre == others).all(dim=2) & counted).any(dim=1)
        if not same.any():
            break
        rows = np.where(same.numpy(), (rows + 1) % n, rows)
        others[same] = torch.from_numpy(images.read("pre", alike[rows[same.numpy()]])).float()
    return pre, others


def _losses(losses: ImageLosses, path: Path | None, image_ids: np.ndarray) -> np.ndarray:
    """(images, patches): squared errors of the best reconstructor, of images of one shape."""
    known = known_images(losses)
    missing = sorted(set(image_ids) - set(known))
    if missing:
        raise LossmapError(f"{path}: lacks image {missing[0]}, which the embeddings have. Delete {path} and run again.")
    return losses.read("squared_error", known.get_indexer(image_ids))


def _summary(groups: list[Group], n: int, spec: ProbePatches) -> pd.DataFrame:
    """Means over n images of what each image's map comes to."""
    rows = []

    def add(measure: str, values: np.ndarray) -> None:
        defined = values[~np.isnan(values)]
        how = (spec.resamples, spec.confidence, spec.seed)
        mean, low, high = bootstrap_mean(defined, *how) if len(defined) else [np.nan] * 3
        place = {"dataset": spec.dataset, "n": len(defined), "model": spec.model, "measure": measure}
        rows.append({**place, "k": None, "value": mean, "low": low, "high": high, "chance": np.nan})

    for name in RESPONSES:
        found: dict[str, np.ndarray] = {}
        for group in groups:
            for measure, values in _of_images(group, name).items():
                found.setdefault(measure, np.full(n, np.nan, values.dtype))[group.positions] = values
        for measure, values in found.items():
            add(f"response_{name}{measure}", values)
    return pd.DataFrame(rows).astype({"k": "Int64"})


def _of_images(group: Group, name: str) -> dict[str, np.ndarray]:
    """What the maps of one kind of response come to, an image each: ending of the measure -> (images,)."""
    maps, norms = group.maps, group.norms
    if not group.counted.all():
        maps = {key: values.compress(group.counted, axis=1) for key, values in maps.items()}
        norms = norms.compress(group.counted, axis=1)
    values, mean = maps[name], maps[name].mean(1)
    found = {
        "": mean,
        "_spread": np.divide(values.std(1), mean, out=np.full_like(mean, np.nan), where=mean > 0),
        "_unseen": np.where(np.isnan(mean), np.nan, (values < UNSEEN * mean[:, None]).mean(1)),
    }
    if "loss" in maps:
        images = list(zip(values, maps["loss"], norms, strict=True))
        found["_loss"] = np.array([_rho(one, two) for one, two, _ in images])
        found["_loss_partial"] = np.array([_rho(one, two, [norm]) for one, two, norm in images])
    return found


def _rho(response: np.ndarray, loss: np.ndarray, given=()) -> float:
    return np.nan if np.isnan(response).any() else spearman_rho(response, loss, given)
