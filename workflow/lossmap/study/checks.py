"""What a study asks of its datasets, held against what they hold: before anything is embedded, all faults in one error.

The Snakefile imports this: nothing heavy. By annotations it is asked before anything is read, where these are there; by
manifests, once every dataset that is measured has been read.
"""

import os
from pathlib import Path

from lossmap.data.contents import fewer_than
from lossmap.data.counts import count_annotated
from lossmap.data.formats.parsing import Problems
from lossmap.data.sources import input_paths
from lossmap.errors import LossmapError, study_file
from lossmap.measures.vqa_accuracy import ENOUGH
from lossmap.reconstruct.sizes import batch_size, share_sizes
from lossmap.study.control_checks import configuration_here
from lossmap.study.derived import evaluated, measured_datasets, neighbours_wanted, task_of
from lossmap.study.sources import is_made
from lossmap.vlm.foreign_formats import json_object
from lossmap.vlm.input_size import shape_problems
from lossmap.vlm.prompts import LETTERS

QUICK = 200_000_000  # bytes of annotations that are read in seconds, and held in Snakemake's own process for that long
LEAST_IMAGES = 4  # of geometry: two halves, each with a deviation; debiased CKA


def check_annotations(config: dict) -> None:
    """Check the datasets that have not been read since they last changed, by their annotations: this takes seconds, and
    reading them, with all their images, may take an hour.

    Parameters: config, from `check_study`, with all defaults. Files that the workflow makes itself are not looked at,
        nor are annotations of more than QUICK bytes: `check_contents` sees them before anything is embedded, too.
    Raises: LossmapError, one for all faults of the annotations, and of what the study asks of them.
    """
    faults, contents = [], {}
    for dataset in filter(lambda name: _to_be_read(config, name), measured_datasets(config)):
        problems = Problems()
        try:
            found = count_annotated(config["datasets"][dataset], problems)
        except LossmapError as error:
            problems, found = Problems([str(error)]), None
        if problems:
            faults += [f"{dataset}: {problem}" for problem in dict.fromkeys(problems)]
        elif found:
            contents[dataset] = found
    _raise(faults + all_problems(config, contents))


def check_contents(config: dict, contents: dict[str, dict]) -> None:
    """Check what a study asks of its datasets. contents: dataset -> what it holds, as `count_contents` says.

    Raises: LossmapError with every fault of every dataset.
    """
    _raise(all_problems(config, contents))


def all_problems(config: dict, contents: dict[str, dict]) -> list[str]:
    """A line for each thing that a dataset has not and the study asks of it."""
    checks = (
        *(_caption_problems, _answer_problems, _choice_problems, _mark_problems, _mask_problems, _class_problems),
        *(_neighbour_problems, _training_problems, _reader_problems, _shape_problems),
    )
    return [
        f"{dataset} ({found['images']} images): {problem}"
        for dataset, found in contents.items()
        for check in checks
        for problem in check(config, dataset, found)
    ]


def _raise(problems: list[str]) -> None:
    if problems:
        raise LossmapError.listing(
            f"The study's datasets don't hold what it asks of them; {len(problems)} fault{'s' * (len(problems) > 1)}:",
            problems,
            f"Mend these files, or in {study_file()} the sections named here, or limit and sample of these datasets. "
            "Nothing was embedded.",
        )


def _to_be_read(config: dict, dataset: str) -> bool:
    """Whether a dataset's files are there, small, and newer than its manifest or without one."""
    paths = input_paths(config["datasets"][dataset])
    if any(is_made(path, config["miniature"]["folder"]) for path in paths) or not all(map(os.path.exists, paths)):
        return False
    if sum(os.path.getsize(path) for path in paths if os.path.isfile(path)) > QUICK:
        return False
    manifest = Path("results") / config["study"] / "data" / dataset / "manifest.json"
    read = manifest.stat().st_mtime if manifest.is_file() else 0
    return any(os.path.getmtime(path) > read for path in paths)


