"""Great Expectations on Spark, in one query.

GX's own Spark engine runs queries for every expectation: for twenty rules about ninety Spark jobs. This one
changes nothing of what GX computes and decides, but when: it lets GX build all its conditions first, then
asks Spark for everything at once, and fetches examples only of rules that were broken.

The query has these parts over the same files of the table:

- all aggregates: the row count, the counts of unexpected rows, min, max, mean…;
- figures of each day, for the rules that compare days: see :class:`Figures`;
- which uniqueness rules may be broken: those that have a hash of their columns' values twice, see
  :mod:`lakehouse.quality.uniqueness`. Without such a hash there are no duplicates. With one, a second query counts them
  exactly.

Metrics that are neither (quantiles, sets of distinct values…) are left to GX, one query each, and so is
everything under a row condition of its own, in one query for each such condition.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, reduce
from typing import TYPE_CHECKING, Any

# GX reports its use to its makers unless told otherwise before it is imported.
os.environ["GX_ANALYTICS_ENABLED"] = "false"

import great_expectations as gx
import great_expectations.exceptions as gx_exceptions
from great_expectations.compatibility.pydantic import ValidationError
from great_expectations.core import ExpectationSuiteValidationResult
from great_expectations.core.batch import Batch, LegacyBatchDefinition
from great_expectations.core.id_dict import IDDict
from great_expectations.execution_engine import ExecutionEngine, PandasExecutionEngine, SparkDFExecutionEngine
from great_expectations.execution_engine.pandas_batch_data import PandasBatchData
from great_expectations.execution_engine.sparkdf_batch_data import SparkDFBatchData
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from great_expectations.expectations.metadata_types import FailureSeverity
from great_expectations.util import convert_to_json_serializable
from great_expectations.validator.metric_configuration import MetricConfiguration
from great_expectations.validator.metrics_calculator import MetricsCalculator
from great_expectations.validator.validation_graph import ValidationGraph
from great_expectations.validator.validator import Validator, calc_validation_statistics
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from lakehouse.quality import gx_expectations as gx_expectations  # importing them is what makes them known to GX
from lakehouse.quality import uniqueness

if TYPE_CHECKING:
    import pandas as pd

    from lakehouse.quality.expectation import Expectation
    from lakehouse.quality.suites import Suite

Metrics = dict[Any, Any]

# Sets its own level, and tells of a folder that nobody uses.
logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)

_ADAPTIVE = "spark.sql.adaptive.enabled"
_WITHOUT_SPARK = (".condition", ".aggregate_fn", ".map")
_SCHEMA = ("table.columns", "table.column_types", "table.column_count")
_COUNTS = (".unexpected_count", ".filtered_row_count")
_EXAMPLES = (".unexpected_values", ".unexpected_rows")
_ROWS = "table.row_count"
_NULL_COUNT = "column_values.nonnull.unexpected_count"
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NULLS = "column_values.nonnull.unexpected_values"
_ROWS_OF_QUERY = "unexpected_rows_query.table"
_UNIQUE = ("column_values.unique.unexpected_count", "compound_columns.unique.unexpected_count")


@dataclass
class Figures:
    """Counts, means and greatest times, of all rows and of the rows of each day, taken in the same query.

    Attributes:
        condition: The row condition that a day has in the suite; that of all rows for None.
        per: DATE column that tells a row's day; without it there are no figures per day.
        first: First day.
        last: Last day.
        nulls: Columns whose nulls are counted.
        means: Columns whose mean is taken.
        newest: Columns of dates or timestamps whose greatest value is taken.
        found: What was found: row condition to GX's name of the metric, with the column, to the value.
    """

    condition: Callable[[dt.date | None], str]
    per: str | None
    first: dt.date
    last: dt.date
    nulls: tuple[str, ...] = ()
    means: tuple[str, ...] = ()
    newest: tuple[str, ...] = ()
    found: dict[str, dict[tuple[str, str | None], Any]] = field(default_factory=dict)

    def names(self) -> list[tuple[str, str | None]]:
        """The metrics, in the order of :meth:`aggregates`."""
        return [
            (_ROWS, None),
            *((_NULL_COUNT, name) for name in self.nulls),
            *(("column.mean", name) for name in self.means),
            *(("column.max", name) for name in self.newest),
        ]

    def aggregates(self) -> list[Column]:
        """What to ask of some rows."""
        return [
            F.count(F.lit(1)),
            *(F.count_if(F.col(name).isNull()) for name in self.nulls),
            *(F.avg(F.col(name)).cast("double") for name in self.means),
            *(F.unix_micros(F.max(F.col(name)).cast("timestamp")) for name in self.newest),
        ]

    def keep(self, day: dt.date | None, values: list[Any]) -> None:
        """Keep what was found.

        Args:
            day: The day; None for all rows.
            values: In the order of :meth:`aggregates`.
        """
        self.found[self.condition(day)] = {
            name: _EPOCH + dt.timedelta(microseconds=value) if name[0] == "column.max" and value is not None else value
            for name, value in zip(self.names(), values, strict=True)
        }

    def days(self) -> list[dt.date]:
        """The days, if there are figures per day."""
        return (
            [] if self.per is None else [self.first + dt.timedelta(n) for n in range((self.last - self.first).days + 1)]
        )


def validate(
    df: DataFrame, suite: Suite, examples: int, figures: Figures | None = None, expected: int = 0
) -> ExpectationSuiteValidationResult:
    """Validate a frame with Great Expectations.

    Args:
        df: A frame of the engine.
        suite: A suite; expectations of any type.
        examples: How many values that break a rule are fetched.
        figures: What else to find out in the same query; expectations that have the row condition of a day, or of
            all rows, are answered from it.
        expected: About how many rows the frame has, which decides how uniqueness is looked into.

    Returns:
        GX's own result, with the expectations in the suite's order.
    """
    engine = OneQueryEngine(df.sparkSession, figures, expected)
    validator = _validator(engine, SparkDFBatchData(engine, df), suite)
    validator._metrics_calculator = OneQueryCalculator(engine)
    return _validate(validator, suite, examples)


def validate_in_memory(frame: pd.DataFrame, suite: Suite, examples: int) -> ExpectationSuiteValidationResult:
    """Validate rows that are here, with GX's own engine for pandas.

    Args:
        frame: The rows.
        suite: A suite of expectations that GX has for pandas.
        examples: How many values that break a rule are shown.
    """
    engine = PandasExecutionEngine()
    validator = _validator(engine, PandasBatchData(engine, frame), suite)
    validator._metrics_calculator.show_progress_bars = False
    return _validate(validator, suite, examples)


def _validator(engine: ExecutionEngine, data: Any, suite: Suite) -> Validator:
    definition = LegacyBatchDefinition(
        datasource_name="lakehouse", data_connector_name="rows", data_asset_name=suite.name, batch_identifiers=IDDict()
    )
    batch = Batch(data=data, batch_definition=definition)
    return Validator(execution_engine=engine, data_context=context(), batches=[batch])


def _validate(validator: Validator, suite: Suite, examples: int) -> ExpectationSuiteValidationResult:
    identifiers = [f"expectation-{index}" for index in range(len(suite.expectations))]
    found = validator.graph_validate(
        configurations=[
            ExpectationConfiguration(
                e.type, dict(e.kwargs), meta=dict(e.meta), severity=FailureSeverity(e.severity), id=identifier
            )
            for identifier, e in zip(identifiers, suite.expectations, strict=True)
        ],
        runtime_configuration={"result_format": {"result_format": "BASIC", "partial_unexpected_count": examples}},
    )
    by_identifier = {r.expectation_config.id: r for r in found if r.expectation_config is not None}
    results = [by_identifier[identifier] for identifier in identifiers]
    statistics = calc_validation_statistics(results)
    return ExpectationSuiteValidationResult(
        success=bool(statistics.success),
        results=results,
        suite_name=suite.name,
        statistics={
            "evaluated_expectations": statistics.evaluated_expectations,
            "successful_expectations": statistics.successful_expectations,
            "unsuccessful_expectations": statistics.unsuccessful_expectations,
            "success_percent": statistics.success_percent,
        },
        meta={"great_expectations_version": gx.__version__},
        batch_id=validator.active_batch_id,
    )


@cache
def context() -> Any:
    """GX wants a context; this one stores nothing, and is made once because it has a folder of its own."""
    return gx.get_context(mode="ephemeral")


def argument_errors(expectation: Expectation) -> list[tuple[str, str]]:
    """What Great Expectations says is wrong with an expectation's arguments: (argument, message) each.

    Args:
        expectation: One of a known type.
    """
    try:
        ExpectationConfiguration(expectation.type, dict(expectation.kwargs)).to_domain_obj()
    except ValidationError as error:
        found: dict[str, str] = {}
        for item in error.errors():
            argument = str(item["loc"][0])
            found.setdefault("" if argument == "__root__" else argument, item["msg"])
        return list(found.items())
    return []


@dataclass(frozen=True)
class _Count:
    """A metric that is one aggregate over the rows of one domain."""

    metric: MetricConfiguration
    domain: dict[str, Any]
    aggregate: Column


@dataclass(frozen=True)
class _Key:
    """A metric that counts the rows of one domain that share the values of some columns."""

    metric: MetricConfiguration
    domain: dict[str, Any]
    columns: list[str]
    rows: Column


class OneQueryCalculator(MetricsCalculator):
    """GX's calculator, without the order that GX asks for and Spark does not need.

    Every GX metric about a column waits for the table's row count, though on Spark only verdicts use it. With
    these edges the row count would be a query of its own, before all others.
    """

    def resolve_validation_graph(self, graph: ValidationGraph, *args: Any, **kwargs: Any) -> Any:
        """Resolve all metrics of a graph.

        Args:
            graph: The metrics of a suite.
            *args: Passed on to GX.
            **kwargs: Passed on to GX.
        """
        edges = [e for e in graph.edges if not (e.right and e.right.metric_name == _ROWS and _ignores_rows(e.left))]
        return super().resolve_validation_graph(
            ValidationGraph(execution_engine=self._execution_engine, edges=edges), *args, **kwargs
        )


class OneQueryEngine(SparkDFExecutionEngine):
    """GX's Spark engine, with the order of its metrics changed."""

    def __init__(self, spark: SparkSession, figures: Figures | None = None, expected: int = 0) -> None:
        # Without persist=False GX would cache the whole table in the engine's memory.
        super().__init__(spark=spark, persist=False)
        self._refused: dict[Any, str] = {}
        self._figures = figures
        self._expected = expected

    def resolve_metrics(
        self,
        metrics_to_resolve: Iterable[MetricConfiguration],
        metrics: Metrics | None = None,
        runtime_configuration: dict[str, Any] | None = None,
    ) -> Metrics:
        """Compute some of the metrics that are ready, the cheap ones first.

        GX calls this again with those that were left out, until none is left.

        Args:
            metrics_to_resolve: Metrics whose dependencies have been computed.
            metrics: What has been computed so far.
            runtime_configuration: Passed on to GX.
        """
        wanted = list(metrics_to_resolve)
        known: Metrics = metrics if metrics is not None else {}
        if not wanted:
            return known
        ready = [m for m in wanted if m.id not in self._refused and _count_of(m) not in self._refused]
        if not ready:  # GX tries again what failed; the answer would be the same
            message = "\n".join(self._refused.get(m.id) or self._refused[_count_of(m)] for m in wanted)
            raise gx_exceptions.MetricResolutionError(message=message, failed_metrics=wanted)

        free = [m for m in ready if m.metric_name.endswith(_WITHOUT_SPARK) or m.metric_name in _SCHEMA]
        if free:
            return super().resolve_metrics(free, _with_unused_rows(free, known), runtime_configuration)

        unique = [m for m in ready if m.metric_name in _UNIQUE]
        counts = [found for m in ready if m not in unique and (found := self._count(m, known)) is not None]
        if unique or counts:
            keys = [self._key(metric, known) for metric in unique]
            try:
                return self._query(counts, keys)
            except PySparkException:
                return self._one_by_one([*(c.metric for c in counts), *unique], known, runtime_configuration)

        trivial: Metrics = {}
        for metric in ready:
            if metric.metric_name.endswith(_EXAMPLES):
                broken = known.get(_count_of(metric))
                if broken == 0:
                    trivial[metric.id] = []
                elif broken is not None and metric.metric_name == _NULLS:
                    shown = metric.metric_value_kwargs["result_format"]["partial_unexpected_count"]
                    trivial[metric.id] = [None] * min(broken, shown)
            elif metric.metric_name == _ROWS_OF_QUERY:
                # The verdict is the count's, and the result format of a gate has no place for these rows.
                trivial[metric.id] = []
        rest = [m for m in ready if m.id not in trivial]
        return trivial | (super().resolve_metrics(rest, known, runtime_configuration) if rest else {})

    def _count(self, metric: MetricConfiguration, known: Metrics) -> _Count | None:
        """A metric as one aggregate, or None if it is not one."""
        name, dependencies = metric.metric_name, metric.metric_dependencies
        if name.endswith(_COUNTS):
            partial = dependencies.get("metric_partial_fn")
            source = (partial.metric_dependencies if partial else dependencies).get("unexpected_condition")
            if source is None:
                return None
            condition, compute, accessor = known[source.id]
            kwargs = {**compute, **accessor}
            if kwargs.get("filter_conditions"):  # a window function, which cannot be part of an aggregate
                return None
            rows = _considered(kwargs)
            if name.endswith(".unexpected_count"):
                rows = rows & condition
            return _Count(metric, _domain(kwargs), F.count(F.when(rows, 1)))
        if "metric_partial_fn" in dependencies:
            aggregate, compute, _ = known[dependencies["metric_partial_fn"].id]
            return _Count(metric, _domain(compute), aggregate)
        return None

    def _key(self, metric: MetricConfiguration, known: Metrics) -> _Key:
        """A uniqueness metric as columns whose values must not repeat."""
        _, compute, accessor = known[metric.metric_dependencies["unexpected_condition"].id]
        kwargs = {**compute, **accessor}
        if "column" in kwargs:
            return _Key(metric, _domain(kwargs), [kwargs["column"]], F.col(kwargs["column"]).isNotNull())
        return _Key(metric, _domain(kwargs), list(kwargs["column_list"]), _considered(kwargs))

    def _query(self, counts: list[_Count], keys: list[_Key]) -> Metrics:
        """Everything that can be asked at once; one query per row condition, which is mostly none."""
        values: Metrics = {}
        answered = [count for count in counts if self._figures and _figure(count, self._figures)]
        asked = [count for count in counts if count not in answered]
        with one_job_per_query(self.spark):
            domains = [count.domain for count in asked] + [key.domain for key in keys]
            figures = self._figures if self._figures and not self._figures.found else None
            if figures:
                domains = [next((d for d in domains if "row_condition" not in d), {}), *domains]
            for domain in {repr(domain): domain for domain in domains}.values():
                rows = self.get_domain_records(domain)
                suspects = [key for key in keys if key.domain == domain]
                members = [count for count in asked if count.domain == domain]
                aggregates = [count.aggregate for count in members]
                totals, suspicious = _ask(rows, aggregates, suspects, figures, self._expected)
                figures = None
                values |= {
                    count.metric.id: convert_to_json_serializable(total)
                    for count, total in zip(members, totals, strict=True)
                }
                values |= {key.metric.id: 0 for key in suspects}
                values |= _duplicates(rows, [suspects[index] for index in suspicious])
        if self._figures:
            for count in answered:
                condition, name = _figure(count, self._figures) or ("", ("", None))
                values[count.metric.id] = self._figures.found[condition][name]
        return values

    def _one_by_one(
        self, metrics: list[MetricConfiguration], known: Metrics, runtime_configuration: dict[str, Any] | None
    ) -> Metrics:
        """Compute each metric by itself, so that only the expectations that Spark refuses fail."""
        for metric in metrics:
            try:
                known |= super().resolve_metrics([metric], _with_unused_rows([metric], known), runtime_configuration)
            except (PySparkException, gx_exceptions.MetricResolutionError) as error:
                self._refused[metric.id] = str(error)
        return known


