"""VQAv2: a file of questions and a file of annotations. Images without a question are not in the dataset."""

import os

from lossmap.data.formats.parsing import Annotations, ImageEntry, Problems, Question, load_json


def parse(entry: dict, problems: Problems) -> Annotations:
    """Images in the order of their first question; the category is the question type (what color is the, how
    many, ...), or the answer type (yes/no, number, other) where annotations have no question type.

    An image's file is COCO_<subset>_<id, 12 digits>.jpg; the subset, such as val2014, is the file's "data_subtype", or
    the name of the image folder where the file does not say.
    """
    path, found, seen_images = entry["questions"], Annotations(), {}
    seen: dict[str, str] = {}
    content = load_json(path, dict, problems)
    subset = os.path.basename(os.path.normpath(entry["images"]))
    if "data_subtype" in content:
        subset = problems.take(content, "data_subtype", "text", path)
    annotations = _annotations(entry["annotations"], problems)
    for i, record in enumerate(problems.take(content, "questions", "a list", path) or ()):
        where = f"{path}: questions[{i}]"
        question_id = problems.take(record, "question_id", "an id", where)
        image_id = problems.take(record, "image_id", "a whole number", where)
        text = problems.take(record, "question", "text", where)
        if question_id is None or not problems.is_new(seen, question_id, "question", where) or image_id is None:
            continue
        image = str(image_id)
        if image not in seen_images:
            seen_images[image] = where
            found.images.append(ImageEntry(image, f"COCO_{subset}_{image_id:012d}.jpg", where))
        if question_id not in annotations:
            problems.append(f"{where}: question {question_id} has no annotation in {entry['annotations']}")
            continue
        annotated_image, answers, category, its_where = annotations[question_id]
        if annotated_image is not None and annotated_image != image:
            problems.append(f"{its_where}: question {question_id} is about image {image}, not {annotated_image}")
        found.questions.append(Question(question_id, image, text, answers, category=category))
    for question_id, (*_, where) in annotations.items():
        if question_id not in seen:
            problems.append(f"{where}: question {question_id} is not in {path}")
    return found


def _annotations(path: str, problems: Problems) -> dict[str, tuple]:
    """question_id -> image id, answers, type, where."""
    annotations, seen = {}, dict[str, str]()
    content = load_json(path, dict, problems, forget=("answer_confidence", "answer_id"))
    for i, record in enumerate(problems.take(content, "annotations", "a list", path) or ()):
        where = f"{path}: annotations[{i}]"
        question_id = problems.take(record, "question_id", "an id", where)
        if question_id is None or not problems.is_new(seen, question_id, "question", where):
            continue
        given = problems.take(record, "answers", "a list", where)
        answers = None
        if given is not None:
            texts = [one.get("answer") if isinstance(one, dict) else one for one in given]
            answers = problems.texts({"answers": texts}, "answers", where)
        image_id = problems.take(record, "image_id", "an id", where)
        kind = "question_type" if "question_type" in record else "answer_type"
        annotations[question_id] = (image_id, answers, problems.take(record, kind, "text", where), where)
    return annotations
