"""Predictions, scores, patch losses -> the examples that figures and the loss browser show, with all that they show."""

import string
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from lossmap.errors import LossmapError
from lossmap.measures.coverage import region_means
from lossmap.store.patch_losses import LOSSES, ImageLosses
from lossmap.study.example_losses import best_losses, known_images, place_columns
from lossmap.study.examples import choose
from lossmap.study.scoring import SCORE_NAMES
from lossmap.study.specs import ChooseExamples

KEYS = {"captions": "image_id", "answers": "question_id", "choices": "question_id", "images": "image_id"}
SCORES = {"captions": "cider", "answers": "accuracy", "choices": "accuracy"}


def run(
    *,
    images: Path,
    patch_loss: Path,
    embeddings: Path,
    table: Path,
    spec: ChooseExamples,
    references: Path | None = None,
    predictions: Path | None = None,
    scores: Path | None = None,
    relevance: Path | None = None,
) -> None:
    """Choose examples of one model, dataset and task by rule, and gather what there is to show of each.

    references: captions.parquet or questions.parquet. These, predictions and scores are of every task but "images",
    which shows what was lost of images that nothing was asked about. relevance: which share of each patch the answer
    mask covers; with it, examples are ranked by their squared error in relevant patches, without it, by that of the
    whole image. Questions whose mask covers no patch enough have no rank; column unranked counts them. Where that are
    all, masks are left out. Some examples are chosen by their ids, the same for every model: see `choose`.

    spec: model, dataset, task ("captions", "answers", "choices" or "images"), number (of examples, at most), right
    (accuracy from which an answer counts as right), relevance_threshold (share of a patch from which it is relevant).
    """
    key = KEYS[spec.task]
    files = pd.read_parquet(images).set_index("image_id")
    losses = best_losses(patch_loss, embeddings)
    measured = known_images(losses)
    if spec.task == "images":
        items, texts, scores = _unasked(measured), _no_texts(measured), patch_loss
    else:
        predictions, scores, references = cast(Path, predictions), cast(Path, scores), cast(Path, references)
        items, texts = _scored(predictions, scores, spec), _texts(references, spec.task)
    for known, ids, where in (
        (files.index, items["image_id"], images),
        (texts.index, items[key], references),
        (measured, items["image_id"], patch_loss),
        (pd.Index(losses.embedded_ids), items["image_id"], embeddings),
    ):
        _all_known(known, ids, where, scores)

    of_item = measured.get_indexer(items["image_id"])
    covered = None if relevance is None else _covered(relevance, items["question_id"], losses, of_item, scores)
    relevant = None if covered is None else [part >= spec.relevance_threshold for part in covered]
    if covered is None or relevant is None or not any(part.any() for part in relevant):
        items = items.assign(covered=None, relevant=None, loss=_mean_errors(losses, of_item))
    else:
        items = items.assign(covered=covered, relevant=relevant, loss=_mean_errors(losses, of_item, relevant))
    ranked = items[items["loss"].notna()]
    chosen = choose(ranked, spec.number, ids=key).assign(unranked=len(items) - len(ranked))
    rows = measured.get_indexer(chosen["image_id"])
    chosen = chosen.assign(
        model=spec.model,
        dataset=spec.dataset,
        task=spec.task,
        reconstructor=losses.losses.attrs["best"],
        **{name: [losses.values(name, row) for row in rows] for name in LOSSES},
        **place_columns(losses, rows),
        **{name: files.loc[chosen["image_id"], name].to_numpy() for name in ("path", "sha256", "width", "height")},
        **{name: texts.loc[chosen[key], name].to_numpy() for name in texts.columns},
    )
    if spec.task == "choices":
        letters = zip(chosen.pop("choice"), chosen["options"], strict=True)
        chosen["prediction"] = [f"{string.ascii_uppercase[choice]}. {options[choice]}" for choice, options in letters]
    chosen.to_parquet(table, index=False)


