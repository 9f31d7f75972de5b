"""What was lost where, on the images of highest, median and lowest loss."""

from lossmap.study.derived import evaluated
from lossmap.study.exhibit import of_all
from lossmap.study.specs import Spec

TITLE, TOPIC, PAPER = "Where on an image is most lost?", "loss", None
ABOUT = """
**Where on an image is most lost?** The images of {s.dataset} with the highest, the median and the lowest loss, chosen
by rule from all: squared error of the best decoder, mean over the image's patches. Beside each image the loss of its
patches: bright where more is lost; 1 is what predicting the mean patch scores. One colour means one value in all rows
of a figure. What the model did not see is pale."""
COLUMNS = (
    *("dataset", "n", "model", "decoder", "which", "rank", "image_id", "loss", "view", "patch_row", "patch_column"),
    "squared_error",
)


SEVERAL = (
    "Where a model is given several views of an image, its loss is the mean over the patches of all of them, and the "
    "map shows at each place the view of the smallest patches: a tile rather than the whole image."
)


class Settings(Spec):
    dataset: str
    models: list[str]


def each(study):
    return [{"dataset": dataset} for dataset in evaluated(study)]


def figures(settings):
    return [f"loss_maps-{settings.dataset}-{model}" for model in settings.models]


def needs(study, dataset):
    return {
        "images": f"data/{dataset}/images.parquet",
        "patch_loss": of_all(study, f"patch_loss/{dataset}/{{model}}.zarr"),
        # Of a folder only the date counts: what is written with it says when it is another.
        "written_with": of_all(study, f"patch_loss/{dataset}/{{model}}.parquet"),
        "embeddings": of_all(study, f"embeddings/{dataset}/{{model}}.json"),
    }


def table(settings, images, patch_loss, written_with, embeddings):
    """A row per patch of the images that are shown; of equal losses, the first image of the dataset."""
    import pandas as pd

    each = zip(settings.models, patch_loss, strict=True)
    found = pd.concat([_of_model(settings, model, path) for model, path in each], ignore_index=True)
    return found.astype({"view": "Int64"}) if "view" in found else found


def _of_model(settings, model, path):
    import numpy as np
    import pandas as pd

    from lossmap.study.example_losses import best_losses

    losses = best_losses(path)
    loss = _image_losses(losses)
    order = np.argsort(-loss, kind="stable")
    ranks = {"highest": 0, "median": (len(order) - 1) // 2, "lowest": len(order) - 1}
    ranks = {which: rank for which, rank in ranks.items() if which == "highest" or rank > 0}  # of one or two images
    about = {"dataset": settings.dataset, "n": len(order), "model": model, "decoder": losses.losses.attrs["best"]}
    return pd.concat(
        pd.DataFrame(
            {
                **about,
                **{"which": which, "rank": rank + 1, "image_id": losses.image_ids[order[rank]]},
                **{"loss": loss[order[rank]], **_patches(losses, order[rank])},
            }
        )
        for which, rank in ranks.items()
    )


def _image_losses(losses):
    """(n,): mean squared error of each image, over the patches of all its views."""
    import numpy as np

    found = np.empty(len(losses))
    for positions, _ in losses.alike(np.arange(len(losses))):
        found[positions] = losses.of_targets("squared_error", positions).mean(axis=1, dtype=float)
    return found


def _patches(losses, image):
    """Columns of a row per patch of an image. Of views there is a number only where images differ in layout."""
    from lossmap.store.maps import places

    found = places(losses.shapes[losses.kinds[image]])
    view = {"view": found.view} if losses.ragged else {}
    errors = losses.values("squared_error", image)[found.patch]
    return {**view, "patch_row": found.row, "patch_column": found.col, "squared_error": errors}


def findings(table, settings):
    """The losses of the images that are shown, a line per model."""
    lines = []
    for model, group in table.groupby("model", sort=False):
        shown = group.drop_duplicates("which")
        each = "; ".join(f"{row.which} {row.loss:.3f} (image {row.image_id})" for row in shown.itertuples())
        first = shown.iloc[0]
        lines.append(f"- **{model}**, {first['n']:,} images, by {first['decoder']}: {each}.")
    if "view" in table and (table["view"] > 0).any():
        lines += ["", SEVERAL]
    return lines


def draw(table, settings, images, patch_loss, written_with, embeddings):
    import pandas as pd

    files = pd.read_parquet(images[0]).set_index("image_id")
    each = zip(settings.models, patch_loss, embeddings, strict=True)
    return {
        f"loss_maps-{settings.dataset}-{model}": _maps(table[table["model"] == model], files, losses, store)
        for model, losses, store in each
    }


def _maps(table, files, losses, store):
    """The figure of one model."""
    from lossmap.figures.patch_maps import draw_loss_maps
    from lossmap.study.example_losses import best_losses, known_images, place_columns
    from lossmap.study.example_pictures import picture

    shown = table.drop_duplicates("which").set_index("which", drop=False)
    known = best_losses(losses, store)
    images = known_images(known).get_indexer(shown["image_id"])
    shown = shown.assign(
        squared_error=[known.values("squared_error", image) for image in images],
        **place_columns(known, images),
        mask_path=None,
        **{name: files.loc[shown["image_id"], name].to_numpy() for name in ("path", "sha256", "width", "height")},
    )
    return draw_loss_maps(shown, [picture(row) for row in shown.itertuples()])
