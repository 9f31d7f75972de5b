"""Examples are chosen by rule: hand counts, properties of the rule, what the step gathers, every error."""

import hashlib
import re

import numpy as np
import pandas as pd
import pytest
from example_tables import BOX, GRID, SPEC, answer_mask, chosen_table, made_up_losses, make_study, write_store
from specs import checked

from lossmap.errors import LossmapError
from lossmap.measures.coverage import patch_coverage
from lossmap.store.patch_losses import LOSSES
from lossmap.study.examples import CASES, case, choose, worst_patches
from lossmap.study.steps import choose_examples

rng = np.random.default_rng(0)
COVERED = [patch_coverage(answer_mask(i), BOX, GRID).ravel() for i in range(12)]


def candidates(wrong, right=0, captions=0):
    outcomes = ["wrong"] * wrong + ["right"] * right + [None] * captions
    n = len(outcomes)
    return pd.DataFrame({"item": range(n), "loss": rng.permutation(n) / 10, "outcome": outcomes}).sample(
        frac=1, random_state=0
    )


def test_by_hand():
    table = pd.DataFrame({"loss": [3.0, 9, 1, 7, 5], "outcome": ["wrong", "right", "wrong", "wrong", "right"]})
    chosen = choose(table, 4)
    assert chosen["loss"].tolist() == [7, 1, 9, 5]  # the highest and the lowest of wrong, then of right answers
    assert chosen["rank"].tolist() == [1, 3, 1, 2]
    assert chosen["of"].tolist() == [3, 3, 2, 2]
    assert choose(table, 5)["loss"].tolist() == [7, 3, 1, 9, 5]


def test_captions_are_one_group_at_evenly_spaced_ranks():
    chosen = choose(candidates(0, captions=10), 4)
    assert chosen["rank"].tolist() == [1, 4, 7, 10]
    assert chosen["loss"].tolist() == pytest.approx([0.9, 0.6, 0.3, 0])


