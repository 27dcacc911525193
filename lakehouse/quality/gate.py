"""The gate: Great Expectations' verdict on one exact version of a table.

The suite, its meaning and the verdict are GX's; :mod:`lakehouse.quality.gx_engine` only makes it ask Spark for
everything at once. A gate fails if a critical expectation fails, or cannot be evaluated; ``warning`` and ``info`` are
recorded.

A gate is about the whole version that is to be released, not about what the last step added to it: readers see
the whole, and whatever is wrong with it must stop the release.
"""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lakehouse import masking, tables
from lakehouse.ml.scoring import DECISION, SCORE
from lakehouse.quality import anomalies, suites
from lakehouse.quality.anomalies import Figure, Watch
from lakehouse.quality.expectation import Expectation
from lakehouse.quality.suites import Suite
from lakehouse.wording import counted

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult
    from pyspark.sql import SparkSession

    from lakehouse.quality import gx_engine

EXAMPLES = 5
"""How many values that break a rule are shown."""
SIDE_BY_SIDE = 4
"""How many tables are checked at the same time: while the engine reads one, the rules of the next are prepared."""


@dataclass(frozen=True)
class RuleResult:
    """What the gate found of one expectation.

    Attributes:
        expectation: The expectation.
        success: Whether it holds, by its own ``mostly`` or bounds.
        element_count: Rows that were looked at.
        unexpected_count: Rows that break it; None for an expectation about the table as a whole.
        unexpected_percent: Their share of the rows that have a value.
        observed_value: What was found, for an expectation about the table as a whole.
        examples: Some of the values that break it.
        error: Why it could not be evaluated.
        unknown: Why there is no verdict: too little history to compare with.
    """

    expectation: Expectation
    success: bool
    element_count: int | None = None
    unexpected_count: int | None = None
    unexpected_percent: float | None = None
    observed_value: Any = None
    examples: tuple[Any, ...] = ()
    error: str | None = None
    unknown: str | None = None

    def __str__(self) -> str:
        label, severity = self.expectation.label, self.expectation.severity
        if self.error:
            return f"[{severity}] {label} could not be evaluated: {self.error}"
        if self.unknown:
            return f"[{severity}] {self.unknown}"
        compared = self.expectation.meta.get("compared_with")
        history = f" (compared with {compared})" if compared else ""
        if self.unexpected_count is None:
            return f"[{severity}] {label}: found {_text(self.observed_value)}{history}"
        text = f"[{severity}] {label}: {self.unexpected_count} of {self.element_count} rows break it"
        if self.expectation.mostly < 1:
            text += f", at least {self.expectation.mostly:.4%} must keep it"
        if self.examples and not history:
            text += ", such as " + ", ".join(map(_text, self.examples))
        return text + history


@dataclass(frozen=True)
class GateResult:
    """The gate's verdict on one version of a table.

    Attributes:
        table: The stored table.
        version: The version that was checked.
        suite: The suite.
        results: One for each expectation, in the suite's order.
        validation: The same as Great Expectations has it, for Data Docs.
        seconds: How long it took.
        figures: What anomaly rules compare: of the whole version first, then of each day.
    """

    table: str
    version: int
    suite: Suite
    results: tuple[RuleResult, ...]
    validation: ExpectationSuiteValidationResult = field(repr=False)
    seconds: float = 0.0
    figures: tuple[Figure, ...] = ()

    @property
    def success(self) -> bool:
        """Whether the version may be released: no critical expectation failed."""
        return all(result.success or result.expectation.severity != "critical" for result in self.results)

    @property
    def failures(self) -> list[RuleResult]:
        """Expectations of any severity that failed, the most severe first."""
        failed = [result for result in self.results if not result.success]
        return sorted(failed, key=lambda result: suites.SEVERITIES.index(result.expectation.severity))

    def rows(self) -> list[dict[str, Any]]:
        """One row per expectation, as ``ops.gate_results`` keeps them."""
        return [
            {
                "suite": self.suite.name,
                "expectation": result.expectation.type,
                "column_name": ", ".join(result.expectation.columns) or None,
                "kwargs": json.dumps(result.expectation.kwargs, ensure_ascii=False, sort_keys=True),
                "severity": result.expectation.severity,
                "success": None if result.unknown else result.success,
                "element_count": result.element_count,
                "unexpected_count": result.unexpected_count,
                "unexpected_percent": result.unexpected_percent,
                "observed_value": None if result.observed_value is None else _text(result.observed_value),
                "details": None if result.success and "anomaly" not in result.expectation.meta else str(result),
            }
            for result in self.results
        ]

    def summary(self) -> str:
        """What a person wants to know: which rules failed, on which column, how many rows, examples."""
        rules = f"{counted(len(self.results), 'rule')} in {self.seconds:.1f} s"
        if not self.failures:
            return f"passed {rules}."
        shown = "; ".join(map(str, self.failures))
        if self.success:
            severities = [failure.expectation.severity for failure in self.failures]
            found = [counted(severities.count(each), each) for each in dict.fromkeys(severities)]
            return f"passed with {' and '.join(found)} of {rules}: {shown}."
        return f"failed ({len(self.failures)} of {rules} failed): {shown}."