def _figure(count: _Count, figures: Figures) -> tuple[str, tuple[str, str | None]] | None:
    """Where among the figures a metric is, if it is one of them."""
    condition = count.domain.get("row_condition")
    text = condition.get("pass_through_filter") if isinstance(condition, Mapping) else condition
    name = (count.metric.metric_name, count.metric.metric_domain_kwargs.get("column"))
    known = text in {figures.condition(None), *map(figures.condition, figures.days())}
    return (str(text), name) if known and name in figures.names() else None


def _ask(
    rows: DataFrame, aggregates: list[Column], keys: list[_Key], figures: Figures | None, expected: int
) -> tuple[list[Any], list[int]]:
    """Aggregates, and the positions of the keys that may have duplicates."""
    more = figures.aggregates() if figures else []
    query = rows.agg(*(a.alias(f"_{i}") for i, a in enumerate([F.count(F.lit(1)), *aggregates, *more])))
    if figures and figures.per:
        day = F.col(figures.per)
        daily = rows.filter(day.between(F.lit(figures.first), F.lit(figures.last))).groupBy(day.alias("day"))
        query = query.unionByName(
            daily.agg(*(a.alias(f"figure_{i}") for i, a in enumerate(more))), allowMissingColumns=True
        )
    if keys:
        repeated = uniqueness.suspects(rows, [(key.columns, key.rows) for key in keys], expected)
        query = query.unionByName(repeated, allowMissingColumns=True)
    found = query.collect()
    totals = next(row for row in found if row["_0"] is not None)
    suspicious = sorted({row["key"] for row in found if keys and row["key"] is not None})
    if figures:
        empty = [0 if name in (_ROWS, _NULL_COUNT) else None for name, _ in figures.names()]
        figures.keep(None, [totals[f"_{i + 1 + len(aggregates)}"] for i in range(len(more))])
        for each in figures.days():
            figures.keep(each, empty)
        for row in found if figures.per else ():
            if row["day"] is not None:
                figures.keep(row["day"], [row[f"figure_{i}"] for i in range(len(more))])
    return [totals[f"_{i + 1}"] for i in range(len(aggregates))], suspicious


