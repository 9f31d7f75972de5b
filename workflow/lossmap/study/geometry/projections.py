"""How many dimensions a random projection would need to preserve the neighbours, and what such projections preserve."""

import numpy as np
import pandas as pd

from lossmap.measures.margins import Margins
from lossmap.measures.random_projection import dimension_curve, draws, kept_by_projection
from lossmap.measures.statistics import bootstrap_mean
from lossmap.study.geometry.summary import Summary


def needed_dimensions(measured: Summary, margins: Margins) -> pd.DataFrame:
    """Dimension that a random projection needs, for every k up to the largest and each margin quantile."""
    frames = []
    for quantile in measured.spec.quantiles:
        curve = dimension_curve(margins.nearest, quantile, measured.spec.confidence)
        k = np.arange(1, len(curve.value) + 1)
        frames.append(pd.DataFrame({"quantile": quantile, "k": k, **curve._asdict()}))
    table = pd.concat(frames).rename(columns={"value": "dimension"})
    return table.assign(dataset=measured.spec.dataset, n=measured.n, model=measured.spec.model)


def try_projections(
    measured: Summary, margins: Margins, unit: np.ndarray, lists: np.ndarray, width: int
) -> pd.DataFrame:
    """What random projections preserve: one to each dimension that is enough, means of some to the width or less."""
    rng = np.random.default_rng(measured.seed("projections"))
    queries = np.sort(rng.permutation(measured.n)[: measured.spec.queries])
    ks, powers = measured.spec.k, [2**i for i in range(1, width.bit_length()) if 2**i < width]
    wanted = [("width", np.nan, ks, m, draws(m)) for m in (*powers, width)]
    for quantile in measured.spec.quantiles:
        dimensions = dimension_curve(margins.nearest, quantile, measured.spec.confidence).value
        wanted += [("enough", quantile, [k], dimensions[k - 1], 1) for k in ks]
    rows = []
    for purpose, quantile, own_ks, m, count in wanted:
        shares = np.stack([kept_by_projection(unit, lists, own_ks, m, queries, rng) for _ in range(count)])
        for k, kept in zip(own_ks, np.moveaxis(shares, 2, 0), strict=True):  # kept (draws, queries)
            row = {"purpose": purpose, "quantile": quantile, "k": k, "dimension": m}
            row["promised"] = (1 - quantile) * (1 - 2 / measured.n)
            for name, values in (("kept_all", kept == 1), ("overlap", kept)):
                interval = bootstrap_mean(values.mean(0), **measured.resampling)
                row |= dict(zip((name, f"{name}_low", f"{name}_high"), interval, strict=True))
            rows.append(row)
    table = pd.DataFrame(rows)
    return table.assign(dataset=measured.spec.dataset, n=measured.n, model=measured.spec.model, queries=len(queries))
