"""Whether a study's controls fit the embeddings of its models, by the checkpoints' configurations, before any work.

The Snakefile imports this: nothing heavy.
"""

from pathlib import Path

from lossmap.errors import LossmapError
from lossmap.reconstruct.grids import components_per_patch, sides_of_blocks
from lossmap.study.derived import receives_of
from lossmap.vlm import checkpoints
from lossmap.vlm.input_size import Shapes, embedding_shapes, patch_features


def control_problems(config: dict) -> list[str]:
    """A line for each control that can't stand in for a model's connector. config: a checked study, with all defaults.

    Where a model's configuration is not here yet, measure_statistics tells; and what rests on a grid that the
    configuration leaves open, as that of images in their own shape.
    """
    if "reconstruction" not in config:
        return []
    problems = []
    for model, entry in config["models"].items():
        folder = configuration_here(entry)
        if folder is None:
            continue
        shapes = embedding_shapes(folder, entry.get("image_size"), receives_of(entry))
        features = patch_features(folder, receives_of(entry))
        for name, control in config["reconstruction"]["controls"].items():
            if misfit := _misfit(control, shapes, features):
                problems.append(f"reconstruction: controls: {name}: with {model}: {misfit}")
    return problems


def configuration_here(model: dict) -> Path | None:
    """The folder with the configuration of a study's model, where it is here."""
    return checkpoints.configuration_here(model["checkpoint"], model.get("revision"))


def _misfit(control: dict, shapes: Shapes | None, features: int | None) -> str | None:
    rank = control.get("rank")
    try:
        if shapes:
            sides_of_blocks(control["kind"], shapes.pre_grid, shapes.post_grid, shapes.post_shape[0])
        if control["kind"] == "pca" and rank and features:
            components_per_patch(rank, (1, features), (1, features))
        elif control["kind"] == "pca" and shapes:
            components_per_patch(rank, shapes.pre_shape, shapes.post_shape)
    except LossmapError as error:
        return str(error)
    return None
