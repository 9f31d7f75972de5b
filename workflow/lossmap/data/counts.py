"""What a dataset holds before it has been read: by its annotations, or as it was published.

The Snakefile imports this: nothing heavy.
"""

import os
from typing import NamedTuple

from lossmap.data.contents import count_contents
from lossmap.data.formats import read_annotations
from lossmap.data.formats.parsing import Problems
from lossmap.data.sources import input_paths


class Count(NamedTuple):
    """images and questions, None where nobody knows; source: how they are known."""

    images: int | None
    questions: int | None
    source: str


# (format, what the file of annotations has in its name, split) -> images, questions
PUBLISHED = {
    ("karpathy", "coco", "train"): (82_783, 0),
    ("karpathy", "coco", "restval"): (30_504, 0),
    ("karpathy", "coco", "val"): (5_000, 0),
    ("karpathy", "coco", "test"): (5_000, 0),
    ("karpathy", "flickr30k", "train"): (29_000, 0),
    ("karpathy", "flickr30k", "val"): (1_014, 0),
    ("karpathy", "flickr30k", "test"): (1_000, 0),
    ("coco", "train2017", None): (118_287, 0),
    ("coco", "val2017", None): (5_000, 0),
    ("seedbench", "", None): (5_624, 14_233),  # images as the paper counts them
    ("vizwiz_grounding", "val", None): (1_131, 1_131),
    ("vqav2", "train2014", None): (82_783, 443_757),
    ("vqav2", "val2014", None): (40_504, 214_354),
    ("cub", "", "train"): (5_994, 0),
    ("cub", "", "test"): (5_794, 0),
    ("foodieqa", "", None): (256, 256),  # a question has an image of its own, at most
}


def count_dataset(entry: dict) -> Count:
    """Parameters: entry, the dataset's in the configuration; its files need not exist.

    Where its annotations are there, they are read, and no image is; what they say of faults is left to `read`.
    Where a part of the images is chosen of a published dataset, questions are that part of all questions, rounded.
    Raises: LossmapError if the annotations are there and can't be read.
    """
    if annotated := count_annotated(entry, Problems()):
        return Count(annotated["images"], annotated["questions"], ANNOTATIONS)
    images, questions, source = _published(entry)
    chosen = entry.get("limit", entry.get("sample"))
    if chosen is None or (images is not None and images <= chosen):
        return Count(images, questions, source)
    return Count(chosen, None if images is None else round(questions * chosen / images), "as configured")


ANNOTATIONS = "annotations"


def count_annotated(entry: dict, problems: Problems) -> dict | None:
    """What a dataset will hold, of the images that its entry chooses, as `count_contents` counts it; None where its
    annotations are not there.

    Takes seconds: no image is opened. problems: to which faults of the annotations are added.
    Raises: LossmapError if the annotations can't be read, or hold no image.
    """
    # What isn't an image or a mask. A folder of images is its own annotation.
    paths = [path for path in input_paths(entry) if path not in (entry["images"], entry.get("masks"))]
    if not all(map(os.path.exists, paths or [entry["images"]])):
        return None
    found = read_annotations(entry, problems)
    return count_contents(
        ((image.image_id, image.label) for image in found.images),
        (image_id for image_id, _ in found.captions),
        ((one.question_id, one.question, one.answers, one.options, one.mask) for one in found.questions),
    )


def _published(entry: dict) -> Count:
    name = os.path.basename(entry.get("annotations", "")).lower()
    for (form, part, split), (images, questions) in PUBLISHED.items():
        if form == entry["format"] and part in name and split == entry.get("split"):
            return Count(images, questions, "published")
    return Count(None, None, "unknown")
