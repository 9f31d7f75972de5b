"""What readers and the model answer -> where the model's wrong answers are lost, and usable information in bits."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lossmap.data.manifest import read_table
from lossmap.measures.resampling import ratio_interval
from lossmap.measures.seeds import seed_for
from lossmap.measures.statistics import MeanInterval
from lossmap.measures.vqa_accuracy import normalise_answer
from lossmap.measures.where_lost import SHARES, Outcomes, where_lost
from lossmap.readers.choosing import ENOUGH, SIDES, Reader, choose, may_read_more
from lossmap.readers.questions import majority_answers
from lossmap.study.scoring import UNTYPED, answer_type, score_answer
from lossmap.study.specs import MeasureWhereLost

ENDS = ("", "_low", "_high")
EVERY = ""  # question type
NOTHING = MeanInterval(np.nan, np.nan, np.nan)
ACCURACIES = ("model_accuracy", "reader_accuracy", "reader_advantage")
OF_ALL = tuple(f"all_{name}" for name in SHARES)
NO_SHARES = [name + end for name in (*SHARES, *OF_ALL) for end in ENDS]
NO_SHARES += [f"{name}_{end}" for name in SHARES for end in ("weaker", "stronger")]


def run(
    *,
    readings: Path,
    held_out: Path,
    scores: Path,
    questions: Path,
    summary: Path,
    readers: Path,
    spec: MeasureWhereLost,
) -> None:
    """Split a model's errors by where the answer is lost.

    summary: a row for all questions, for each question type and each answer type, see `measures.where_lost`. Errors of
    a question type for which readers are too weak, and those with an answer that they don't know, are in no share:
    not_attributed. Beside the shares what they would be with the ladder's readers less the last (weaker), and were it
    to gain once more what its last step brought (stronger). Where the best reader before the connector is that after
    it, nothing is lost there that readers can tell: 0, without interval. readers: a row per reader: bits left,
    accuracy, whether it converged.

    spec: dataset, model, task, score, right, networks, settled_within, confidence, resamples, seed.
    """
    said, left = pd.read_parquet(readings), pd.read_parquet(held_out)
    known = read_table(questions, "questions").set_index("question_id")
    known["category"] = known["category"].fillna(UNTYPED)
    table = pd.read_parquet(scores).set_index("question_id").loc[known.index]
    said["right"] = _right(said, known, spec)
    networks, categories = spec.networks, known["category"]
    chosen = choose(left, categories, networks)
    best = _chosen(said, known, chosen)
    outcomes = _outcomes(table, best, spec.right)
    weak = _outcomes(table, _chosen(said, known, choose(left, categories, networks[:-1] or networks)), spec.right)
    images, kinds = known["image_id"].to_numpy(), categories.to_numpy(dtype=str)
    covered = best["guess"]["bits"].notna().to_numpy()  # of others readers can't give the right answer
    attributed = covered & ~np.isin(kinds, _too_weak(outcomes, best, covered, kinds, images, spec))
    same = [name for name, readers in chosen.items() if readers["before"] == readers["after"]]
    no_gain = np.isin(kinds, same)
    more = {name: _may_read_more(left, name, networks, spec.settled_within) for name in [EVERY, *chosen]}
    rows = []
    for grouping, group, which in _groups(known, spec.task):
        seed = seed_for(spec.seed, "where_lost", spec.dataset, spec.model, grouping, group)
        wrong, kept = which & ~outcomes.model, which & attributed
        of_these = _split(outcomes, which, images, kinds, spec, seed)
        row: dict[str, Any] = {"dataset": spec.dataset, "model": spec.model, "grouping": grouping, "category": group}
        row |= {"n": len(set(images[which])), "questions": int(which.sum()), "wrong": int(wrong.sum())}
        row |= {"not_attributed": int((wrong & ~attributed).sum()), "too_weak": not kept.any()}
        row |= _flat({name: of_these[name] for name in ACCURACIES})
        if kept.any():
            found = of_these if (kept == which).all() else _split(outcomes, kept, images, kinds, spec, seed)
            less = _split(weak, kept, images, kinds, spec.model_copy(update={"resamples": 1}), seed)
            row |= _shares(found, kept.sum() / which.sum(), bool(no_gain[kept].all())) | _band(found, less)
        else:
            row |= dict.fromkeys(NO_SHARES, np.nan)
        row |= _information(best, which, images[which], bool(no_gain[which].all()), spec, seed)
        of_group = more[group] if grouping == "question type" else more[EVERY]
        row |= {f"more_{name}": may for name, may in of_group.items()}
        rows.append(row)
    pd.DataFrame(rows).to_parquet(summary, index=False)
    _of_readers(said, left, spec).to_parquet(readers, index=False)


def _too_weak(
    outcomes: Outcomes,
    best: dict[str, pd.DataFrame],
    covered: np.ndarray,
    kinds: np.ndarray,
    images: np.ndarray,
    spec: MeasureWhereLost,
) -> list[str]:
    """Question types of which readers can't tell where answers are lost: the model answers more of them right than
    readers do after the connector, or readers read nothing of them even before it. The former beyond what chance does
    in one of so many types."""
    found, types = [], sorted(set(kinds))
    confidence = 1 - (1 - spec.confidence) / len(types)
    for kind in types:
        here = (kinds == kind) & covered
        if not here.any():
            found.append(kind)
            continue
        seed = seed_for(spec.seed, "too_weak", spec.dataset, spec.model, kind)
        ahead = outcomes.after.astype(int) - outcomes.model
        gained = (best["guess"]["bits"] - best["before"]["bits"]).to_numpy()
        strict = spec.model_copy(update={"confidence": confidence})
        behind = _mean(ahead[here], images[here], strict, seed).high < 0
        if behind or _mean(gained[here], images[here], spec, seed).low <= 0:
            found.append(kind)
    return found


def _may_read_more(left: pd.DataFrame, category: str, networks: list[str], within: float) -> dict[str, bool]:
    """Of one question type, where enough of it was held out; else of all."""
    here = left[left["category"] == category]
    enough = not here.empty and here.groupby(["side", "network", "seed"]).size().min() >= ENOUGH
    return may_read_more(here if enough else left, networks, within)


def _split(
    outcomes: Outcomes, which: np.ndarray, images: np.ndarray, kinds: np.ndarray, spec: MeasureWhereLost, seed
) -> dict[str, MeanInterval]:
    """`where_lost` of some questions."""
    some = Outcomes(*(values[which] for values in outcomes))
    return where_lost(some, images[which], spec.resamples, spec.confidence, seed, kinds[which])


def _flat(found: Mapping[str, MeanInterval]) -> dict[str, float]:
    return {name + end: value for name, three in found.items() for end, value in zip(ENDS, three, strict=True)}


def _shares(found: dict[str, MeanInterval], part: float, no_gain: bool) -> dict[str, float]:
    """Shares of wrong and right answers, and of all questions, of which those that are attributed are a part."""
    row = _flat({name: found[name] for name in SHARES})
    row |= {name: part * value for name, value in _flat({name: found[name] for name in OF_ALL}).items()}
    if no_gain:
        row |= {f"{name}{end}": np.nan for name in ("lost_at_connector", "all_lost_at_connector") for end in ENDS[1:]}
    return row


def _right(said: pd.DataFrame, known: pd.DataFrame, spec: MeasureWhereLost) -> pd.Series:
    """Whether each reader's answer is right, by the score that the model's is scored by."""
    truth = known.loc[said["question_id"]]
    if spec.task == "choices":
        return pd.Series(said["option"].to_numpy() == truth["answer_index"].to_numpy(), index=said.index)
    scored = [
        isinstance(answer, str) and score_answer(answer, given, spec.score) >= spec.right
        for answer, given in zip(said["answer"], truth["answers"], strict=True)
    ]
    return pd.Series(scored, index=said.index)


def _chosen(said: pd.DataFrame, known: pd.DataFrame, chosen: dict[str, dict[str, Reader]]) -> dict[str, pd.DataFrame]:
    """guess, after, before -> right and bits of each question, by the reader that was chosen for its category."""
    by_reader = {
        Reader(*key): rows.set_index("question_id").loc[known.index]
        for key, rows in said.groupby(["side", "network", "seed"], sort=False)
    }
    found = {}
    for name in SIDES:
        pieces = []
        for category, readers in chosen.items():
            rows = by_reader[readers[name]]
            pieces.append(rows[rows["category"] == category][["right", "bits"]])
        found[name] = pd.concat(pieces).loc[known.index]
    return found


def _outcomes(table: pd.DataFrame, chosen: dict[str, pd.DataFrame], right: float) -> Outcomes:
    model = table["accuracy"].to_numpy() >= right
    return Outcomes(model, **{name: rows["right"].to_numpy(dtype=bool) for name, rows in chosen.items()})


def _groups(known: pd.DataFrame, task: str) -> Iterator[tuple[str, str, np.ndarray]]:
    """all, each question type, each answer type: which questions are of it."""
    yield "all", "all", np.ones(len(known), dtype=bool)
    categories = known["category"]
    for category in sorted(set(categories) - {UNTYPED}):
        yield "question type", category, (categories == category).to_numpy()
    if task == "answers":
        majority = majority_answers([[normalise_answer(one) for one in given] for given in known["answers"]])
        types = np.array([answer_type(answer) for answer in majority])
        for kind in sorted(set(types.tolist())):
            yield "answer type", kind, types == kind


def _band(found: dict, less: dict) -> dict[str, float]:
    """Shares by readers of less capacity, and were the last step of the ladder to be taken again."""
    row = {f"{name}_weaker": less[name].mean for name in SHARES}
    before = {"now": 1 - found["lost_before"].mean, "less": 1 - less["lost_before"].mean}
    later = {"now": found["not_used"].mean, "less": less["not_used"].mean}
    unread = {"now": 1 - found["unread"].mean, "less": 1 - less["unread"].mean}
    once_more = {
        key: float(np.clip(2 * share["now"] - share["less"], share["now"], max(1.0, share["now"])))
        for key, share in (("before", before), ("later", later), ("unread", unread))
    }
    row["lost_before_stronger"] = 1 - once_more["before"]
    row["not_used_stronger"] = min(once_more["later"], once_more["before"])
    row["lost_at_connector_stronger"] = once_more["before"] - row["not_used_stronger"]
    row["unread_stronger"] = 1 - once_more["unread"]
    return row


def _information(
    chosen: dict[str, pd.DataFrame], which: np.ndarray, images: np.ndarray, no_gain: bool, spec: MeasureWhereLost, seed
) -> dict[str, float]:
    """Bits that readers leave, and that the image adds to the question, of questions whose answer they know.

    Usable information is what a family of readers can use: that of the question alone less that with the image. Source:
    Xu et al. 2020, arXiv:2002.10689.
    """
    bits = {name: rows["bits"].to_numpy()[which] for name, rows in chosen.items()}
    covered = ~np.isnan(bits["guess"])
    numbers = {"bits_question": bits["guess"]}
    numbers |= {f"information_{name}": bits["guess"] - bits[name] for name in ("before", "after")}
    numbers["information_lost"] = bits["after"] - bits["before"]
    row = _flat({name: _mean(values[covered], images[covered], spec, seed) for name, values in numbers.items()})
    row |= {f"information_lost{end}": np.nan for end in ENDS[1:] if no_gain}
    return {"covered": float(covered.mean()), **row}


def _mean(values: np.ndarray, images: np.ndarray, spec: MeasureWhereLost, seed) -> MeanInterval:
    """Of questions, with an interval over images."""
    if not len(values):
        return NOTHING
    sums = pd.DataFrame({"image": images, "value": values}).groupby("image", sort=False)["value"].agg(["sum", "size"])
    return ratio_interval(sums["sum"], sums["size"], spec.resamples, spec.confidence, seed)


def _of_readers(said: pd.DataFrame, left: pd.DataFrame, spec: MeasureWhereLost) -> pd.DataFrame:
    """A row per reader."""
    named = ["side", "network", "seed"]
    held_out = left.groupby(named, sort=False).agg(
        held_out_bits=("bits", "mean"), training_bits=("training_bits", "first"), converged=("converged", "first")
    )
    rows = []
    for key, group in said.groupby(named, sort=False):
        covered = group["bits"].notna().to_numpy()
        seed = seed_for(spec.seed, "readers", spec.dataset, spec.model, *map(str, key))
        images = group["image_id"].to_numpy()
        right = group["right"].to_numpy(dtype=float)
        found = {"bits": _mean(group["bits"].to_numpy()[covered], images[covered], spec, seed)}
        found["reader_accuracy"] = NOTHING if key[0].startswith("control") else _mean(right, images, spec, seed)
        row = {"dataset": spec.dataset, "model": spec.model, **dict(zip(named, key, strict=True))}
        row |= {"n": group["image_id"].nunique(), "questions": len(group), "covered": float(covered.mean())}
        rows.append(row | _flat(found))
    return pd.DataFrame(rows).join(held_out, on=named)
