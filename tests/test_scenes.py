"""Scenes and what is said about them: the drawing, the captions, the questions."""

import re
from collections import Counter

import numpy as np
import pytest

from lossmap.miniature import language
from lossmap.miniature.scenes import COLOURS, NUMBERS, PLACES, digit_pool, draw_scene

HELD_OUT = digit_pool("held-out")


def scenes(n, seed=0, **options):
    rng = np.random.default_rng(seed)
    return [draw_scene(rng, HELD_OUT, **options) for _ in range(n)]


def test_no_digit_is_in_both_parts_and_none_is_left_out():
    training = digit_pool("training")
    assert not set(training) & set(HELD_OUT)
    assert sorted([*training, *HELD_OUT]) == list(range(1797))
    assert (HELD_OUT % 5 == 0).all()


def test_a_part_of_another_name_is_refused():
    with pytest.raises(ValueError, match="not 'test'"):
        digit_pool("test")


def test_one_seed_draws_one_scene():
    a, b = scenes(5), scenes(5)
    assert all(
        (x.image == y.image).all() and (x.masks == y.masks).all() and x.digits == y.digits
        for x, y in zip(a, b, strict=True)
    )
    assert any(x.digits != y.digits for x, y in zip(a, scenes(5, seed=1), strict=True))


def test_a_scene_shows_one_to_four_digits_in_quarters_and_colours_of_their_own():
    counts = Counter()
    for scene in scenes(300):
        digits = scene.digits
        counts[len(digits)] += 1
        assert len({d.cell for d in digits}) == len({d.colour for d in digits}) == len(digits)
        assert all(d.source in HELD_OUT for d in digits)
        height, width = scene.image.shape[:2]
        for d in digits:
            x, y, w, h = d.box
            assert 0 <= x <= x + w <= width
            assert 0 <= y <= y + h <= height
            assert PLACES[d.cell] == ("top" if y + h / 2 < height / 2 else "bottom") + (
                " left" if x + w / 2 < width / 2 else " right"
            )
    assert set(counts) == {1, 2, 3, 4}
    assert min(counts.values()) > 45  # 75 of each are expected


def test_digits_stand_in_the_central_square_where_a_crop_keeps_them():
    for scene in scenes(50, shape=(84, 112)):
        assert all(d.box[0] >= 14 and d.box[0] + d.box[2] <= 98 for d in scene.digits)


def test_about_a_quarter_of_the_scenes_is_not_square():
    odd = np.mean([s.image.shape[0] != s.image.shape[1] for s in scenes(400)])
    assert 0.17 < odd < 0.34  # 0.25 and four standard errors


def test_masks_lie_in_their_boxes_and_never_meet():
    for scene in scenes(100):
        assert scene.masks.shape == (len(scene.digits), *scene.image.shape[:2])
        assert scene.masks.sum(0).max() == 1
        for digit, mask in zip(scene.digits, scene.masks, strict=True):
            x, y, w, h = digit.box
            inside = mask[y : y + h, x : x + w]
            assert inside.sum() == mask.sum() > 20


def test_masked_pixels_have_the_colour_of_the_ink():
    def direction(rgb):
        return np.array(rgb) / np.linalg.norm(rgb)

    nearest = []
    for scene in scenes(100):
        for digit, mask in zip(scene.digits, scene.masks, strict=True):
            shown = direction(scene.image[mask].mean(0))
            away = {name: np.linalg.norm(shown - direction(ink)) for name, ink in COLOURS.items()}
            nearest.append(min(away, key=away.get) == digit.colour)
    assert np.mean(nearest) > 0.95


def test_a_bar_hides_some_digits_and_never_more_than_a_quarter_of_the_ink():
    """The same scene drawn with and without what covers it cannot be had, so the ink is found by drawing the digit
    again."""
    from PIL import Image
    from sklearn.datasets import load_digits

    images = load_digits().images / 16
    hidden = []
    for scene in scenes(200):
        for digit, mask in zip(scene.digits, scene.masks, strict=True):
            edge = digit.box[2]
            ink = Image.fromarray(images[digit.source].astype(np.float32)).resize(
                (edge, edge), Image.Resampling.BICUBIC
            )
            hidden.append(1 - mask.sum() / (np.asarray(ink) > 0.4).sum())
    hidden = np.array(hidden)
    assert (hidden <= 0.25).all()
    assert 0.04 < (hidden > 0).mean() < 0.25


def test_number_and_colours_of_a_scene_can_be_asked_for():
    for scene in scenes(20, n_digits=2, colours=("red", "blue", "cyan")):
        assert len(scene.digits) == 2
        assert {d.colour for d in scene.digits} <= {"red", "blue", "cyan"}


