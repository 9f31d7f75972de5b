"""Rankings of neighbours on disk: one row per similarity, side of the connector and image."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lossmap.measures.ranking import Ranking, plain_ranking

STAGES = ("pre", "post")


class NeighbourLists(NamedTuple):
    """Who is whose neighbour. image_ids (n,) of the images that were ranked. copies: image -> the first image that
    equals it; of these, some or none were ranked. rankings: (metric, stage) -> Ranking of the ranked images."""

    image_ids: np.ndarray
    copies: dict[str, str]
    rankings: dict[tuple[str, str], Ranking]

    def rows_of(self, image_ids: np.ndarray) -> np.ndarray:
        """(n,): where, among the images of a store, that stands whose embedding is each ranked image's: its own, or
        that of the image that it equals, so that rounding sets no copies apart."""
        return pd.Index(image_ids).get_indexer([self.copies.get(image, image) for image in self.image_ids])

    def counts(self) -> dict[str, int]:
        """For tables: n, ranked images; images, all of the dataset; copies, how many of these equal an earlier one."""
        left_out = len(set(self.copies) - set(self.image_ids))
        return {"n": len(self.image_ids), "images": len(self.image_ids) + left_out, "copies": len(self.copies)}


def write_lists(path: Path, lists: NeighbourLists) -> None:
    """Write rankings. Columns: metric, stage, image_id; neighbours (row numbers of the image ids), within and twin as
    in Ranking, the last two empty where nothing ties; copy_of, in the rows of images left out."""
    frames = []
    for (metric, stage), ranking in lists.rankings.items():
        columns: dict[str, Any] = {"metric": metric, "stage": stage, "image_id": lists.image_ids}
        columns["neighbours"] = list(ranking.items.astype("int32"))
        if ranking.without_ties:
            columns |= {"within": None, "twin": None}
        else:
            columns |= {"within": list(ranking.within.astype("int32")), "twin": ranking.twin}
        frames.append(pd.DataFrame({**columns, "copy_of": None}))
    frames.append(pd.DataFrame({"image_id": list(lists.copies), "copy_of": list(lists.copies.values())}))
    table = pd.concat(frames, ignore_index=True)
    table["twin"] = table["twin"].astype("Int32")
    table.to_parquet(path, index=False)


def read_lists(path: Path) -> NeighbourLists:
    """What was given to `write_lists`."""
    table = pd.read_parquet(path)
    rankings = {}
    for key, group in table.groupby(["metric", "stage"]):
        items = np.stack(group["neighbours"].to_list())
        if group["twin"].isna().all():
            rankings[key] = plain_ranking(items)
        else:
            rankings[key] = Ranking(items, np.stack(group["within"].to_list()), group["twin"].to_numpy("int64"))
    ranked = table[table["metric"].notna()]
    first = ranked[(ranked["metric"] == ranked["metric"].iloc[0]) & (ranked["stage"] == ranked["stage"].iloc[0])]
    left_out = table[table["copy_of"].notna()]
    copies = dict(zip(left_out["image_id"], left_out["copy_of"], strict=True))
    return NeighbourLists(first["image_id"].to_numpy(), copies, rankings)
