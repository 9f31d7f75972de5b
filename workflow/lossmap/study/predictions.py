"""What models say, on disk: made in chunks, so that a run that was killed goes on where it stopped."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import xarray as xr
from tqdm import tqdm

from lossmap.errors import LossmapError
from lossmap.store.images import Images
from lossmap.study.products import product_key
from lossmap.study.provenance import provenance
from lossmap.study.specs import Generate
from lossmap.vlm.families import FAMILIES
from lossmap.vlm.generation import LanguageSide, load_language_side
from lossmap.vlm.receives import received
from lossmap.vlm.stored import open_embeddings
from lossmap.vlm.view_limits import SQUARE

Size = tuple[int, int] | None
Ask = Callable[[list[dict], torch.Tensor, Size], list[dict]]
CHUNK = 512  # prompts; what a killed run loses at most
_TEXT = pa.string()
_ASKED = [("question_id", _TEXT), ("image_id", _TEXT), ("prompt", _TEXT)]
_SAID = [("text", _TEXT), ("token_ids", pa.list_(pa.int64())), ("revision", _TEXT)]
SCHEMAS = {
    "captions": pa.schema([*_ASKED[1:], *_SAID]),
    "answers": pa.schema([*_ASKED, *_SAID]),
    "choices": pa.schema(
        [*_ASKED, ("log_probabilities", pa.list_(pa.float64())), ("choice", pa.int64()), ("revision", _TEXT)]
    ),
}


@dataclass(frozen=True)
class Asked:
    """A model that is asked about the images of a store. key: all that its words depend on, as JSON; provenance: what
    readers are told (see `lossmap.study.provenance`)."""

    store: xr.Dataset
    language: LanguageSide
    key: dict
    provenance: dict


def open_asked(embeddings: Path, spec: Generate, step: str, product: str, threads: int) -> Asked:
    """Open a store and load the language side of the model that made it, on the GPU where there is one.

    Parameters: embeddings, the store's index; spec, of the model and how it speaks; step, which
        asks; product, a name in `lossmap.study.products`; threads, of torch.
    Raises: LossmapError if the store was made by another checkpoint, revision, image_size, view or receives; as
        `load_language_side`.
    """
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    store = open_embeddings(embeddings, device)
    made = store.attrs["key"]
    made = {**made, "receives": received(made, FAMILIES.get(str(made.get("model_type"))))}
    other = [
        f"{key}: {made.get(key, SQUARE)!r} there, {value!r} here"
        for key, value in spec.opening.items()
        if made.get(key, SQUARE) != value
    ]
    if other:
        raise LossmapError.listing(
            f"{embeddings}: these embeddings were made by another model than the one that is asked:",
            other,
            "Extract them again, or name the model that made them.",
        )
    language = load_language_side(**spec.opening, dtype=spec.compute_dtype, device=device)
    # The index holds the digests of all parts.
    digest = hashlib.sha256(Path(embeddings).read_bytes()).hexdigest()
    told = {"spec": spec.plain(), "revision": language.revision, "store": digest}
    key = product_key(product, language.model_type) | told
    return Asked(store, language, key, provenance(step, device=device))


def predict(
    kind: str,
    asked: list[dict],
    model: Asked,
    ask: Ask,
    predictions: Path,
    batch_size: int,
) -> None:
    """Ask about every entry and write the table `kind` of SCHEMAS.

    Chunks that are done lie in `<predictions>.partial` until all are; a run with another key or other entries
    doesn't take them. The table's metadata, under "lossmap", hold key and provenance as JSON.

    Parameters: kind, a key of SCHEMAS; asked, in order, image_id, prompt and what else `ask` needs; model, that
        says it; ask, batch of `asked` whose images are alike, their post (batch, tokens, features) and width and height
        of one of them, where they are seen in views -> the missing columns; predictions, the file to write;
        batch_size, prompts at once.
    Raises: LossmapError if an entry's image is not in the store.
    """
    row_of = {image: row for row, image in enumerate(model.store["image_id"].values.tolist())}
    lost = [
        f"{entry.get('question_id', 'caption')}: image {entry['image_id']}"
        for entry in asked
        if entry["image_id"] not in row_of
    ]
    if lost:
        raise LossmapError.listing(
            f"{predictions}: these images have no embeddings:", lost, "Read the dataset and extract embeddings again."
        )
    images = Images(model.store)
    schema, folder = SCHEMAS[kind], _chunks_of(predictions, model.key, asked)
    chunks = []
    with tqdm(total=len(asked), unit="prompt", desc=kind) as progress:
        for start in range(0, len(asked), CHUNK):
            chunk, path = asked[start : start + CHUNK], folder / f"{start:08d}.parquet"
            if path.exists():
                progress.update(len(chunk))
            else:
                said: list[dict] = [{}] * len(chunk)
                chosen = np.array([row_of[entry["image_id"]] for entry in chunk])
                for places in (
                    batch for alike in images.alike(chosen) for batch in _pieces(alike.positions, batch_size)
                ):
                    rows = chosen[places]
                    post = torch.from_numpy(images.read("post", rows))
                    size = _size(model.store, rows[0]) if images.ragged else None
                    for place, answer in zip(places, ask([chunk[i] for i in places], post, size), strict=True):
                        said[place] = answer
                    progress.update(len(places))
                found = [{**entry, **answer} for entry, answer in zip(chunk, said, strict=True)]
                _write(
                    pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in found], schema), path
                )
            chunks.append(path)
    about = json.dumps({"key": model.key, "provenance": model.provenance}, sort_keys=True)
    table = pa.concat_tables(pq.read_table(path, schema=schema) for path in chunks)
    _write(table.replace_schema_metadata({"lossmap": about}), predictions)
    shutil.rmtree(folder.parent)


def say(language: LanguageSide, max_new_tokens: int) -> Ask:
    """The `ask` of `predict` that has the model say something, greedily: text, token_ids, revision."""

    def generate(batch: list[dict], post: torch.Tensor, size: Size) -> list[dict]:
        made = language.generate([entry["prompt"] for entry in batch], post, max_new_tokens, size)
        return [
            {"text": text, "token_ids": tokens, "revision": language.revision}
            for text, tokens in zip(language.decode(made), made, strict=True)
        ]

    return generate


def _pieces(positions: np.ndarray, size: int) -> list[np.ndarray]:
    return [positions[i : i + size] for i in range(0, len(positions), size)]


def _size(store: xr.Dataset, image: int) -> tuple[int, int]:
    width, height = store["size"][image].values.tolist()
    return width, height


def _chunks_of(predictions: Path, key: dict, asked: list[dict]) -> Path:
    """The folder of finished chunks of these very predictions; those of others are deleted."""
    name = hashlib.sha256(json.dumps([key, CHUNK, asked], sort_keys=True).encode()).hexdigest()[:32]
    partial = predictions.with_name(f"{predictions.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    for folder in partial.iterdir():
        if folder.name != name:
            shutil.rmtree(folder)
    (partial / name).mkdir(exist_ok=True)
    return partial / name


def _write(table: pa.Table, path: Path) -> None:
    """Under another name first: what has its name is whole."""
    partial = path.with_name(f".{path.name}.writing")
    pq.write_table(table, partial)
    os.replace(partial, path)
