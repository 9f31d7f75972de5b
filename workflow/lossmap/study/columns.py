"""What the columns of all tables mean: title, unit, direction, definition and layout, in one place.

A table's columns are named by what stands here, alone or followed by one of SUFFIXES: `overlap`, `overlap_low`. Numbers
in a name stand for any: `recall_at_5` is `recall_at_r`. Titles on pages may go on after a comma with what sets several
of a kind apart: "overlap, k = 100". Every share and rate is one of 1, not of 100; a correlation is partial or raw.
"""

import re
from typing import NamedTuple


class Column(NamedTuple):
    """How a column is shown, and what it means.

    title; unit, as the header shows it; higher: what a higher value means, "" where it is neither good nor bad; help;
    digits: decimal places; words: how values are written, where not as they are.
    """

    title: str
    unit: str
    higher: str
    help: str
    digits: int = 3
    words: dict[str, str] | None = None


# By what neighbours are near, as people read it.
METRICS = {"euclidean": "Euclidean distance", "cosine": "cosine"}
# The kinds of loss that are related to scores.
LOSS_KINDS = {
    "squared_error": "squared error",
    "absolute_norm_difference": "absolute norm difference",
    "cosine_error": "cosine error",
}
AS_LOSS = "as the loss"
STAGES = {"pre": "before", "post": "after"}
CONNECTORS = {"own": "model's connector"}
# What the verdict compares: the model's connector, and controls.
COMPARED = ("model_connector", "matched_control", "linear_compression", "position_control", "upper_control")
# Indexes of Table 7, and which way the probe moves a patch.
INDEXES = {
    "flat_euclidean": "all patches, Euclidean distance",
    "mean_pooled_euclidean": "mean-pooled, Euclidean distance",
    "flat_cosine": "all patches, cosine",
    "mean_pooled_cosine": "mean-pooled, cosine",
    "whitened_euclidean": "mean-pooled and whitened, Euclidean distance",
    "without_sinks_euclidean": "mean-pooled without sinks, Euclidean distance",
}
WAYS = {"random": "in random directions", "towards": "towards other images"}
SHARE, CORRELATION, BESIDE = "share, 0 to 1", "-1 to 1", "as the value beside it"
KEPT, LOST, UNSEEN = "more is preserved", "more is lost", "less is seen"
CLOSER = "captions are more like people's"
NAME = ""
# Of the patch probe, for each of WAYS.
RESPONSES = {
    "": Column(
        "response", "1: a connector that only scales", "more is seen", "how far the output moves with one patch",
        digits=2,
    ),
    "_spread": Column(
        "spread over patches", "share of their mean", "less even",
        "standard deviation of response over an image's patches", digits=2,
    ),
    "_unseen": Column(
        "patches not seen", SHARE, UNSEEN, "patches with less than a tenth of their image's mean response",
        digits=2,
    ),
    "_loss_partial": Column(
        "partial rho with loss", CORRELATION, "",
        "rank correlation of response and loss of patches, given their norm: the finding", digits=2,
    ),
    "_loss": Column(
        "raw rho with loss", CORRELATION, "", "rank correlation of response and loss of patches, nothing held constant",
        digits=2,
    ),
}  # fmt: skip
COLUMNS = {
    # which row it is
    "dataset": Column("dataset", NAME, "", "data set of the study"),
    "model": Column("model", NAME, "", "model of the study"),
    "n": Column("images", "count", "", "images that the row is about"),
    "images": Column("images, all", "count", "", "images of the dataset"),
    "copies": Column("copies", "count", "", "images that equal another, by their pixels or their embeddings"),
    "classes": Column("classes", "count", "", "classes of the images"),
    "k": Column("k", "neighbours", "", "how many nearest neighbours are compared"),
    "metric": Column(
        "metric", NAME, "", "by what neighbours are near: Euclidean distance, or cosine, of mean-pooled embeddings",
        words=METRICS,
    ),
    "stage": Column("stage", NAME, "", "before (pre) or after (post) the connector", words=STAGES),
    "image_id": Column("image", NAME, "", "id of the image in its dataset"),
    # what is the same in many tables
    "chance": Column("chance", BESIDE, "", "what unrelated embeddings, or random choices, score"),
    "std": Column("std", BESIDE, "", "standard deviation over images"),
    # neighbours
    "overlap": Column(
        "overlap", SHARE, KEPT, "k-NN overlap ratio (KNOR): share of an image's k nearest neighbours that are preserved"
    ),
    "null": Column("by permutation", SHARE, "", "central range of the overlap of images that are paired at random"),
    "overlap_corrected": Column(
        "above chance", "0: chance, 1: all preserved", KEPT, "overlap less chance, over 1 less chance"
    ),
    "overlap_k": Column("overlap", SHARE, KEPT, "overlap of the k nearest neighbours"),
    "recall_at_r": Column("R@r", SHARE, "more is found", "queries with one of their class among the r nearest"),
    "recall_at_r_change": Column("R@r, change", SHARE, "more is found", "recall after the connector less that before"),
    "partial_r_overlap": Column(
        "partial rho", CORRELATION, "", "rank correlation of a query's recall with its overlap, given the size of its "
        "class and how often it is among the nearest of others: the finding", digits=2,
    ),
    "spearman_r_overlap": Column(
        "raw rho", CORRELATION, "", "Spearman's rank correlation of a query's recall with its overlap", digits=2
    ),
    "copies_of_other_class": Column(
        "copies of another class", "count", "", "copies left out whose class is not that of the image that they equal"
    ),
    "side": Column("side", NAME, "", "before or after the connector", words=STAGES),
    "rank": Column("rank", "1: first", "", "place in the order"),
    "shared": Column("on both sides", NAME, "", "whether the image is among the nearest on both sides"),
    "query": Column("query", NAME, "", "id of the image whose neighbours are shown"),
    "which": Column("which", NAME, "", "highest, median or lowest of all"),
    "hit": Column("hit", NAME, "", "whether the neighbour is one of the query's class, or one on both sides"),
    # geometry
    "measure": Column("measure", NAME, "", "what is measured, by its name in this list"),
    "value": Column("value", "as the measure", "", "of all images"),
    "index": Column("compared by", NAME, "", "what of an image is compared, and by what metric", words=INDEXES),
    "sinks_pre": Column("sinks, before", SHARE, "", "tokens far longer than their image's median, which are left out"),
    "sinks_post": Column("sinks, after", SHARE, "", "tokens far longer than their image's median, which are left out"),
    "residual": Column(
        "residual", "unit of the embeddings", LOST, "distance of an image's two embeddings after the rotation", digits=2
    ),
    "residual_mean": Column(
        "residual, mean", "unit of the embeddings", LOST,
        "distance of an image's two embeddings after the rotation, mean over images", digits=2,
    ),
    "residual_std": Column(
        "residual, std", "unit of the embeddings", "", "standard deviation of the residual over images", digits=2
    ),
    "residual_min": Column("residual, least", "unit of the embeddings", "", "least residual of all images", digits=2),
    "residual_max": Column("residual, most", "unit of the embeddings", "", "largest residual of all images", digits=2),
    "unexplained_rotation": Column(
        "FVU, rotation", "1: the mean", LOST, "fraction of variance that a rotation and one scale leave unexplained"
    ),
    "unexplained_rotation_standardised": Column(
        "FVU, rotation, standardised", "1: the mean", LOST,
        "fraction of the variance of standardised features that a rotation and one scale leave unexplained",
    ),
    "unexplained_ridge": Column(
        "FVU, linear map", "1: the mean", LOST,
        "fraction of the variance of standardised features that any linear map (ridge) leaves unexplained",
    ),
    "pre_1": Column("before, component 1", "unit of the embeddings", "", "place along the first component before"),
    "pre_2": Column("before, component 2", "unit of the embeddings", "", "place along the second component before"),
    "post_1": Column("after, component 1", "unit of the embeddings", "", "place along the first component after"),
    "post_2": Column("after, component 2", "unit of the embeddings", "", "place along the second component after"),
    "aligned_1": Column(
        "rotated, component 1", "unit of the embeddings", "", "after, rotated onto before: along the first one before"
    ),
    "aligned_2": Column(
        "rotated, component 2", "unit of the embeddings", "", "after, rotated onto before: along the second one before"
    ),
    "pre_length": Column("before, length", "unit of the embeddings", "", "distance from the mean of all images"),
    "post_length": Column("after, length", "unit of the embeddings", "", "distance from the mean of all images"),
    "cka": Column(
        "CKA", "0: unrelated, 1: the same", "more alike", "debiased linear centred kernel alignment", digits=2
    ),
    "mutual_neighbours": Column(
        "overlap, cosine", SHARE, KEPT,
        "k-NN overlap ratio (KNOR): share of an image's k nearest neighbours, by cosine, that are preserved", digits=2,
    ),
    "trustworthiness": Column(
        "trustworthiness", SHARE, KEPT, "few strangers among the neighbours after; 1: none; about 0.5 by chance",
        digits=2,
    ),
    "continuity": Column(
        "continuity", SHARE, KEPT, "few neighbours before are far away after; 1: none; about 0.5 by chance", digits=2
    ),
    "kendall": Column(
        "order preserved, Kendall's tau", CORRELATION, KEPT,
        "do an image's k neighbours keep their order: an agreement; nothing to adjust for", digits=2,
    ),
    "spearman": Column(
        "order preserved, Spearman's rho", CORRELATION, KEPT,
        "do an image's k neighbours keep their order: an agreement; nothing to adjust for", digits=2,
    ),
    "effective_rank_pre": Column(
        "effective rank, before", "dimensions", "", "how many directions the embeddings use", digits=0
    ),
    "effective_rank_post": Column(
        "effective rank, after", "dimensions", "", "how many directions the embeddings use", digits=0
    ),
    "intrinsic_dimension_pre": Column(
        "intrinsic dimension, before", "dimensions", "", "of the surface on which the embeddings lie (TwoNN)", digits=0
    ),
    "intrinsic_dimension_post": Column(
        "intrinsic dimension, after", "dimensions", "", "of the surface on which the embeddings lie (TwoNN)", digits=0
    ),
    "share_near_ties": Column(
        "near-ties", "share of the lost", "", "lost neighbours that a random projection could have swapped, too",
        digits=2,
    ),
    "share_moved": Column(
        "moved across a clear margin", "share of the lost", LOST, "lost neighbours that were no near-ties", digits=2
    ),
    "share_own_ties": Column(
        "within the connector's own change", "share of the lost", "",
        "lost neighbours no farther from what took their place than twice the median change of a cosine", digits=2,
    ),
    "closeness": Column(
        "closeness preserved", "0: random image, 1: as before", KEPT, "how near the neighbours after were before",
        digits=2,
    ),
    "margin_median": Column(
        "median margin", "cosine", "", "cosine of the k-th neighbour less that of the next image, median over images",
        digits=4,
    ),
    "cosine_change_q50": Column(
        "change of a cosine, median", "cosine", "more is moved",
        "absolute change of the cosine of two images, over pairs",
    ),
    "cosine_residual_q50": Column(
        "change of a cosine beyond the best line, median", "cosine", "more is moved",
        "distance of two images' cosine after from the best rising line through all, over pairs",
    ),
    "cosine_residual_q95": Column(
        "change of a cosine beyond the best line, 95% quantile", "cosine", "more is moved",
        "distance of two images' cosine after from the best rising line through all, over pairs",
    ),
    "distance_ratio_q01": Column(
        "distance ratio, 1% quantile", "ratio", "",
        "distance after over before, relative to the median pair, over pairs",
    ),
    "distance_ratio_q99": Column(
        "distance ratio, 99% quantile", "ratio", "",
        "distance after over before, relative to the median pair, over pairs",
    ),
    "bound_holds": Column("bound holds", "share of images", "", "images whose overlap is as high as the bound says"),
    "bound_says_something": Column("bound above 0", "share of images", "", "images of which the bound says something"),
    **{
        f"response_{way}{end}": about._replace(title=f"{about.title}, {words}", help=f"{about.help}; steps {words}")
        for way, words in WAYS.items()
        for end, about in RESPONSES.items()
    },
    # random projections
    "quantile": Column(
        "margins given up", "share of images", "", "images with the smallest margins, which are near-ties", digits=1
    ),
    "dimension": Column("dimension", "dimensions", "", "of a random projection that is guaranteed to be enough"),
    "promised": Column(
        "images that preserve all, promised", SHARE, KEPT, "images that preserve all k neighbours, at least"
    ),
    "preserved_all": Column("images that preserve all, measured", SHARE, KEPT, "images that preserve all k neighbours"),
    "overlap_enough": Column(
        "overlap, projection to this dimension", SHARE, KEPT, "overlap by cosine, of a projection that is enough"
    ),
    "overlap_connector": Column(
        "overlap, connector", SHARE, KEPT, "overlap by cosine, across the connector", digits=2
    ),
    "overlap_width": Column(
        "overlap, projection to the connector's width", SHARE, KEPT,
        "overlap by cosine, of random projections to as many dimensions as the connector puts out", digits=2,
    ),
    "width": Column("connector's width", "dimensions", "", "of the connector's output", digits=0),
    "equivalent": Column(
        "width of equal overlap", "dimensions", KEPT, "of random projections that preserve as much as the connector",
        digits=0,
    ),
    "guaranteed": Column(
        "guaranteed beyond the sample", "share of images", "", "images whose margin holds for the population"
    ),
    "queries": Column("queries", "count", "", "images on which random projections were tried"),
    # loss and score
    "loss_kind": Column("kind of loss", NAME, "", "what is averaged over patches", words=LOSS_KINDS),
    "region": Column(
        "kind of patches", NAME, "", "relevant: the answer mask covers enough of them; irrelevant: all others; or, "
        "within each image, the loss of the one less that of the other"
    ),
    "partial_rho": Column(
        "partial correlation", CORRELATION, "", "rank correlation of loss and score given what could explain both: the "
        "finding; negative: scores are lower where more is lost"
    ),
    "raw_rho": Column(
        "raw correlation", CORRELATION, "", "Spearman's rank correlation of loss and score; negative: scores are lower "
        "where more is lost"
    ),
    "partial_rho_signed": Column(
        "partial correlation, signed", CORRELATION, "", "rank correlation of the signed norm difference and the score, "
        "given what could explain both"
    ),
    "raw_rho_signed": Column(
        "raw correlation, signed", CORRELATION, "", "Spearman's rank correlation of the signed norm difference and the "
        "score"
    ),
    "partial_gain": Column(
        "partial gain", "CIDEr x 100", "more is gained where less is lost", "CIDEr of the quarter of the images with "
        "the lowest loss less that of the quarter with the highest, given what could explain both: finding", digits=1,
    ),
    "raw_gain": Column(
        "raw gain", "CIDEr x 100", "more is gained where less is lost", "CIDEr of the quarter of the images with "
        "the lowest loss less that of the quarter with the highest", digits=1,
    ),
    "partial_difference": Column(
        "partial difference", AS_LOSS, "", "loss of right less that of wrong answers, given what could explain both: "
        "the finding"
    ),
    "raw_difference": Column("raw difference", AS_LOSS, "", "loss of right less that of wrong answers"),
    "loss_right": Column("loss, right answers", AS_LOSS, LOST, "mean of right answers"),
    "loss_wrong": Column("loss, wrong answers", AS_LOSS, LOST, "mean of wrong answers"),
    "right": Column("right answers", "count", "", "answers with at least the accuracy that the study sets"),
    "wrong": Column("wrong answers", "count", "", "answers with less accuracy than that"),
    "threshold": Column("relevant from", SHARE, "", "share of a patch that the answer mask covers at least"),
    "right_from": Column("right from", SHARE, "", "accuracy from which an answer counts as right"),
    "reason": Column("undefined, because", NAME, "", "why a value is missing"),
    "questions": Column("questions", "count", "more is known", "questions that were scored"),
    "questions_used": Column("questions used", "count", "more is known", "questions that have such patches"),
    "without_patches": Column("without such patches", "count", "", "questions whose mask leaves the model none"),
    "mask_not_seen": Column("mask not seen", "count", "", "questions whose mask is empty, or out of the model's view"),
    "unscored": Column("unscored", "count", "", "items with a loss, or a mask, but without a score"),
    "left_out": Column("left out", "count", "", "questions that were not scored"),
    "empty": Column("empty", "count", "", "answers or captions without a word, which score 0"),
    "task": Column("task", NAME, "", "answers in the model's own words, or choices among given options"),
    "scored": Column("scored by", NAME, "", "name of the score"),
    "score": Column("score", NAME, "more is right", "the score of one answer or caption"),
    "category": Column("category", NAME, "", "type of question, as the dataset names it; all of them: all"),
    "accuracy": Column("accuracy", SHARE, "more is right", "mean score of questions"),
    "cider": Column("CIDEr", "x 100", CLOSER, "mean CIDEr-D of captions", digits=1),
    "cider_high_loss": Column(
        "CIDEr, highest loss", "x 100", CLOSER, "of the quarter with the highest loss", digits=1
    ),
    "cider_low_loss": Column(
        "CIDEr, lowest loss", "x 100", CLOSER, "of the quarter with the lowest loss", digits=1
    ),
    "quarter": Column("quarter", "count", "", "images in a quarter of all"),
    "outcome": Column("outcome", NAME, "", "whether the answer is right or wrong"),
    "of": Column("of", "count", "", "how many are ranked"),
    "unranked": Column("unranked", "count", "", "questions whose mask covers no patch enough to be ranked"),
    "question_id": Column("question id", NAME, "", "id of the question in its dataset"),
    "question": Column("question", NAME, "", "what was asked"),
    "prediction": Column("prediction", NAME, "", "what the model answered, or its caption"),
    "loss": Column("loss", "1: the mean", LOST, "squared error of reconstructed patches, of standardised features"),
    "other_loss": Column("loss elsewhere", "1: the mean", LOST, "mean squared error of the patches without the answer"),
    # patches
    "decoder": Column("decoder", NAME, "", "what predicts patches before the connector from its output"),
    "architecture": Column("architecture", NAME, "", "of the decoder: a closed form, or a kind of network"),
    "training_share": Column("training share", SHARE, "", "of the training images, that trained the decoder", 2),
    "parameters": Column("parameters", "count", "", "trained numbers of the decoder"),
    "loss_percentile_5": Column("5%", "1: the mean", LOST, "loss that 5% of the images do not exceed"),
    "loss_lower_quartile": Column("lower quartile", "1: the mean", LOST, "loss that 25% of the images do not exceed"),
    "loss_median": Column("median", "1: the mean", LOST, "loss that half of the images do not exceed"),
    "loss_upper_quartile": Column("upper quartile", "1: the mean", LOST, "loss that 75% of the images do not exceed"),
    "loss_percentile_95": Column("95%", "1: the mean", LOST, "loss that 95% of the images do not exceed"),
    "squared_error": Column("loss of the patch", "1: the mean", LOST, "squared error of one reconstructed patch"),
    "view": Column("view", "0: the first", "", "which view of the image the patch belongs to, where there are several"),
    "patch_row": Column("row of patches", "0: uppermost", "", "where on the image the patch lies"),
    "patch_column": Column("column of patches", "0: leftmost", "", "where on the image the patch lies"),
    "fvu": Column("FVU", "1: the mean", LOST, "fraction of variance unexplained: squared error over variance"),
    "cosine_error": Column("cosine error", "0 to 2", LOST, "1 less the cosine of a patch and its reconstruction"),
    "norm_difference": Column("norm difference", "length", "", "length of a patch less that of its reconstruction"),
    "absolute_norm_difference": Column("norm difference, absolute", "length", LOST, "norm difference without its sign"),
    "near_copies": Column("near-copies", "count", "", "images that are also training images, encoded anew or resized"),
    "loss_without_near_copies": Column("loss without near-copies", "1: the mean", LOST, "loss of the other images"),
    "fvu_without_near_copies": Column("FVU without near-copies", "1: the mean", LOST, "FVU of the other images"),
    # the verdict and its ladder
    "connector": Column("connector", NAME, "", "the model's own, or a control of known loss", words=CONNECTORS),
    "connector_kind": Column("kind of connector", NAME, "", "own, or what the control does"),
    "lossless": Column("lossless", NAME, "", "whether nothing is lost by the control"),
    "known_fvu": Column("known", "1: the mean", "", "FVU of the best linear reconstruction, by theory"),
    "pre_dimensions": Column("dimensions in", "patches x features", "", "dimensions of an image before the connector"),
    "post_dimensions": Column("dimensions out", "tokens x features", "", "dimensions of an image that leave it"),
    "held_out_error": Column(
        "held-out error", "1: the mean", LOST, "squared error on training images kept aside, which chooses the best"
    ),
    "halfway_error": Column("held-out error, halfway", "1: the mean", LOST, "held-out error after half of the passes"),
    "converged": Column("converged", NAME, "", "whether the network came to rest: if not, it is no evidence"),
    "passes": Column("passes", "count", "", "of all training images, until the network came to rest", digits=1),
    "learning_rate": Column("learning rate", "at its peak", "", "of the network's training", digits=5),
    "mse": Column("squared error", "1: the mean", LOST, "mean over standardised features, patches and images"),
    "best": Column("best", NAME, "", "lowest held-out error at the largest share of the training images"),
    "summary": Column("verdict", NAME, "", "the verdict in a line"),
    "settled": Column("settled", NAME, "", "would more capacity or data lower the bound"),
    "model_connector_fvu": Column(
        "unexplained", "share of the variance", LOST, "what the best decoder leaves: a bound of what is lost"
    ),
    "matched_control_fvu": Column(
        "matched control", "share of the variance", "", "what the best decoder leaves of the lossless control that the "
        "decoders undo worst: their own weakness",
    ),
    "matched_control_difference": Column(
        "difference", "share of the variance", LOST, "unexplained less the matched control: attributed to the connector"
    ),
    "linear_compression_fvu": Column(
        "linear compression", "share of the variance", LOST, "left of the leading principal components"
    ),
    "linear_compression_difference": Column(
        "connector less linear", "share of the variance", LOST, "unexplained less the linear compression"
    ),
    "position_control_fvu": Column(
        "position control", "share of the variance", "", "what is left with another image's output"
    ),
    "upper_control_fvu": Column(
        "upper control", "share of the variance", "", "what is left with the output for another image and patch"
    ),
    "extrapolated_fvu": Column(
        "ten times the ladder", "share of the variance", LOST, "what ten times the parameters and images would leave"
    ),
    "extrapolated_difference": Column(
        "difference, ten times the ladder", "share of the variance", LOST, "the difference to the matched control then"
    ),
    **{f"{name}_name": Column("name", NAME, "", "of the connector or control, in the study") for name in COMPARED},
    **{f"{name}_decoder": Column("best decoder", NAME, "", "with the lowest held-out error") for name in COMPARED},
    **{
        f"{name}_dimensions": Column("dimensions out", "tokens x features", "", "dimensions of an image that leave it")
        for name in COMPARED
    },
    "falls": Column("still falls", NAME, "", "curves of the ladder that may yet end lower, and their last step"),
    "not_converged": Column("not converged", NAME, "", "networks that have not converged, which are no evidence"),
    "untested": Column("untested", NAME, "", "what the ladder has no two sizes or shares of"),
    "details": Column("details", NAME, "", "all that the verdict rests on"),
    "model_connector_fvu_without_near_copies": Column(
        "unexplained without near-copies", "share of the variance", LOST, "what is left of the other images"
    ),
    # connectors
    "pre": Column("pre", "patches x features", "", "what enters the connector"),
    "post": Column("post", "tokens x features", "", "what leaves it"),
    "pre_patches": Column("patches", "count", "", "patches that enter the connector"),
    "pre_features": Column("features in", "count", "", "features of a patch that enters the connector"),
    "post_tokens": Column("tokens", "count", "", "tokens that leave the connector"),
    "post_features": Column("features out", "count", "", "features of a token that leaves the connector"),
    "connector_parameters_m": Column("connector parameters", "millions", "", "trained numbers of the connector"),
    "decoder_parameters_m": Column("decoder parameters", "millions", "", "trained numbers of the decoder"),
    "input": Column("input", NAME, "", "what the model sees of an image"),
    "receives": Column(
        *("connectors", NAME, ""),
        "of a model with DeepStack: whether all that feed its language model are measured, or the merger alone",
    ),
    # training
    "step": Column("step", "count", "", "of the network's training"),
    "images_seen": Column("images seen", "count", "", "until that step, one counted as often as it was seen"),
    "training_loss": Column("training loss", "1: the mean", LOST, "squared error on the images trained on"),
    # comparisons
    "base": Column("base", NAME, "", "the model that the other was tuned from"),
    "tuned": Column("tuned", NAME, "", "the model that was tuned"),
    "value_base": Column("value, base", "as the measure", "", "of all images, the model that the other was tuned from"),
    "value_tuned": Column("value, tuned", "as the measure", "", "of all images, the model that was tuned"),
    "difference": Column("tuned - base", "as the measure", "", "paired difference, of the same images"),
    "equal_pre": Column(
        "equal before", SHARE, "", "of the bytes before the connector; 1: tower and preprocessing are the same"
    ),
}  # fmt: skip
# What may follow a column's name -> what that is of it.
SUFFIXES = {
    "_low": "lower end of the interval",
    "_high": "upper end of the interval",
    "_std": "standard deviation over images",
    "_std_reported": "standard deviation over images, as the paper reports it",
    "_chance": "value by chance",
    "_reported": "value that the paper reports",
    "_paper_convention": "value computed as the paper's code does",
    "_reason": "why it is undefined, where it is",
    "_p": "p-value of the test against 0",
    "_p_at_floor": "whether that p is an upper bound, the least that so many permutations can show",
    "_p_adjusted": "p-value after Benjamini and Hochberg; the family is all tests of the column",
}


