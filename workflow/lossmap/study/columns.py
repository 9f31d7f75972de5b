"""What the columns of all tables mean: unit, direction and definition, in one place.

A table's columns are named by what stands here, followed, where there are several of a kind, by a comma and what sets
them apart: "overlap, k = 100". Every share and rate is one of 1, not of 100; a correlation is partial or raw.
"""

import re
from typing import NamedTuple


class Column(NamedTuple):
    """unit, as the header shows it; higher: what a higher value means, "" where it is neither good nor bad; help."""

    unit: str
    higher: str
    help: str


# By what neighbours are near, as people read it.
METRICS = {"euclidean": "Euclidean distance", "cosine": "cosine"}
SHARE, CORRELATION = "share, 0 to 1", "-1 to 1"
KEPT, LOST, UNSEEN = "more is kept", "more is lost", "less is seen"
NAME = ""
COLUMNS = {
    # which row it is
    "base": Column(NAME, "", "the model that the other was tuned from"),
    "tuned": Column(NAME, "", "the model that was tuned"),
    "measure": Column(NAME, "", "what is compared"),
    "value": Column("as the measure", "", "of all images"),
    "tuned - base": Column("as the measure", "", "paired difference, of the same images"),
    "equal before": Column(SHARE, "", "of the bytes before the connector; 1: tower and preprocessing are the same"),
    "dataset": Column(NAME, "", "data set of the study"),
    "model": Column(NAME, "", "model of the study"),
    "images": Column("count", "", "images that the row is about"),
    "copies": Column("count", "", "images that equal another, by their pixels or their embeddings"),
    "classes": Column("count", "", "classes of the images"),
    "k": Column("neighbours", "", "how many nearest neighbours are compared"),
    "metric": Column(NAME, "", "by what neighbours are near: Euclidean distance, or cosine, of mean-pooled embeddings"),
    "compared by": Column(NAME, "", "what of an image is compared, and by what metric"),
    "reconstructor": Column(NAME, "", "what predicts patches before the connector from its output"),
    "task": Column(NAME, "", "answers in own words, or choices among options"),
    "score": Column(NAME, "", "how answers are scored; different scores do not compare"),
    "category": Column(NAME, "", "type of question, as the data set names it"),
    "patches": Column(NAME, "", "relevant: the answer mask covers enough of the patch; irrelevant: all others"),
    "kind of loss": Column(NAME, "", "what of a patch and its reconstruction is compared"),
    # neighbours
    "overlap": Column(SHARE, KEPT, "k-NN overlap ratio (KNOR): share of an image's k nearest neighbours that are kept"),
    "chance": Column("as the value beside it", "", "what unrelated embeddings, or random choices, score"),
    "by permutation": Column(SHARE, "", "central range of the overlap of images that are paired at random"),
    "above chance": Column("0: chance, 1: all kept", KEPT, "overlap less chance, over 1 less chance"),
    "R@r": Column(SHARE, "more is found", "queries with an image of their own class among the r nearest"),
    "std": Column("as the value beside it", "", "standard deviation over images"),
    "sinks": Column(SHARE, "", "tokens far longer than the image's median, which are left out"),
    # geometry
    "CKA": Column("0: unrelated, 1: the same", "more alike", "debiased linear centred kernel alignment"),
    "trustworthiness": Column(SHARE, KEPT, "few strangers among the neighbours after; 1: none"),
    "continuity": Column(SHARE, KEPT, "few neighbours before are far away after; 1: none"),
    "order kept": Column(
        CORRELATION, KEPT, "do an image's k neighbours keep their order: an agreement; nothing to adjust"
    ),
    "effective rank": Column("dimensions", "", "how many directions the embeddings use"),
    "intrinsic dimension": Column("dimensions", "", "of the surface on which the embeddings lie (TwoNN)"),
    "near-ties": Column("share of the lost", "", "lost neighbours that a random projection could have swapped, too"),
    "moved across a clear margin": Column("share of the lost", LOST, "lost neighbours that were no near-ties"),
    "within the connector's own change": Column(
        "share of the lost", "", "nearer than twice the median change of a cosine"
    ),
    "closeness kept": Column("0: random image, 1: as before", KEPT, "how near the neighbours after were before"),
    "median margin": Column(
        "cosine", "", "cosine of the k-th neighbour less that of the next image, median over images"
    ),
    "change of a cosine": Column("cosine", "more is moved", "absolute change of the cosine of two images"),
    "distance ratio": Column("ratio", "", "distance after over before, relative to the median pair"),
    "bound holds": Column("share of images", "", "images whose overlap is as high as the bound says"),
    "bound above 0": Column("share of images", "", "images of which the bound says something"),
    "response": Column("1: a connector that only scales", "more is seen", "how far the output moves with one patch"),
    "spread over patches": Column(
        "share of their mean", "less even", "standard deviation of response over an image's patches"
    ),
    "patches not seen": Column(SHARE, UNSEEN, "patches with less than a tenth of their image's mean response"),
    # the planner
    "margins given up": Column("share of images", "", "images with the smallest margins, which are near-ties"),
    "dimension": Column("dimensions", "", "of a random projection that is guaranteed to be enough"),
    "images that keep all": Column(SHARE, KEPT, "images that keep all k neighbours"),
    "connector's width": Column("dimensions", "", "of the connector's output"),
    "width of equal overlap": Column("dimensions", KEPT, "of random projections that keep as much as the connector"),
    "guaranteed beyond the sample": Column("share of images", "", "images whose margin holds for the population"),
    # loss and score
    "answers": Column("count", "", "answers that were scored"),
    "used": Column("count", "", "answers whose images have such patches: n of the row"),
    "without such patches": Column("count", "", "answers whose images have none"),
    "mask not seen": Column("count", "", "answers whose mask the model's crop leaves out, or that is empty"),
    "unscored": Column("count", "", "images or questions with a loss but without a score"),
    "right answers": Column("count", "", "answers from the accuracy that the configuration sets"),
    "wrong answers": Column("count", "", "all other answers"),
    "partial rho": Column(
        CORRELATION, "", "rank correlation given what could explain it, which the note names: the finding"
    ),
    "raw rho": Column(CORRELATION, "", "Spearman's rank correlation, nothing held constant"),
    "partial rho with loss": Column(CORRELATION, "", "of response and loss of patches, given their norm: the finding"),
    "raw rho with loss": Column(CORRELATION, "", "of response and loss of patches, nothing held constant"),
    "partial difference": Column("loss", "", "right less wrong answers, given what the note names: the finding"),
    "raw difference": Column("loss", "", "right less wrong answers"),
    "partial gain": Column("CIDEr-D x 100", LOST, "lowest less highest loss, given what the note names: the finding"),
    "raw gain": Column("CIDEr-D x 100", "", "CIDEr of the quarter with the lowest loss less that with the highest"),
    "p": Column("0 to 1", "", "two-sided, by permutation; <= at the least that so many permutations can show"),
    "adjusted p": Column("0 to 1", "", "Benjamini-Hochberg; the family is all tests of the column"),
    "undefined": Column(NAME, "", "why a value is missing"),
    "CIDEr": Column("CIDEr-D x 100", "better captions", "agreement of generated captions with all references"),
    "questions": Column("count", "", "questions that were scored"),
    "left out": Column("count", "", "questions that were not scored"),
    "empty": Column("count", "", "captions or answers without a word, which score 0"),
    "accuracy": Column(SHARE, "better answers", "VQA accuracy of answers; share of right choices"),
    # patches
    "loss": Column("1: the mean", LOST, "error of reconstructed patches, whose features are standardised"),
    "parameters": Column("count", "", "trained numbers"),
    "FVU": Column("1: the mean", LOST, "fraction of variance unexplained: squared error over variance"),
    "cosine error": Column("0 to 2", LOST, "1 less the cosine of a patch and its reconstruction"),
    "norm difference": Column("length", "", "length of a patch less that of its reconstruction"),
    "residual": Column("unit of the embeddings", LOST, "distance of an image's two embeddings after the rotation"),
    # the verdict and its ladder
    "connector": Column(NAME, "", "the model's own connector, or a control of known loss"),
    "rung": Column(NAME, "", "the reconstructor"),
    "share": Column("% of the training images", "", "that trained the reconstructor"),
    "squared error": Column("1: the mean", LOST, "of standardised features"),
    "known": Column("1: the mean", "", "FVU of the best linear reconstruction, by theory"),
    "held-out error": Column(
        "1: the mean", LOST, "squared error on training images kept aside, which chooses the best"
    ),
    "best": Column(NAME, "", "lowest held-out error at the largest share"),
    "unexplained": Column("% of the variance", LOST, "what the best reconstructor leaves: a bound of what is lost"),
    "by": Column(NAME, "", "the reconstructor"),
    "hardest lossless control": Column(NAME, "", "control without loss that the reconstructors undo worst"),
    "unexplained there": Column("% of the variance", "", "what the best reconstructor leaves of that control"),
    "difference": Column("points, of 100", LOST, "what is put down to the connector"),
    "numbers": Column("patches x features", "", "numbers of an image that enter and leave the connector"),
    "linear compression": Column("% of the variance", LOST, "left of the leading principal components"),
    "connector less linear": Column("points, of 100", LOST, "than by the linear compression"),
    "learning rate": Column("at its peak", "", "of the network's training"),
    "passes": Column("count", "", "of all training images, until the network came to rest"),
    "ten times the ladder": Column("% of the variance", LOST, "what ten times the parameters and images would leave"),
    "difference there": Column("points, of 100", LOST, "what would be put down to the connector then"),
    "place alone": Column("% of the variance", "", "what is left with another image's output"),
    "settled": Column(NAME, "", "would more capacity or data lower the bound"),
    "pre": Column("patches x features", "", "what enters the connector"),
    "post": Column("tokens x features", "", "what leaves it"),
    "connector parameters": Column("millions", "", "trained numbers of the connector"),
    "reconstructor parameters": Column("millions", "", "trained numbers of the reconstructor"),
    "input": Column(NAME, "", "what the model sees of an image"),
    # comparison with the paper
    "paper's convention": Column("as the value beside it", "", "computed as the paper's code does"),
    "reported": Column("as the value beside it", "", "the paper's value"),
}


def column(title: str) -> Column | None:
    """What a table's column means, by its title up to the first comma; None if that is not known."""
    return COLUMNS.get(re.sub(r"^R@\d+$", "R@r", title.split(",")[0]))
