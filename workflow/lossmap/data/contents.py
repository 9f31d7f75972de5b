"""What a dataset holds, as counts: all that the checks of a study must know of it.

The Snakefile imports this: standard library only.
"""

import re
from collections import Counter
from collections.abc import Iterable

# What stands for an image in the prompts of the model families, where annotations written for a model hold it as text.
MARKS = re.compile(r"<image>|<\|image_pad\|>|<\|image\|>|<image_soft_token>|<IMG_CONTEXT>|\[IMG\]")


def count_contents(images: Iterable[tuple], captions: Iterable[str], questions: Iterable[tuple]) -> dict:
    """Counts of a dataset's entries, and of what some of them lack.

    Parameters: images, (image_id, label) of each; captions, the image_id of each; questions, (question_id, text,
        answers, options, mask) of each, text, two lists of it and a path. What an image or a question has not, and an
        option that annotations don't give as text, is None.
    Returns: images, captions, questions, classes; alone_in_class: images that no other shares a class with;
        without_caption, without_mask: [how many, the first's id], of images and of questions; answers, options: of
        questions, their number (as text, for JSON) -> [how many questions have so many, the first's id]; marks: of
        `MARKS`, the mark -> [in how many questions or their options it stands, the first's id].
    """
    images, captions, questions = list(images), list(captions), list(questions)
    captioned = set(captions)
    classes = Counter(label for _, label in images if isinstance(label, str))
    return {
        "images": len(images),
        "captions": len(captions),
        "questions": len(questions),
        "classes": len(classes),
        "alone_in_class": sum(size == 1 for size in classes.values()),
        "without_caption": _counted([image_id for image_id, _ in images if image_id not in captioned]),
        "answers": _by_number((question_id, answers) for question_id, _, answers, _, _ in questions),
        "options": _by_number((question_id, options) for question_id, _, _, options, _ in questions),
        "marks": _marks(questions),
        "without_mask": _counted([question_id for question_id, *_, mask in questions if not isinstance(mask, str)]),
    }


def fewer_than(numbers: dict, least: int) -> tuple[int, str | None, int]:
    """Of `answers` or `options` of `count_contents`: how many questions have fewer than `least`, the id of the first of
    those that have fewest, and how many that one has."""
    few = sorted((int(number), count, first) for number, (count, first) in numbers.items() if int(number) < least)
    return (sum(count for _, count, _ in few), few[0][2], few[0][0]) if few else (0, None, least)


def _counted(ids: list[str]) -> list:
    return [len(ids), ids[0] if ids else None]


def _marks(questions: list[tuple]) -> dict[str, list]:
    found: dict[str, list] = {}
    for question_id, text, _, options, _ in questions:
        for mark in set(MARKS.findall("\n".join(filter(None, [text, *(options or ())])))):
            found.setdefault(mark, [0, question_id])[0] += 1
    return dict(sorted(found.items()))


def _by_number(lists: Iterable[tuple]) -> dict[str, list]:
    found: dict[str, list] = {}
    for entry_id, values in lists:
        found.setdefault(str(len(values or ())), [0, entry_id])[0] += 1
    return found
