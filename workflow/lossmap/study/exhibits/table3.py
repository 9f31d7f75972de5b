"""How well patches are recovered from the connector's output, on captioned images (the paper's Table 3)."""

import pandas as pd

from lossmap.study.captions import BOOTSTRAP
from lossmap.study.exhibit import of_all
from lossmap.study.paper import beside
from lossmap.study.specs import WithConfidence
from lossmap.study.tables import cells, interval, marked, read_all

# Images of the paper's test sets, where it or their authors say how many.
PAPERS_IMAGES = {"coco-karpathy": 5000, "flickr30k": 1000, "vizwiz": 1131, "seedbench": 5624}
TITLE, TOPIC, PAPER = "How well are patches recovered, on captioned images?", "loss", "Table 3"
BEST = """
The loss is the squared error of each model's best decoder (chosen on held-out training images), mean over
standardised features, patches and images: 0 is a perfect reconstruction, 1 is predicting the mean. What part of it is
the connector's and what part the decoder's weakness, the verdict says."""
ABOUT = "**How well patches can be recovered from the connector's output**, on images with captions." + BEST
COLUMNS = (
    *("dataset", "n", "model", "decoder", "architecture", "training_share", "parameters", "held_out_error"),
    *("converged", "best", "loss", "fvu", "cosine_error", "norm_difference", "absolute_norm_difference", "near_copies"),
    *("loss_without_near_copies", "fvu_without_near_copies"),
)
PAGE = ["dataset", "model", "decoder", "loss", "loss_reported", "fvu", "cosine_error", "n"]
LOSSES = (
    "Loss: squared error of the patch embeddings that {who} makes from the connector's output, mean over features "
    "(standardised with the training set's statistics), patches and images; 1 is what predicting the mean scores on "
    "the training set. FVU: fraction of variance unexplained on these very images, 1 for the mean. Cosine error: 1 - "
    "cosine of patch and reconstruction. Norm difference: length of the patch less that of its reconstruction. Not "
    "converged: the network's held-out error had not come to rest, so its loss says little of what could be "
    "recovered; it is never the best. In brackets: bootstrap interval over images. Reported: the paper's loss, where "
    "the study has its model, dataset and number of images. The paper standardises each set differently, and its "
    "Qwen2.5-VL losses are of a network whose trained weights were never loaded."
)
NOTE = LOSSES.format(who="the best decoder")


class Settings(WithConfidence):
    checkpoints: dict[str, str]

    @classmethod
    def of(cls, study):
        return super().of(study, networks=list(study["reconstruction"]["networks"]))


def needs(study, name="table3"):
    datasets = study["reconstruction"]["tables"][name] if "reconstruction" in study else []
    return datasets and {"summaries": of_all(study, "patch_loss/{dataset}/{model}_summary.parquet", datasets)}


def table(settings, summaries):
    rows = losses(summaries)
    rows = rows[rows["best"]].reset_index(drop=True)
    return reported(rows, "table3_table9", ["dataset"], settings.checkpoints)


def losses(summaries):
    """Losses of all decoders, models and datasets, with the names of the study's tables."""
    rows = read_all(summaries).rename(
        columns={"reconstructor": "decoder", "kind": "architecture", "share": "training_share"}
    )
    return rows.assign(training_share=rows["training_share"] / 100)


def reported(rows, source, keys, checkpoints):
    """The losses with the paper's beside them, where the dataset has the paper's number of images."""
    rows = beside(rows, source, keys, ["loss", "loss_std"], checkpoints)
    other = rows["n"] != rows["dataset"].map(PAPERS_IMAGES).fillna(rows["n"])
    rows.loc[other, ["loss_reported", "loss_std_reported"]] = float("nan")
    return rows


def page(table, settings):
    """The losses; without near-copies of training images too, where there are any."""
    names = [*PAGE, *(["near_copies", "fvu_without_near_copies"] if table["near_copies"].any() else [])]
    return pd.DataFrame(cells(table.assign(decoder=marked(table, "decoder")), names))


def findings(table, settings):
    """The loss of each model on each dataset, by each network where there are several."""
    lines, table = [], table.assign(decoder=marked(table, "decoder"))
    for model, group in table.groupby("model", sort=False):
        each = [f"{interval(row, 'loss', 3)} on {row['dataset']} ({row['decoder']})" for _, row in group.iterrows()]
        lines.append(f"- **{model}** is reconstructed with a loss of {', '.join(each)}.")
    for dataset, row in table[table["near_copies"] > 0].groupby("dataset", sort=False).first().iterrows():
        lines.append(
            f"- {row['near_copies']} of {row['n']} images of {dataset} are near-copies of training images (encoded anew"
            " or resized); the table gives the FVU without them too."
        )
    return [*lines, "", f"{BOOTSTRAP.format(settings.confidence)} 1 is predicting the mean."]
