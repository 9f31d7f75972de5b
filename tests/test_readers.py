"""Readers: connectors and language models of which it is known where answers are lost."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from small_readers import ANSWERS, COLOURS, NETWORK, QUICK, World, answers, trained, without_colour

from lossmap.errors import LossmapError
from lossmap.measures.where_lost import Outcomes, where_lost
from lossmap.readers.asked import padded
from lossmap.readers.choosing import Reader as Name
from lossmap.readers.choosing import choose, may_read_more
from lossmap.readers.learning import read, train_reader
from lossmap.readers.material import Material, Scale
from lossmap.readers.network import Reader
from lossmap.readers.places import encoded
from lossmap.readers.questions import Questions, frequent_answers, majority_answers, permuted
from lossmap.readers.saving import Readers, load_readers, save_readers
from lossmap.reconstruct.split import split_images
from lossmap.reconstruct.training import Workplace
from lossmap.store import from_arrays

TRAINING, TEST = World(1200, 1), World(300, 2)


@pytest.fixture(scope="module")
def of_pre():
    """A reader of what enters the connector, and of the question alone."""
    store = TRAINING.store(TRAINING.pre)
    reader, material, _, _ = trained(TRAINING, store, "pre")
    alone, _, _, _ = trained(TRAINING, store, None)
    said = answers(reader, TEST, TEST.store(TEST.pre), "pre", material.scale)
    guessed = answers(alone, TEST, TEST.store(TEST.pre), None, None)
    right = TEST.questions.targets
    return {"before": said.answers == right, "guess": guessed.answers == right}


def of_post(post, test_post):
    """Whether a reader of what leaves a connector is right, question by question."""
    reader, material, _, _ = trained(TRAINING, TRAINING.store(post), "post")
    said = answers(reader, TEST, TEST.store(test_post), "post", material.scale)
    return said.answers == TEST.questions.targets


def shares(model, outcomes, after, kind=None):
    """Where a model's wrong answers are lost, of one kind of questions or of all."""
    which = np.ones(len(model), bool) if kind is None else TEST.questions.categories == kind
    better = np.where(outcomes["before"].mean() >= after.mean(), outcomes["before"], after)
    parts = (model, better, after, outcomes["guess"])
    return where_lost(Outcomes(*(part[which] for part in parts)), TEST.questions.images[which], 200)


NOTHING_RIGHT = np.zeros(len(TEST.questions), bool)


def test_readers_read_what_is_there_and_guess_what_is_not(of_pre):
    assert of_pre["before"].mean() > 0.97
    colour = TEST.questions.categories == "colour"
    assert of_pre["guess"][colour].mean() == pytest.approx(1 / COLOURS, abs=0.1)


def test_an_identity_loses_nothing_and_a_model_that_ignores_the_image_uses_nothing(of_pre):
    after = of_post(TRAINING.pre, TEST.pre)
    found = shares(NOTHING_RIGHT, of_pre, after)
    assert found["lost_at_connector"].mean == pytest.approx(0, abs=0.03)
    assert found["not_used"].mean > 0.95
    assert found["lost_before"].mean < 0.05
    total = sum(found[name].mean for name in ("lost_before", "lost_at_connector", "not_used"))
    assert total == pytest.approx(1)
    assert np.isnan(found["unread"].mean)


def test_a_connector_that_erases_one_attribute_loses_that_category_and_no_other(of_pre):
    after = of_post(without_colour(TRAINING), without_colour(TEST))
    colour, digit = (shares(NOTHING_RIGHT, of_pre, after, kind) for kind in ("colour", "digit"))
    assert colour["lost_at_connector"].mean > 0.85
    assert colour["lost_at_connector"].low > 0.7
    assert digit["lost_at_connector"].mean == pytest.approx(0, abs=0.04)
    assert digit["not_used"].mean > 0.93


def test_noise_tokens_beside_all_others_lose_nothing(of_pre):
    rng = np.random.default_rng(5)

    def with_noise(world):
        return np.concatenate([rng.normal(size=(len(world.pre), 4, world.pre.shape[2])), world.pre], axis=1)

    after = of_post(with_noise(TRAINING), with_noise(TEST))
    assert shares(NOTHING_RIGHT, of_pre, after)["lost_at_connector"].mean == pytest.approx(0, abs=0.05)


def test_the_control_task_is_failed(of_pre):
    exchanged = permuted(TRAINING.questions, 3)
    reader, material, _, split = trained(TRAINING, TRAINING.store(TRAINING.pre), "post", questions=exchanged)
    bits = read(reader, material, split.held_out).bits
    kinds = exchanged.categories[np.sort(material.questions_of(split.held_out))]
    for kind, options in (("colour", 3), ("digit", 4)):
        assert bits[kinds == kind].mean() > np.log2(options) - 0.05


