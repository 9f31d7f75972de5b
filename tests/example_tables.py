"""A made-up study of one model and dataset, small enough to count by hand: what step choose_examples reads."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from specs import checked

from lossmap.measures.coverage import patch_coverage
from lossmap.store import PartWriter, write_index
from lossmap.store.patch_losses import LOSSES, PatchLossWriter
from lossmap.study.steps import choose_examples

WIDTH, HEIGHT, GRID = 60, 40, (2, 4)
BOX = (10.0, 0.0, 50.0, 40.0)  # a centre crop: patches of 10 x 20 pixels
SPEC = {"model": "toy", "dataset": "made-up", "number": 8, "right": 0.5, "relevance_threshold": 0.5}


def make_study(folder: Path, task: str, n: int = 12, seed: int = 0, masks: bool = True) -> dict[str, Path]:
    """Files of n images, with one question or caption each. Returns the arguments of choose_examples.run but two."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    ids = [f"image-{i}" for i in range(n)]
    images, questions, covered = [], [], []
    for i, image_id in enumerate(ids):
        Image.fromarray(rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        mask = answer_mask(i)
        Image.fromarray(mask).save(folder / f"{i}-mask.png")
        digest = hashlib.sha256((folder / f"{i}.png").read_bytes()).hexdigest()
        images.append((image_id, str(folder / f"{i}.png"), None, WIDTH, HEIGHT, digest, digest))
        covered.append(patch_coverage(mask, BOX, GRID).ravel())
        mask_path = str(folder / f"{i}-mask.png") if masks else None
        answers, options = (["two"], ["one", "two"]) if task == "choices" else (["two"] * 7 + ["2"] * 3, None)
        index = 1 if task == "choices" else None
        questions.append(
            (f"q{i}", image_id, f"What number is on picture {i}?", answers, options, index, None, mask_path)
        )
    paths = {name: folder / f"{name}.parquet" for name in ("images", "references", "predictions", "scores")}
    paths |= {"patch_loss": folder / "toy.zarr", "embeddings": folder / "toy.json"}
    columns = ["image_id", "path", "label", "width", "height", "sha256", "pixels_sha256"]
    pd.DataFrame(images, columns=columns).to_parquet(paths["images"], index=False)
    columns = ["question_id", "image_id", "question", "answers", "options", "answer_index", "category", "mask_path"]
    questions = pd.DataFrame(questions, columns=columns)
    said = questions[["question_id", "image_id"]].assign(prompt="Say it.")
    if task == "captions":
        pairs = [(image_id, f"Picture {k} of {image_id}.") for image_id in ids for k in range(5)]
        pd.DataFrame(pairs, columns=["image_id", "caption"]).to_parquet(paths["references"], index=False)
        said = said.drop(columns="question_id").assign(text=[f"It is {image_id}." for image_id in ids])
        scored = said.drop(columns="prompt").assign(cider=np.linspace(0, 150, n), cider_raw=0.0)
    else:
        questions.to_parquet(paths["references"], index=False)
        accuracy = np.resize([0.0, 1.0, 0.3, 0.6], n)
        right = accuracy >= SPEC["right"]
        said = (
            said.assign(choice=right.astype(int)) if task == "choices" else said.assign(text=np.where(right, "2", ""))
        )
        scored = questions[["question_id", "image_id"]].assign(
            score="choice_accuracy" if task == "choices" else "vqa_accuracy",
            accuracy=right * 1.0 if task == "choices" else accuracy,
        )
    said.to_parquet(paths["predictions"], index=False)
    scored.to_parquet(paths["scores"], index=False)
    if task == "images":  # nothing was asked about them
        paths = {name: paths[name] for name in ("images", "patch_loss", "embeddings")}
    elif masks and task != "captions":
        paths["relevance"] = folder / "relevance.parquet"
        table = questions[["question_id", "image_id"]].assign(covered=covered, mask_area=0.1)
        table.to_parquet(paths["relevance"], index=False)
    write_losses(paths["patch_loss"], ids, made_up_losses(n, seed))
    write_store(folder, ids, GRID)
    return paths


def answer_mask(i: int) -> np.ndarray:
    """Where the answer to question i lies: 12 x 25 pixels, further to the right on each image, at last out of sight."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:30, 10 + 3 * i : 22 + 3 * i] = True
    return mask


def made_up_losses(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Losses (reconstructor, image, patch) of two reconstructors."""
    rng = np.random.default_rng([seed, 1])
    patches = GRID[0] * GRID[1]
    losses = {name: rng.gamma(2, 0.5, (2, n, patches)) for name in LOSSES}
    return losses | {"norm_difference": rng.normal(size=(2, n, patches))}


def write_losses(path: Path, ids: list[str], losses: dict[str, np.ndarray]) -> None:
    writer = PatchLossWriter(path, ["ridge", "mlp"], ids, GRID, {"best": "mlp"})
    writer.append(**losses, pre_norm=np.ones(losses["squared_error"].shape[1:]))
    writer.close()


def write_store(folder: Path, ids: list[str], grid: tuple[int, int]) -> None:
    """Embeddings of which the geometry alone matters."""
    n, patches = len(ids), grid[0] * grid[1]
    attributes = {"pre_grid": list(grid), "post_grid": None, "model": "toy", "key": {}, "preprocessing": {}}
    part = folder / "toy/part-000000.zarr"
    writer = PartWriter(part, ids, (patches, 2), (2, 2), "float16", attributes)
    values, means = np.zeros((n, patches, 2)), np.zeros((n, 2))
    writer.append(
        pre=values, post=values[:, :2], pre_mean=means, post_mean=means,
        box=np.tile(BOX, (n, 1)), size=np.tile([WIDTH, HEIGHT], (n, 1)),
    )  # fmt: skip
    writer.close()
    write_index([part], folder / "toy.json")


def chosen_table(folder: Path, task: str = "answers", spec: dict | None = None, **study) -> Path:
    """The table of step choose_examples on a made-up study."""
    table = folder / f"{task}.parquet"
    choose_examples.run(
        **make_study(folder, task, **study),
        table=table,
        spec=checked("choose_examples", {**SPEC, "task": task, **(spec or {})}),
    )
    return table
