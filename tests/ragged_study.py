"""Images that differ in layout: a made-up study of tiled and of plain ones, small enough to count by hand."""

import numpy as np
import pandas as pd
import xarray as xr
from example_tables import HEIGHT, WIDTH, answer_mask, make_study

from lossmap.store.images import RAGGED, layout_arrays
from lossmap.store.layouts import Layout, Shape, Span, ViewShape
from lossmap.store.patch_losses import LOSSES, PatchLossWriter, targets
from lossmap.study import example_losses
from lossmap.study.steps import measure_relevance

# A whole view of 2 x 3 patches of 20 x 20 pixels, then 1 x 2 tiles of 4 x 4 patches of 7.5 x 15 pixels that reach 10
# pixels beyond the image above and below. Their first and last row of patches, from -10 to 5 and from 35 to 50, have no
# token: there, the whole view shows through.
TILED = Shape(
    (ViewShape(2, 3), ViewShape(4, 4, "tile"), ViewShape(4, 4, "tile")),
    (Span(2, 3), Span(2, 8, first=1, tiles=(1, 2), top=1, newline=1)),
)
PLAIN = Shape((ViewShape(2, 2, extra=1),), (Span(2, 2),))
TILED_BOXES = ((0.0, 0.0, 60.0, 40.0), (0.0, -10.0, 30.0, 50.0), (30.0, -10.0, 60.0, 50.0))
TILED_LAYOUT = Layout(WIDTH, HEIGHT, TILED, TILED_BOXES)
PLAIN_LAYOUT = Layout(WIDTH, HEIGHT, PLAIN, ((0.0, 0.0, 60.0, 40.0),))


def layouts_of(n):
    """Every third image is plain."""
    return [PLAIN_LAYOUT if i % 3 == 1 else TILED_LAYOUT for i in range(n)]


def ragged_losses(layouts, seed=0, reconstructors=2):
    """A batch for `PatchLossWriter.append`, but layouts: NaN where there is no target."""
    rng = np.random.default_rng([seed, 7])
    wanted = np.concatenate([targets(layout.shape) for layout in layouts])
    found = {name: rng.gamma(2, 0.5, (reconstructors, len(wanted))) for name in LOSSES}
    found["norm_difference"] = rng.normal(size=(reconstructors, len(wanted)))
    found["pre_norm"] = rng.uniform(1, 2, len(wanted))
    return {name: np.where(wanted, values, np.nan) for name, values in found.items()}


def write_ragged(path, ids, layouts, losses, batch=None, names=("ridge", "mlp")):
    ends = np.cumsum([0, *(layout.shape.patches for layout in layouts)])
    writer = PatchLossWriter(path, list(names), ids, None, {"best": "mlp"}, patches=int(ends[-1]))
    batch = batch or len(ids)
    for first in range(0, len(ids), batch):
        some = layouts[first : first + batch]
        rows = slice(ends[first], ends[first + len(some)])
        writer.append(**{name: values[..., rows] for name, values in losses.items()}, layouts=some)
    writer.close()
    return path


def ragged_dataset(ids, layouts, features=2):
    """Embeddings of which the layouts alone matter."""
    arrays = layout_arrays(layouts)
    patches, tokens = (int(arrays[f"{name}_offset"][-1]) for name in ("patch", "token"))
    variables = {name: (dimensions, arrays[name]) for name, dimensions in RAGGED.items() if name in arrays}
    variables["pre"] = RAGGED["pre"], np.zeros((patches, features), "float32")
    variables["post"] = RAGGED["post"], np.zeros((tokens, features), "float32")
    variables["size"] = ("image", "side"), arrays["size"]
    return xr.Dataset(variables, {"image_id": ("image", ids)}, {"pre_grid": None, "post_grid": None, "key": {}})


def make_ragged_study(folder, task, monkeypatch, n=12, seed=0):
    """As `make_study`, of a model that sees most images through several views. Returns the arguments of
    choose_examples.run but two, and the losses."""
    paths = make_study(folder, task, n=n, seed=seed)
    ids, layouts = [f"image-{i}" for i in range(n)], layouts_of(n)
    losses = ragged_losses(layouts, seed)
    write_ragged(paths["patch_loss"], ids, layouts, losses)
    dataset = ragged_dataset(ids, layouts)
    for module in (example_losses, measure_relevance):
        monkeypatch.setattr(module, "open_store", lambda index: dataset.copy())
    if "relevance" in paths:
        covered = [measure_relevance._coverage(answer_mask(i), layouts[i], True).round(6) for i in range(n)]
        table = pd.read_parquet(paths["relevance"]).assign(covered=covered)
        table.to_parquet(paths["relevance"], index=False)
    return paths, losses


def of_image(values, layouts, image):
    """The patches of one image, of values of all, one after another."""
    ends = np.cumsum([0, *(layout.shape.patches for layout in layouts)])
    return values[..., ends[image] : ends[image + 1]]
