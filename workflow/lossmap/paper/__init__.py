"""The numbers that Li et al. 2025 (arXiv:2509.11986) report, to stand beside ours."""

from pathlib import Path

import pandas as pd

# The paper's models, by the checkpoint that they are.
MODELS = {
    "llava-hf/llava-1.5-7b-hf": "llava",
    "HuggingFaceM4/idefics2-8b": "idefics2",
    "Qwen/Qwen2.5-VL-7B-Instruct": "qwen2.5-vl",
}


def beside(ours: pd.DataFrame, table: str, columns: dict[str, str], checkpoints: dict[str, str]) -> pd.DataFrame:
    """Add the paper's values to a table of ours, where a study's model and dataset are in the paper.

    Parameters: ours, with a column model; table, name of a CSV file of this package; columns, the paper's column -> the
    name of the new column; checkpoints, model -> checkpoint, which tells whether a model is one of the paper's. Rows
    are matched on the model and on every other column that both tables have.
    Returns: ours with the new columns, NaN where the paper has no value.
    """
    reported = pd.read_csv(Path(__file__).parent / f"{table}.csv").rename(columns=columns)
    named = ours.assign(paper_model=ours["model"].map(lambda name: MODELS.get(checkpoints[name])))
    keys = [name for name in reported.columns if name in ours.columns and name not in ("model", "n")]
    reported = reported[["model", *keys, *columns.values()]].rename(columns={"model": "paper_model"})
    return named.merge(reported, on=["paper_model", *keys], how="left").drop(columns="paper_model")