@pytest.mark.parametrize(("wrong", "right"), [(50, 50), (3, 90), (90, 3), (0, 20), (20, 0), (7, 8), (1, 1)])
@pytest.mark.parametrize("number", [4, 5, 12, 13, 40, 200])
def test_places_are_shared_and_filled_and_no_item_comes_twice(wrong, right, number):
    chosen = choose(candidates(wrong, right), number)
    assert len(chosen) == min(number, wrong + right)
    assert chosen["item"].is_unique
    counts = chosen["outcome"].value_counts()
    for outcome, there, other in (("wrong", wrong, right), ("right", right, wrong)):
        assert counts.get(outcome, 0) >= min(there, number // 2)
        assert counts.get(outcome, 0) <= max(number - number // 2, number - other)
        ranks = chosen.loc[chosen["outcome"] == outcome, "rank"].to_numpy()
        if len(ranks) > 1:
            assert ranks[0] == 1
            assert ranks[-1] == there
            assert np.ptp(np.diff(ranks)) <= 1  # evenly spaced
    assert chosen.groupby("outcome")["loss"].apply(lambda losses: losses.is_monotonic_decreasing).all()


def test_equal_losses_keep_the_order_of_the_candidates():
    table = pd.DataFrame({"item": range(5), "loss": 1.0, "outcome": "wrong"})
    assert choose(table, 5)["item"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("number", [4, 5, 6, 13, 40])
def test_half_of_the_places_beyond_four_go_to_the_same_items_for_every_model(number):
    ids = [f"item-{i}" for i in range(60)]
    first = sorted(ids, key=lambda each: hashlib.sha256(each.encode()).hexdigest())[: (number - 4) // 2]
    extremes = set()
    for seed in range(5):  # models
        draw = np.random.default_rng(seed)
        table = pd.DataFrame({"item": ids, "loss": draw.random(60), "outcome": draw.choice(["right", "wrong"], 60)})
        chosen = choose(table.sample(frac=1, random_state=seed), number, ids="item")
        assert len(chosen) == number
        assert chosen["item"].is_unique
        assert set(first) <= set(chosen["item"])
        assert (chosen["chosen_by"] == "id").sum() == (number - 4) // 2
        by_loss = chosen[chosen["chosen_by"] == "loss"].drop(columns="chosen_by")
        alone = choose(table, len(by_loss)).drop(columns="chosen_by")
        pd.testing.assert_frame_equal(by_loss.reset_index(drop=True), alone)  # the others change nothing of them
        for outcome, rows in chosen.groupby("outcome"):
            losses = table.loc[table["outcome"] == outcome, "loss"]
            assert rows["rank"].tolist() == [(losses >= loss).sum() for loss in rows["loss"]]
            assert rows["rank"].is_monotonic_increasing
        extremes |= set(chosen["item"][chosen["rank"] == 1])
    assert len(extremes) > 2  # what is common is not common by their losses


def test_few_candidates_are_all_chosen_once_with_ids_too():
    chosen = choose(candidates(3, 4), 13, ids="item")
    assert sorted(chosen["item"]) == list(range(7))
    assert choose(candidates(0, captions=9), 13, ids="item")["rank"].tolist() == list(range(1, 10))


def test_cases_are_the_extremes_of_all_candidates():
    table = candidates(30, 40)
    chosen = choose(table, 8)
    for outcome, which in CASES:
        row = case(chosen, outcome, which)
        losses = table.loc[table["outcome"] == outcome, "loss"]
        assert row["loss"].tolist() == [losses.max() if which == "highest" else losses.min()]
        assert row["which"].tolist() == [which]
    assert case(choose(candidates(5), 4), "right", "highest").empty
    only = choose(candidates(5, 1), 4)
    assert len(case(only, "right", "highest")) == 1
    assert case(only, "right", "lowest").empty  # one answer is not shown twice


def test_worst_patches_by_hand_and_against_a_slow_sort():
    assert worst_patches([[1, -5], [5, 0]], 3).tolist() == [1, 2, 0]  # equal ones in raster order
    values = rng.normal(size=(6, 7)).round(1)
    slow = sorted(range(42), key=lambda patch: (-abs(values.flat[patch]), patch))[:10]
    assert worst_patches(values).tolist() == slow


def test_what_can_not_be_chosen_is_named():
    table = candidates(4)
    with pytest.raises(ValueError, match="3 of 4 candidates can't be chosen; wanted at least 4"):
        choose(table, 3)
    with pytest.raises(ValueError, match="5 of 0 candidates"):
        choose(table[:0], 5)
    table = candidates(4).sort_values("item").assign(loss=[1, np.nan, 2, np.inf])
    with pytest.raises(ValueError, match="loss: 2 are not finite; the first is row 1"):
        choose(table, 4)


# The step


def test_answers_are_ranked_by_their_loss_in_relevant_patches(tmp_path):
    table = pd.read_parquet(chosen_table(tmp_path, spec={"number": 100}))
    losses = {name: values[1].astype("float32") for name, values in made_up_losses(12).items()}  # of mlp, the best
    for row in table.itertuples():
        i = int(row.question_id[1:])
        np.testing.assert_array_equal(row.relevant, COVERED[i] >= 0.5)
        assert row.loss == pytest.approx(losses["squared_error"][i][row.relevant].mean())
        for name in LOSSES:
            np.testing.assert_array_equal(getattr(row, name), losses[name][i])
        assert row.question == f"What number is on picture {i}?"
        assert row.prediction == ("2" if row.outcome == "right" else "")
        assert row.outcome == ("right" if i % 4 in (1, 3) else "wrong")
        assert list(row.box) == list(BOX)
        assert (row.model, row.dataset, row.reconstructor, list(row.grid)) == ("toy", "made-up", "mlp", list(GRID))
    assert 0 < len(table) == sum(covered.max() >= 0.5 for covered in COVERED) < 12
    assert (table["unranked"] == 12 - len(table)).all()
    right = table[table["outcome"] == "right"]
    assert right["loss"].is_monotonic_decreasing
    assert right["rank"].tolist() == list(range(1, len(right) + 1))


@pytest.mark.parametrize("task", ["captions", "choices", "answers"])
def test_without_masks_the_whole_image_ranks(tmp_path, task):
    table = pd.read_parquet(chosen_table(tmp_path, task, masks=False, spec={"number": 5}))
    assert len(table) == 5
    error = made_up_losses(12)["squared_error"][1].astype("float32").mean(axis=1, dtype=float)
    assert table["loss"].tolist() == pytest.approx([error[int(name[6:])] for name in table["image_id"]])
    assert table["relevant"].isna().all()
    if task == "captions":
        assert table["loss"].iloc[[0, -1]].tolist() == pytest.approx([error.max(), error.min()])
        first = table.iloc[0]
        assert list(first["references"]) == [f"Picture {k} of {first['image_id']}." for k in range(5)]
        assert first["prediction"] == f"It is {first['image_id']}."
        assert table["outcome"].isna().all()
    if task == "choices":
        assert set(zip(table["outcome"], table["prediction"], strict=True)) == {
            ("right", "B. two"),
            ("wrong", "A. one"),
        }


def test_the_same_files_give_the_same_table(tmp_path):
    paths = make_study(tmp_path, "answers")
    for name in ("a", "b"):
        choose_examples.run(
            **paths, table=tmp_path / f"{name}.parquet", spec=checked("choose_examples", {**SPEC, "task": "answers"})
        )
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def refusal(tmp_path, task="answers", **changes):
    """What the step says where tables are changed."""
    paths = make_study(tmp_path, task)
    for name, change in changes.items():
        change(pd.read_parquet(paths[name])).to_parquet(paths[name], index=False)
    with pytest.raises(LossmapError) as raised:
        choose_examples.run(
            **paths, table=tmp_path / "table.parquet", spec=checked("choose_examples", {**SPEC, "task": task})
        )
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("images", "images.parquet: lacks 1 of the items of .*scores.parquet, the first is image_id image-0"),
        ("references", "references.parquet: lacks 1 of .*, the first is question_id q0.*delete the older of the two"),
        ("predictions", "predictions.parquet: lacks 1 of .*, the first is question_id q0"),
        ("relevance", "relevance.parquet: lacks 1 of .*, the first is question_id q0"),
    ],
)
def test_a_table_of_another_run_is_named(tmp_path, name, message):
    assert re.search(message, refusal(tmp_path, **{name: lambda table: table[1:]}))


def test_losses_of_other_images_are_refused(tmp_path):
    def more(table):
        return pd.concat([table, table[:1].assign(question_id="q99", image_id="other")])

    changes = dict.fromkeys(("scores", "predictions", "references"), more)
    text = refusal(tmp_path, **changes, images=lambda table: pd.concat([table, table[:1].assign(image_id="other")]))
    assert re.search("toy.zarr: lacks 1 of .*, the first is image_id other", text)


def test_an_item_without_score_is_named(tmp_path):
    text = refusal(tmp_path, scores=lambda table: table.assign(accuracy=table["accuracy"].where(table.index != 3)))
    assert "question_id q3 has no accuracy" in text


def test_a_question_without_options_is_no_choice(tmp_path):
    text = refusal(tmp_path, "choices", references=lambda table: table.assign(options=None))
    assert "question q0 has no options" in text


def test_a_mask_on_another_grid_is_refused(tmp_path):
    text = refusal(tmp_path, relevance=lambda table: table.assign(covered=[np.zeros(9)] * len(table)))
    assert "has 9 patches for an image, the patch losses have 8" in text


def test_where_no_mask_covers_a_patch_enough_the_whole_image_ranks(tmp_path):
    paths = make_study(tmp_path, "answers")
    table = pd.read_parquet(paths["relevance"])
    table.assign(covered=[np.full(8, 0.4)] * len(table)).to_parquet(paths["relevance"])
    choose_examples.run(
        **paths, table=tmp_path / "table.parquet", spec=checked("choose_examples", {**SPEC, "task": "answers"})
    )
    chosen = pd.read_parquet(tmp_path / "table.parquet")
    assert chosen["relevant"].isna().all()
    assert chosen["covered"].isna().all()
    assert chosen["loss"].to_list() == pytest.approx([error.mean() for error in chosen["squared_error"]], rel=1e-6)


def test_images_alone_are_ranked_by_the_loss_of_the_whole_image(tmp_path):
    table = pd.read_parquet(chosen_table(tmp_path, "images", {"number": 5}))
    error = made_up_losses(12)["squared_error"][1].mean(axis=1)  # of the best
    order = np.argsort(-error)
    assert table["image_id"].tolist() == [f"image-{i}" for i in order[[0, 3, 6, 8, 11]]]
    assert table["loss"].tolist() == pytest.approx(error[order[[0, 3, 6, 8, 11]]], rel=1e-6)
    assert table["of"].tolist() == [12] * 5
    for column in ("question_id", "question", "prediction", "score", "scored", "outcome", "relevant", "mask_path"):
        assert table[column].isna().all()


def test_embeddings_on_another_grid_are_refused(tmp_path):
    paths = make_study(tmp_path, "answers")
    write_store(tmp_path, [f"image-{i}" for i in range(12)], (4, 4))
    with pytest.raises(LossmapError, match=r"toy.zarr: has \[2, 4\] patches, .*toy.json has \[4, 4\]"):
        choose_examples.run(
            **paths, table=tmp_path / "table.parquet", spec=checked("choose_examples", {**SPEC, "task": "answers"})
        )
