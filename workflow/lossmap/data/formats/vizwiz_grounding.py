"""VizWiz VQA grounding: `val_grounding.json`, and one mask an image: the stem of its name and `.png`."""

import posixpath

from lossmap.data.formats.parsing import Annotations, ImageEntry, Problems, Question, load_json


def parse(entry: dict, problems: Problems) -> Annotations:
    """One question an image; the id of both is the file name without suffix."""
    path, found = entry["annotations"], Annotations()
    seen: dict[str, str] = {}
    for file, record in load_json(path, dict, problems, forget=("answer_grounding",)).items():
        where = f"{path}: {file!a}"
        stem = problems.take({"file name": posixpath.splitext(file)[0]}, "file name", "text", where)
        text = problems.take(record, "question", "text", where)
        answers = problems.texts(record, "answers", where)
        if stem is None or not problems.is_new(seen, stem, "image", where):
            continue
        found.images.append(ImageEntry(stem, file, where))
        found.questions.append(Question(stem, stem, text, answers or [], mask=f"{stem}.png"))
    return found