@dataclass(frozen=True)
class Request:
    """A table to check.

    Attributes:
        table: The stored table, such as ``bronze_next.weather``.
        version: Its version; the newest without it.
        suite_name: Its suite; by default the one of the name that readers use, ``bronze.weather``.
        where: SQL condition that restricts the check to some rows. The default is the whole version, which is
            what a release needs.
        watch: What to do for the suite's anomaly rules.
        also: Further expectations.
    """

    table: str
    version: int | None = None
    suite_name: str | None = None
    where: str | None = None
    watch: Watch | None = None
    also: tuple[Expectation, ...] = ()


def check(
    table: str,
    version: int | None = None,
    *,
    suite_name: str | None = None,
    where: str | None = None,
    watch: Watch | None = None,
    also: tuple[Expectation, ...] = (),
    spark: SparkSession | None = None,
) -> GateResult:
    """Check one version of a table against its suite.

    Args:
        table: The stored table, such as ``bronze_next.weather``.
        version: Its version; the newest without it.
        suite_name: Its suite; by default the one of the name that readers use, ``bronze.weather``.
        where: SQL condition that restricts the check to some rows; the default is the whole version.
        watch: What to do for the suite's anomaly rules; without it they are left out.
        also: Expectations beside those of the suite.
        spark: Session to use; by default the one of this process.

    Raises:
        suites.SuiteNotFoundError: The table has no suite.
        suites.InvalidSuiteError: The suite is not valid.
    """
    return check_all([Request(table, version, suite_name, where, watch, also)], spark=spark)[0]


def check_all(requests: Iterable[Request], *, spark: SparkSession | None = None) -> list[GateResult]:
    """Check several tables, some of them at the same time on the same session.

    All suites are read before the first table is, so that a fault in one of them costs no time.

    Args:
        requests: What to check.
        spark: Session to use; by default the one of this process.

    Returns:
        The verdicts, in the order of the requests.

    Raises:
        suites.SuiteNotFoundError: A table has no suite.
        suites.InvalidSuiteError: A suite is not valid.
    """
    planned = [(request, suites.load(request.suite_name or _released_name(request.table))) for request in requests]
    # Great Expectations takes seconds to import: not before the suites are known to be good.
    from lakehouse.quality import gx_engine

    if spark is None:
        from lakehouse.engine import spark as session

        spark = session()
    gx_engine.context()  # made once, and not by several threads
    # The setting is the session's: one thread must not take it back while another asks.
    with gx_engine.one_job_per_query(spark), ThreadPoolExecutor(min(SIDE_BY_SIDE, len(planned) or 1)) as pool:
        return list(pool.map(lambda plan: _check(spark, *plan), planned))


def of_scores(table: str, rows: pd.DataFrame) -> list[RuleResult]:
    """What the suite of a table of predictions says of scores before they are predictions.

    Args:
        table: The table, as readers name it.
        rows: With ``score``, ``decision`` if there is one, and what rules may have as a condition.

    Returns:
        What was found of the rules that are about these two columns alone.

    Raises:
        suites.SuiteNotFoundError: The table has no suite.
    """
    suite = suites.load(table)
    said = tuple(e for e in suite.expectations if e.columns and set(e.columns) <= {SCORE, DECISION})
    asked = replace(suite, expectations=said)
    if not said:
        return []
    from lakehouse.quality import gx_engine

    return list(_results(asked, gx_engine.validate_in_memory(rows, asked, EXAMPLES)))


