"""What was found of a model's connector, in words: beside the registry's entry, or as an entry to try."""

import numpy as np
import torch

from lossmap.vlm.connector_probe import FoundConnector
from lossmap.vlm.families import FAMILIES, Family

ORDERS = {"raster": "in raster order", "merge blocks": "in blocks of 2 x 2", "another order": "in another order"}
SEVERAL = "of several views: their order and places of tokens were not tried"


def report(found: FoundConnector) -> list[str]:
    """Lines to print."""
    model_type = found.config.model_type
    tokens = (
        f"one for each {found.merge} x {found.merge} rows"
        if found.merge
        else "whose places were not found (queries, or fields that overlap)"
    )
    lines = [
        f"model_type {model_type}: the connector looks like {found.module}",
        f"  before it: {found.rows} rows of {found.features} features, {ORDERS.get(found.order or '', SEVERAL)}",
        f"  after it: {found.tokens} tokens of {found.features_out} features" + (f", {tokens}" if found.order else ""),
        f"  get_image_features takes {', '.join(found.inputs)}",
    ]
    known = FAMILIES.get(model_type)
    if known is None:
        return [*lines, *entry(found)]
    if found.module in known.after:
        return [*lines, f"As the registry says, which goes back to {known.connector} before it."]
    if found.module != known.connector:
        return [*lines, f"The registry taps {known.connector} instead: see docs/families.md, where it says why."]
    wrong = differences(found, known)
    if wrong:
        return [*lines, "The registry says otherwise:", *(f"  {line}" for line in wrong)]
    return [*lines, "As the registry says." if found.order else "As the registry says, as far as it was tried."]


def differences(found: FoundConnector, known: Family) -> list[str]:
    """A line for each thing in which a registry entry that taps the same module differs from what was found."""
    wrong = []
    if missing := [name for name in known.inputs if name not in found.inputs]:
        wrong.append(f"get_image_features was given no {', '.join(missing)}")
    if found.order is None:
        return wrong
    # Patches may enter side by side: then a row holds a square of them.
    side = round((found.features / known.pre_dim(found.config)) ** 0.5)
    merge = known.merge(found.config) if known.merge else None
    if found.merge and merge != found.merge * side:
        wrong.append(f"merge is {merge}, not {found.merge * side}")
    if known.latents and known.latents(found.config) != found.tokens:
        wrong.append(f"latents are {known.latents(found.config)}, not {found.tokens}")
    if _farthest(found, known, side) > 1:  # beside its place a row is moved where fields overlap
        wrong.append("to_raster takes rows in another order")
    return wrong


def _farthest(found: FoundConnector, known: Family, side: int) -> int:
    """How many rows or columns lie, at most, between a place that was tried and where the registry has the row that it
    moved: by its `to_raster` of rows that hold their number."""
    numbers = torch.arange(found.rows, dtype=torch.float64).reshape(-1, 1).expand(-1, found.features)
    seen = (numbers.T if len(found.shape) == 4 else numbers).reshape(found.shape)  # of four axes, a map
    patches = found.grid * side
    raster = known.to_raster(seen, found.config, (patches, patches)).reshape(patches, patches, -1)
    place_of = raster[::side, ::side, 0].flatten().argsort().numpy()[list(found.moved)]
    steps = np.subtract(np.divmod(place_of, found.grid), np.divmod(found.places, found.grid))
    return int(np.abs(steps).max())


def entry(found: FoundConnector) -> list[str]:
    """A registry entry to begin with, and what it leaves open."""
    unknown = "Lossmap doesn't know this family."
    if found.order is None:
        return [f"{unknown} Of a model that is seen in several views no entry can be told: begin with llava_next's."]
    merge = f"lambda c: {found.merge}" if found.merge else "None"
    raster = ", orders.merge_blocks, orders.squares_listed" if found.order == "merge blocks" else ""
    queries = "" if found.merge else f", latents=lambda c: {found.tokens}"
    view = "whole" if getattr(found.config.vision_config, "image_size", None) else "any"
    lines = [
        f"{unknown} An entry of FAMILIES to try:",
        f'    "{found.config.model_type}": Family(',
        f'        "{found.module}", {found.inputs}, {merge}, "{view}", {found.keys}{raster}{queries}',
        "    ),",
    ]
    if found.order == "another order":
        lines.append("  to_raster is missing: the rows are neither in raster order nor in blocks of 2 x 2.")
    return [
        *lines,
        f'  The view, "{view}", is a guess by the configuration: see the docstring of Family.',
        "  Write merge by the configuration's own name, try it, and add its tests: docs/extending.md.",
    ]
