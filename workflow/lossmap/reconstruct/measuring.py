"""Measuring the statistics of a training set: one pass over it, and one more where there are controls."""

import sys

import numpy as np
import torch
from tqdm import tqdm

from lossmap.errors import LossmapError
from lossmap.measures.moments import RunningCovariance, RunningMoments
from lossmap.reconstruct.controls import OfBlocks, PrincipalComponents
from lossmap.reconstruct.pairs import block_size, connector_of, place_of, read_rows
from lossmap.reconstruct.places import places
from lossmap.reconstruct.ragged import Ragged
from lossmap.reconstruct.ragged_controls import RaggedConnector
from lossmap.reconstruct.specs import canonical
from lossmap.reconstruct.statistics import Statistics
from lossmap.store.images import Images, is_ragged


def measure_statistics(
    store, connectors: dict[str, dict], seed: int, digest: str, device="cpu"
) -> dict[str, Statistics]:
    """Mean and standard deviation of each feature of pre and of post, through each connector.

    One pass over the embeddings for pre and post; where there are controls made from pre, one more for all of them, for
    they take standardised pre. Constant features are counted on standard error.

    Parameters: store, a Dataset of embeddings; connectors, name -> {"kind", settings}, see `make_connector`; seed, of
        their random parts; digest, of the store, which the statistics keep.
    Raises: LossmapError if a connector can't be made, or if no feature of a side varies.
    """
    made = {name: connector_of(one, store, seed).to(device) for name, one in connectors.items()}
    moments = {name: RunningMoments(store[name].shape[-1]) for name in ("pre", "post")}
    for block in _blocks(store, device, "statistics", *moments):
        for name, values in block.items():
            moments[name].update(_rows(values, name))
    pre, post = ((measured.mean.float(), measured.std.float()) for measured in moments.values())
    for side, (_, std) in (("pre", pre), ("post", post)):
        _report_constant(place_of(store), side, std)

    standard = Statistics(*pre, *post, store_digest=digest, connector="", seed=seed).to(device)
    of_blocks = {name: connector for name, connector in made.items() if isinstance(_inner(connector), OfBlocks)}
    measured, found = _measure_controls(of_blocks, store, standard, device), {}
    for name, spec in connectors.items():
        # A control that takes post of another image takes each once: its statistics are those of post.
        mean, std, extra = measured[name] if name in of_blocks else (*post, {})
        found[name] = Statistics(*pre, mean, std, digest, canonical(spec), seed, extra)
    return found


def _measure_controls(controls, store, standard, device):
    """Mean and standard deviation of each control's post, and what it has to keep."""
    if not controls:
        return {}
    features = store["pre"].shape[-1]
    fitted, mapped = {}, {}
    for name, control in controls.items():
        if isinstance(_inner(control), PrincipalComponents):
            fitted[name] = RunningCovariance(_inner(control).blocks.shape[1] * features, device)
        else:
            mapped[name] = RunningMoments(control.post_shape[1])
    for block in _blocks(store, device, "statistics of controls", "pre"):
        pre = block["pre"]
        if isinstance(pre, Ragged):
            pre = pre.with_rows(standard.standardise_pre(pre.rows))
        else:
            pre = standard.standardise_pre(pre)
        for name, sums in fitted.items():
            sums.update(controls[name].grouped(pre).flatten(0, -2))
        for name, sums in mapped.items():
            control = controls[name]
            sums.update(control.map(control.grouped(pre)).flatten(0, -2))
    components = {name: _inner(controls[name]).fit(sums.mean, sums.covariance) for name, sums in fitted.items()}
    return components | {name: (sums.mean.float(), sums.std.float(), {}) for name, sums in mapped.items()}


def _inner(connector):
    """The control as it is for one block."""
    return connector.inner if isinstance(connector, RaggedConnector) else connector


def _rows(values, name):
    """All tokens of post, or the patches of pre that count: of ragged embeddings, those that a token stands for."""
    if not isinstance(values, Ragged):
        return values.flatten(0, 1)
    return values.rows if name == "post" else values.rows[values.index(lambda shape: places(shape).targets)]


def _blocks(store, device, what, *names):
    """Embeddings as stored, some images at a time: {name: (B, tokens, features)}, or a `Ragged` of all rows."""
    images = Images(store) if is_ragged(store) else None
    n = store.sizes["image"]
    # Of ragged embeddings, the numbers of an image on average.
    shapes = [(-(-store[name].size // n),) if images else store[name].shape[1:] for name in names]
    size = block_size(*shapes)
    with tqdm(total=n, unit="image", desc=what) as progress:
        for start in range(0, n, size):
            if images is not None:
                some = np.arange(start, min(start + size, n))
                yield {name: read_rows(images, name, some, device) for name in names}
                progress.update(len(some))
                continue
            block = {name: torch.from_numpy(store[name][start : start + size].values).to(device) for name in names}
            yield block
            progress.update(len(block[names[0]]))


def _report_constant(place, side, std):
    constant = (std == 0).nonzero().flatten().tolist()
    if len(constant) == len(std):
        raise LossmapError(
            f"{place}: all {len(std)} features of {side} are the same in every token of every image. "
            "Check the checkpoint, and that the images differ."
        )
    if constant:
        print(
            f"{place}: {len(constant)} of {len(std)} features of {side} are constant; the first is feature "
            f"{constant[0]}. Standardised, they are 0.",
            file=sys.stderr,
        )
