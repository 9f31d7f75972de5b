"""How much of each patch the connector sees: how far its output moves when one patch is moved."""

import pandas as pd

from lossmap.study.captions import POPULATION
from lossmap.study.exhibit import of_all
from lossmap.study.long_tables import long_table, wide
from lossmap.study.specs import Spec
from lossmap.study.tables import cells, interval

TITLE, TOPIC, PAPER = "How much of each patch does the connector see?", "geometry", None
ABOUT = """
**How much of each patch does the connector see?** One patch of what enters the connector is moved by a small step,
and how far the connector's output moves is measured, per length of the step: in random directions, and towards the
same patch of another image. 1: as a connector that only scales; 0: the connector does not see the patch. For each
model the images with the most and the least uneven response of the {s.images} that were probed; spread: standard
deviation over an image's patches as a share of their mean. Where there are patch losses, the loss of the best
decoder stands beside. A patch that is not seen cannot be reconstructed but by guessing, so a negative rank
correlation says that loss is blindness. It is given the norm of the patches, since patches with more in them move the
output more and are harder to reconstruct; the raw one stands in brackets."""
WAYS = ("random", "towards")
MEASURES = tuple(f"response_{way}{end}" for way in WAYS for end in ("", "_spread", "_unseen", "_loss_partial", "_loss"))
COLUMNS = ("dataset", "n", "model", "measure", "k", "value", "chance")
SHOWN = [
    *("dataset", "model", "response_random", "response_towards", "response_random_unseen"),
    *("response_random_loss_partial", "response_random_loss", "n"),
]
NOTE = (
    "One patch before the connector is moved by a small step, and the distance that the connector's output moves is "
    "measured per length of the step; 1: as a connector that only scales. Random directions, and towards the same "
    "patch of another image. Not seen: patches with less than a tenth of their image's mean response. Rho with loss: "
    "rank correlation, over an image's patches, with the loss of the best decoder; partial, and the finding: "
    "given the norm of the patches before the connector, since patches with more in them move the output more and are "
    "harder to rebuild; raw: without that. In brackets: {s.confidence:.0%} interval for the population of which the "
    "images are a sample. The CSV file also holds the patches not seen and the correlations of steps towards other "
    "images, and spreads: the standard deviation over an image's patches as a share of their mean."
)


class Settings(Spec):
    SECTIONS = ("probe", "statistics")
    dataset: str
    models: list[str]
    images: int
    confidence: float

    @classmethod
    def of(cls, study):
        return super().of(study, dataset=study["geometry"]["datasets"][0])


def needs(study):
    datasets = study["geometry"]["datasets"]
    if not datasets:
        return {}
    return {
        "summaries": of_all(study, "geometry/{dataset}/{model}/probe_summary.parquet", datasets),
        "patches": of_all(study, "geometry/{dataset}/{model}/probe.parquet", datasets[:1]),
        "embeddings": of_all(study, "embeddings/{dataset}/{model}.json", datasets[:1]),
        "images": f"data/{datasets[0]}/images.parquet",
    }


def table(settings, summaries, **drawn):
    return long_table(summaries, MEASURES)


def page(table, settings):
    """A row per dataset and model."""
    return pd.DataFrame(cells(wide(table), SHOWN))


def findings(table, settings):
    """Responses, patches not seen, and how responses go with loss, a line per model and dataset."""
    return [*map(_sentence, wide(table).to_dict("records")), "", POPULATION.format(settings.confidence)]


def _sentence(row):
    response, unseen = (
        [interval(row, f"response_{way}{end}", digits) for way in WAYS] for end, digits in (("", 2), ("_unseen", 3))
    )
    text = (
        f"- **{row['model']}** on {row['dataset']} ({row['n']} images): response {response[0]} in random directions, "
        f"{response[1]} towards other images; share of patches not seen: {unseen[0]} in random directions, {unseen[1]} "
        "towards other images."
    )
    if pd.notna(row.get("response_random_loss", float("nan"))):
        partial, raw = (interval(row, f"response_random_loss{end}", 2) for end in ("_partial", ""))
        text += f" Rank correlation with the loss of the same patches, given their norm: {partial} (raw: {raw})."
    return text


def draw(table, settings, summaries, patches, embeddings, images):
    """The probed images of the first dataset whose responses are most and least uneven, with their maps."""
    from lossmap.figures.probe import probe_maps
    from lossmap.store.index import open_store

    files = pd.read_parquet(images[0]).set_index("image_id")
    tables = [pd.read_parquet(path) for path in patches]
    shown = {name: title for name, title in MAPS.items() if all(name in rows for rows in tables)}
    each = zip(settings.models, tables, embeddings, strict=True)
    groups = {model: _examples(rows, open_store(index), files, shown) for model, rows, index in each}
    return probe_maps(groups, list(shown.values()))


MAPS = {"random": "random\ndirections", "towards": "towards\nanother", "loss": "loss"}


def _examples(table, store, files, shown):
    """The images of most and least spread, or the only one. table: of one model's patches; shown: columns to map."""
    import numpy as np

    from lossmap.data.images import load_image
    from lossmap.figures.probe import Probed
    from lossmap.store.images import Images
    from lossmap.store.maps import places

    by_image = table.groupby("image_id", sort=False)["random"]
    spread = (by_image.std(ddof=0) / by_image.mean()).sort_values(ascending=False, kind="stable")
    images = Images(store)
    position = {image: i for i, image in enumerate(store["image_id"].values)}
    examples = []
    for place, which in {0: "most", len(spread) - 1: "least"}.items():  # one where there is one
        image = spread.index[place]
        layout = images.layout(position[image])
        patch = places(layout.shape).patch
        own = table[table["image_id"] == image].sort_values([name for name in ("view", "row", "col") if name in table])
        maps = []
        for name in shown:
            values = np.full(layout.shape.patches, np.nan, own[name].dtype)
            values[patch] = own[name]
            maps.append(values)
        picture = np.asarray(load_image(*files.loc[image, ["path", "sha256"]]))
        examples.append(Probed(f"{which} uneven response: spread {spread.iloc[place]:.2f}", picture, layout, maps))
    return examples
