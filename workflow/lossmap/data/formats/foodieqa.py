"""FoodieQA, single-image questions: `sivqa_tidy.json`. The English questions and choices are read, not the Chinese."""

from lossmap.data.formats.parsing import Annotations, ImageEntry, Problems, Question, load_json


def parse(entry: dict, problems: Problems) -> Annotations:
    """Questions, and the images they ask about, whose ids are their paths in the image folder.

    A "food_file" is published as images/<name>: the entry's `images` is the folder that holds <name>, however called.
    """
    path, found, seen_images = entry["annotations"], Annotations(), {}
    seen: dict[str, str] = {}
    for i, record in enumerate(load_json(path, list, problems)):
        where = f"{path}: [{i}]"
        question_id = problems.take(record, "question_id", "an id", where)
        if not isinstance(record, dict):
            continue
        meta = problems.take(record, "food_meta", "an object", where)
        file = problems.take(meta, "food_file", "text", f"{where}.food_meta") if meta is not None else None
        text = problems.take(record, "question_en", "text", where)
        options = problems.texts(record, "choices_en", where)
        index = None
        if options is not None:
            if not all(option.strip() for option in options):
                problems.append(f'{where}: "choices_en" holds empty text')
            answer = problems.take(record, "answer", "an id", where)
            if answer is not None:
                number = int(answer) if answer in map(str, range(len(options))) else None
                index = problems.option(number, options, answer, where)
        if file is None:
            continue
        file = file.removeprefix("images/")
        if file not in seen_images:
            seen_images[file] = where
            found.images.append(ImageEntry(file, file, where))
        if question_id is None or not problems.is_new(seen, question_id, "question", where):
            continue
        if options is not None and index is not None:
            found.questions.append(Question(question_id, file, text, [options[index]], options, index))
    return found
