"""Your own model and images -> a study's file, ready to run."""

import os
import shlex
from dataclasses import replace
from pathlib import Path

import yaml

from lossmap.data.counts import count_annotated
from lossmap.data.formats.parsing import Problems
from lossmap.errors import LossmapError
from lossmap.study.checks import LEAST_IMAGES, check_annotations
from lossmap.study.own_study import LIMIT, Photos, name_of, write_study
from lossmap.study.settings import check_study, is_hub_like
from lossmap.vlm.checkpoints import fetch_configuration, local_checkpoint


def run(
    study: Path,
    /,
    *,
    model: str,
    images: str,
    revision: str | None = None,
    train: str | None = None,
    name: str | None = None,
) -> None:
    """Write a study of one model on a folder of images, with settings that fit the number of images.

    STUDY: the file to write, say mine.yaml. model: a folder with a checkpoint, or a hub id, of which the configuration
    is downloaded. revision: of a hub id, the commit, 40 hex digits. images: a folder of images, or of one sub-folder of
    images a class. train: another such folder, of other images: they train reconstructors, so that the study has patch
    losses and the verdict, too. name: of the study, and so of its results' folder; left out: the file's. Everything is
    checked as it is before a run, and nothing is written if there is a fault. An existing file is never replaced.
    """
    if study.exists():
        raise LossmapError(f"{study}: is there already. Give another name, or take it away first.")
    if not study.absolute().parent.is_dir():
        raise LossmapError(f"{study}: its folder does not exist. Make it first, or correct the path.")
    photos = _photos("--images", images)
    others = _photos("--train", train) if train else None
    if train and os.path.samefile(images, train):
        raise LossmapError(
            f"--train: {train} is the folder of --images, too; images that trained a reconstructor tell nothing of what"
            " it can recover. Give a folder of other images."
        )
    if others and others.name == photos.name:
        others = replace(others, name=f"{others.name}-train")
    chosen, entry = _model(model, revision)
    text = write_study(name or name_of(study.stem, "mine"), (chosen, entry), photos, others)
    check_annotations(check_study(yaml.safe_load(text), source="what lossmap init was given"))
    try:
        with study.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise LossmapError(f"{study}: can't be written ({error.strerror}). Mend it, or give another file.") from None
    path = shlex.quote(str(study))
    print(f"Wrote {study}: model {chosen} on {photos.name}, {photos.described()}. What it costs, and the run:")
    print(f"  lossmap plan --configfile {path}")
    print(f"  lossmap run --cores {len(os.sched_getaffinity(0))} --configfile {path}")


def _photos(option: str, folder: str) -> Photos:
    """A folder of images, counted; of a large one, a part is chosen."""
    if os.path.isfile(folder):
        raise LossmapError(
            f"{option}: {folder} is a file; give a folder of images. A dataset with annotations gets its entry by hand,"
            " as those of the default study, config.yaml."
        )
    entry: dict[str, str | int] = {"format": "image_folder", "images": folder}
    everything = _count(option, entry)
    images = everything["images"]
    if images < LEAST_IMAGES:
        raise LossmapError(
            f"{option}: {folder} holds {images} image{'s' * (images > 1)}; a study needs {LEAST_IMAGES} at least."
        )
    if images > LIMIT:
        entry["limit"] = LIMIT
    name = name_of(os.path.abspath(folder), "photos")
    return Photos(name, entry, _count(option, entry), images, everything["classes"])


def _count(option: str, entry: dict) -> dict:
    problems = Problems()
    found = count_annotated(entry, problems)
    if found is None:
        raise LossmapError(f"{option}: {entry['images']} does not exist. Correct the path.")
    if problems:
        raise LossmapError.listing(f"{option}: {entry['images']} can't be used as it is:", problems, "Mend the folder.")
    return found


def _model(checkpoint: str, revision: str | None) -> tuple[str, dict]:
    """The name and the entry of a model, which sees images as its own processor shows them."""
    folder = local_checkpoint(checkpoint)
    if not folder.is_dir():
        if not is_hub_like(checkpoint):
            raise LossmapError(
                f"--model: {checkpoint} is no folder, and no hub id (owner/name). Give a checkpoint's folder."
            )
        if not revision:
            raise LossmapError(
                f"--model: {checkpoint} is no folder here; as a hub id it needs --revision: a 40-digit commit hash, so"
                " that the study can be repeated. The hub's page of the model lists them under Files, History."
            )
    fetch_configuration(checkpoint, revision)  # so that what is wrong with it is told now
    given = {"checkpoint": checkpoint, "revision": revision}
    return name_of(os.path.abspath(checkpoint), "model"), {key: value for key, value in given.items() if value}
