"""CUB-200-2011: five text files of blank-separated fields, a line an image or a class."""

import os

from lossmap.data.formats.parsing import Annotations, ImageEntry, Problems, read_text
from lossmap.data.sources import CUB_FILES

SPLITS = {"1": "train", "0": "test"}


def parse(entry: dict, problems: Problems) -> Annotations:
    """The images of one split, with the class name as label. Ids are the numbers in images.txt.

    Bounding boxes are not used (photographs are taken whole), but every image must have one: a file that lacks some is
    not the published one.
    """
    files = [os.path.join(entry["annotations"], name) for name in CUB_FILES]
    images, labels, splits, classes, boxes = (_lines(file, problems) for file in files)
    for file, table in zip(files[1:], (labels, splits, None, boxes), strict=True):
        for image_id, (where, _) in (table or {}).items():
            if image_id not in images:
                problems.append(f"{where}: image {image_id} is not in {files[0]}")
        for image_id, (where, _) in images.items():
            if table is not None and image_id not in table:
                problems.append(f"{where}: image {image_id} is not in {file}")
    for where, box in boxes.values():
        if len(box.split()) != 4 or not all(map(_is_number, box.split())):
            problems.append(f"{where}: the box is {box!r}, wanted four numbers: x y width height")
    class_names = {number: name for number, (_, name) in classes.items()}
    found, others = Annotations(), 0
    for image_id, (where, file) in images.items():
        split = _value(splits, image_id, SPLITS, "split", "1 (train) or 0 (test)", problems)
        label = _value(labels, image_id, class_names, "class", files[3], problems)
        if split == entry["split"]:
            found.images.append(ImageEntry(image_id, file, where, label))
        else:
            others += split is not None
    found.left_out = {"images of other splits": others}
    return found


def _lines(path: str, problems: Problems) -> dict[str, tuple[str, str]]:
    """First field -> where, rest of the line."""
    lines, seen = {}, dict[str, str]()
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        where = f"{path}: line {number}"
        fields = line.split(maxsplit=1)
        if len(fields) == 1:
            problems.append(f"{where}: is {line.strip()!r}, wanted an id and a value")
        elif fields and problems.is_new(seen, fields[0], "id", where):
            lines[fields[0]] = (where, fields[1].rstrip())
    return lines


def _value(table: dict, image_id: str, names: dict, what: str, wanted: str, problems: Problems) -> str | None:
    if image_id not in table:
        return None  # already noted
    where, given = table[image_id]
    if given not in names:
        problems.append(f"{where}: the {what} of image {image_id} is {given!r}, which is not in {wanted}")
    return names.get(given)


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) < float("inf")
    except ValueError:
        return False
