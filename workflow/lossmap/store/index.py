"""The index of an embedding store, and what opens it."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import xarray as xr
from xarray.core import indexing

from lossmap.store.format import FORMAT, RAGGED_FORMAT, StoreError, read_json, remedy, with_key, write_json
from lossmap.store.parts import Part
from lossmap.store.rows import Offsets, Recompute, Recomputed, Rows, recomputed_by_image


def write_index(parts: list[Path], index: Path) -> None:
    """Gather a store's parts, in order, into its index.

    Raises StoreError if a part was never finished, an image occurs twice, or parts were made in different ways (their
    formats, keys, shapes or preprocessing differ). Their provenance may differ.
    """
    entries, reference = [], None
    holder: dict[str, Path] = {}
    for path in parts:
        part = Part(path, index)
        own_ids = part.image_ids.tolist()
        if reference is None:
            reference, reference_path, form = part.description, path, part.format
        elif part.format != form:
            raise StoreError(
                f"{path} is of format {part.format}, {reference_path} of {form}: of one of them, all images have the "
                "same layout, of the other they differ.",
                "Delete the older of the two and run again.",
            )
        elif part.description != reference:
            changed = ", ".join(_differing(reference, part.description))
            raise StoreError(
                f"{path} and {reference_path} were not made in the same way: {changed} differ.",
                "Delete the older of the two and run again.",
            )
        place = path.relative_to(index.parent).as_posix()
        entries.append({"path": place, "digest": part.digest, "first_image": own_ids[0], "last_image": own_ids[-1]})
        for image in own_ids:
            if image in holder:
                raise StoreError(f"Image {image} is in {holder[image]} and in {path}.", remedy(holder[image], path))
            holder[image] = path
    if reference is None:
        raise StoreError(f"{index}: a store needs at least one part.")
    ids = list(holder)
    shared = {"format": form, "images": len(ids), "image_ids_sha256": _ids_digest(ids)}
    partial = index.with_name(f".{index.name}.partial")
    write_json(partial, {**shared, **reference, "parts": entries})
    os.replace(partial, index)


def read_index(index: Path) -> dict:
    """The content of an index. Raises StoreError if it is none, or of another format."""
    content, _ = read_json(index)
    found = content.get("format")
    known = found in (FORMAT, RAGGED_FORMAT)
    if not known and str(found).startswith(FORMAT.split("/")[0] + "/"):
        raise StoreError(
            f"{index}: these embeddings are of format {found}; this version of Lossmap reads {RAGGED_FORMAT} and "
            f"{FORMAT}.",
            f"Extract again: delete {index} and the folder {index.with_suffix('')}, and run again.",
        )
    if not known:
        raise StoreError(f"{index}: this is not an index of embeddings ({FORMAT}).", "Give <dataset>/<model>.json.")
    return with_key(content)


def open_store(index: str | Path, recompute: Callable[..., np.ndarray] | None = None) -> xr.Dataset:
    """Open an embedding store lazily: nothing is read before values are asked for.

    recompute: for a store without post (`attrs["post"]["stored"]` is false), the model's connector: it gets rows of pre
    as stored, (n, patches, features), and returns post, (n, tokens, features_out). Then post is computed from the pre
    of the images that are asked for, and rounded to the stored precision. Without it, post has a shape and no values.
    Of a ragged store it gets pre of images of one shape, and that `layouts.Shape`.

    Returns: a Dataset with pre (image, patch, feature) and post (image, token, feature_out) in the stored precision,
    pre_mean (image, feature) and post_mean (image, feature_out) in float32, box (image, edge): left, top, right, bottom
    of the model's input in pixels of the original image, size (image, side): width and height of the original, after
    EXIF orientation; coordinate image_id. Attributes: pre_grid and post_grid (rows, columns; null where tokens have no
    place), post (shape, dtype, stored), preprocessing, key: all that
    the values depend on (see `lossmap.study.products`). encoding["source"]: the index. Patches are in raster order.
    Where images differ in layout, the Dataset is ragged: pre (patch, feature), post (token, feature_out), and instead
    of box the arrays of `images.LAYOUT_DIMENSIONS`; `images.Images` finds its images.

    Raises: StoreError if the index is damaged, or a part is missing, incomplete or not the one that was indexed; while
    reading, if a file is not the one that was written (the message names the file and its images), or if post is not
    stored and recompute is missing or returns something else than finite post.
    """
    index = Path(index)
    content = read_index(index)
    try:
        parts, first = [], 0
        for entry in content["parts"]:
            part = Part(index.parent / entry["path"], index, entry["digest"], first)
            part.check_complete()
            if [entry["first_image"], entry["last_image"]] != part.image_ids[[0, -1]].tolist():
                raise StoreError(f"{index}: first_image or last_image of {part.path} was edited.", remedy(index))
            parts.append(part)
            first = part.stop
        ids = np.concatenate([part.image_ids for part in parts])
        attributes = {key: value for key, value in content.items() if key != "parts"}
        shared = {"images": first, "image_ids_sha256": _ids_digest(ids.tolist()), **parts[0].description}
        forms = {part.format for part in parts}
        shared["format"] = forms.pop() if len(forms) == 1 else None
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise StoreError(f"{index}: this is no whole index of embeddings ({fault!r}).", remedy(index)) from fault
    if attributes != shared:
        changed = ", ".join(sorted(key for key in {*attributes, *shared} if attributes.get(key) != shared.get(key)))
        raise StoreError(f"{index}: {changed} differ from what the parts say: it was edited.", remedy(index))
    del attributes["arrays"], attributes["format"]
    store = _dataset(parts, recompute, index).assign_coords(image_id=("image", ids)).assign_attrs(attributes)
    store.encoding["source"] = str(index)
    return store


def _dataset(parts: list[Part], recompute: Callable[..., np.ndarray] | None, index: Path) -> xr.Dataset:
    """The arrays of all parts, lazily."""
    dimensions, connector = parts[0].dimensions, Recompute(parts, recompute, index)
    stored = parts[0].description["post"]["stored"]

    def lazily(name: str, array: Rows) -> tuple:
        return dimensions[name], indexing.LazilyIndexedArray(array)

    arrays: dict[str, Rows] = {}
    for name, axes in dimensions.items():
        if name != "post" or stored:
            arrays[name] = Offsets(parts, name) if axes == ("bound",) else Rows(parts, name)
        elif not parts[0].ragged:
            arrays[name] = Recomputed(parts, connector)
    store = xr.Dataset({name: lazily(name, array) for name, array in arrays.items()})
    if "post" in store:
        return store
    post = lazily("post", recomputed_by_image(store, parts, connector))
    return xr.Dataset({name: post if name == "post" else store.variables[name] for name in dimensions})


def iterate(dataset: xr.Dataset, name: str, rows: int = 1024) -> Iterator[np.ndarray]:
    """Values of one array in blocks of at most `rows` of its first axis, in order: images, or of a ragged Dataset's pre
    and post patches and tokens."""
    for start in range(0, len(dataset[name]), rows):
        yield dataset[name][start : start + rows].values


def _differing(one: dict, other: dict) -> list[str]:
    """Names of what differs between two descriptions; of keys, what differs in them."""
    names = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
    if "key" in names:
        place = names.index("key")
        names[place : place + 1] = [f"key: {name}" for name in _differing(one.get("key", {}), other.get("key", {}))]
    return names


def _ids_digest(image_ids: list[str]) -> str:
    return hashlib.sha256(json.dumps(image_ids).encode()).hexdigest()
