"""A tiny one of every costly product, made by its own step from inputs that are plain arithmetic.

No product is made from another: embeddings, statistics and decoders that a step reads are written by hand, so that a
changed value is a changed value of that product alone. All is computed on the CPU, in float32, on one thread.
"""

from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from ragged_store import batches
from specs import checked
from tiny_models import NEEDS_SIDE, SIDE, save_tiny
from tiny_processors import save_speaking

from lossmap.data.formats import read
from lossmap.data.manifest import SCHEMAS, make_table
from lossmap.readers.choosing import Reader as Name
from lossmap.readers.material import Scale
from lossmap.readers.network import Reader
from lossmap.readers.saving import Readers, save_readers
from lossmap.reconstruct.linear import build_linear
from lossmap.reconstruct.networks import BeyondRidge, build_network
from lossmap.reconstruct.saving import file_digest, load_reconstructor, load_tensors, save_reconstructor
from lossmap.reconstruct.specs import canonical
from lossmap.reconstruct.statistics import Statistics, store_digest
from lossmap.store import PartWriter, open_store, write_index, write_part
from lossmap.store.layouts import Layout
from lossmap.store.patch_losses import open_patch_losses
from lossmap.study.steps import (
    answer_questions,
    caption_images,
    choose_options,
    extract,
    fit_linear,
    measure_ladder,
    measure_patch_loss,
    measure_statistics,
    probe_patches,
    read_answers,
    train_readers,
    train_reconstructor,
)
from lossmap.vlm.checkpoint_check import MUTE
from lossmap.vlm.families import FAMILIES
from lossmap.vlm.recompute import load_connector
from lossmap.vlm.stored import open_embeddings
from lossmap.vlm.words import load_words

SPEAKING = [family for family in FAMILIES if family not in MUTE]

GRID, FEATURES, TOKENS, WIDTH = (4, 4), 6, 4, 8  # of the toy embeddings
SHAPES = {"pre_shape": [16, FEATURES], "post_shape": [TOKENS, WIDTH]}
BLOCKS = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
CONTROLS = {
    "own": {"kind": "own"},
    "identity": {"kind": "identity"},
    "rotation": {"kind": "rotation"},
    "invertible_mlp": {"kind": "invertible_mlp"},
    "pca": {"kind": "pca", "rank": 3},
    "other_image": {"kind": "other_image"},
}
NETWORKS = {
    "mlp": {"kind": "mlp", "widths": [12], "dropout": 0.1},
    "transformer": {"kind": "transformer", "width": 8, "layers": 1, "heads": 2, "dropout": 0.1},
}
RESAMPLING = {"confidence": 0.95, "resamples": 50, "seed": 0}


def numbers(*shape: int, seed: int) -> np.ndarray:
    """Numbers between -1 and 1 without order, float64: the same on every machine and under every version of NumPy."""
    place = np.arange(np.prod(shape), dtype=np.float64) + 1
    return (2 * np.modf(np.abs(np.sin(place * 12.9898 + seed * 78.233)) * 43758.5453)[0] - 1).reshape(shape)


