"""Neighbour lists, classes -> whether a query finds its class before and after the connector."""

from pathlib import Path

import numpy as np
import pandas as pd

from lossmap.measures.correlation import spearman
from lossmap.measures.overlap import list_overlap, overlap_including_self
from lossmap.measures.relations import partial_spearman
from lossmap.measures.retrieval import recall_at
from lossmap.measures.statistics import bootstrap_mean
from lossmap.neighbour_lists import STAGES, read_lists
from lossmap.seeds import seed_for


def run(*, lists: Path, images: Path, queries: Path, summary: Path, spec: dict) -> None:
    """Measure retrieval by class, R@r, of every image as a query, and how it goes with the query's neighbour overlap.

    What could explain both is held constant in a partial correlation: how many images a query's class has, and how
    often the query is among others' neighbours before the connector (its k-occurrence: an outlier finds few, and keeps
    few).

    spec: dataset, model, recall, metrics, overlap_k, confidence, resamples, seed.
    """
    image_ids, found = read_lists(lists)
    labels = pd.read_parquet(images).set_index("image_id")["label"].loc[image_ids].to_numpy()
    class_sizes = pd.Series(labels).groupby(labels).transform("size").to_numpy()
    largest, k = max(spec["recall"]), spec["overlap_k"]
    per_query, means = [], []
    for metric in spec["metrics"]:
        overlap = list_overlap(found[metric, "pre"], found[metric, "post"], k)
        controls = [class_sizes, np.bincount(found[metric, "pre"][:, :k].ravel(), minlength=len(labels))]
        for stage in STAGES:
            hits = {r: recall_at(found[metric, stage], labels, r) for r in spec["recall"]}
            columns = {"image_id": image_ids, "metric": metric, "stage": stage}
            columns |= {f"recall_at_{r}": hit for r, hit in hits.items()}
            per_query.append(pd.DataFrame({**columns, f"overlap_k{k}": overlap}))
            seed = seed_for(spec["seed"], "measure_retrieval", spec["dataset"], spec["model"], metric, stage)
            how = {"resamples": spec["resamples"], "confidence": spec["confidence"], "seed": seed}
            row = {"dataset": spec["dataset"], "n": len(labels), "classes": len(set(labels))}
            row |= {"model": spec["model"], "metric": metric, "stage": stage}
            for r, hit in hits.items():
                name = f"recall_at_{r}"
                row |= dict(zip((name, f"{name}_low", f"{name}_high"), bootstrap_mean(hit, **how), strict=True))
            name = f"overlap_k{k}"
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), bootstrap_mean(overlap, **how), strict=True))
            with_self = overlap_including_self(found[metric, "pre"], found[metric, "post"], k)
            row["overlap_paper_convention"] = with_self.mean()
            for name, relation in (
                ("partial", partial_spearman(hits[largest], overlap, controls, **how)),
                ("spearman", spearman(hits[largest], overlap, **how)),
            ):
                name = f"{name}_r{largest}_overlap"
                row |= {name: relation.rho, f"{name}_low": relation.low, f"{name}_high": relation.high}
                row[f"{name}_p"] = relation.p
            means.append(row)
    pd.concat(per_query).to_parquet(queries, index=False)
    pd.DataFrame(means).to_parquet(summary, index=False)
