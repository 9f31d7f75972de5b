"""Published dataset -> manifest: one reader a format, and what is the same for all of them: choosing and checking.

The Snakefile imports this to look at annotations before a run: what only images and manifests need is imported where
they are made.
"""

import os
from typing import TYPE_CHECKING

from lossmap.data.formats import (
    coco,
    cub,
    foodieqa,
    image_folder,
    karpathy,
    seedbench,
    vizwiz_grounding,
    vqav2,
)
from lossmap.data.formats.parsing import Annotations, ImageEntry, Problems, Question
from lossmap.data.names import as_on_disk
from lossmap.data.sources import check_entry
from lossmap.errors import LossmapError, study_file

if TYPE_CHECKING:
    from lossmap.data.images import ImageFacts
    from lossmap.data.manifest import Manifest

READERS = {
    "karpathy": karpathy,
    "coco": coco,
    "seedbench": seedbench,
    "vizwiz_grounding": vizwiz_grounding,
    "vqav2": vqav2,
    "cub": cub,
    "foodieqa": foodieqa,
    "image_folder": image_folder,
}


def read_annotations(entry: dict, problems: Problems) -> Annotations:
    """Parse the annotations and choose images, with the captions and questions of the chosen ones only.

    Parameters: entry, the dataset's in the study's file (see sources.FORMATS); problems, to which faults are added.
    Raises: LossmapError if the entry or a file can't be read, or there is no image. No image is opened.
    """
    check_entry(entry)
    found = READERS[entry["format"]].parse(entry, problems)
    if not found.images and not problems:
        source = entry.get("questions", entry.get("annotations", entry["images"]))
        split = f" of split {entry['split']!r}" if "split" in entry else ""
        left_out = "".join(f"; it leaves out {count} {what}" for what, count in found.left_out.items() if count)
        raise LossmapError(
            f"{source}: holds no image{split}{left_out}. Is it the right file or folder for this format?"
        )
    images = _choose(found.images, entry, problems)
    chosen = {image.image_id for image in images}
    captions = [caption for caption in found.captions if caption[0] in chosen]
    questions = [question for question in found.questions if question.image_id in chosen]
    missing = len({image.label for image in found.images} - {image.label for image in images})
    left_out = found.left_out | ({"classes of which no image is chosen": missing} if missing else {})
    return Annotations(images, captions, questions, left_out, frozenset(image.file for image in found.images))


def read(entry: dict, workers: int = 1) -> "Manifest":
    """Parse the annotations, choose images, decode every chosen image and mask.

    Parameters: entry, the dataset's in the study's file (see sources.FORMATS); workers, how many processes decode.
    Returns: the manifest, images in annotation order, with the captions and questions of the chosen images only.
    Raises: one LossmapError for all faults of the annotations and the chosen images. Nothing is left out for a fault.
    """
    from lossmap.data.images import check_images
    from lossmap.data.manifest import Manifest, make_table

    check_entry(entry)
    for key in ("images", "masks"):
        if key in entry and not os.path.isdir(entry[key]):
            raise LossmapError(
                f"{key}: {entry[key]} is not a folder. Correct the dataset's entry, or download the images."
            )
    problems = Problems()
    found = read_annotations(entry, problems)
    images = found.images

    facts = {}
    files, hints = as_on_disk([image.file for image in images], entry["images"], found.files)
    for image, file, fact in zip(images, files, check_images(files, entry["images"], workers), strict=True):
        if isinstance(fact, str):
            problems.append(f"{image.where}: image {image.image_id}: {fact}{_meant(hints.get(file))}")
        else:
            facts[image.image_id] = fact
    questions, mask_problems = _with_masks(found.questions, facts, entry, workers)
    problems += mask_problems
    if problems:
        raise _error(entry, problems)
    return Manifest(
        images=make_table(
            "images",
            [
                (i.image_id, os.path.join(entry["images"], file), i.label, *facts[i.image_id][:-1])
                for i, file in zip(images, files, strict=True)
            ],
        ),
        captions=make_table("captions", found.captions),
        questions=make_table(
            "questions",
            [(*q[:-1], q.mask and os.path.join(entry["masks"], q.mask)) for q in questions],
        ),
        format=entry["format"],
        left_out=found.left_out,
        thumbnails=[facts[image.image_id].thumbnail for image in images],
    )


def _choose(images: list[ImageEntry], entry: dict, problems: Problems) -> list[ImageEntry]:
    """`limit` images spread evenly over all, or `sample` of them at random by `seed`, in annotation order; or all."""
    if "sample" not in entry:
        return [images[i] for i in sorted(spread(len(images))[: entry.get("limit")])]
    if entry["sample"] > len(images):
        problems.append(
            f"sample: {entry['sample']} images were asked for, and there are {len(images)}; take fewer or all"
        )
        return images
    import numpy as np

    chosen = np.random.default_rng(entry.get("seed", 0)).choice(len(images), size=entry["sample"], replace=False)
    return [images[i] for i in np.sort(chosen)]


def spread(count: int) -> list[int]:
    """The order in which a growing `limit` takes `count` places: its first n are spread evenly over all, for every n.

    Annotations are sorted, by class or by type of question, and the first images would be those of the first classes.
    These hold each in proportion, and those of a smaller limit are among those of a larger one. Places come by the
    fractional parts of their golden multiples (in steps of 2^-64), which follow no period that annotations may have.
    Source: Knuth, The Art of Computer Programming, vol. 3, 6.4, theorem S.
    """
    return sorted(range(count), key=lambda place: place * 0x9E3779B97F4A7C15 % 2**64)


def _with_masks(
    questions: list[Question], facts: dict[str, "ImageFacts"], entry: dict, workers: int
) -> tuple[list[Question], list[str]]:
    """The questions with their masks' names as the disk spells them, and a line for each mask that is missing, damaged,
    or of another size than its image is when upright."""
    from lossmap.data.images import check_masks

    masks = [question.mask for question in questions if question.mask is not None]
    if not masks:
        return questions, []
    files, hints = as_on_disk(masks, entry["masks"], frozenset(masks))
    found = dict(zip(masks, zip(files, check_masks(files, entry["masks"], workers), strict=True), strict=True))
    spelt, problems = [], []
    for question in questions:
        if question.mask is None:
            spelt.append(question)
            continue
        file, size = found[question.mask]
        spelt.append(question._replace(mask=file))
        image = facts.get(question.image_id)
        if isinstance(size, str):
            problems.append(f"mask of question {question.question_id}: {size}{_meant(hints.get(file))}")
        elif image is not None and size != (image.width, image.height):
            problems.append(
                f"mask of question {question.question_id}: {os.path.join(entry['masks'], file)}: is"
                f" {size[0]} x {size[1]} pixels; its image, upright by its EXIF orientation, is"
                f" {image.width} x {image.height}"
            )
    return spelt, problems


def _meant(file: str | None) -> str:
    return f" There is {file!r}, spelt otherwise: give it or its entry the other's name." if file else ""


def _error(entry: dict, problems: list[str]) -> LossmapError:
    problems = list(dict.fromkeys(problems))  # what is no object lacks every field of it, and needs one line
    count = f"{len(problems)} problems" if len(problems) > 1 else "a problem"
    return LossmapError.listing(
        f"The dataset in {entry['images']} (format {entry['format']}) has {count}:",
        problems,
        f"Mend the files, or the dataset's entry in {study_file()}. Nothing is skipped and nothing was written.",
    )
