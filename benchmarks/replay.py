"""The weeks of the year by the library's own functions, on rows in memory: what is measured, decided and compared.

The counts and sums that the engine makes for :mod:`spark_jobs.monitor` are made by pandas here; all that follows from
them (drift, skill, verdicts, the decision to retrain, the comparison with the champion) is the platform's code.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lakehouse.interval import Interval
from lakehouse.ml import training
from lakehouse.ml.metrics import metric
from lakehouse.ml.model_spec import ModelSpec
from lakehouse.monitoring import measuring, performance, retraining
from lakehouse.monitoring.histograms import count_in_memory
from lakehouse.monitoring.measuring import ALL, SCORE, Measure
from lakehouse.monitoring.reference import Reference
from lakehouse.monitoring.retraining import Decision, Evidence
from lakehouse.registry import comparison, promotion


@dataclass
class Year:
    """The rows of the year, and the trainings that were made of them.

    Attributes:
        spec: The model.
        frame: Outcome of :func:`lakehouse.ml.training.training_frame`.
        train: Gives what a training on a window says: ``score`` and ``baseline`` for each row from the window's first
            day on.
    """

    spec: ModelSpec
    frame: pd.DataFrame
    train: Callable[[Interval], pd.DataFrame]
    _references: dict[Interval, tuple[Reference, dict[str, float]]] = field(default_factory=dict)

    def rows(self, interval: Interval, window: Interval | None = None) -> pd.DataFrame:
        """The rows of some days, with the ``score`` of a training where it is given.

        Args:
            interval: The days.
            window: What the training was made on.
        """
        day = self.spec.features.interval_column
        inside = self.frame[(self.frame[day] >= interval.start) & (self.frame[day] <= interval.end)]
        if window is None:
            return inside
        key = list(dict.fromkeys([*self.spec.features.entity_key, day]))
        return inside.merge(self.train(window), on=key, how="left", validate="one_to_one")

    def figures(self, rows: pd.DataFrame, edges: tuple[float, ...], constant: float) -> dict[str, float]:
        """Metrics of the rows that have an outcome.

        Args:
            rows: With ``score``.
            edges: Of the fine bins of the score.
            constant: What the baseline predicts.
        """
        return performance.figures(groups(rows, self.spec, edges, constant), self.spec)

    def reference(self, window: Interval) -> tuple[Reference, dict[str, float]]:
        """The counts of a training snapshot, and the figures of its test days.

        Args:
            window: What the training was made on.
        """
        if window not in self._references:
            rows, spec = self.rows(window, window), self.spec
            reference = Reference.of(rows, spec, window, version=0, types=dict.fromkeys(spec.features.inputs, ""))
            split = self.split(window)
            fitted = float(self.rows(split.train)[training.LABEL].astype("float64").mean())
            tested = self.figures(self.rows(split.test, window), reference.score_edges, fitted)
            self._references[window] = reference, tested
        return self._references[window]

    def measure(self, window: Interval, week: Interval) -> list[Measure]:
        """What monitoring tells of a week.

        Args:
            window: What the champion was trained on.
            week: The days.
        """
        spec, rules, plan = self.spec, self.spec.monitoring, self.spec.retrain
        reference, tested = self.reference(window)
        span = Interval(min(week.start, week.end - dt.timedelta(days=rules.window_days - 1)), week.end)
        rows = self.rows(span, window)
        of_window = count_in_memory(rows, reference.features)
        of_week = count_in_memory(self.rows(week), reference.features)
        of_score = count_in_memory(rows, {SCORE: reference.score})[SCORE]
        known = rows[rows[training.LABEL].notna()]
        found = {ALL: self.figures(known, reference.score_edges, reference.mean_outcome)}
        sizes = {ALL: len(known)}
        for column in rules.segments:
            for value, part in known.groupby(column):
                if len(part) >= rules.segment_rows:
                    name = f"{column}={value}"
                    found[name] = self.figures(part, reference.score_edges, reference.mean_outcome)
                    sizes[name] = len(part)
        new = self.rows(Interval(window.end + dt.timedelta(days=1), week.end))[training.LABEL].notna().sum()
        days = len(list(week.days()))
        return [
            *measuring.of_data(reference, reference.types, of_week, 0, days, rules),
            *measuring.of_drift(reference, of_window, of_score, rules, plan and plan.drift_share),
            Measure("new_rows", ALL, float(new), plan and plan.new_rows),
            Measure("age_days", ALL, (week.end - window.end).days, plan and plan.max_age_days),
            *measuring.of_performance(found, sizes, tested, rules, spec.metrics.optimize),
        ]

    def contest(self, champion: Interval | None, challenger: Interval) -> promotion.Decision:
        """The platform's decision about a training, on its test days that the champion was not fitted on.

        Args:
            champion: What the champion was trained on; None where there is none yet.
            challenger: What the challenger was trained on.
        """
        day = self.spec.features.interval_column
        fitted = self.split(champion).train.end if champion else None
        rows = self.rows(self.split(challenger).test, challenger).rename(columns={SCORE: "challenger"})
        rows, _ = comparison.evaluation_set(rows, self.spec, fitted)
        if champion is not None:
            key = list(dict.fromkeys([*self.spec.features.entity_key, day]))
            theirs = self.train(champion)[[*key, SCORE]].rename(columns={SCORE: "champion"})
            rows = rows.merge(theirs, on=key, how="left", validate="one_to_one")
        return promotion.judge(rows.assign(day=rows[day], outcome=rows[training.LABEL]), self.spec)

    def split(self, window: Interval) -> training.Split:
        """How a training cuts its window.

        Args:
            window: What it is made on.
        """
        return training.split(window, self.spec.training, self.spec.label.known_after_days)


@dataclass(frozen=True)
class Week:
    """What happened in a week that was driven by the policy.

    Attributes:
        days: The week.
        champion: What the version that scored it was trained on.
        measures: What monitoring told.
        decision: What the policy said.
        contest: Of the training that followed, if any.
    """

    days: Interval
    champion: Interval
    measures: list[Measure]
    decision: Decision
    contest: promotion.Decision | None


def drive(year: Year, first: Interval, weeks: list[Interval]) -> Iterator[Week]:
    """Let the policy decide, week by week.

    Args:
        year: The rows.
        first: Window of the first training.
        weeks: The weeks that are scored.
    """
    champion, last = first, first.end
    length = first.end - first.start
    rows: list[dict[str, Any]] = []
    for number, week in enumerate(weeks):
        measures = year.measure(champion, week)
        found = [vars(each) for each in measures]
        span = Interval(min(week.start, week.end - length), week.end)
        evidence = Evidence(week.end, found, (), last, retraining.standing_defects(rows, span))
        days = {"interval_start": week.start, "interval_end": week.end, "measured_at": number}
        rows += [row | days for row in found]
        decision = retraining.decide(year.spec, evidence)
        contest = None
        served = champion
        if decision.outcome == retraining.RETRAIN:
            window, last = Interval(week.end - length, week.end), week.end
            contest = year.contest(champion, window)
            champion = window if contest.promote else champion
        yield Week(week, served, measures, decision, contest)


def groups(rows: pd.DataFrame, spec: ModelSpec, edges: tuple[float, ...], constant: float) -> pd.DataFrame:
    """The sums that :func:`lakehouse.monitoring.performance.figures` takes.

    Args:
        rows: With ``score`` and ``label``; those without an outcome are left out.
        spec: The model.
        edges: Of the fine bins of the score.
        constant: What the baseline predicts.
    """
    known = rows[rows[training.LABEL].notna()]
    y, p = known[training.LABEL].to_numpy("float64"), known[SCORE].to_numpy("float64")
    loss = metric(spec.metrics.optimize).loss_per_row
    assert loss is not None
    sums = {
        "bin": np.searchsorted(edges, p, side="left"),
        "decision": p >= (spec.decision_threshold or np.inf),
        "positive": y > 0,
        "rows": np.ones(len(y)),
        "scores": p,
        "outcomes": y,
        "baseline": loss(y, np.full(len(y), constant)),
    }
    for name in [spec.metrics.optimize, *spec.metrics.watch]:
        per_row = metric(name).loss_per_row
        if per_row is not None:
            sums[name] = per_row(y, p)
    found: pd.DataFrame = pd.DataFrame(sums).groupby(["bin", "decision", "positive"], as_index=False).sum()
    return found
