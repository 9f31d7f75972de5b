"""Embeddings of the training set -> mean and standard deviation per feature, for each connector."""

import sys
from pathlib import Path

import torch
from tqdm import tqdm

from lossmap.errors import LossmapError
from lossmap.measures.moments import RunningCovariance, RunningMoments
from lossmap.reconstruct.controls import OfBlocks, PrincipalComponents
from lossmap.reconstruct.pairs import block_size, connector_of
from lossmap.reconstruct.specs import canonical
from lossmap.reconstruct.statistics import Statistics, store_digest
from lossmap.vlm.stored import open_embeddings


def run(*, embeddings: Path, reconstructors: Path, spec: dict, threads: int = 1) -> None:
    """Measure the statistics that everything downstream standardises with: <reconstructors>/<connector>/statistics.

    One pass over the store for pre and post as stored; where there are controls made from pre, one more for all of
    them, for they take standardised pre. spec: connectors (name: {kind, settings}), seed. Runs on the GPU where there
    is one.
    """
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    store = open_embeddings(embeddings, device)
    connectors = {name: connector_of(one, store, spec["seed"]).to(device) for name, one in spec["connectors"].items()}
    moments = {name: RunningMoments(store[name].shape[2]) for name in ("pre", "post")}
    for block in _blocks(store, device, "statistics", *moments):
        for name, values in block.items():
            moments[name].update(values.flatten(0, 1))
    pre, post = ((measured.mean.float(), measured.std.float()) for measured in moments.values())
    for side, (_, std) in (("pre", pre), ("post", post)):
        _report_constant(embeddings, side, std)

    fixed = {"store_digest": store_digest(embeddings), "seed": spec["seed"]}
    standard = Statistics(*pre, *post, connector="", **fixed).to(device)
    of_blocks = {name: connector for name, connector in connectors.items() if isinstance(connector, OfBlocks)}
    measured = _measure_controls(of_blocks, store, standard, device)
    for name in connectors:
        # A control that takes post of another image takes each once: its statistics are those of post.
        *of_post, extra = measured[name] if name in of_blocks else (*post, {})
        made = canonical(spec["connectors"][name])
        folder = reconstructors / name
        folder.mkdir(parents=True, exist_ok=True)
        Statistics(*pre, *of_post, connector=made, extra=extra, **fixed).save(folder / "statistics.safetensors")


def _measure_controls(controls, store, standard, device):
    """Mean and standard deviation of each control's post, and what it has to keep."""
    if not controls:
        return {}
    features = store["pre"].shape[2]
    fitted, mapped = {}, {}
    for name, control in controls.items():
        if isinstance(control, PrincipalComponents):
            fitted[name] = RunningCovariance(control.blocks.shape[1] * features, device)
        else:
            mapped[name] = RunningMoments(control.post_shape[1])
    for block in _blocks(store, device, "statistics of controls", "pre"):
        pre = standard.standardise_pre(block["pre"])
        for name, sums in fitted.items():
            sums.update(controls[name].grouped(pre).flatten(0, 1))
        for name, sums in mapped.items():
            control = controls[name]
            sums.update(control.map(control.grouped(pre)).flatten(0, 1))
    components = {name: controls[name].fit(sums.mean, sums.covariance) for name, sums in fitted.items()}
    return components | {name: (sums.mean.float(), sums.std.float(), {}) for name, sums in mapped.items()}


def _blocks(store, device, what, *names):
    """Embeddings as stored, some images at a time: {name: (B, tokens, features)}."""
    n, size = store.sizes["image"], block_size(*(store[name].shape[1:] for name in names))
    with tqdm(total=n, unit="image", desc=what) as progress:
        for start in range(0, n, size):
            block = {name: torch.from_numpy(store[name][start : start + size].values).to(device) for name in names}
            yield block
            progress.update(len(block[names[0]]))


def _report_constant(embeddings, side, std):
    constant = (std == 0).nonzero().flatten().tolist()
    if len(constant) == len(std):
        raise LossmapError(
            f"{embeddings}: all {len(std)} features of {side} are the same in every token of every image. "
            "Check the checkpoint, and that the images differ."
        )
    if constant:
        print(
            f"{embeddings}: {len(constant)} of {len(std)} features of {side} are constant; the first is feature "
            f"{constant[0]}. Standardised, they are 0.",
            file=sys.stderr,
        )