def test_permuting_keeps_how_often_each_answer_is_given():
    exchanged = permuted(TRAINING.questions, 3)
    assert (exchanged.targets != TRAINING.questions.targets).mean() > 0.5
    for kind in ("colour", "digit"):
        here = TRAINING.questions.categories == kind
        assert sorted(exchanged.targets[here]) == sorted(TRAINING.questions.targets[here])


def test_answers_are_exchanged_among_questions_with_as_many_options():
    texts = [["?"] * (2 + 2 * (i % 2)) for i in range(40)]
    targets = np.array([i % len(text) for i, text in enumerate(texts)])
    exchanged = permuted(Questions(np.arange(40), texts, targets, np.array(["a"] * 40)), 0)
    assert (exchanged.targets < [len(text) for text in texts]).all()


def test_the_split_by_hand():
    """Ten wrong answers of as many images: guessing gets 2; before the connector 8 are read, after it 5."""
    wrong = np.arange(14) < 10
    outcomes = Outcomes(~wrong, *(np.where(wrong, np.arange(14) < count, True) for count in (8, 5, 2)))
    found = where_lost(outcomes, np.arange(14), 50)
    assert found["lost_before"].mean == pytest.approx(1 - 0.6 / 0.8)
    assert found["not_used"].mean == pytest.approx(0.3 / 0.8)
    assert found["lost_at_connector"].mean == pytest.approx(0.3 / 0.8)
    assert found["all_not_used"].mean == pytest.approx(0.3 / 0.8 * 10 / 14)
    assert np.isnan(found["unread"].mean)  # guessing gets all of the right ones
    assert found["model_accuracy"].mean == pytest.approx(4 / 14)
    assert found["reader_advantage"].mean == pytest.approx((9 - 4) / 14)


def test_kinds_that_are_guessed_differently_well_are_weighed_by_their_answers():
    """Two kinds of as many wrong answers: .9 known where half are guessed, .1 where hardly any is."""
    rng, n = np.random.default_rng(0), 20_000
    kinds = np.repeat(["often", "rarely"], n)
    guess = rng.random(2 * n) < np.where(kinds == "often", 0.5, 0.02)
    known = rng.random(2 * n) < np.where(kinds == "often", 0.9, 0.1)
    read = known | (rng.random(2 * n) < np.where(kinds == "often", 0.5, 0.02))
    outcomes = Outcomes(np.zeros(2 * n, bool), read, read, guess)
    found = where_lost(outcomes, np.arange(2 * n), 50, kinds=kinds)
    assert found["not_used"].mean == pytest.approx(0.5, abs=0.02)
    assert where_lost(outcomes, np.arange(2 * n), 50)["not_used"].mean == pytest.approx(0.37, abs=0.02)


def test_kinds_with_few_wrong_answers_are_taken_together():
    outcomes = Outcomes(*(np.arange(12) % 4 < count for count in (0, 3, 2, 1)))
    few = where_lost(outcomes, np.arange(12), 50, kinds=np.repeat(["a", "b"], 6))
    assert few["not_used"] == where_lost(outcomes, np.arange(12), 50)["not_used"]


def test_a_reader_that_only_guesses_finds_all_lost_before_the_connector():
    rng = np.random.default_rng(0)
    guess, other = rng.random((2, 4000)) < 0.25
    found = where_lost(Outcomes(np.zeros(4000, bool), other, other, guess), np.arange(4000), 200)
    assert found["lost_before"].low < 1 < found["lost_before"].high


def test_the_interval_is_over_images():
    rng = np.random.default_rng(0)
    each = rng.random((4, 60)) < np.array([0.5, 0.8, 0.6, 0.2])[:, None]
    once = where_lost(Outcomes(*each), np.arange(60), 500)
    copied = where_lost(Outcomes(*np.repeat(each, 5, axis=1)), np.repeat(np.arange(60), 5), 500)
    assert copied["not_used"] == pytest.approx(once["not_used"])


def test_images_are_as_many_as_questions():
    with pytest.raises(ValueError, match="3 questions with 2 images"):
        where_lost(Outcomes(*np.ones((4, 3), bool)), np.arange(2))


def held_out(**bits):
    """Bits of each reader, side_network -> of each category."""
    rows = []
    for name, (colour, digit) in bits.items():
        side, network = name.split("_")
        for category, value in (("colour", colour), ("digit", digit)):
            rows += [{"side": side, "network": network, "seed": 0, "category": category, "bits": value}] * 40
    return pd.DataFrame(rows)


