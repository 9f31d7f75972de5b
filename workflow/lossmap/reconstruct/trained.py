"""One reconstructor to work with: trained on embeddings or read from a folder, and what it misses of others."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray

from lossmap.errors import LossmapError
from lossmap.measures.unexplained import unexplained
from lossmap.reconstruct.climbing import TrainedDecoder, climb
from lossmap.reconstruct.evaluation import Reconstructor, check_layout, image_means, load_decoders, measure_losses
from lossmap.reconstruct.learning import TrainingSettings
from lossmap.reconstruct.measuring import measure_statistics
from lossmap.reconstruct.networks import BeyondRidge
from lossmap.reconstruct.pairs import pairs_of
from lossmap.reconstruct.places import places
from lossmap.reconstruct.saving import file_digest, save_reconstructor
from lossmap.reconstruct.specs import LINEAR, NETWORKS
from lossmap.reconstruct.statistics import Statistics, embeddings_digest
from lossmap.store import as_embeddings
from lossmap.store.memory import Embeddings
from lossmap.store.patch_losses import losses_in_memory

if TYPE_CHECKING:
    import xarray as xr

AT_ONCE = 16  # images that are reconstructed at once


@dataclass(frozen=True, eq=False, repr=False)
class Trained:
    """A reconstructor of pre from post, with the statistics that it standardises both with.

    reconstructor: name, held-out error, whether it converged, parameters, module. history: of its training, a
    row for each look at the held-out images; None of a linear one, or one that was read. decoders: what `save` writes.
    """

    reconstructor: Reconstructor
    statistics: Statistics
    history: pd.DataFrame | None = None
    decoders: tuple[TrainedDecoder, ...] = ()

    @torch.inference_mode()
    def reconstruct(self, post: ArrayLike) -> NDArray[np.float32]:
        """What it makes of post (n, tokens, d2) or (n, d2), as of the model: pre (n, patches, d), float32, in the unit
        of the embeddings. Where images differ in layout, see `reconstruct_each`."""
        check_layout(self.reconstructor.module, False, self.reconstructor.place)
        post = torch.as_tensor(np.asarray(post)) if not torch.is_tensor(post) else post
        post = (post[:, None] if post.ndim == 2 else post).to(self.statistics.pre_mean.device)
        found = []
        for some in post.split(AT_ONCE):
            standard = self.reconstructor.module(self.statistics.standardise_post(some))
            found.append((standard * self.statistics.pre_std + self.statistics.pre_mean).cpu().numpy())
        return np.concatenate(found)

    @torch.inference_mode()
    def reconstruct_each(self, embeddings: Embeddings) -> list[NDArray[np.float32]]:
        """The same of embeddings that say where each image's tokens lie, as where images differ in layout: (patches, d)
        for each image, NaN for patches that no token stands for."""
        embeddings = as_embeddings(embeddings)
        pairs = pairs_of(embeddings, self.statistics, self.statistics.pre_mean.device)
        check_layout(self.reconstructor.module, pairs.ragged, self.reconstructor.place)
        if not pairs.ragged:
            return list(self.reconstruct(embeddings["post"].values))
        found = []
        for first in range(0, len(pairs), AT_ONCE):
            images = range(first, min(first + AT_ONCE, len(pairs)))
            predicted = self.reconstructor.module(pairs.read(images)[0])
            rows = predicted.rows * self.statistics.pre_std + self.statistics.pre_mean
            for image, some in zip(images, rows.split(predicted.counts.tolist()), strict=True):
                shape = pairs.images.shape(image)
                values = np.full((shape.patches, some.shape[1]), np.nan, dtype=np.float32)
                values[places(shape).targets] = some.cpu().numpy()
                found.append(values)
        return found

    def save(self, folder: str | Path) -> None:
        """Write it to a folder, as the workflow does, for `open_reconstructor`."""
        if not self.decoders:
            raise LossmapError("This reconstructor was read from a folder. Copy the folder.")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.statistics.save(folder / "statistics.safetensors")
        for decoder in self.decoders:
            one, architecture = decoder.reconstructor, decoder.architecture
            ridge = folder / f"ridge-{one.share}.safetensors"
            if isinstance(one.module, BeyondRidge) and not one.module.alone:
                architecture = {**architecture, "ridge": {"file": ridge.name, "sha256": file_digest(ridge)}}
            path = folder / f"{one.name}-{one.share}.safetensors"
            save_reconstructor(one.module, architecture, self.statistics.digest, path)

    def __repr__(self) -> str:
        one = self.reconstructor
        rest = "" if one.converged else ", NOT CONVERGED"
        return f"{one.name}: held-out error {one.held_out_error:.4g}, {one.parameters:,} parameters{rest}"


def train_reconstructor(
    embeddings: Embeddings,
    network: str | Mapping[str, Any] = "mlp-large",
    *,
    held_out: float = 0.2,
    seed: int = 0,
    training: Mapping[str, Any] | None = None,
    device: str | None = None,
) -> Trained:
    """Train a reconstructor of what enters a connector from what leaves it.

    Parameters: embeddings, a Dataset of `embed` or `open_embeddings`, in memory or not, or a pair of arrays (pre,
        post), see `from_arrays`. network: "mean", "position_mean" or "ridge", in closed form; "mlp-small" or
        "mlp-large", one hidden layer of 64 or 512; or what `build_network` takes, such as {"kind": "transformer",
        "width": 256, "layers": 4, "heads": 8}. A network begins as ridge. held_out: part of the images that says when
        to stop. training: see `TrainingSettings`, such as {"epochs": 50}. device: by default a GPU where there is one.
    Returns: Trained: reconstruct(post), save(folder), history, and what `patch_losses` takes.
    Raises: LossmapError if the network or a setting is not known, or there are too few images.
    """
    if not isinstance(network, Mapping) and network not in (*LINEAR, *NETWORKS):
        known = ", ".join((*LINEAR, *NETWORKS))
        raise LossmapError(f"network is {network!r}. Choose one of {known}, or give a dict as of build_network.")
    name = network if isinstance(network, str) else "network"
    given, device = as_embeddings(embeddings), usual_device(device)
    connectors = {"own": {"kind": "own"}}
    (statistics,) = measure_statistics(given, connectors, seed, embeddings_digest(given), device).values()
    pairs = pairs_of(given, statistics, device)
    networks = {} if name in LINEAR else {name: NETWORKS[network] if isinstance(network, str) else network}
    climbed = climb(pairs, networks, [100], held_out, seed, TrainingSettings.of(training))
    decoders = {decoder.reconstructor.name: decoder for decoder in climbed}
    decoder = decoders[name]
    history = None if decoder.history is None else pd.DataFrame(decoder.history)
    kept = (decoder,) if name in LINEAR else (decoders["ridge"], decoder)
    return Trained(decoder.reconstructor, statistics.to(device), history, kept)


def open_reconstructor(folder: str | Path, name: str, share: int = 100, device: str | None = None) -> Trained:
    """A reconstructor that `Trained.save` or a study wrote.

    Parameters: folder, of a study results/<study>/reconstructors/<model>/own; name, of the decoder, such as "ridge" or
        "mlp-large"; share, percent of the training images that it was trained on.
    Raises: LossmapError if a file is missing or damaged.
    """
    folder, device = Path(folder), usual_device(device)
    statistics = Statistics.load(folder / "statistics.safetensors")
    (reconstructor,) = load_decoders(folder, [name], [share], statistics, device)
    return Trained(reconstructor, statistics.to(device))


def patch_losses(
    reconstructor: Trained,
    embeddings: Embeddings,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> "xr.Dataset":
    """What a reconstructor misses of each patch of images that trained nothing.

    Parameters: reconstructor, of `train_reconstructor` or `open_reconstructor`; embeddings, of the same model, see
        there. resamples, confidence and seed: of the bootstrap interval over images.
    Returns: a Dataset of squared_error (mean over standardised features; 1 is what predicting the mean scores, on
        average), norm_difference (L2 norm of the patch less that of its reconstruction), cosine_error (in [0, 2]) and
        pre_norm, each (image, row, col), patches where they lie in the model's input; and patch_box (image, row, col,
        edge), where they lie on the original image in pixels, where that is known. Of images that differ in layout,
        (patch,), the rows of pre of one image after another, NaN where no token stands for a patch, with patch_offset
        and what else embeddings say of layouts. Attributes: fvu, the fraction of
        variance unexplained, with fvu_low and fvu_high; reconstructor, its name.
    Raises: LossmapError if the embeddings are another model's, or a reconstruction is not finite.
    """
    embeddings = as_embeddings(embeddings)
    device = reconstructor.statistics.pre_mean.device
    pairs = pairs_of(embeddings, reconstructor.statistics, device)
    batches = list(measure_losses(pairs, [reconstructor.reconstructor], AT_ONCE))
    means = [image_means(batch, pairs.pre_shape[1]) for batch in batches]
    errors, variance = (np.concatenate([one[name] for one in means], axis=-1) for name in ("squared_error", "variance"))
    fvu, low, high = unexplained(errors[0], variance, resamples, confidence, seed)
    about = {"reconstructor": reconstructor.reconstructor.name, "n": len(variance)}
    about |= {"fvu": float(fvu), "fvu_low": float(low), "fvu_high": float(high)}
    return losses_in_memory(batches, embeddings, about)


def usual_device(device: str | None = None) -> str:
    """The device that is asked for, or a GPU where there is one."""
    return device or ("cuda" if torch.cuda.is_available() else "cpu")