def tensor(*shape: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(numbers(*shape, seed=seed)).float()


@contextmanager
def reproducible():
    """On the CPU and on one thread, wherever it runs."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with patch.object(torch.cuda, "is_available", lambda: False):
        yield
    torch.set_num_threads(threads)


def embeddings(folder: Path, family: str) -> dict[str, np.ndarray]:
    """What `extract` stores of three pictures of different shapes, and post as its connector makes it again of pre."""
    save_tiny(family, folder / "model")
    (folder / "pictures").mkdir()
    for i, (width, height) in enumerate([(SIDE, SIDE), (90, 70), (50, 120)]):
        rows, columns = np.mgrid[:height, :width]
        waves = [np.sin(rows / (3 + i) + channel) + np.cos(columns / (5 + channel)) for channel in range(3)]
        pixels = np.stack(waves, axis=-1) * 60 + 127
        Image.fromarray(pixels.round().astype(np.uint8)).save(folder / f"pictures/{i}.png")
    manifest = read({"format": "image_folder", "images": str(folder / "pictures")})
    manifest.images.to_parquet(folder / "images.parquet")
    spec = model_of(folder, family) | {"batch_size": 2, "dtype": "float32", "compute_dtype": "float32"}
    for name, stored in (("whole", True), ("pre", False)):
        part = folder / f"{name}.zarr"
        extract.run(
            images=folder / "images.parquet",
            part=part,
            first=0,
            stop=3,
            spec=checked("extract", spec | {"store_post": stored}),
        )
        write_index([part], folder / f"{name}.json")
    store = open_store(folder / "whole.json")
    layouts = FAMILIES[family].placeless  # in place of boxes
    names = ("pre", "post", "pre_mean", "post_mean", *(("view_box",) if layouts else ("box",)), "size")
    return {name: store[name].values for name in names} | {
        "post_made_again": open_embeddings(folder / "pre.json")["post"].values
    }


def model_of(folder: Path, family: str) -> dict:
    side = SIDE if family in NEEDS_SIDE else None
    return {"checkpoint": str(folder / "model"), "revision": None, "image_size": side}


def store_of(folder: Path, pre: np.ndarray, post: np.ndarray, grid, post_grid, key: dict) -> Path:
    """A store of given values; returns its index."""
    ids = [f"image-{i}" for i in range(len(pre))]
    how = {"pre_grid": list(grid), "post_grid": post_grid and list(post_grid), "preprocessing": {}, "key": key}
    writer = PartWriter(folder / "toy/part.zarr", ids, pre.shape[1:], post.shape[1:], "float32", how)
    box, size = np.tile([0.0, 0, 8, 8], (len(ids), 1)), np.full((len(ids), 2), 8)
    writer.append(pre=pre, post=post, pre_mean=pre.mean(1), post_mean=post.mean(1), box=box, size=size)
    writer.close()
    write_index([folder / "toy/part.zarr"], folder / "toy.json")
    return folder / "toy.json"


def toy(folder: Path, n: int = 96) -> Path:
    """A store whose post is a bent map of blocks of pre that loses some of it."""
    smooth = numbers(n, 2, 2, 3, seed=1).repeat(2, axis=1).repeat(2, axis=2)
    latent = smooth + 0.6 * numbers(n, *GRID, 3, seed=2)
    pre = latent.reshape(n, 16, 3) @ numbers(3, FEATURES, seed=3) + 0.3 * numbers(n, 16, FEATURES, seed=4) + 2
    blocks = pre[:, np.array(BLOCKS)].reshape(n, TOKENS, 4 * FEATURES)
    post = np.tanh(blocks @ numbers(4 * FEATURES, WIDTH, seed=5) / 5) * 3 + 1
    return store_of(folder, pre, post, GRID, (2, 2), {"checkpoint": "toy"})


def written_statistics(folder: Path, index: Path, connector: str = "own") -> Statistics:
    """Statistics near those of the toy embeddings, not measured."""
    pre = 0.8 * tensor(FEATURES, seed=6) + 2, 1.2 + 0.3 * tensor(FEATURES, seed=7)
    post = tensor(WIDTH, seed=8) + 1, 2 + 0.5 * tensor(WIDTH, seed=9)
    digest, spec = store_digest(index), canonical(CONTROLS[connector])
    statistics = Statistics(*pre, *post, store_digest=digest, connector=spec, seed=0)
    (folder / connector).mkdir(parents=True)
    statistics.save(folder / connector / "statistics.safetensors")
    return statistics


def written_decoder(folder: Path, statistics: Statistics, name: str, settings: dict, ridge: Path | None = None):
    """A decoder with weights by arithmetic, as the study names it."""
    shapes = {**SHAPES, "blocks": BLOCKS}
    build = build_network if settings["kind"] in NETWORKS else build_linear
    module = build(settings, *shapes.values())
    for place, values in enumerate(module.state_dict().values()):
        values.copy_(0.3 * tensor(*values.shape, seed=20 + place))
    told = {"held_out_error": 0.5}
    if ridge is not None:
        told["ridge"] = {"file": ridge.name, "sha256": file_digest(ridge)}
        module = BeyondRidge(load_reconstructor(ridge)[0], module)
    path = folder / f"{name}.safetensors"
    save_reconstructor(module, {**settings, **shapes, **told}, statistics.digest, path)
    return path


def statistics(folder: Path) -> dict[str, np.ndarray]:
    index, found = toy(folder), {}
    measure_statistics.run(
        embeddings=index,
        reconstructors=folder / "toy",
        spec=checked("measure_statistics", {"connectors": CONTROLS, "seed": 0}),
    )
    for name in CONTROLS:
        one = Statistics.load(folder / "toy" / name / "statistics.safetensors")
        tensors = {key: getattr(one, key) for key in ("pre_mean", "pre_std", "post_mean", "post_std")} | one.extra
        found |= {f"{name}: {key}": values.numpy() for key, values in tensors.items()}
    return found


def linear(folder: Path) -> dict[str, np.ndarray]:
    index, found = toy(folder), {}
    connectors = {
        name: CONTROLS[name] for name in ("own", "other_image")
    }  # of lossless ones, errors are rounding alone
    for name in connectors:
        written_statistics(folder / "toy", index, name)
    spec = {"connectors": connectors, "shares": [50, 100], "held_out": 0.25, "seed": 0}
    fit_linear.run(embeddings=index, reconstructors=folder / "toy", spec=checked("fit_linear", spec))
    for path in sorted(folder.glob("toy/*/*-*.safetensors")):
        name = f"{path.parent.name}/{path.stem}"
        tensors, description = load_tensors(path)
        found |= {f"{name}: {key}": values.numpy() for key, values in tensors.items()}
        found[f"{name}: held_out_error"] = np.array([description["architecture"]["held_out_error"]])
    return found


def networks(folder: Path) -> dict[str, np.ndarray]:
    """What trained networks answer to given embeddings, and how their training went."""
    index, found = toy(folder), {}
    measured = written_statistics(folder / "toy", index)
    ridge = written_decoder(folder / "toy/own", measured, "ridge-100", {"kind": "ridge", "regulariser": 0.1})
    how = {"epochs": 4, "batch": 8, "weight_decay": 0.01, "clip": 1.0, "patience": 9, "whiten": True, "accumulate": 1}
    how |= {"buffer": 32, "memory": 10**9, "threads": 1, "processes": 1, "checkpoint_minutes": 10}
    for name, network in NETWORKS.items():
        rate = {"mlp": None, "transformer": 0.003}[name]
        spec = {"network": network, "share": 100, "shares": [100], "held_out": 0.25, "seed": 0}
        files = {"ridge": ridge, "statistics": folder / "toy/own/statistics.safetensors"}
        files |= {"reconstructor": ridge.with_name(f"{name}-100.safetensors"), "history": folder / f"{name}.csv"}
        training = {**how, "learning_rate": rate}
        train_reconstructor.run(
            embeddings=index, **files, spec=checked("train_reconstructor", {**spec, "training": training})
        )
        module, told = load_reconstructor(files["reconstructor"])
        with torch.inference_mode():
            found[f"{name}: answers"] = module(tensor(5, TOKENS, WIDTH, seed=10)).numpy()
        history = pd.read_csv(files["history"])
        found |= {f"{name}: {column}": history[column].dropna().to_numpy() for column in ("step", "held_out_loss")}
        found[f"{name}: learning_rate"] = np.array([told["learning_rate"]])
    return found


def decoders(folder: Path) -> tuple[Path, list[str]]:
    """A model's folder of decoders that were not trained."""
    index = toy(folder, 12)
    measured = written_statistics(folder / "toy", index)
    own = folder / "toy/own"
    written_decoder(own, measured, "mean-100", {"kind": "mean"})
    written_decoder(own, measured, "position_mean-100", {"kind": "position_mean"})
    ridge = written_decoder(own, measured, "ridge-100", {"kind": "ridge", "regulariser": 0.1})
    for name, network in NETWORKS.items():
        written_decoder(own, measured, f"{name}-100", network, ridge)
    return index, ["mean", "position_mean", "ridge", *NETWORKS]


def patch_losses(folder: Path) -> dict[str, np.ndarray]:
    index, names = decoders(folder)
    copies = pd.DataFrame({"dataset": ["toy"], "image_id": ["image-3"]})
    copies.to_parquet(folder / "copies.parquet")
    spec = {"dataset": "toy", "model": "toy", "decoders": names, "share": 100, "batch_size": 5, **RESAMPLING}
    files = {name: folder / name for name in ("losses", "images", "summary")}
    measure_patch_loss.run(
        embeddings=index,
        near_copies=folder / "copies.parquet",
        reconstructors=folder / "toy",
        **files,
        spec=checked("measure_patch_loss", spec),
    )
    store = open_patch_losses(files["losses"])
    found = {name: store[name].values for name in store.data_vars}
    for name in ("images", "summary"):
        found |= columns_of(pd.read_parquet(files[name]), name)
    return found


def ladder(folder: Path) -> dict[str, np.ndarray]:
    index, names = decoders(folder)
    spec = {"dataset": "toy", "model": "toy", "connectors": {"own": names}, "shares": [100], "batch_size": 5}
    measure_ladder.run(
        embeddings=index, reconstructors=folder / "toy", ladder=folder / "ladder", spec=checked("measure_ladder", spec)
    )
    return columns_of(pd.read_parquet(folder / "ladder"), "ladder")


def columns_of(table: pd.DataFrame, name: str) -> dict[str, np.ndarray]:
    """A table's columns of numbers, NaN as 0; text is joined."""
    found = {}
    for column in table:
        values = table[column]
        if pd.api.types.is_numeric_dtype(values):
            found[f"{name}: {column}"] = values.astype("float64").fillna(0).to_numpy()
        else:
            found[f"{name}: {column}"] = np.array(values.astype(str).tolist())
    return found


def shown(folder: Path, family: str, speaking: bool) -> tuple[Path, dict]:
    """A checkpoint, and embeddings by arithmetic that fit it: the index and how the model is loaded."""
    (save_speaking if speaking else save_tiny)(family, folder / "model")
    model = model_of(folder, family)
    connector = load_connector(model["checkpoint"], image_size=model["image_size"])
    pre = 2 * numbers(4, *connector.pre_shape, seed=11)
    post = 2 * numbers(4, *connector.post_shape, seed=12)
    (view,) = connector.shape.views
    if FAMILIES[family].placeless:
        layouts = [Layout(8, 8, connector.shape, ((0.0, 0.0, 8.0, 8.0),))] * len(pre)
        how = {"pre_grid": None, "post_grid": None, "preprocessing": {}, "key": model}
        ids = [f"image-{i}" for i in range(len(pre))]
        write_part(batches(layouts, pre, post), folder / "toy/part.zarr", ids, "float32", how)
        write_index([folder / "toy/part.zarr"], folder / "toy.json")
        return folder / "toy.json", model
    return store_of(folder, pre, post, (view.rows, view.cols), None, model), model


def captions(folder: Path, family: str) -> dict[str, np.ndarray]:
    index, model = shown(folder, family, speaking=True)
    spec = {**model, "compute_dtype": "float32", "batch_size": 3, "prompts": "default", "max_new_tokens": 6}
    caption_images.run(embeddings=index, captions=folder / "table", spec=checked("caption_images", spec))
    return columns_of(pd.read_parquet(folder / "table").drop(columns="revision"), "captions")


def answers(folder: Path, family: str) -> dict[str, np.ndarray]:
    index, model = shown(folder, family, speaking=True)
    spec = {**model, "compute_dtype": "float32", "batch_size": 3, "max_new_tokens": 6}
    answer_questions.run(
        embeddings=index, questions=questions(folder), answers=folder / "table", spec=checked("answer_questions", spec)
    )
    return columns_of(pd.read_parquet(folder / "table").drop(columns="revision"), "answers")


def choices(folder: Path, family: str) -> dict[str, np.ndarray]:
    index, model = shown(folder, family, speaking=True)
    spec = {**model, "compute_dtype": "float32", "batch_size": 3}
    choose_options.run(
        embeddings=index, questions=questions(folder), choices=folder / "table", spec=checked("choose_options", spec)
    )
    table = pd.read_parquet(folder / "table").drop(columns="revision")
    scores = np.concatenate(table.pop("log_probabilities").to_list())
    return columns_of(table, "choices") | {"log_probabilities": scores}


def questions(folder: Path) -> Path:
    """Two questions about each image, of two or four options."""
    rows = [
        (f"q{i}", f"image-{i % 4}", "Which one is red ?", ["red"], ["red", "green", "image", "one"][: 2 + 2 * (i % 2)])
        for i in range(8)
    ]
    path = folder / "questions.parquet"
    table = make_table("questions", [(*row, None, None, None) for row in rows])
    pq.write_table(pa.Table.from_pandas(table, SCHEMAS["questions"], preserve_index=False), path)
    return path


def probe(folder: Path, family: str) -> dict[str, np.ndarray]:
    index, model = shown(folder, family, speaking=False)
    spec = {**model, "dataset": "toy", "model": "toy", "images": 2, "directions": 2, "step": 0.01, "batch_size": 16}
    files = {name: folder / name for name in ("patches", "summary")}
    probe_patches.run(embeddings=index, **files, spec=checked("probe_patches", {**spec, **RESAMPLING}))
    found = {}
    for name, path in files.items():
        found |= columns_of(pd.read_parquet(path), name)
    return found


READER_NETWORKS = {
    "linear": {"blocks": 0, "width": 8, "heads": 2, "dropout": 0.0},
    "two": {"blocks": 2, "width": 8, "heads": 2, "dropout": 0.1},
}


def asked_openly(folder: Path) -> Path:
    """Four questions about each image of `shown`, of two types, with the answers of three annotators."""
    rows = []
    for i in range(16):
        said = ["red", "green", "one"][(i + i // 4) % 3]
        text = ["Which one is red ?", "Which one is green ?", "Which image ?"][i % 3]
        rows.append((f"q{i}", f"image-{i % 4}", text, [said, said, "image"], None, None, f"type {i % 2}", None))
    path = folder / "asked.parquet"
    table = pa.Table.from_pandas(make_table("questions", rows), SCHEMAS["questions"], preserve_index=False)
    pq.write_table(table, path)
    return path


def readers(folder: Path) -> dict[str, np.ndarray]:
    """What trained readers leave open of held-out questions, and how their training went."""
    index, model = shown(folder, "llava", speaking=True)
    how = {"epochs": 6, "questions": 6, "learning_rate": 0.01, "weight_decay": 0.01, "clip": 1.0, "patience": 9}
    how |= {"buffer": 32, "memory": 10**9, "threads": 1, "checkpoint_minutes": 10}
    spec = {
        **model,
        "task": "answers",
        "seed": 0,
        "answers": 2,
        "networks": READER_NETWORKS,
        "seeds": [0],
        "controls": [],
    }
    files = {name: folder / name for name in ("readers", "held_out", "history")}
    train_readers.run(
        embeddings=index,
        questions=asked_openly(folder),
        **files,
        spec=checked("train_readers", {**spec, "held_out": 0.25, "training": how}),
    )
    history = pd.read_csv(files["history"])[["step", "held_out_loss"]]
    return columns_of(pd.read_parquet(files["held_out"]), "held_out") | columns_of(history, "history")


def readings(folder: Path) -> dict[str, np.ndarray]:
    """What readers with weights by arithmetic answer."""
    index, model = shown(folder, "llava", speaking=True)
    store, modules, place = open_store(index), {}, 40
    words = load_words(model["checkpoint"]).vectors.shape[1]
    scales = {}
    for side in ("pre", "post"):
        width = store[side].shape[-1]
        scales[side] = Scale(0.1 * tensor(width, seed=30), 1 + 0.2 * tensor(width, seed=31))
    for side, shown_side in train_readers.SIDES.items():
        for network, built in READER_NETWORKS.items():
            features = None if shown_side is None else store[shown_side].shape[-1]
            module = modules[Name(side, network, 0)] = Reader(features, words, 2, **built)
            for values in module.state_dict().values():
                place += 1
                values.copy_(0.5 * tensor(*values.shape, seed=place))
    made = Readers(modules, scales, ["red", "green"], {"": [0.5, 0.5], "type 0": [0.25, 0.75]})
    save_readers(made, READER_NETWORKS, folder / "readers", {})
    read_answers.run(
        embeddings=index,
        questions=asked_openly(folder),
        readers=folder / "readers",
        readings=folder / "readings",
        spec=checked("read_answers", {**model, "dataset": "toy", "task": "answers", "seed": 0}),
    )
    return columns_of(pd.read_parquet(folder / "readings"), "readings")


# Product -> what makes a tiny one, and the families that it is made for (None: it runs no model of a family).
MAKERS = {
    "embeddings": (embeddings, list(FAMILIES)),
    "statistics": (statistics, None),
    "linear": (linear, None),
    "networks": (networks, None),
    "patch_losses": (patch_losses, None),
    "ladder": (ladder, None),
    "captions": (captions, SPEAKING),
    "answers": (answers, SPEAKING),
    "choices": (choices, SPEAKING),
    "probe": (probe, list(FAMILIES)),
    "readers": (readers, None),
    "readings": (readings, None),
}
