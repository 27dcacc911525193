"""Anomaly rules: limits to a table's figures that follow from its own released history.

A suite lists them in ``meta.anomalies``. Before a gate, each one is compiled into an expectation of Great
Expectations, with the limits that its history gives; the verdict is GX's. The figures that a gate has seen are kept
in ``ops.profiles``, and become history when their version is released.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from lakehouse.interval import Interval
from lakehouse.quality.expectation import Expectation

METRICS = ("row_count", "null_share", "mean", "freshness")
METHODS = ("robust", "weekday")
TOLERANCES = {"row_count": 0.05, "mean": 0.05, "null_share": 0.01, "freshness": 1.0}
MAD_TO_SIGMA = 1.4826
"""Median absolute deviation times this is the standard deviation, where values are normally distributed."""
ALL_ROWS = "true"

_KEYS = {
    "metric", "column", "per", "method", "window", "minimum", "threshold", "tolerance", "severity", "notes",
}  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """One entry of ``meta.anomalies``.

    Attributes:
        metric: ``row_count``, ``null_share`` or ``mean`` of a column, or ``freshness``: the hours from the newest
            value of a column of times to the end of the days that the gate is about.
        column: The column, but for ``row_count``.
        per: DATE column that tells a row's day: each day of the gate's interval is compared with days before it.
            Without it the whole version is compared with versions before it.
        method: ``robust``: with everything in the window; ``weekday``: with the same day of the week.
        window: How far back: days, or releases when ``per`` is not given.
        minimum: With fewer figures than these there is no verdict, but a warning.
        threshold: How many (robust) standard deviations from the median are allowed.
        tolerance: A distance from the median that is allowed however steady the history is: a share of the median
            for ``row_count`` and ``mean``, a share of the rows for ``null_share``, hours for ``freshness``.
        severity: Of the expectation that it becomes.
    """

    metric: str
    column: str | None = None
    per: str | None = None
    method: str = "robust"
    window: int = 28
    minimum: int = 7
    threshold: float = 5.0
    tolerance: float = 0.05
    severity: str = "warning"

    @property
    def label(self) -> str:
        """The rule as a person reads it."""
        of = f" of {self.column}" if self.column else ""
        return f"{self.metric}{of}" + (f" per {self.per}" if self.per else "")


@dataclass(frozen=True)
class Figure:
    """What a gate has seen of some rows.

    Attributes:
        version: The version of the table.
        day: The day of the rows; for a whole version the last day that the gate was about.
        rows: How many rows.
        nulls: Column to how many of them have no value.
        means: Column to its mean.
        newest: Column to its greatest time.
    """

    version: int
    day: dt.date
    rows: int
    nulls: Mapping[str, int] = field(default_factory=dict)
    means: Mapping[str, float | None] = field(default_factory=dict)
    newest: Mapping[str, dt.datetime | None] = field(default_factory=dict)

    def value(self, rule: Rule) -> float | None:
        """The figure that a rule is about, where it was taken.

        Args:
            rule: A rule.
        """
        match rule.metric:
            case "row_count":
                return self.rows
            case "null_share":
                nulls = self.nulls.get(rule.column or "")
                return None if nulls is None or not self.rows else nulls / self.rows
            case "mean":
                return self.means.get(rule.column or "")
            case _:
                newest = self.newest.get(rule.column or "")
                return None if newest is None else (end_of(self.day) - newest).total_seconds() / 3600


@dataclass(frozen=True)
class Watch:
    """What a gate has to do for the anomaly rules of a suite.

    Attributes:
        rules: The rules.
        interval: The days that the gate is about.
        expectations: The rules that have a history, with limits.
        unknown: The rules that have too little, with how they would be judged and what is missing.
    """

    rules: tuple[Rule, ...]
    interval: Interval
    expectations: tuple[Expectation, ...]
    unknown: tuple[tuple[Expectation, str], ...]


def read(meta: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The anomaly rules of a suite that is valid.

    Args:
        meta: The suite's ``meta``.
    """
    return tuple(
        Rule(**{"tolerance": TOLERANCES[entry["metric"]], **{k: v for k, v in entry.items() if k != "notes"}})
        for entry in meta.get("anomalies") or ()
    )