def _caption_problems(config: dict, dataset: str, found: dict) -> list[str]:
    missing, first = found["without_caption"]
    if dataset not in config["captions"]["datasets"] or not missing:
        return []
    file = config["datasets"][dataset].get("annotations")
    if missing == found["images"]:
        return [
            f"captions: {file} holds no caption of these images; CIDEr needs one of each (captions_*.json has them)"
        ]
    return [f"captions: CIDEr needs one of each image; {missing} have none in {file}, the first is image {first}"]


def _answer_problems(config: dict, dataset: str, found: dict) -> list[str]:
    if dataset not in config["answers"]["datasets"]:
        return []
    if config["answers"]["score"] == "vqa_match" or not found["questions"]:  # readers refuse a question without answer
        return _without_questions("answers", found)
    file = config["datasets"][dataset].get("annotations")
    few, first, answers = fewer_than(found["answers"], ENOUGH + 1)
    if not few:
        return []
    return [
        f"answers: {few} of {found['questions']} questions have too few answers in {file}, question {first} has "
        f"{answers}; VQA accuracy takes at least {ENOUGH + 1} annotators' answers, answers: score: vqa_match one"
    ]


def _choice_problems(config: dict, dataset: str, found: dict) -> list[str]:
    if dataset not in config["choices"]["datasets"]:
        return []
    file, asked = config["datasets"][dataset].get("annotations"), found["questions"]
    few, first, options = fewer_than(found["options"], 2)
    problems = _without_questions("choices", found)
    if few:
        problems.append(
            f"choices: {few} of {asked} questions have fewer than 2 options in {file}, question {first} has {options}"
        )
    many = {number: counted for number, counted in found["options"].items() if int(number) > len(LETTERS)}
    if many:
        number, (_, first) = max(many.items(), key=lambda pair: int(pair[0]))
        count = sum(count for count, _ in many.values())
        problems.append(
            f"choices: {count} of {asked} questions have more options than there are letters, {len(LETTERS)}, in "
            f"{file}; question {first} has {number}"
        )
    return problems


def _without_questions(section: str, found: dict) -> list[str]:
    return [] if found["questions"] else [f"{section}: there is no question about any of these images"]


def _mark_problems(config: dict, dataset: str, found: dict) -> list[str]:
    """Questions that hold what stands for an image in a model's prompts: the model would be shown two."""
    if dataset not in config["answers"]["datasets"] + config["choices"]["datasets"]:
        return []
    problems = []
    for name, model in config["models"].items():
        count, first = found["marks"].get(_image_token(configuration_here(model)), (0, None))
        if count:
            problems.append(
                f"models: {name}: {count} of {found['questions']} questions, the first {first}, hold the mark that "
                "stands for an image in this model's prompts; take it out of them"
            )
    return problems


def _image_token(folder: Path | None) -> str | None:
    """What stands for an image in a model's prompts, by its processor's configuration; None where that doesn't say."""
    if folder is None:
        return None
    for name in ("processor_config.json", "tokenizer_config.json"):
        token = json_object(folder / name).get("image_token")
        if token is not None:
            return token["content"] if isinstance(token, dict) else token
    return None


def _mask_problems(config: dict, dataset: str, found: dict) -> list[str]:
    """Where answers are related to losses, every question's mask is laid on the patches."""
    measured = evaluated(config)
    related = dataset in config["answers"]["datasets"] and dataset in measured
    missing, first = found["without_mask"]
    if not related or "masks" not in config["datasets"][dataset] or not missing:
        return []
    return [f"answers: {missing} of {found['questions']} questions have no answer mask, the first is question {first}"]


def _class_problems(config: dict, dataset: str, found: dict) -> list[str]:
    if dataset not in config["retrieval"]["datasets"]:
        return []
    if found["classes"] < 2:
        return [f"retrieval: by class it needs 2 classes at least, {dataset} has {found['classes']}"]
    if found["alone_in_class"] == found["images"]:
        return ["retrieval: every image is alone in its class, so that no search can find another of it"]
    return []