def test_each_category_has_the_reader_that_leaves_least_open_and_before_is_never_worse_than_after():
    table = held_out(question_small=(2, 2), post_small=(1, 1.5), post_large=(0.9, 1.7), pre_small=(1.2, 0.5))
    chosen = choose(table, ["colour", "digit"], ["small", "large"])
    assert chosen["colour"]["after"] == chosen["colour"]["before"] == Name("post", "large", 0)
    assert chosen["digit"]["after"] == Name("post", "small", 0)
    assert chosen["digit"]["before"] == Name("pre", "small", 0)
    assert chosen["digit"]["guess"] == Name("question", "small", 0)
    assert choose(table, ["unseen"], ["small", "large"])["unseen"]["before"] == Name("pre", "small", 0)
    assert choose(table, ["colour"], ["small"])["colour"]["after"] == Name("post", "small", 0)


def test_stronger_readers_may_read_more_while_the_last_network_gains_or_training_questions_are_known_by_heart():
    table = held_out(post_small=(1, 1), post_large=(0.5, 0.5), pre_small=(0.4, 0.4), pre_large=(0.6, 0.6))
    table["training_bits"] = table["bits"] - 0.01
    assert may_read_more(table, ["small", "large"], 0.02) == {"after": True, "before": False}
    assert may_read_more(table, ["small", "large"], 0.6) == {"after": False, "before": False}
    assert may_read_more(table, ["small"], 0.02) == {"after": True, "before": True}
    table["training_bits"] = table["bits"] - 0.3
    assert may_read_more(table, ["small", "large"], 0.02)["before"]


def test_what_is_filled_in_changes_no_answer():
    """Images of unequal length, and questions of unequal length and number: each as if it were alone."""
    rng = np.random.default_rng(0)
    layouts, rows = [], [(2, 2), (1, 3), (3, 2)]
    from lossmap.store.layouts import Layout, Shape, Span, ViewShape

    for high, wide in rows:
        shape = Shape((ViewShape(high, wide),), (Span(high, wide), Span(1, 0)))
        layouts.append(Layout(wide, high, shape, ((0.0, 0.0, float(wide), float(high)),)))
    pre = [rng.normal(size=(high * wide, 5)).astype(np.float32) for high, wide in rows]
    post = [rng.normal(size=(high * wide + 1, 6)).astype(np.float32) for high, wide in rows]
    store = from_arrays(pre, post, layouts=layouts)
    tokens = [[[1, 2]], [[3]], [[4, 0, 2, 1]], [[2]]]
    lexicon = padded(tokens, torch.randn(5, 8))
    questions = Questions(np.array([2, 0, 0, 1]), [["?"]] * 4, np.zeros(4, np.int64), np.array(["a"] * 4))
    torch.manual_seed(0)
    for side, features in (("pre", 5), ("post", 6)):
        for blocks in (0, 2):
            reader = Reader(features, 8, 3, blocks, 16, 4, 0.0).eval()
            material = Material(store, side, questions, lexicon)
            with torch.inference_mode():
                together = reader(material.load([0, 1, 2])[0])
                for place, image in enumerate([0, 1, 2]):
                    alone = reader(material.load([image])[0])
                    first = [0, 2, 3][place]
                    torch.testing.assert_close(together[first : first + len(alone)], alone)


def of_control(kind, grid=(3, 2)):
    """What a reader of a control connector is given of two images, and pre and post."""
    rng, count = np.random.default_rng(0), grid[0] * grid[1]
    pre, post = rng.normal(size=(2, count, 5)).astype(np.float32), rng.normal(size=(2, 4, 3)).astype(np.float32)
    store = from_arrays(pre, post, pre_grid=grid, image_ids=["a", "b"])
    questions = Questions(np.array([0, 1]), [["?"]] * 2, np.zeros(2, np.int64), np.array(["x", "x"]))
    scale = Scale(torch.zeros(5), torch.ones(5))
    material = Material(store, "pre", questions, padded([[[1]], [[2]]], torch.randn(3, 8)), scale, control=kind, seed=1)
    return material.load([1, 0])[0].seen, pre


def test_pooling_is_the_mean_of_four_patches_where_they_lie():
    seen, pre = of_control("pooling", (3, 2))  # the last row of patches is odd
    assert seen.counts.tolist() == [1, 1]
    torch.testing.assert_close(seen.rows[:, :5], torch.from_numpy(pre[[1, 0], :4].mean(axis=1)))
    expected = encoded(np.array([[0, 0, 1, 2 / 3]]))
    np.testing.assert_allclose(seen.rows[:, 5:].numpy(), np.repeat(expected, 2, axis=0), atol=1e-6)


def test_random_tokens_are_patches_as_many_as_the_connectors_tokens_and_the_same_each_time():
    seen, pre = of_control("random_tokens")
    assert seen.counts.tolist() == [4, 4]
    for rows, patches in zip(seen.split(1), pre[[1, 0]], strict=True):
        found = [np.flatnonzero((patches == row).all(axis=1)) for row in rows.rows[:, :5].numpy()]
        assert len({int(one) for (one,) in found}) == 4
    again, _ = of_control("random_tokens")
    assert torch.equal(again.rows, seen.rows)