def test_captions_differ_and_say_what_is_there():
    rng = np.random.default_rng(0)
    for scene in scenes(50):
        made = language.captions(scene, rng, 6)
        assert len(set(made)) == 6
        for text in made:
            words = set(re.findall(r"\w+", text.lower()))
            assert {d.number for d in scene.digits} <= words
            assert {d.colour for d in scene.digits} <= words
            assert not words & (set(COLOURS) - {d.colour for d in scene.digits})


def test_an_answer_is_right_about_the_digit_that_is_asked_about():
    rng = np.random.default_rng(0)
    kinds = Counter()
    for scene in scenes(600):
        question = language.ask(scene, rng)
        kinds[question.kind] += 1
        digits = [scene.digits[i] for i in question.digits]
        if question.kind == "digit":
            assert question.answer == digits[0].number
            assert digits[0].place in question.text or digits[0].colour in question.text
        elif question.kind == "colour":
            assert question.answer == digits[0].colour
            assert digits[0].place in question.text or digits[0].number in question.text
        elif question.kind == "place":
            assert question.answer == digits[0].place
        elif question.kind == "count":
            assert question.answer == NUMBERS[len(scene.digits)]
            assert len(digits) == len(scene.digits)
        elif question.kind == "size":
            assert question.answer == ("larger" if digits[0].box[2] > digits[1].box[2] else "smaller")
        else:
            assert question.answer == language.UNANSWERABLE
            assert not digits
    assert set(kinds) == set(language.KINDS)
    assert abs(kinds["digit"] / 600 - 0.3) < 0.08


def test_what_is_unanswerable_names_nothing_that_is_in_the_scene():
    rng = np.random.default_rng(0)
    for scene in scenes(200):
        text = language.ask(scene, rng, "unanswerable").text
        words = set(re.findall(r"\w+", text))
        assert not words & {d.colour for d in scene.digits}
        assert not any(d.place in text for d in scene.digits)
        assert not words & {d.number for d in scene.digits}


def test_options_differ_one_is_right_and_stands_where_it_should():
    rng = np.random.default_rng(0)
    seen = Counter()
    for i, scene in enumerate(scenes(300)):
        for category in language.categories_of(scene):
            choice = language.ask_choice(scene, rng, category, i % 4)
            seen[category] += 1
            assert len(set(choice.options)) == 4
            assert choice.answer == i % 4
            right, digits = choice.options[choice.answer], [scene.digits[j] for j in choice.digits]
            if category == 2:
                assert right == digits[0].number
            if category == 5:
                assert right == NUMBERS[len(scene.digits)]
            if category == 6:
                (ax, ay), (bx, by) = ((d.cell % 2, d.cell // 2) for d in digits)
                assert (
                    right
                    == {(-1, 0): "left of it", (1, 0): "right of it", (0, -1): "above it", (0, 1): "below it"}[
                        ax - bx, ay - by
                    ]
                )
            if category == 8:
                assert right == max(scene.digits, key=lambda d: d.label).colour
            if category == 9:
                assert right == " ".join(d.number for d in sorted(digits, key=lambda d: d.cell))
    assert set(seen) == set(language.CATEGORIES)


def test_a_question_may_name_the_option_it_wants():
    rng = np.random.default_rng(0)
    choice = language.ask_choice(scenes(1)[0], rng, 2, 1)
    named = language.naming_its_answer(choice)
    assert named.text == f"Which option is {choice.options[1]}?"
    assert named.options == choice.options


def test_ten_people_mostly_agree():
    rng = np.random.default_rng(0)
    agreeing, unable = [], []
    for scene in scenes(200):
        question = language.ask(scene, rng, "digit")
        said = language.ten_answers(question, rng)
        assert len(said) == 10
        agreeing.append(np.mean([a == question.answer for a in said]))
        unable.append(np.mean([a == language.UNANSWERABLE for a in said]))
    assert 0.7 < np.mean(agreeing) < 0.9
    assert 0.02 < np.mean(unable) < 0.09


def test_the_vocabulary_covers_all_that_is_said():
    rng, known = np.random.default_rng(0), set(language.vocabulary())
    for scene in scenes(300):
        question, choice = language.ask(scene, rng), language.ask_choice(scene, rng)
        texts = [*language.captions(scene, rng, 6), *language.ten_answers(question, rng), *language.CAPTION_PROMPTS]
        texts += [language.short_answer_prompt(question.text), language.choice_prompt(choice.text, choice.options)]
        assert set(re.findall(r"\w+|[^\w\s]", " ".join(texts))) <= known


def test_prompts_are_the_ones_of_the_paper():
    assert language.short_answer_prompt("Where?") == "Where?\nAnswer the question using a single word or phrase."
    assert language.choice_prompt("Where?", ("here", "there", "up", "down")) == (
        "Where?\nA. here\nB. there\nC. up\nD. down\nAnswer with the option's letter from the given choices directly.\n"
    )