def problems(entries: Any, columns: Collection[str] | None) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What is wrong with ``meta.anomalies``: the field inside of it, and a message each.

    Args:
        entries: Its content.
        columns: The table's columns, where they are known.
    """
    if not isinstance(entries, list):
        yield (), "must be a list of rules."
        return
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            yield (index,), "must be an object with a metric."
            continue
        for key in entry.keys() - _KEYS:
            yield (index, key), f"is not a field of an anomaly rule; those are {', '.join(sorted(_KEYS))}."
        metric = entry.get("metric")
        if metric not in METRICS:
            yield (index, "metric"), f"{metric!r} is not one of {', '.join(METRICS)}."
        elif (metric == "row_count") != (entry.get("column") is None):
            yield (index, "column"), f"{metric} is about {'no' if metric == 'row_count' else 'a'} column."
        if entry.get("method", "robust") not in METHODS:
            yield (index, "method"), f"{entry['method']!r} is not one of {', '.join(METHODS)}."
        elif entry.get("method") == "weekday" and not entry.get("per"):
            yield (index, "method"), "weekday compares days; name the column that tells a row's day as per."
        if entry.get("severity", "warning") not in ("critical", "warning", "info"):
            yield (index, "severity"), f"{entry['severity']!r} is not one of critical, warning, info."
        for key, least, kinds in (
            ("window", 1, int), ("minimum", 2, int), ("threshold", 0, int | float), ("tolerance", 0, int | float)
        ):  # fmt: skip
            value = entry.get(key, least)
            if isinstance(value, bool) or not isinstance(value, kinds) or value < least:
                yield (index, key), f"{value!r} is not a {'whole ' if kinds is int else ''}number from {least} on."
        if never := _never_enough(entry):
            yield (index, "minimum"), never
        for key in ("column", "per"):
            name = entry.get(key)
            if name is not None and columns is not None and name not in columns:
                yield (index, key), f"the table has no column {name!r}."
    if len({entry.get("per") for entry in entries if isinstance(entry, dict) and entry.get("per")}) > 1:
        yield (), "name two columns as per; a table has one column that tells a row's day."


def _never_enough(entry: Mapping[str, Any]) -> str | None:
    """Why the window of a rule cannot hold as many figures as it wants, or None; nothing of what is no number."""
    window, minimum = entry.get("window", Rule.window), entry.get("minimum", Rule.minimum)
    if not isinstance(window, int) or not isinstance(minimum, int) or window < 1:
        return None
    weekdays = entry.get("method") == "weekday" and entry.get("per")
    possible = window // 7 if weekdays else window
    if minimum <= possible:
        return None
    held = f"{possible} {'same weekdays' if weekdays else 'figures'}"
    return f"{minimum} figures will never be there: a window of {window} holds {held}. There would be no verdict."


def watch(
    rules: Sequence[Rule], interval: Interval | None, history: Sequence[Figure], daily: Sequence[Figure]
) -> Watch:
    """Compile rules into expectations.

    Args:
        rules: The anomaly rules of a suite.
        interval: The days that the gate is about; without them no rule per day is judged.
        history: Figures of whole released versions, the oldest first.
        daily: Figures of single days, as they were last released.
    """
    days = interval or Interval(dt.date.min, dt.date.min)
    ready: list[Expectation] = []
    unknown: list[tuple[Expectation, str]] = []
    for rule in rules:
        if rule.per and interval is None:
            continue
        judged = list(days.days()) if rule.per else [days.end]
        missing: list[tuple[dt.date, int]] = []
        for day in judged:
            found = _compared(rule, day, history, daily)
            if len(found) < rule.minimum:
                missing.append((day, len(found)))
            else:
                ready.append(_expectation(rule, day, found))
        if missing:
            most = max(count for _, count in missing)
            what = "days" if rule.per else "releases"
            unknown.append(
                (
                    _expectation(rule, missing[-1][0], []),
                    f"{rule.label}: too little history for {len(missing)} of {len(judged)} "
                    f"{'days' if rule.per else 'versions'}: {most} of at least {rule.minimum} {what}",
                )
            )
    return Watch(tuple(rules), days, tuple(ready), tuple(unknown))


def limits(values: Sequence[float], rule: Rule) -> tuple[float, float]:
    """The least and greatest figure that is no anomaly: the median, and so many robust deviations to each side.

    Args:
        values: The history; at least one value.
        rule: Which says how many, and how much is always allowed.
    """
    middle = median(values)
    spread = MAD_TO_SIGMA * median(abs(value - middle) for value in values)
    relative = rule.metric in ("row_count", "mean")
    allowed = max(rule.threshold * spread, rule.tolerance * abs(middle) if relative else rule.tolerance)
    return middle - allowed, middle + allowed


def condition(per: str | None, day: dt.date) -> str:
    """The row condition of a rule, as Spark SQL.

    Args:
        per: The column that tells a row's day; None for all rows.
        day: The day.
    """
    return f"{per} = date '{day}'" if per else ALL_ROWS


def end_of(day: dt.date) -> dt.datetime:
    """The first moment after a day (UTC)."""
    return dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), dt.UTC)


def _compared(
    rule: Rule, day: dt.date, history: Sequence[Figure], daily: Sequence[Figure]
) -> list[tuple[Figure, float]]:
    if rule.per:
        first = day - dt.timedelta(days=rule.window)
        figures = [f for f in daily if first <= f.day < day]
        if rule.method == "weekday":
            figures = [f for f in figures if f.day.weekday() == day.weekday()]
    else:
        figures = list(history)
    found = [(figure, value) for figure in figures if (value := figure.value(rule)) is not None]
    return found if rule.per else found[-rule.window :]


def _expectation(rule: Rule, day: dt.date, found: Sequence[tuple[Figure, float]]) -> Expectation:
    low, high = limits([value for _, value in found], rule) if found else (-math.inf, math.inf)
    rows = {"row_condition": condition(rule.per, day), "condition_parser": "spark"}
    kwargs: dict[str, Any]
    match rule.metric:
        case "row_count":
            kwargs = {"min_value": max(0, math.ceil(low)) if found else 0} | (
                {"max_value": math.floor(high)} if found else {}
            )
            name = "expect_table_row_count_to_be_between"
        case "null_share":
            kwargs = {"column": rule.column, "mostly": min(1.0, max(0.0, 1 - high)) if found else 0.0}
            name = "expect_column_values_to_not_be_null"
        case "mean":
            kwargs = {"column": rule.column} | (
                {"min_value": float(f"{low:.6g}"), "max_value": float(f"{high:.6g}")} if found else {}
            )
            name = "expect_column_mean_to_be_between"
        case _:
            least = end_of(day) - dt.timedelta(hours=high) if found else dt.datetime(1, 1, 1, tzinfo=dt.UTC)
            kwargs = {"column": rule.column, "min_value": least.isoformat(timespec="seconds")}
            name = "expect_column_max_to_be_between"
    meta = {"anomaly": rule.label, "day": day.isoformat() if rule.per else None, "compared_with": _history(rule, found)}
    return Expectation(name, kwargs | rows, rule.severity, meta)


def _history(rule: Rule, found: Sequence[tuple[Figure, float]]) -> str:
    if not found:
        return "nothing"
    values = [value for _, value in found]
    figures = [figure for figure, _ in found]
    if rule.per:
        days = "same weekdays" if rule.method == "weekday" else "days"
        text = f"{len(found)} {days} from {figures[0].day} to {figures[-1].day}"
    else:
        text = f"{len(found)} released versions from {figures[0].version} to {figures[-1].version}"
    return f"{text}, median {median(values):.6g}, from {min(values):.6g} to {max(values):.6g}"