def _duplicates(rows: DataFrame, keys: list[_Key]) -> Metrics:
    """For each key, how many rows share its values with another row."""
    if not keys:
        return {}
    queries = [
        rows.filter(key.rows)
        .groupBy(*(F.col(name).alias(f"_{i}") for i, name in enumerate(key.columns)))
        .agg(F.count(F.lit(1)).alias("rows"))
        .agg(F.coalesce(F.sum(F.when(F.col("rows") > 1, F.col("rows"))), F.lit(0)).alias("duplicates"))
        .select(F.lit(index).alias("index"), "duplicates")
        for index, key in enumerate(keys)
    ]
    found = reduce(DataFrame.unionAll, queries).collect()
    return {keys[row["index"]].metric.id: int(row["duplicates"]) for row in found}


def _domain(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a domain that needs a query of its own: its row condition."""
    return {
        name: kwargs[name] for name in ("batch_id", "row_condition", "condition_parser") if kwargs.get(name) is not None
    }


def _considered(kwargs: Mapping[str, Any]) -> Column:
    """Which rows an expectation about several columns speaks about, by its ``ignore_row_if``."""
    names = kwargs.get("column_list") or [kwargs[n] for n in ("column_A", "column_B") if n in kwargs]
    missing = [F.col(name).isNull() for name in names]
    match kwargs.get("ignore_row_if") if missing else None:
        case "both_values_are_missing" | "all_values_are_missing":
            return ~reduce(lambda a, b: a & b, missing)
        case "either_value_is_missing" | "any_value_is_missing":
            return ~reduce(lambda a, b: a | b, missing)
        case _:
            return F.lit(True)


def _count_of(metric: MetricConfiguration) -> Any:
    """Which metric counts what another one gives examples of."""
    return MetricConfiguration(
        metric_name=f"{metric.metric_name.rpartition('.')[0]}.unexpected_count",
        metric_domain_kwargs=metric.metric_domain_kwargs,
        metric_value_kwargs={k: v for k, v in metric.metric_value_kwargs.items() if k != "result_format"},
    ).id


def _ignores_rows(metric: MetricConfiguration) -> bool:
    """Whether a metric declares that it depends on the row count, but does not use it."""
    return (
        metric.metric_name.endswith((*_WITHOUT_SPARK, *_COUNTS, *_EXAMPLES))
        or "metric_partial_fn" in metric.metric_dependencies
    )


def _with_unused_rows(metrics: Iterable[MetricConfiguration], known: Metrics) -> Metrics:
    """What is known, with a placeholder where metrics name a row count that they do not use."""
    named = (d for m in metrics for d in m.metric_dependencies.values() if d.metric_name == _ROWS)
    return {d.id: None for d in named} | known


@contextmanager
def one_job_per_query(spark: SparkSession) -> Iterator[None]:
    """Without adaptive execution a query is one Spark job; with it, one per stage.

    Args:
        spark: The session whose queries are meant.
    """
    before = spark.conf.get(_ADAPTIVE)
    if before == "false":
        yield
        return
    spark.conf.set(_ADAPTIVE, "false")
    try:
        yield
    finally:
        spark.conf.set(_ADAPTIVE, str(before))
