"""Generated captions, references -> CIDEr of each caption and of all."""

from pathlib import Path

import numpy as np
import pandas as pd

from lossmap.data.manifest import read_table
from lossmap.measures.cider import cider_d
from lossmap.measures.ptb_tokens import ptb_tokens
from lossmap.measures.seeds import seed_for
from lossmap.measures.statistics import bootstrap_mean
from lossmap.study.scoring import beside
from lossmap.study.specs import ScoreCaptions


def run(*, predictions: Path, references: Path, scores: Path, summary: Path, spec: ScoreCaptions) -> None:
    """Score one caption per image by CIDEr-D x 100, document frequencies from all references of the dataset.

    cider: on Penn Treebank tokens, as published. cider_raw: the paper's, on the strings as they are, cut at blanks. A
    caption without a word scores 0. reference_words: mean number of Penn Treebank tokens of an image's references. An
    image with a caption but without references is an error, and so is the reverse.

    spec: dataset, model, confidence, resamples, seed.
    """
    known = read_table(references, "captions").groupby("image_id", sort=False)["caption"].agg(list)
    table = beside(predictions, known.to_frame("references"), references)
    wanted = {}
    for column, tokens in (("cider", ptb_tokens), ("cider_raw", str.split)):
        generated = [tokens(text) for text in table["text"]]
        wanted[column] = [[tokens(text) for text in texts] for texts in table["references"]]
        table[column] = 100 * cider_d(generated, wanted[column])
    table["reference_words"] = [np.mean([len(reference) for reference in several]) for several in wanted["cider"]]
    table[["image_id", "text", "cider", "cider_raw", "reference_words"]].to_parquet(scores, index=False)

    seed = seed_for(spec.seed, "score_captions", spec.dataset, spec.model)
    interval = bootstrap_mean(table["cider"], spec.resamples, spec.confidence, seed)
    row = {
        "dataset": spec.dataset,
        "model": spec.model,
        "n": len(table),
        "left_out": len(known) - len(table),
        "empty": int((table["text"].str.strip() == "").sum()),
        **dict(zip(("cider", "cider_low", "cider_high"), interval, strict=True)),
        "cider_std": table["cider"].std(ddof=0),
        "cider_paper_convention": table["cider_raw"].mean(),
    }
    pd.DataFrame([row]).to_parquet(summary, index=False)
