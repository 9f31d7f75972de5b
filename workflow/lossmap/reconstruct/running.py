"""The whole ladder in one call: reconstructors of a connector and of controls of known loss, and the verdict."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lossmap.errors import LossmapError
from lossmap.measures.equality import compared_items
from lossmap.measures.seeds import seed_for
from lossmap.reconstruct.climbing import climb
from lossmap.reconstruct.evaluation import Reconstructor
from lossmap.reconstruct.ladder import Ladder
from lossmap.reconstruct.ladder_rows import measure_ladder
from lossmap.reconstruct.learning import TrainingSettings
from lossmap.reconstruct.measuring import measure_statistics
from lossmap.reconstruct.pairs import pairs_of
from lossmap.reconstruct.specs import CONTROLS, NETWORKS
from lossmap.reconstruct.statistics import Statistics, embeddings_digest
from lossmap.reconstruct.trained import AT_ONCE, usual_device
from lossmap.store import as_embeddings
from lossmap.store.memory import Embeddings
from lossmap.store.ragged import select_images

if TYPE_CHECKING:
    import xarray as xr

TESTED = 0.2  # of the images, where no others are given to test on


def run_ladder(
    train: Embeddings,
    test: Embeddings | None = None,
    *,
    networks: Mapping[str, Mapping[str, Any]] | None = None,
    controls: Mapping[str, Mapping[str, Any]] | None = None,
    shares: Sequence[int] = (25, 100),
    held_out: float = 0.2,
    seed: int = 0,
    training: Mapping[str, Any] | None = None,
    resamples: int = 2000,
    confidence: float = 0.95,
    model: str = "the model",
    device: str | None = None,
) -> Ladder:
    """Train reconstructors of growing size on a connector and on controls, and see what each leaves unexplained.

    What the best leaves of the connector bounds its loss from above; lossless controls tell how much of that is the
    reconstructors' own weakness. `ladder.verdict()` says it: print it. By default as a study does with its defaults:
    two networks, three controls and two shares of the images, which takes minutes for a thousand images on a CPU.

    Parameters: train, a Dataset of embeddings, or a pair of arrays (pre, post), see `train_reconstructor`. test: the
        same of other images; by default a fifth of train, drawn by the seed, is kept for it. networks: name -> what
        `build_network` takes, see `NETWORKS`. controls: name -> {"kind", settings, networks: names or "all"}, see
        `CONTROLS` and `make_connector`; networks, those that are trained on it beside the linear decoders. shares:
        percent of the training images, nested. held_out: part of them that says when to stop. training: see
        `TrainingSettings`. resamples and confidence: of bootstrap intervals over the test images. model: what sentences
        call it.
    Returns: Ladder: table, a row per connector, decoder and share with its FVU and interval; verdict(tolerance).
    Raises: LossmapError if images are in train and in test (equal means of pre), a control doesn't fit the model, or
        there are too few images.
    """
    networks = NETWORKS if networks is None else networks
    controls = CONTROLS if controls is None else controls
    settings, device = TrainingSettings.of(training), usual_device(device)
    train, test = _apart(as_embeddings(train), None if test is None else as_embeddings(test), seed)
    plain = {name: {key: v for key, v in one.items() if key != "networks"} for name, one in controls.items()}
    connectors = {"own": {"kind": "own"}, **plain}
    statistics = measure_statistics(train, connectors, seed, embeddings_digest(train), device)

    def climbed() -> Iterator[tuple[str, Statistics, list[Reconstructor]]]:
        for name, measured in statistics.items():
            chosen = "all" if name == "own" else controls[name].get("networks", [])
            mine = {key: value for key, value in networks.items() if chosen == "all" or key in chosen}
            pairs = pairs_of(train, measured, device)
            decoders = [one.reconstructor for one in climb(pairs, mine, list(shares), held_out, seed, settings)]
            order = list(dict.fromkeys(one.name for one in decoders))
            yield name, measured, sorted(decoders, key=lambda one: order.index(one.name))

    rows = measure_ladder(test, climbed(), "the test images", model, AT_ONCE, device)
    return Ladder(rows, "the ladder", resamples, confidence, seed_for(seed, "run_ladder"))


def _apart(train: "xr.Dataset", test: "xr.Dataset | None", seed: int) -> "tuple[xr.Dataset, xr.Dataset]":
    """Images to train on and others to test on. Of equal ones, only the first counts where they are cut from one."""
    if test is None:
        items = compared_items(train["pre_mean"].values).items
        order = np.random.default_rng(seed_for(seed, "test images")).permutation(items)
        count = round(TESTED * len(order))
        if not count:
            raise LossmapError(f"{len(items)} different images are too few to train on some and test on others.")
        return select_images(train, np.sort(order[count:])), select_images(train, np.sort(order[:count]))
    seen = {row.tobytes() for row in train["pre_mean"].values.astype(np.float32)}
    shared = [i for i, row in enumerate(test["pre_mean"].values.astype(np.float32)) if row.tobytes() in seen]
    if shared:
        first = test["image_id"].values[shared[0]]
        raise LossmapError(
            f"{len(shared)} of {test.sizes['image']} test images also train (equal means of pre), the first is {first}."
            " A loss on them says nothing of what can be recovered from others: take them out of one side."
        )
    return train, test
