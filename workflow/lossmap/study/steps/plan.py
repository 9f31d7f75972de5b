"""Configuration -> what the study will cost, before anything is run."""

import json
import os
import shutil
from pathlib import Path

from lossmap.data.counts import ANNOTATIONS, Count, count_dataset
from lossmap.errors import LossmapError
from lossmap.study.cost.extraction import stored_datasets
from lossmap.study.cost.models import language_cost, vision_cost
from lossmap.study.cost.plan import plan_study
from lossmap.study.cost.rates import Rates
from lossmap.study.cost.speech import PROMPT_TOKENS, speaks
from lossmap.study.cost.text import (
    describe_disk,
    describe_embeddings,
    describe_models,
    describe_notes,
    describe_rates,
    describe_work,
    in_bytes,
)
from lossmap.study.derived import receives_of, view_of
from lossmap.study.reading import default_study, lines_of, read_study
from lossmap.study.settings import check_study
from lossmap.vlm.checkpoints import check_configuration, fetch_configuration


def run(*, configfile: Path | None = None, rate: float = 125.0, bandwidth: float = 0.8) -> None:
    """Print what a study needs: images, disk, GPU memory, GPU hours and jobs, and whether the disk has room for it.

    configfile: the study; without it, config.yaml of this folder, else of the checkout. rate: TFLOP/s that a GPU
    sustains in bfloat16; 125 is 40% of an A100's 312. bandwidth: TB/s that it reads from its memory; 0.8 is 40% of an
    A100's 2.0. Needs no weights, no images and no GPU: sizes follow from each model's config.json, which a hub model's
    alone is downloaded, and numbers of images from what has been read, from the annotations, or from what was
    published. Exit status 1 if the disk has no room, or if a model can't be used as the study has it: an image_size
    that is missing or that it doesn't take, a format that isn't read.
    """
    if not (rate > 0 and bandwidth > 0):
        raise LossmapError(f"rate is {rate:g} and bandwidth {bandwidth:g}; wanted numbers above 0.")
    configfile = configfile or default_study()
    config = check_study(read_study(configfile), paths=False, source=str(configfile), places=lines_of(configfile))
    rates = Rates(rate * 1e12, bandwidth * 1e12)
    notes, faults, vision, language = list[str](), list[str](), {}, {}
    counts = {name: _count(config, name, notes) for name in stored_datasets(config)}
    for name, model in config["models"].items():
        try:
            folder = fetch_configuration(model["checkpoint"], model.get("revision"))
        except LossmapError as error:
            notes.append(f"{name}: not planned. config.json of {model['checkpoint']} can't be had: {error}")
            continue
        try:
            check_configuration(folder)
            dtype = config["extraction"]["compute_dtype"]
            side, view, receives = model.get("image_size"), view_of(model), receives_of(model)
            vision[name] = vision_cost(folder, side, dtype, model["checkpoint"], view, receives)
        except LossmapError as error:
            faults.append(f"models: {name}: {error}")
            notes.append(f"{name}: not planned. {error}")
            continue
        if speaks(config):
            tokens = vision[name].post_shape[0] + PROMPT_TOKENS
            language[name] = language_cost(folder, config["generation"]["compute_dtype"], tokens)
    works = plan_study(config, counts, vision, language, rates, notes)

    missing = sum(size for work in works for path, size in work.outputs.items() if not os.path.exists(path))
    folder = _existing(Path("results") / config["study"])
    free = shutil.disk_usage(folder).free
    models, datasets = len(config["models"]), len(stored_datasets(config))
    blocks = [
        [f"Study {config['study']} ({configfile}): {_some(models, 'model')}, {_some(datasets, 'dataset')}"],
        describe_models(config, vision, language),
        describe_embeddings(config, counts, works, [name for name in config["models"] if name not in vision]),
        describe_work(works),
        describe_rates(rates, bool(language)),
        describe_notes(notes),
        describe_disk(works, missing, str(folder.resolve()), free, whole=not notes),
    ]
    print("\n\n".join("\n".join(block) for block in blocks if block))
    if faults:
        raise LossmapError.listing(
            f"{configfile}: not every model can be used as this study has it:",
            faults,
            "Mend these entries of the study.",
        )
    if missing > free:
        raise LossmapError(
            f"{folder.resolve()} has {in_bytes(free)} free, and this study needs {in_bytes(missing)} more. Free space,"
            " make results/ a link to a larger disk, set extraction: store_post: false, or take fewer images (limit,"
            " sample)."
        )


def _count(config: dict, dataset: str, notes: list[str]) -> Count:
    """Images and questions of a dataset: as read, as annotated, as will be drawn, or as published."""
    path = Path("results") / config["study"] / "data" / dataset / "manifest.json"
    if path.is_file():
        try:
            summary = json.loads(path.read_text(encoding="utf-8"))
            return Count(summary["images"], summary["questions"], "manifest")
        except (OSError, ValueError, KeyError, TypeError) as error:
            notes.append(f"{dataset}: {path} can't be read ({error}); its annotations are looked at.")
    entry, miniature = config["datasets"][dataset], config["miniature"]
    try:
        count = count_dataset(entry)
    except LossmapError as error:
        notes.append(f"{dataset}: not planned. {error}")
        return Count(None, None, "unknown")
    name = Path(entry["images"]).parts[len(Path(miniature["folder"]).parts) :][:1]
    drawn = miniature["images"].get("".join(name)) if entry["images"].startswith(f"{miniature['folder']}/") else None
    if drawn is None or count.source == ANNOTATIONS:
        return count
    chosen = min(drawn, entry.get("limit", entry.get("sample", drawn)))
    return Count(chosen, chosen, "as configured")


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)


def _some(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