def _neighbour_problems(config: dict, dataset: str, found: dict) -> list[str]:
    """More neighbours than there are, or too few images for geometry. That pictures are equal, manifests tell and
    annotations don't."""
    dropped = config["equal_images"] == "drop"
    images = found.get("pictures", found["images"]) if dropped else found["images"]
    differ = f" that differ (equal_images: drop, of {found['images']})" if images < found["images"] else ""
    problems = [
        f"{key}: {k} neighbours are too many; with {images} images{differ}, an image has {images - 1} at most"
        for key, k in neighbours_wanted(config, dataset)
        if k >= images
    ]
    if dataset in config["geometry"]["datasets"]:
        if max(config["geometry"]["k"]) == images - 1:
            problems.append(f"geometry: k: a margin needs an image beyond the neighbours, so k is {images - 2} at most")
        if images < LEAST_IMAGES:
            problems.append(f"geometry: it needs {LEAST_IMAGES} images{differ} at least")
        elif not dropped and found.get("single_pictures", images) < 2:
            problems.append("geometry: its intrinsic dimension needs 2 images without a copy. Set equal_images: drop")
        elif not dropped and (same := found.get("same_picture", 0)) >= images // 2:
            problems.append(
                f"geometry: {same} images hold one and the same picture; fewer than half may, for an alignment is "
                "fitted on one half of the images. Set equal_images: drop"
            )
    return problems


def _training_problems(config: dict, dataset: str, found: dict) -> list[str]:
    """One image where a control takes another's; parts of the training images that are empty or smaller than a batch; a
    batch of fewer images than processes."""
    reconstruction = config.get("reconstruction")
    if not reconstruction or dataset not in (reconstruction["train"], reconstruction["ladder"]):
        return []
    others = [name for name, control in reconstruction["controls"].items() if control["kind"].startswith("other_image")]
    if found["images"] < 2 and others:
        return [f"reconstruction: controls: {others[0]}: takes another image's output, and there is one image"]
    if dataset != reconstruction["train"]:
        return []
    batch, held_out = reconstruction["training"]["batch"], reconstruction["held_out"]
    count, shares = share_sizes(found["images"], held_out, reconstruction["shares"])
    problems = [] if count else ["reconstruction: held_out: is less than one of these images"]
    problems += [
        f"reconstruction: shares: {share}% of {found['images'] - count} training images are {size}, fewer than "
        + (f"a batch of {batch}" if batch else "one")
        for share, size in shares.items()
        if size < (batch or 1)
    ]
    whole, processes = batch or batch_size(min(shares.values())), reconstruction["training"]["processes"]
    if not problems and whole < processes:
        problems.append(f"reconstruction: training: processes: {processes} can't share a batch of {whole} images")
    return problems


def _reader_problems(config: dict, dataset: str, found: dict) -> list[str]:
    """Training images without questions, or too few to hold some out. What is measured is among answers or choices."""
    readers = config.get("readers")
    if not readers or dataset != readers["train"]:
        return []
    problems = _without_questions("readers: train", found)
    few, first, options = fewer_than(found["options"], 2)
    if task_of(config, dataset) == "choices" and few:
        problems.append(f"readers: train: {few} questions have fewer than 2 options, question {first} has {options}")
    held_out, _ = share_sizes(found["images"], readers["held_out"], [100])
    if not 0 < held_out < found["images"]:
        problems.append(f"readers: held_out: {held_out} of {found['images']} images; wanted some, and not all")
    return problems


def _shape_problems(config: dict, dataset: str, found: dict) -> list[str]:
    """Images that a model's own processor refuses for their shape. Annotations don't tell it, manifests do."""
    problems = []
    for name, model in config["models"].items():
        if folder := configuration_here(model):
            problems += [f"models: {name}: {line}" for line in shape_problems(folder, found.get("long_shapes", []))]
    return problems