def define(name: str, about: Column) -> None:
    """Add a column that a single exhibit has. Raises: ValueError if the name is taken by another."""
    if COLUMNS.setdefault(name, about) != about:
        raise ValueError(f"column {name}: means something else already: {COLUMNS[name].help}")


def column(name: str) -> Column | None:
    """What a column means, by its name in a CSV file; None if that is not known.

    Of one with a suffix, the column that it belongs to, with a help that says which part of it this is.
    """
    plain = _plain(name)
    if plain in COLUMNS:
        return COLUMNS[plain]
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        base = column(name.removesuffix(suffix)) if name.endswith(suffix) else None
        if base:
            return _part(base, suffix)
    return None


def titled(title: str) -> Column | None:
    """What a column of a page means, by its title or, up to a comma, as much of it as is known; None if nothing is."""
    words = re.sub(r"^R@\d+", "R@r", title).split(",")
    exact = {about.title: about for about in reversed(COLUMNS.values())}  # of several, the first
    parts = {part.title: part for base in exact.values() for part in (_part(base, suffix) for suffix in SUFFIXES)}
    exact = parts | exact
    names = (",".join(words[:length]) for length in range(len(words), 0, -1))
    return next((exact[name] for name in names if name in exact), None)


def _part(base: Column, suffix: str) -> Column:
    """What stands beside a column, by its suffix. A p-value is no better for being higher, whatever it is of."""
    title = f"{base.title}, {suffix.removeprefix('_').replace('_', ' ')}"
    part = base._replace(title=title, help=f"{SUFFIXES[suffix]}: {base.help}", words=None)
    return part._replace(unit="0 to 1", higher="") if suffix in ("_p", "_p_adjusted") else part


def _plain(name: str) -> str:
    """A column's name with letters for numbers: recall_at_5 -> recall_at_r."""
    name = re.sub(r"^(recall_at_|partial_r|spearman_r)\d+", lambda m: m[1] + ("r" if m[1].endswith("_") else ""), name)
    return re.sub(r"^overlap_k\d+", "overlap_k", name)