def test_options_that_a_question_lacks_are_never_chosen():
    lexicon = padded([[[1], [2], [3]], [[1], [2]]], torch.randn(4, 8))
    questions = Questions(np.array([0, 1]), [["a", "b", "c"], ["a", "b"]], np.array([2, 1]), np.array(["x", "x"]))
    store = from_arrays(np.ones((2, 4, 3), np.float32), np.ones((2, 4, 3), np.float32), pre_grid=(2, 2))
    reader = Reader(3, 8, None, 1, 16, 4, 0.0).eval()
    asked, targets = Material(store, "pre", questions, lexicon).load([0, 1])
    with torch.inference_mode():
        scores = reader(asked)
    assert scores.shape == (2, 3)
    assert torch.isinf(scores[1, 2])
    assert torch.isfinite(scores[0]).all()
    assert targets.rows.tolist() == [2, 1]


def test_places_tell_patches_apart_and_number_what_has_none():
    boxes = np.array([[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0, 1, 1], *[[np.nan] * 4] * 2])
    found = encoded(boxes)
    assert np.isfinite(found).all()
    assert len(np.unique(found.round(4), axis=0)) == 5
    assert found[:, 18].tolist() == [0, 0, 0, 1, 1]


def test_majority_and_frequent_answers():
    assert majority_answers([["a", "b", "b"], ["c", "d"]]) == ["b", "c"]
    assert frequent_answers(["b", "a", "c", "c"], 2) == ["c", "a"]
    with pytest.raises(LossmapError, match="nothing to read"):
        frequent_answers(["a", "a"], 5)


def test_readers_are_the_same_when_they_are_read_again(tmp_path):
    store = TRAINING.store(TRAINING.pre)
    material = Material(store, "pre", TRAINING.questions, TRAINING.lexicon())
    torch.manual_seed(0)
    modules = {
        Name("pre", "one", 0): Reader(material.features, 16, ANSWERS, **NETWORK).eval(),
        Name("question", "none", 1): Reader(None, 16, ANSWERS, 0, 32, 4, 0.0).eval(),
    }
    built = {"one": NETWORK, "none": {"blocks": 0, "width": 32, "heads": 4, "dropout": 0.0}}
    names = [f"answer {i}" for i in range(ANSWERS)]
    kept = Readers(modules, {"pre": material.scale}, names, {"colour": [0.5, 0.5]})
    save_readers(kept, built, tmp_path / "readers.safetensors", {"key": {}})
    again = load_readers(tmp_path / "readers.safetensors")
    assert (again.answers, again.shares) == (names, {"colour": [0.5, 0.5]})
    asked, _ = material.load([3, 1])
    with torch.inference_mode():
        torch.testing.assert_close(again.modules[Name("pre", "one", 0)](asked), modules[Name("pre", "one", 0)](asked))
        blind = replace(asked, seen=None)
        name = Name("question", "none", 1)
        torch.testing.assert_close(again.modules[name](blind), modules[name](blind))
    torch.testing.assert_close(again.scales["pre"].mean, material.scale.mean)


def test_a_file_of_something_else_is_refused(tmp_path):
    from lossmap.reconstruct.saving import save_tensors

    save_tensors(tmp_path / "other.safetensors", {"a": torch.ones(1)}, {"format": "something"})
    with pytest.raises(LossmapError, match="wanted lossmap-readers/1"):
        load_readers(tmp_path / "other.safetensors")


def test_a_reader_that_is_finished_is_not_trained_again(tmp_path, monkeypatch):
    store = TRAINING.store(TRAINING.pre)
    few = TRAINING.questions.some(TRAINING.questions.images < 100)
    material = Material(store, "pre", few, World(1200, 1).lexicon())
    material.lexicon = replace(material.lexicon, numbers=material.lexicon.numbers[: len(few)])
    split = split_images(len(material), 0.2, [100], 0)
    where = Workplace(tmp_path / "work", {"of": "this"}, keep=True)
    how = replace(QUICK, epochs=5)
    first, done = train_reader(material, split, NETWORK, ANSWERS, 0, how, Accelerator(cpu=True), where)

    def no_more(self, *args):
        raise AssertionError("a finished reader takes no step")

    monkeypatch.setattr("lossmap.reconstruct.training.Run.update", no_more)
    second, again = train_reader(material, split, NETWORK, ANSWERS, 0, how, Accelerator(cpu=True), where)
    assert again.history == done.history
    for one, other in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_heads_share_the_width():
    with pytest.raises(LossmapError, match="width 30 isn't a multiple of heads, 4"):
        Reader(8, 16, 3, 1, 30, 4, 0.0)
