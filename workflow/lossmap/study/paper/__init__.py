"""The numbers that Li et al. 2025 (arXiv:2509.11986) report, to stand beside ours."""

from pathlib import Path

import pandas as pd

# The paper's models, by the checkpoint that they are.
MODELS = {
    "llava-hf/llava-1.5-7b-hf": "llava",
    "HuggingFaceM4/idefics2-8b": "idefics2",
    "Qwen/Qwen2.5-VL-7B-Instruct": "qwen2.5-vl",
}


def beside(
    ours: pd.DataFrame, table: str, keys: list[str], values: list[str], checkpoints: dict[str, str]
) -> pd.DataFrame:
    """Add the paper's values to a table of ours, where a study's model is one of the paper's.

    Parameters: ours, with a column model; table, name of a CSV file of this package; keys, the columns besides the
    model that say which row is which; values, the paper's columns to add; checkpoints, model -> checkpoint, which tells
    whether a model is one of the paper's.
    Returns: ours with a new column <value>_reported for each value, NaN where the paper has none.
    """
    reported = pd.read_csv(Path(__file__).parent / f"{table}.csv")
    reported = reported[["model", *keys, *values]].rename(columns={value: f"{value}_reported" for value in values})
    named = ours.assign(paper_model=ours["model"].map(lambda name: MODELS.get(checkpoints[name])))
    return named.merge(
        reported.rename(columns={"model": "paper_model"}), on=["paper_model", *keys], how="left", validate="many_to_one"
    ).drop(columns="paper_model")
