"""Neighbour lists, classes -> whether a query finds its class before and after the connector."""

from pathlib import Path

import numpy as np
import pandas as pd

from lossmap.measures.correlation import neighbour_spearman
from lossmap.measures.overlap import overlap_including_self, ranking_overlap
from lossmap.measures.retrieval import recall_at
from lossmap.study.neighbour_lists import STAGES, NeighbourLists, read_lists
from lossmap.study.specs import MeasureRetrieval


def run(*, lists: Path, images: Path, queries: Path, summary: Path, spec: MeasureRetrieval) -> None:
    """Measure retrieval by class, R@r, of every image as a query, and how it goes with the query's neighbour overlap.

    What could explain both is held constant in a partial correlation: how many images a query's class has, and how
    often the query is among others' neighbours before the connector (its k-occurrence: an outlier finds few, and keeps
    few).

    Of equal images of which one is ranked, the first one's class counts; copies_of_other_class says how many copies had
    another.

    spec: dataset, model, recall, metrics, overlap_k, confidence.
    """
    neighbours = read_lists(lists)
    classes = pd.read_parquet(images).set_index("image_id")["label"]
    labels = classes.loc[neighbours.image_ids].to_numpy()
    per_query, means = [], []
    for metric in spec.metrics:
        rankings = {stage: neighbours.rankings[metric, stage] for stage in STAGES}
        queries_of_metric, rows = _both_sides(rankings, labels, spec)
        place = {"dataset": spec.dataset, **neighbours.counts(), "classes": len(set(labels))}
        place["copies_of_other_class"] = _relabelled(neighbours, classes)
        for stage in STAGES:
            columns = {"image_id": neighbours.image_ids, "metric": metric, "stage": stage}
            per_query.append(pd.DataFrame(columns | queries_of_metric[stage]))
            means.append({**place, "model": spec.model, "metric": metric, "stage": stage, **rows[stage]})
    pd.concat(per_query).to_parquet(queries, index=False)
    pd.DataFrame(means).to_parquet(summary, index=False)


def _relabelled(neighbours: NeighbourLists, classes: pd.Series) -> int:
    """How many copies were left out that have another class than the image that they equal, whose class counts."""
    left_out = set(neighbours.copies) - set(neighbours.image_ids)
    return sum(classes[copy] != classes[neighbours.copies[copy]] for copy in left_out)


def _both_sides(rankings: dict, labels: np.ndarray, spec: MeasureRetrieval) -> tuple[dict, dict]:
    """Stage -> columns of each query, and stage -> means with intervals."""
    k, confidence, largest = spec.overlap_k, spec.confidence, max(spec.recall)
    overlap = ranking_overlap(*rankings.values(), k, parts=True)
    with_self = overlap_including_self(*(side.first(k) for side in rankings.values()), k)
    hits = {stage: {r: recall_at(side, labels, r) for r in spec.recall} for stage, side in rankings.items()}
    occurrence = rankings["pre"].shares(k).sum(axis=0)
    controls = [pd.Series(labels).groupby(labels).transform("size").to_numpy(), occurrence]
    queries, rows = {}, {}
    for stage in STAGES:
        queries[stage] = {f"recall_at_{r}": hit.values for r, hit in hits[stage].items()}
        queries[stage][f"overlap_k{k}"] = overlap.values
        row = {}
        for r, hit in hits[stage].items():
            row |= _named(f"recall_at_{r}", hit.share_interval(confidence))
            change = hits["post"][r] - hits["pre"][r]
            row |= _named(f"recall_at_{r}_change", change.change_interval(confidence))
        row |= _named(f"overlap_k{k}", overlap.interval(confidence, bounds=(0, 1)))
        row["overlap_paper_convention"] = with_self.mean()
        for name, given in ((f"partial_r{largest}_overlap", controls), (f"spearman_r{largest}_overlap", [])):
            relation = neighbour_spearman(hits[stage][largest], overlap, confidence, given)
            row |= _named(name, (relation.rho, relation.low, relation.high)) | {f"{name}_p": relation.p}
        rows[stage] = row
    return queries, rows


def _named(name: str, interval) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), interval, strict=True))
