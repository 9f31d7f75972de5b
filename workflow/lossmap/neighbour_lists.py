"""Neighbour lists on disk: one row per similarity, side of the connector and image."""

from pathlib import Path

import numpy as np
import pandas as pd

STAGES = ("pre", "post")


def write_lists(path: Path, image_ids: np.ndarray, lists: dict[tuple[str, str], np.ndarray]) -> None:
    """Write neighbour lists. lists: (metric, stage) -> (n, k) row numbers of `image_ids`, nearest first."""
    frames = [
        pd.DataFrame(
            {"metric": metric, "stage": stage, "image_id": image_ids, "neighbours": list(rows.astype("int32"))}
        )
        for (metric, stage), rows in lists.items()
    ]
    pd.concat(frames).to_parquet(path, index=False)


def read_lists(path: Path) -> tuple[np.ndarray, dict[tuple[str, str], np.ndarray]]:
    """Returns: image ids (n,) and the lists, as they were given to `write_lists`."""
    table = pd.read_parquet(path)
    lists = {key: np.stack(group["neighbours"].to_list()) for key, group in table.groupby(["metric", "stage"])}
    first = table[(table["metric"] == table["metric"][0]) & (table["stage"] == table["stage"][0])]
    return first["image_id"].to_numpy(), lists
