"""Promotion: a challenger and the champion on the same rows, and whether the one is to follow the other.

The difference of two models on the same rows is far less uncertain than each one's own figure, so rows are drawn in
pairs (Efron and Tibshirani, 1993, "An introduction to the bootstrap"). Rows of one day share its weather, its delays:
whole days are drawn, or the interval would be too narrow (Cameron, Gelbach and Miller, 2008, "Bootstrap-based
improvements for inference with clustered errors").
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from lakehouse.errors import LakeError
from lakehouse.metrics import metric

RESAMPLES = 2000


class ComparisonError(LakeError, ValueError):
    """Two models cannot be compared fairly."""


@dataclass(frozen=True)
class Policy:
    """When a challenger becomes champion.

    Attributes:
        metric: Metric with a loss per row that it has to win by.
        min_effect: How much lower its mean loss has to be at least.
        confidence: Of the intervals.
        guards: Metric to how much worse than the champion's it may be.
        segments: Columns in whose values it must not be worse, by the same metric.
        segment_tolerance: How much worse it may be in one segment, beyond doubt.
        segment_rows: Segments of fewer rows are not looked at.
    """

    metric: str = "log_loss"
    min_effect: float = 0.0
    confidence: float = 0.95
    guards: Mapping[str, float] = field(default_factory=dict)
    segments: tuple[str, ...] = ()
    segment_tolerance: float = 0.0
    segment_rows: int = 200


@dataclass(frozen=True)
class Difference:
    """Challenger minus champion, in mean loss per row: negative is better.

    Attributes:
        rows: Rows that were compared.
        champion: The champion's mean loss.
        challenger: The challenger's.
        low: Lower end of the interval of the difference.
        high: Upper end.
    """

    rows: int
    champion: float
    challenger: float
    low: float
    high: float

    @property
    def value(self) -> float:
        """The difference."""
        return self.challenger - self.champion

    def __str__(self) -> str:
        """One line for a person."""
        return (
            f"{self.challenger:.4f} against {self.champion:.4f} on {self.rows} rows, a difference of {self.value:+.4f} "
            f"({self.low:+.4f} to {self.high:+.4f})"
        )


@dataclass(frozen=True)
class Decision:
    """Whether a challenger becomes champion, and the evidence.

    Attributes:
        promote: Whether it does.
        reasons: Why not, or the one reason why.
        difference: On all rows.
        guards: Metric to the champion's and the challenger's value.
        segments: ``column=value`` to the difference there.
    """

    promote: bool
    reasons: tuple[str, ...]
    difference: Difference
    guards: dict[str, tuple[float, float]]
    segments: dict[str, Difference]


def decide(rows: pd.DataFrame, policy: Policy, seed: int) -> Decision:
    """Compare a challenger with the champion on one frozen set of rows.

    Args:
        rows: One per entity and day, with ``outcome``, ``champion`` and ``challenger`` (scores), ``day``, and the
            columns of the policy's segments.
        policy: When the challenger wins.
        seed: Of the draws.

    Raises:
        ComparisonError: There are no rows, or a score or an outcome is missing: both have to be measured on all rows.
    """
    _check(rows, policy)
    overall = difference(rows, policy, seed)
    reasons = []
    if overall.high >= 0:
        reasons.append(f"{policy.metric} is not lower beyond doubt: {overall}")
    elif -overall.value < policy.min_effect:
        reasons.append(f"{policy.metric} is lower by less than {policy.min_effect}: {overall}")
    outcomes = rows["outcome"].to_numpy("float64")
    guards = {}
    for name, tolerance in policy.guards.items():
        theirs, ours = (metric(name).of(outcomes, rows[who].to_numpy("float64")) for who in ("champion", "challenger"))
        guards[name] = theirs, ours
        if metric(name).worse_by(ours, theirs) > tolerance:
            reasons.append(f"{name} is worse by more than {tolerance}: {ours:.4f} against {theirs:.4f}")
    segments = {}
    for column in policy.segments:
        for value, part in rows.groupby(column, sort=True):
            if len(part) >= policy.segment_rows:
                found = segments[f"{column}={value}"] = difference(part, policy, seed)
                if found.low > policy.segment_tolerance:
                    reasons.append(f"{policy.metric} is higher where {column} is {value}: {found}")
    if not reasons:
        return Decision(True, (f"{policy.metric} is lower: {overall}",), overall, guards, segments)
    return Decision(False, tuple(reasons), overall, guards, segments)


def difference(rows: pd.DataFrame, policy: Policy, seed: int) -> Difference:
    """The difference in mean loss, with its interval by drawing whole days in pairs.

    Args:
        rows: As :func:`decide` takes them.
        policy: Names the metric and the confidence.
        seed: Of the draws.
    """
    loss = metric(policy.metric).loss_per_row
    assert loss is not None
    outcomes = rows["outcome"].to_numpy("float64")
    theirs, ours = (loss(outcomes, rows[who].to_numpy("float64")) for who in ("champion", "challenger"))
    by_day = pd.DataFrame({"day": rows["day"].to_numpy(), "difference": ours - theirs}).groupby("day")["difference"]
    sums, counts = by_day.sum().to_numpy(), by_day.count().to_numpy()
    drawn = np.random.default_rng(seed).integers(0, len(sums), (RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    tail = (1 - policy.confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Difference(len(rows), float(theirs.mean()), float(ours.mean()), float(low), float(high))


def _check(rows: pd.DataFrame, policy: Policy) -> None:
    needed = ["outcome", "champion", "challenger", "day", *policy.segments]
    if missing := [name for name in needed if name not in rows]:
        raise ComparisonError(f"The rows to compare on have no {', '.join(missing)}.")
    if rows.empty:
        raise ComparisonError("There are no rows to compare on.")
    if metric(policy.metric).loss_per_row is None:
        raise ComparisonError(
            f"{policy.metric} is no mean over rows, so no interval of it is known: use it as a guard."
        )
    for name in ("outcome", "champion", "challenger"):
        if gone := int(rows[name].isna().sum()):
            raise ComparisonError(
                f"{gone} of {len(rows)} rows have no {name}: both are measured on all rows, or not at all."
            )
