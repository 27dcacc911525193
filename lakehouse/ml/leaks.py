"""Leaks: an input that tells the outcome by itself was made from it, and is refused before anything is fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lakehouse.errors import LakeError

if TYPE_CHECKING:
    from lakehouse.ml.model_spec import ModelSpec

LIMIT = 0.999
"""An input that orders the outcomes better than this is no forecast: of a classification its area under the ROC curve,
of a regression its rank correlation (Spearman's), whatever its direction."""

FEWEST = 20
"""So many rows of each outcome, or of numbers, are needed to say so."""


class LeakError(LakeError, ValueError):
    """An input of a model knows the outcome."""


def check(rows: pd.DataFrame, label: str, spec: ModelSpec) -> None:
    """Refuse inputs that tell the outcome by themselves: by their number, their name, or by being null.

    Args:
        rows: Labelled rows of the train days.
        label: Column of the outcome.
        spec: The model.

    Raises:
        LeakError: The message names the columns.
    """
    outcomes = rows[label].to_numpy("float64")
    order = _auc if spec.task == "classification" else _rank_correlation
    found = []
    for name in spec.features.numeric:
        values = pd.to_numeric(rows[name]).to_numpy("float64", na_value=np.nan)
        known = ~np.isnan(values)
        found += _told(name, "its values", order, values[known], outcomes[known])
        if not known.all():
            found += _told(name, "whether it is null", order, known.astype("float64"), outcomes)
    for name in spec.features.categorical:
        names = rows[name].astype(object).where(rows[name].notna(), "")
        # The mean outcome of a name, told by one half of the rows and tried on the other: a name that occurs once knows
        # its own outcome, and nobody else's.
        half = np.arange(len(rows)) % 2 == 0
        means = pd.Series(outcomes[half]).groupby(names[half].to_numpy()).mean()
        values = names[~half].map(means).fillna(outcomes[half].mean()).to_numpy("float64")
        found += _told(name, "its values", order, values, outcomes[~half])
    if found:
        raise LeakError(
            f"{spec.name}: {'; '.join(found)}. What knows the outcome was made from it, or after it. Take it out of "
            f"features in model.yaml, or build it from what was known before the day began."
        )


def _told(name: str, by: str, order: Any, values: Any, outcomes: Any) -> list[str]:
    strength = order(values, outcomes)
    if strength <= LIMIT:
        return []
    measure = "area under the ROC curve" if order is _auc else "rank correlation"
    return [f"{name} tells the outcome by {by} ({measure} {strength:.4f})"]


def _auc(values: Any, outcomes: Any) -> float:
    """The area under the ROC curve from ranks (Mann and Whitney, 1947), in the direction that is better."""
    positive = outcomes > 0
    ours, others = int(positive.sum()), int((~positive).sum())
    if min(ours, others) < FEWEST:
        return 0.5
    ranks = pd.Series(values).rank().to_numpy()
    area = (ranks[positive].sum() - ours * (ours + 1) / 2) / (ours * others)
    return float(max(area, 1 - area))


def _rank_correlation(values: Any, outcomes: Any) -> float:
    ranks = pd.DataFrame({"value": values, "outcome": outcomes}).rank()
    if len(ranks) < FEWEST or (ranks.nunique() < 2).any():
        return 0.0
    return float(abs(np.corrcoef(ranks["value"], ranks["outcome"])[0, 1]))
