"""Performance by counts and sums: what scores were worth, once the outcomes are known.

The engine adds up rows in small groups, which :func:`figures` turns into metrics: it costs the same however many rows
were scored. Metrics of ranks and bins are those of scores that were rounded to the bins of the training snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import roc_auc_score

if TYPE_CHECKING:
    import pandas as pd

    from lakehouse.ml.model_spec import ModelSpec

BINS = 100
"""Bins of the score; ten of them together are a bin of the calibration."""

SUMS = {
    "rows": "1",
    "scores": "score",
    "outcomes": "outcome",
    "brier": "power(score - outcome, 2)",
    "mean_squared_error": "power(score - outcome, 2)",
    "mean_absolute_error": "abs(score - outcome)",
    "log_loss": "-ln(if(outcome > 0, greatest(score, 2.220446049250313e-16D), "
    "greatest(1 - score, 2.220446049250313e-16D)))",
}
"""What is added up in a group, as SQL over ``score`` and ``outcome``, which are doubles."""


def sums(spec: ModelSpec, constant: float) -> dict[str, str]:
    """The sums that a model's metrics need, as SQL.

    Args:
        spec: The model.
        constant: What the baseline predicts for every row.
    """
    names = {"rows", "scores", "outcomes", *spec.metrics.watch, spec.metrics.optimize}
    wanted = {name: f"sum({SUMS[name]})" for name in sorted(names & SUMS.keys())}
    loss = SUMS[spec.metrics.optimize].replace("score", f"{constant!r}D")
    return wanted | {"baseline": f"sum({loss})"}


def figures(groups: pd.DataFrame, spec: ModelSpec) -> dict[str, float]:
    """Metrics of the rows of some groups.

    Args:
        groups: A row per group: ``bin`` of the score, ``decision`` and ``positive`` (booleans) that its rows share, and
            the sums of :func:`sums`. At least one row.
        spec: The model.

    Returns:
        ``mean_score``, ``mean_outcome``, ``baseline`` (its mean loss), ``skill`` (the share of that loss that the model
        saves), the metric that decides and those that are watched. What cannot be told, such as the ``auc`` of
        outcomes that are all the same, is left out.
    """
    total = groups.drop(columns=["bin", "decision", "positive"], errors="ignore").sum()
    rows = total["rows"]
    loss = total[spec.metrics.optimize] / rows
    found = {
        "mean_score": total["scores"] / rows,
        "mean_outcome": total["outcomes"] / rows,
        spec.metrics.optimize: loss,
        "baseline": total["baseline"] / rows,
    }
    if total["baseline"] > 0:
        found["skill"] = 1 - total[spec.metrics.optimize] / total["baseline"]
    for name in spec.metrics.watch:
        value = _watched(name, groups, total)
        if value is not None:
            found[name] = value
    return {name: float(value) for name, value in found.items()}


def bin_of(edges: Sequence[float]) -> str:
    """The number of the bin that a score falls into, as SQL: a search by halves.

    Args:
        edges: Upper ends of all bins but the last, rising.
    """

    def within(low: int, high: int) -> str:
        if low == high:
            return str(low)
        middle = (low + high) // 2
        return f"if(score <= {edges[middle]!r}D, {within(low, middle)}, {within(middle + 1, high)})"

    return within(0, len(edges))


def _watched(name: str, groups: pd.DataFrame, total: pd.Series) -> float | None:
    if name in SUMS:
        return float(total[name] / total["rows"])
    if name == "bias":
        return float(abs(total["scores"] - total["outcomes"]) / total["rows"])
    if name == "calibration_error":
        by = groups.assign(tenth=groups["bin"] * 10 // BINS).groupby("tenth")[["scores", "outcomes"]].sum()
        return float((by["scores"] - by["outcomes"]).abs().sum() / total["rows"])
    positive, rows = groups["positive"].to_numpy("bool"), groups["rows"].to_numpy("float64")
    if name == "auc":
        if len(np.unique(positive)) < 2:
            return None
        return float(roc_auc_score(positive, groups["bin"].to_numpy(), sample_weight=rows))
    called = groups["decision"].to_numpy("bool")
    hits, of = rows[called & positive].sum(), rows[called if name == "precision" else positive].sum()
    return float(hits / of) if of else None