def _scored(predictions: Path, scores: Path, spec: ChooseExamples) -> pd.DataFrame:
    """One row per scored item: image_id, question_id, prompt, prediction or choice, score, scored (by), outcome."""
    key, column = KEYS[spec.task], SCORES[spec.task]
    said, scored = pd.read_parquet(predictions).set_index(key), pd.read_parquet(scores)
    _all_known(said.index, scored[key], predictions, scores)
    what = {"choice": "choice"} if spec.task == "choices" else {"text": "prediction"}
    items = said.loc[scored[key], ["prompt", *what]].rename(columns=what).reset_index()
    items["image_id"] = scored["image_id"].to_numpy()
    items["score"] = scored[column].to_numpy(float)
    names = pd.Series("cider", scored.index) if spec.task == "captions" else scored["score"]
    items["scored"] = names.map(SCORE_NAMES).to_numpy()
    if items["score"].isna().any():
        first = items[key][items["score"].isna()].iloc[0]
        raise LossmapError(f"{scores}: {key} {first} has no {column}. Delete the file and run again.")
    if spec.task == "captions":
        return items.assign(question_id=None, outcome=None)
    return items.assign(outcome=np.where(items["score"] >= spec.right, "right", "wrong"))


def _unasked(measured: pd.Index) -> pd.DataFrame:
    """One row per image, as `_scored`, where nothing was predicted."""
    nothing = dict.fromkeys(("question_id", "prompt", "prediction", "scored", "outcome"))
    return pd.DataFrame({"image_id": measured}).assign(**nothing, score=np.nan)


def _no_texts(measured: pd.Index) -> pd.DataFrame:
    """As `_texts`, where people said nothing."""
    nothing = {"question": None, "options": None, "references": [list[str]() for _ in measured], "mask_path": None}
    return pd.DataFrame(nothing, index=measured)


def _texts(path: Path, task: str) -> pd.DataFrame:
    """What people asked and said, by image or question: question, options, references (lists), mask_path."""
    table = pd.read_parquet(path)
    if task == "captions":
        captions = table.groupby("image_id", sort=False)["caption"].agg(list)
        return pd.DataFrame({"question": None, "options": None, "references": captions, "mask_path": None})
    table = table.set_index("question_id").rename(columns={"answers": "references"})
    if task == "choices" and table["options"].isna().any():
        first = table.index[table["options"].isna()][0]
        raise LossmapError(f"{path}: question {first} has no options. Leave its dataset out of multiple choice.")
    return table[["question", "options", "references", "mask_path"]].astype({"mask_path": object, "options": object})


def _covered(
    relevance: Path, questions: pd.Series, losses: ImageLosses, of_item: np.ndarray, scores: Path
) -> list[np.ndarray]:
    """Of each question: share of each patch (patches,) that the answer mask covers; NaN for patches without a loss."""
    known = pd.read_parquet(relevance).set_index("question_id")["covered"]
    _all_known(known.index, questions, relevance, scores)
    covered = [np.asarray(part) for part in known[questions]]
    for part, image in zip(covered, of_item, strict=True):
        if len(part) != (wanted := losses.shapes[losses.kinds[image]].patches):
            raise LossmapError(
                f"{relevance}: has {len(part)} patches for an image, the patch losses have {wanted}: they are of"
                f" different inputs. Delete {relevance} and run again."
            )
    return covered


def _mean_errors(losses: ImageLosses, of_item: np.ndarray, regions: list[np.ndarray] | None = None) -> np.ndarray:
    """(items,): mean squared error of the patches in the item's region of its image, all by default; NaN for none."""
    found = np.full(len(of_item), np.nan)
    for positions, shape in losses.alike(of_item):
        error = losses.of_targets("squared_error", of_item[positions])
        if regions is None:
            found[positions] = error.mean(axis=1, dtype=float)
        else:
            region = np.stack([regions[position] for position in positions])
            found[positions] = region_means(error, region[:, losses.targets(shape)])
    return found


def _all_known(known: pd.Index, ids: pd.Series, where: Path | None, scores: Path) -> None:
    missing = ids[~ids.isin(known)]
    if len(missing):
        raise LossmapError(
            f"{where}: lacks {len(missing)} of the items of {scores}, the first is {ids.name} {missing.iloc[0]}."
            " They are of different runs: delete the older of the two and run again."
        )
