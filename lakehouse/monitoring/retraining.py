"""Retraining with a cause: whether a model is to be trained again, by its own policy and what monitoring has found.

A pure function decides; :mod:`spark_jobs.retrain` gathers what it needs and keeps what it says.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lakehouse.errors import LakeError
from lakehouse.interval import Interval
from lakehouse.ml.model_spec import ModelSpec, Retrain
from lakehouse.monitoring.drift import RED
from lakehouse.monitoring.measuring import ALL, DEFECTS, STAY

RETRAIN, BLOCKED, WAITING, KEPT = "retrain", "blocked", "waiting", "kept"


class NoPolicyError(LakeError):
    """A model's ``model.yaml`` does not say when it is to be trained again."""


class NotMonitoredError(LakeError):
    """Nothing has been measured that a decision could be made on."""


@dataclass(frozen=True)
class Evidence:
    """What a decision is made on.

    Attributes:
        day: Last day of the interval that was monitored.
        measures: Rows of ``ops.model_metrics`` of the champion and that interval.
        red_gates: Input tables whose newest version has not passed its gate.
        last_training: Last day of the newest window that a training was made on, or decided for.
        defects: Outcome of :func:`standing_defects` of the other days that the decision rests on.
    """

    day: dt.date
    measures: Sequence[Mapping[str, Any]]
    red_gates: Sequence[str] = ()
    last_training: dt.date | None = None
    defects: Sequence[Mapping[str, Any]] = ()

    def measure(self, metric: str) -> Mapping[str, Any] | None:
        """The row of a metric of all rows, where there is one.

        Args:
            metric: Its name.
        """
        return next((row for row in self.measures if row["metric"] == metric and row["segment"] == ALL), None)

    def value(self, metric: str) -> float | None:
        """The value of a metric of all rows, where it was measured.

        Args:
            metric: Its name.
        """
        row = self.measure(metric)
        return None if row is None else row["value"]


@dataclass(frozen=True)
class Decision:
    """Whether to train again.

    Attributes:
        outcome: ``retrain``; ``blocked``: there is a cause, and something is broken; ``waiting``: there is a cause, and
            the last training was too short a time ago; ``kept``: there is none.
        causes: Kind of each cause (``drift``, ``performance``, ``age``, ``new data``) to what a person reads of it.
        reason: All of it in a sentence.
    """

    outcome: str
    causes: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""


def decide(spec: ModelSpec, evidence: Evidence) -> Decision:
    """Decide whether a model is to be trained again.

    Whatever the cause, nothing is trained on data that is known to be broken, nor again before the cooldown is over.

    Args:
        spec: The model.
        evidence: What is known.

    Raises:
        NoPolicyError: The model has no ``retrain``.
    """
    policy = spec.retrain
    if policy is None:
        raise NoPolicyError(f"models/{spec.name}/model.yaml has no section retrain: nothing is a cause to train again.")
    causes = dict(_causes(policy, evidence))
    if not causes:
        return Decision(KEPT, causes, "there is no cause")
    because = "; ".join(causes.values())
    if broken := [*(f"the gate of {table} is red" for table in evidence.red_gates), *_defects(evidence)]:
        return Decision(BLOCKED, causes, f"{because}; but not on broken data: {', '.join(broken)}")
    last = evidence.last_training
    if last is not None and (evidence.day - last).days < policy.cooldown_days:
        days = (evidence.day - last).days
        ago = (
            f"was {days} of {policy.cooldown_days} days ago"
            if days >= 0
            else f"knew more days than these, up to {last}"
        )
        return Decision(WAITING, causes, f"{because}; but the last training {ago}")
    return Decision(RETRAIN, causes, because)


def standing_defects(rows: Sequence[Mapping[str, Any]], span: Interval) -> list[Mapping[str, Any]]:
    """Data defects of some days that have not been put right.

    A defect stands until all of its days have been measured again, in intervals that are no longer: in the figures of a
    week, the nulls of one day are too few to be seen.

    Args:
        rows: Rows of ``ops.model_metrics`` of a model.
        span: The days.

    Returns:
        The red rows, the oldest days first.
    """
    by_interval: dict[Interval, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["measured_at"], reverse=True):
        interval = Interval(row["interval_start"], row["interval_end"])
        if interval.overlaps(span):
            by_interval.setdefault(interval, []).append(row)
    found: dict[tuple[Interval, str, str], Mapping[str, Any]] = {}
    newer: list[Interval] = []
    for interval, measured in by_interval.items():
        length = interval.end - interval.start
        again = {day for each in newer if each.end - each.start <= length for day in each.days()}
        if not again.issuperset(interval.days()):
            newest = {(row["metric"], row["segment"]): row for row in reversed(measured)}
            found |= {(interval, *key): row for key, row in newest.items() if _is_defect(row) and key[0] in STAY}
        newer.append(interval)
    return [found[key] for key in sorted(found, key=lambda key: (key[0].start, key[0].end, *key[1:]))]


def _causes(policy: Retrain, evidence: Evidence) -> Iterator[tuple[str, str]]:
    drifted = evidence.value("drifted_share")
    if policy.drift_share is not None and drifted is not None and drifted >= policy.drift_share:
        yield "drift", f"drift: {drifted:.0%} of the features have drifted"
    skill = evidence.measure("skill")
    if policy.performance and skill is not None and skill["verdict"] == RED:
        yield (
            "performance",
            f"performance: skill {skill['value']:.3f}, on the test days it was {skill['reference']:.3f}",
        )
    age = evidence.value("age_days")
    if policy.max_age_days is not None and age is not None and age > policy.max_age_days:
        yield "age", f"age: {age:.0f} days since the last day that it was trained on"
    rows = evidence.value("new_rows")
    if policy.new_rows is not None and rows is not None and rows >= policy.new_rows:
        yield "new data", f"new data: {rows:.0f} rows with an outcome since then"


def _defects(evidence: Evidence) -> Iterator[str]:
    yield from (_told(row) for row in evidence.measures if _is_defect(row))
    for row in evidence.defects:
        yield f"{_told(row)} on {Interval(row['interval_start'], row['interval_end'])}"


def _is_defect(row: Mapping[str, Any]) -> bool:
    return row["metric"] in DEFECTS and row["verdict"] == RED


def _told(row: Mapping[str, Any]) -> str:
    where = "" if row["segment"] == ALL else f" of {row['segment'].partition('=')[2]}"
    return f"{row['metric']}{where} is {row['value']:.4g}, usual is {row['reference']:.4g}"
