"""Promotion: a challenger and the champion on the same rows, and whether the one is to follow the other.

The difference of two models on the same rows is far less uncertain than each one's own figure, so rows are drawn in
pairs (Efron and Tibshirani, 1993, "An introduction to the bootstrap"), and whole days of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pandas as pd

from lakehouse.errors import LakeError
from lakehouse.ml.metrics import FEWEST_DAYS, interval_of_mean, metric
from lakehouse.ml.model_spec import ModelSpec
from lakehouse.ml.scoring import DECISION, SCORE

if TYPE_CHECKING:
    from lakehouse.quality.gate import RuleResult


class ComparisonError(LakeError, ValueError):
    """Two models cannot be compared fairly."""


@dataclass(frozen=True)
class Difference:
    """Challenger minus champion, in mean loss per row: negative is better.

    Attributes:
        rows: Rows that were compared.
        champion: The champion's mean loss.
        challenger: The challenger's.
        low: Lower end of the interval of the difference; None where the days are too few for one.
        high: Upper end.
    """

    rows: int
    champion: float
    challenger: float
    low: float | None
    high: float | None

    @property
    def value(self) -> float:
        """The difference."""
        return self.challenger - self.champion

    @property
    def interval(self) -> str:
        """Its interval, for a person."""
        if self.low is None or self.high is None:
            return f"no interval of fewer than {FEWEST_DAYS} days"
        return f"{self.low:+.4f} to {self.high:+.4f}"

    def __str__(self) -> str:
        """One line for a person."""
        return (
            f"{self.challenger:.4f} against {self.champion:.4f} on {self.rows} rows, a difference of {self.value:+.4f} "
            f"({self.interval})"
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
        gate: Rule of the suite of the predictions to whether the challenger's scores keep it.
        gate_open: Whether they keep all that are critical.
    """

    promote: bool
    reasons: tuple[str, ...]
    difference: Difference
    guards: dict[str, tuple[float, float]]
    segments: dict[str, Difference]
    gate: dict[str, bool] = field(default_factory=dict)
    gate_open: bool = True


def judge(rows: pd.DataFrame, spec: ModelSpec) -> Decision:
    """All that a promotion is decided by: the champion, the baseline beside the challenger, and the gate.

    Args:
        rows: As :func:`decide` takes them, with ``baseline`` beside ``challenger``, and without ``champion``
            where there is none: the challenger is then compared with its baseline alone.
        spec: The model.

    Raises:
        ComparisonError: As of :func:`decide`, or the model's predictions have no suite, so no gate to pass.
    """
    from lakehouse.quality import gate, suites

    if "champion" in rows:
        decision = decide(rows, spec)
        against = difference(rows.assign(champion=rows["baseline"]), spec)
        decision = also_beats(decision, against, "the baseline beside it")
    else:
        # A constant is perfectly calibrated and harms nobody more than another: guards are against a champion.
        bare = spec.promotion.model_copy(update={"guards": {}, "segments": []})
        decision = decide(rows.assign(champion=rows["baseline"]), spec.model_copy(update={"promotion": bare}))
    said = rows.assign(**{SCORE: rows["challenger"]})
    if spec.decision_threshold is not None:
        said = said.assign(**{DECISION: said[SCORE] >= spec.decision_threshold})
    try:
        return gated(decision, gate.of_scores(spec.predictions_table, said))
    except suites.SuiteNotFoundError as error:
        raise ComparisonError(f"Its predictions could not be released: {error}") from error


