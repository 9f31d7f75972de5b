"""The loss browser: one page that shows examples with their loss maps, and needs nothing but itself."""

import base64
import json
from pathlib import Path

import matplotlib
import numpy as np

from lossmap.figures.patch_maps import SIGNED, UNSIGNED

DIGITS = 4  # decimal places of every loss on the page
LOSSES = {  # column -> name, name of its mean, column of its mean, what its values mean, whether they have a sign
    "squared_error": (
        "Squared error",
        "squared error",
        "squared_error",
        "mean over the features of standardised embeddings; 1 is what predicting the mean scores",
        False,
    ),
    "norm_difference": (
        "Norm difference",
        "|norm difference|",
        "absolute_norm_difference",
        "L2 norm of the patch minus that of its reconstruction; blue: the original is larger",
        True,
    ),
    "cosine_error": (
        "Cosine error",
        "cosine error",
        "cosine_error",
        "1 minus the cosine of patch and reconstruction; 0: same direction, 1: unrelated, 2: opposite",
        False,
    ),
}
CHOSEN = {  # by what -> in words
    "loss": "its rank of loss, for this model",
    "id": "its id, whatever its loss: the same ones for every model",
}
RULES = (  # a paragraph each
    "Examples are chosen by rule, never by hand. For each model and dataset, half wrong and half right answers, each "
    "at evenly spaced ranks of squared error (in the patches with the answer, where these are known), the highest "
    "and the lowest among them; captions, and images alone where nothing was prompted, over the whole range of loss. "
    "Of the places beyond four, half go to items that come first in an order made of their ids alone, whatever was "
    "lost of them. These are the same for every model, so that models can be compared on the same images; but for "
    "a question whose answer no patch of a model holds: it has no rank there.",
    "Side by side stand all models that have an example of the image on this page, whatever it was chosen by. Where "
    "it was chosen by its loss in one model, that is a reason for that model to stand out; images chosen by their "
    "ids favour none. All maps have one scale. Norm differences are of standardised features: a model with more "
    "features has larger ones.",
    "Losses, for sorting and filtering, are means of the loss shown, either over the whole image or over the patches "
    "with the answer: those of which the answer mask covers enough. Examples without such patches come last in "
    "orders of the latter. Scores are VQA accuracy or exact match (0 to 1) of answers, accuracy (0 or 1) of choices "
    "and CIDEr (x100) of captions.",
    "The list as CSV holds the examples that match, in their order, with the means of all losses. A link holds the "
    "example, the loss shown, order, filters and what is drawn. Its part from # on works wherever this page lies.",
)


def browser_page(study: str, images: list[str], examples: list[dict]) -> str:
    """The page, as HTML.

    images: data URIs. examples: dicts of model, dataset, task, id (of the image), question_id (or None), chosen_by (of
    `CHOSEN`), image (index into images), size (width, height of the original image), box (of what the model saw, in its
    pixels) and grid (rows, cols), question, options (list or None), prediction, references (list of text and count),
    score, scored (name of the score), outcome ("right", "wrong" or None), rank, of, reconstructor, means (per loss: in
    the answer's patches, in the others, in all; None where there are none), maps (per loss, of `LOSSES`, from
    `packed`), covered (percent of each patch that the mask covers, from `packed`, or None), mask (from `packed_mask`,
    or None). Where nothing was asked, question, prediction, score and scored are None, and there are no references.
    Where there are several views, or patches without a place, views stands instead of box and grid: dicts of box, grid,
    kind ("whole" or "tile") and start, the number of the view's first patch; maps hold NaN for patches without a loss.
    """
    about = [
        {
            "key": key,
            "name": name,
            "mean": mean,
            "column": column,
            "unit": unit,
            "signed": signed,
            "colours": _colours(SIGNED if signed else UNSIGNED),
        }
        for key, (name, mean, column, unit, signed) in LOSSES.items()
    ]
    content = {
        "study": study, "digits": DIGITS, "rules": RULES, "chosen": CHOSEN, "losses": about, "images": images,
        "examples": examples,
    }  # fmt: skip
    # No "<" in it: no text from outside can end the script element.
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    here = Path(__file__)
    page = here.with_suffix(".html").read_text(encoding="utf-8")
    for name, part in (("style", here.with_suffix(".css")), ("script", here.with_suffix(".js"))):
        page = page.replace(f"{{{{ {name} }}}}", part.read_text(encoding="utf-8"))
    return page.replace("{{ data }}", text)


def packed(values: np.ndarray, dtype: str) -> str:
    """Numbers as base64 of their bytes, the lowest byte first."""
    return base64.b64encode(np.ascontiguousarray(values, dtype=np.dtype(dtype).newbyteorder("<")).data).decode()


def packed_mask(mask: np.ndarray, width: int, height: int, side: int = 512) -> dict:
    """A mask as the lengths of its runs of False, True, False, ... in raster order, made at most `side` pixels long.

    mask: (height, width) bool. width, height: of the image. Returns: width, height, runs, and scale: the image's pixels
    per pixel of the mask, across and down.
    """
    step = -(-max(mask.shape) // side)
    mask = mask[step // 2 :: step, step // 2 :: step]
    flat = np.concatenate(([False], mask.ravel(), [not mask.ravel()[-1]]))
    runs = np.diff(np.flatnonzero(np.diff(flat)), prepend=0)
    rows, cols = mask.shape
    return {"width": cols, "height": rows, "runs": runs.tolist(), "scale": [width / cols, height / rows]}


def _colours(name: str) -> str:
    return packed(matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3], "uint8")
