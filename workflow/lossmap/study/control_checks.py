"""Whether a study's controls fit the embeddings of its models, by the checkpoints' configurations, before any work.

The Snakefile imports this: nothing heavy.
"""

from pathlib import Path

from lossmap.errors import LossmapError
from lossmap.reconstruct.grids import components_per_patch, sides_of_blocks
from lossmap.study.derived import receives_of
from lossmap.vlm import checkpoints
from lossmap.vlm.input_size import Shapes, embedding_shapes


def control_problems(config: dict) -> list[str]:
    """A line for each control that can't stand in for a model's connector. config: a checked study, with all defaults.

    Where a model's configuration is not here yet, or leaves its shapes open, measure_statistics tells.
    """
    if "reconstruction" not in config:
        return []
    problems = []
    for model, entry in config["models"].items():
        folder = configuration_here(entry)
        shapes = embedding_shapes(folder, entry.get("image_size"), receives_of(entry)) if folder else None
        for name, control in config["reconstruction"]["controls"].items():
            if shapes and (misfit := _misfit(control, shapes)):
                problems.append(f"reconstruction: controls: {name}: with {model}: {misfit}")
    return problems


def configuration_here(model: dict) -> Path | None:
    """The folder with the configuration of a study's model, where it is here."""
    return checkpoints.configuration_here(model["checkpoint"], model.get("revision"))


def _misfit(control: dict, shapes: Shapes) -> str | None:
    try:
        sides_of_blocks(control["kind"], shapes.pre_grid, shapes.post_grid, shapes.post_shape[0])
        if control["kind"] == "pca":
            components_per_patch(control.get("rank"), shapes.pre_shape, shapes.post_shape)
    except LossmapError as error:
        return str(error)
    return None
