"""SEED-Bench: `SEED-Bench.json`. Its images are published without suffix; one of .jpg, .jpeg, .png is accepted too."""

import os

from lossmap.data.formats.parsing import Annotations, ImageEntry, Problems, Question, load_json

LAST_IMAGE_TYPE = 9  # question types 1 to 9 ask about an image, the others about a video
LETTERS = ("A", "B", "C", "D")
CHOICES = ("choice_a", "choice_b", "choice_c", "choice_d")


def parse(entry: dict, problems: Problems) -> Annotations:
    """The image questions, with the name of their type as category, and the images they ask about."""
    path, found, seen_images, videos = entry["annotations"], Annotations(), {}, 0
    seen: dict[str, str] = {}
    content = load_json(path, dict, problems)
    types = problems.take(content, "question_type", "an object", path) or {}
    type_names, seen_types = {}, dict[str, str]()
    for name in types:
        where = f"{path}: question_type {name!a}"
        type_id = problems.take(types, name, "a whole number", where)
        if type_id is not None and problems.is_new(seen_types, str(type_id), "question type", where):
            type_names[type_id] = name
    for i, record in enumerate(problems.take(content, "questions", "a list", path) or ()):
        where = f"{path}: questions[{i}]"
        type_id = problems.take(record, "question_type_id", "a whole number", where)
        if type_id is None:
            continue
        about = "image" if type_id <= LAST_IMAGE_TYPE else "video"
        if record.get("data_type", about) != about:
            problems.append(f'{where}: "data_type" is not {about}, but question type {type_id} is about {about}s')
        if type_id not in type_names:
            problems.append(f'{where}: question type {type_id} is not in the file\'s "question_type"')
        if about == "video":
            videos += 1
            continue
        question_id = problems.take(record, "question_id", "an id", where)
        image_id = problems.take(record, "data_id", "text", where)
        text = problems.take(record, "question", "text", where)
        options = [problems.take(record, choice, "text", where) for choice in CHOICES]
        letter = problems.take(record, "answer", "text", where)
        index = None
        if letter is not None:
            index = problems.option(LETTERS.index(letter) if letter in LETTERS else None, options, letter, where)
        if image_id is not None and image_id not in seen_images:
            seen_images[image_id] = where
            found.images.append(ImageEntry(image_id, _file_name(entry["images"], image_id), where))
        if question_id is not None and problems.is_new(seen, question_id, "question", where) and index is not None:
            found.questions.append(
                Question(question_id, image_id, text, [options[index]], options, index, type_names.get(type_id))
            )
    found.left_out = {"questions about videos": videos}
    return found


def _file_name(folder: str, data_id: str) -> str:
    names = (data_id, *(data_id + suffix for suffix in (".jpg", ".jpeg", ".png")))
    return next((name for name in names if "\0" not in name and os.path.isfile(os.path.join(folder, name))), data_id)