def decide(rows: pd.DataFrame, spec: ModelSpec) -> Decision:
    """Compare a challenger with the champion on one frozen set of rows.

    Args:
        rows: One per entity and day, with ``outcome``, ``champion`` and ``challenger`` (scores), ``day``, and the
            columns of the segments to watch.
        spec: The model, whose ``promotion`` says when the challenger wins.

    Raises:
        ComparisonError: There are no rows, or a score or an outcome is missing: both have to be measured on all rows.
    """
    policy, loss = spec.promotion, spec.metrics.optimize
    _check(rows, policy.segments)
    overall = difference(rows, spec)
    reasons = []
    if overall.high is None or overall.high >= 0:
        reasons.append(f"{loss} is not lower beyond doubt: {overall}")
    elif -overall.value < policy.min_effect:
        reasons.append(f"{loss} is lower by less than {policy.min_effect}: {overall}")
    outcomes = rows["outcome"].to_numpy("float64")
    guards = {}
    for name, tolerance in policy.guards.items():
        theirs, ours = (
            metric(name).of(outcomes, rows[who].to_numpy("float64"), spec.decision_threshold)
            for who in ("champion", "challenger")
        )
        worse = metric(name).worse_by(ours, theirs)
        if math.isnan(worse):  # of outcomes that are all the same there is no area under a curve
            reasons.append(f"{name} cannot be told on these rows, and so not whether it is worse")
            continue
        guards[name] = theirs, ours
        if worse > tolerance:
            reasons.append(f"{name} is worse by more than {tolerance}: {ours:.4f} against {theirs:.4f}")
    segments = {}
    for column in policy.segments:
        for value, part in rows.groupby(column, sort=True):
            if len(part) >= policy.segment_rows:
                found = segments[f"{column}={value}"] = difference(part, spec)
                if found.low is not None and found.low > policy.segment_tolerance:
                    reasons.append(f"{loss} is higher where {column} is {value}: {found}")
    if not reasons:
        return Decision(True, (f"{loss} is lower: {overall}",), overall, guards, segments)
    return Decision(False, tuple(reasons), overall, guards, segments)


def also_beats(decision: Decision, against: Difference, rival: str) -> Decision:
    """A decision that keeps a challenger out whose loss is not below that of another rival, whatever the champion's is.

    Args:
        decision: Against the champion.
        against: The challenger minus the rival, on the same rows.
        rival: What it is called.
    """
    if against.value < 0:
        return decision
    return _kept_out(decision, f"its loss is not below that of {rival}: {against}")


def gated(decision: Decision, found: Sequence[RuleResult]) -> Decision:
    """A decision that keeps a challenger out whose scores would not pass the gate of the predictions.

    Args:
        decision: Against the champion.
        found: What the gate says of the scores on the same rows.
    """
    broken = [str(each) for each in found if not each.success and each.expectation.severity == "critical"]
    gate = {each.expectation.label: each.success for each in found}
    decision = replace(decision, gate=gate, gate_open=not broken)
    return (
        _kept_out(decision, f"the gate of its predictions would be shut: {'; '.join(broken)}") if broken else decision
    )


def _kept_out(decision: Decision, reason: str) -> Decision:
    reasons = () if decision.promote else decision.reasons
    return replace(decision, promote=False, reasons=(*reasons, reason))


def difference(rows: pd.DataFrame, spec: ModelSpec) -> Difference:
    """The difference in mean loss, with its interval by drawing whole days in pairs.

    Args:
        rows: As :func:`decide` takes them.
        spec: The model.
    """
    loss = metric(spec.metrics.optimize).loss_per_row
    assert loss is not None
    outcomes = rows["outcome"].to_numpy("float64")
    theirs, ours = (loss(outcomes, rows[who].to_numpy("float64")) for who in ("champion", "challenger"))
    found = interval_of_mean(ours - theirs, rows["day"].to_numpy(), spec.promotion.confidence, spec.training.seed)
    return Difference(len(rows), float(theirs.mean()), float(ours.mean()), *(found or (None, None)))


def _check(rows: pd.DataFrame, segments: list[str]) -> None:
    needed = ["outcome", "champion", "challenger", "day", *segments]
    if missing := [name for name in needed if name not in rows]:
        raise ComparisonError(f"The rows to compare on have no {', '.join(missing)}.")
    if rows.empty:
        raise ComparisonError("There are no rows to compare on.")
    for name in ("outcome", "champion", "challenger"):
        if gone := int(rows[name].isna().sum()):
            raise ComparisonError(
                f"{gone} of {len(rows)} rows have no {name}: both are measured on all rows, or not at all."
            )