def _check(spark: SparkSession, request: Request, suite: Suite) -> GateResult:
    from lakehouse.quality import gx_engine

    started = time.monotonic()
    version = _head(request.table) if request.version is None else request.version
    df = spark.sql(f"select * from {request.table} version as of {int(version)}")
    watched = request.watch
    compiled = request.also + (watched.expectations if watched else ())
    judged = replace(suite, expectations=suite.expectations + compiled)
    figures = _figures(watched) if watched else None
    rows = df.where(request.where) if request.where else df
    expected = tables.rows(request.table, version)
    validation = gx_engine.validate(rows, judged, EXAMPLES, figures, expected)
    masking.hide(validation, masking.hidden_columns(suite.name, df.columns))
    validation.meta |= {"table": request.table, "version": version, "where": request.where}
    return GateResult(
        table=request.table,
        version=version,
        suite=suite,
        results=_results(judged, validation) + (_unknown(watched) if watched else ()),
        validation=validation,
        seconds=time.monotonic() - started,
        figures=_found(watched, figures, version) if watched and figures else (),
    )


def _figures(watched: Watch) -> gx_engine.Figures:
    from lakehouse.quality import gx_engine

    per = next((rule.per for rule in watched.rules if rule.per), None)
    columns = {
        metric: tuple(dict.fromkeys(str(rule.column) for rule in watched.rules if rule.metric == metric))
        for metric in anomalies.METRICS
    }
    return gx_engine.Figures(
        condition=lambda day: anomalies.condition(per, day) if day else anomalies.ALL_ROWS,
        per=per,
        first=watched.interval.start,
        last=watched.interval.end,
        nulls=columns["null_share"],
        means=columns["mean"],
        newest=columns["freshness"],
    )


def _found(watched: Watch, figures: gx_engine.Figures, version: int) -> tuple[Figure, ...]:
    if not figures.found:  # a rule that Spark refuses has made each one be asked by itself
        return ()

    def figure(day: dt.date | None) -> Figure:
        values = figures.found[figures.condition(day)]
        named = {
            metric: {str(column): value for (name, column), value in values.items() if name == metric}
            for metric, _ in figures.names()
        }
        return Figure(
            version=version,
            day=day or watched.interval.end,
            rows=values["table.row_count", None],
            nulls=named.get("column_values.nonnull.unexpected_count", {}),
            means=named.get("column.mean", {}),
            newest=named.get("column.max", {}),
        )

    return (figure(None), *map(figure, figures.days()))


def _unknown(watched: Watch) -> tuple[RuleResult, ...]:
    return tuple(
        RuleResult(replace(expectation, severity="warning"), success=False, unknown=reason)
        for expectation, reason in watched.unknown
    )


def _results(suite: Suite, validation: ExpectationSuiteValidationResult) -> tuple[RuleResult, ...]:
    return tuple(map(_result, suite.expectations, validation.results))


def _result(expectation: Expectation, found: ExpectationValidationResult) -> RuleResult:
    values = found.result or {}
    return RuleResult(
        expectation=expectation,
        success=bool(found.success),
        element_count=values.get("element_count"),
        unexpected_count=values.get("unexpected_count"),
        unexpected_percent=values.get("unexpected_percent"),
        observed_value=values.get("observed_value"),
        examples=tuple(values.get("partial_unexpected_list") or ()),
        error=_error(found.exception_info),
    )


def _error(info: Any) -> str | None:
    """The first line of what went wrong, from either of the two shapes that GX has for it."""
    if not info:
        return None
    entries: Sequence[Any] = [info] if "raised_exception" in info else list(info.values())
    for entry in entries:
        raised = entry["raised_exception"] if isinstance(entry, dict) else entry.raised_exception
        if raised:
            message = entry["exception_message"] if isinstance(entry, dict) else entry.exception_message
            return str(message).strip().splitlines()[0]
    return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _released_name(table: str) -> str:
    layer, _, name = table.partition(".")
    return f"{layer.removesuffix('_next')}.{name}"


def _head(table: str) -> int:
    version = tables.head(table)
    if version is None:
        raise LookupError(f"The table {table} does not exist.")
    return version
