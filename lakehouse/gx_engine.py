"""Great Expectations on Spark, in two queries.

GX's own Spark engine runs queries for every expectation: for twenty rules about ninety Spark jobs. This one
changes nothing of what GX computes and decides, but when: it lets GX build all its conditions first, then
asks Spark for all the counts and aggregates at once, and fetches examples only for rules that were broken.

- One ``agg`` has the row count, the counts of unexpected rows, and aggregates such as min, max and mean.
- One query has the duplicates of all uniqueness rules, as counts of groups instead of GX's window functions.

Metrics that are neither (quantiles, sets of distinct values…) are left to GX, one query each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from typing import Any

import great_expectations.exceptions as gx_exceptions
from great_expectations.execution_engine import SparkDFExecutionEngine
from great_expectations.validator.metric_configuration import MetricConfiguration
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

Metrics = dict[Any, Any]

_ADAPTIVE = "spark.sql.adaptive.enabled"
_WITHOUT_SPARK = (".condition", ".aggregate_fn", ".map")
_SCHEMA = ("table.columns", "table.column_types", "table.column_count")
_EXAMPLES = (".unexpected_values", ".unexpected_rows")
_UNIQUE = ("column_values.unique.unexpected_count", "compound_columns.unique.unexpected_count")


@dataclass(frozen=True)
class _Count:
    """A metric that is one aggregate over the rows of one domain."""

    metric: MetricConfiguration
    domain: dict[str, Any]
    aggregate: Column


class TwoQueryEngine(SparkDFExecutionEngine):
    """GX's Spark engine, with the order of its metrics changed."""

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
        ready = list(metrics_to_resolve)
        known: Metrics = metrics if metrics is not None else {}
        if not ready:
            return known

        free = [m for m in ready if m.metric_name.endswith(_WITHOUT_SPARK) or m.metric_name in _SCHEMA]
        if free:
            return super().resolve_metrics(free, known, runtime_configuration)

        unique = [m for m in ready if m.metric_name in _UNIQUE]
        counts = [count for m in ready if m not in unique and (count := self._count(m, known)) is not None]
        if unique or counts:
            try:
                with _one_job_per_query(self.spark):
                    return self._aggregate(counts) | self._duplicates(unique, known)
            except PySparkException:
                return self._one_by_one([*(c.metric for c in counts), *unique], known, runtime_configuration)

        nothing: Metrics = {m.id: [] for m in ready if _no_examples(m, known)}
        rest = [m for m in ready if m.id not in nothing]
        return nothing | (super().resolve_metrics(rest, known, runtime_configuration) if rest else {})

    def _count(self, metric: MetricConfiguration, known: Metrics) -> _Count | None:
        """A metric as one aggregate, or None if it is not one."""
        name, dependencies = metric.metric_name, metric.metric_dependencies
        if name.endswith((".unexpected_count", ".filtered_row_count")):
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

    def _aggregate(self, counts: list[_Count]) -> Metrics:
        """All aggregates over one domain in one query; there are as many domains as row conditions."""
        values: Metrics = {}
        domains = {repr(count.domain): count.domain for count in counts}
        for key, domain in domains.items():
            members = [count for count in counts if repr(count.domain) == key]
            bundle = [_bundled(count.metric, count.aggregate.alias(f"_{i}"), domain) for i, count in enumerate(members)]
            values |= self.resolve_metric_bundle(bundle)
        return values

    def _duplicates(self, unique: list[MetricConfiguration], known: Metrics) -> Metrics:
        """For each uniqueness rule, how many rows share their values with another row."""
        if not unique:
            return {}
        queries: list[DataFrame] = []
        for index, metric in enumerate(unique):
            _, compute, accessor = known[metric.metric_dependencies["unexpected_condition"].id]
            kwargs = {**compute, **accessor}
            names = [kwargs["column"]] if "column" in kwargs else list(kwargs["column_list"])
            rows = self.get_domain_records({k: v for k, v in kwargs.items() if k != "ignore_row_if"})
            queries.append(
                rows.filter(_considered(kwargs))
                .groupBy(*(F.col(name).alias(f"_{i}") for i, name in enumerate(names)))
                .agg(F.count(F.lit(1)).alias("rows"))
                .agg(F.coalesce(F.sum(F.when(F.col("rows") > 1, F.col("rows"))), F.lit(0)).alias("duplicates"))
                .select(F.lit(index).alias("index"), "duplicates")
            )
        found = reduce(DataFrame.unionAll, queries).collect()
        return {unique[row["index"]].id: int(row["duplicates"]) for row in found}

    def _one_by_one(
        self, metrics: list[MetricConfiguration], known: Metrics, runtime_configuration: dict[str, Any] | None
    ) -> Metrics:
        """Compute each metric by itself, so that only the expectations that Spark refuses fail."""
        broken: list[MetricConfiguration] = []
        messages: list[str] = []
        for metric in metrics:
            try:
                known |= super().resolve_metrics([metric], known, runtime_configuration)
            except (PySparkException, gx_exceptions.MetricResolutionError) as error:
                broken.append(metric)
                messages.append(str(error))
        if broken:
            raise gx_exceptions.MetricResolutionError(message="\n".join(messages), failed_metrics=broken)
        return known


def _bundled(metric: MetricConfiguration, aggregate: Column, domain: Mapping[str, Any]) -> Any:
    from great_expectations.execution_engine.execution_engine import MetricComputationConfiguration

    return MetricComputationConfiguration(
        metric_configuration=metric,
        metric_fn=aggregate,  # type: ignore[arg-type]
        metric_provider_kwargs={},
        compute_domain_kwargs=dict(domain),
    )


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


def _no_examples(metric: MetricConfiguration, known: Metrics) -> bool:
    """Whether a metric asks for examples of a rule that no row breaks."""
    name = metric.metric_name
    if not name.endswith(_EXAMPLES):
        return False
    values = {k: v for k, v in metric.metric_value_kwargs.items() if k != "result_format"}
    count = MetricConfiguration(
        metric_name=f"{name.rpartition('.')[0]}.unexpected_count",
        metric_domain_kwargs=metric.metric_domain_kwargs,
        metric_value_kwargs=values,
    )
    return bool(known.get(count.id) == 0)


@contextmanager
def _one_job_per_query(spark: SparkSession) -> Iterator[None]:
    """Without adaptive execution a query is one Spark job; with it, one per stage."""
    before = spark.conf.get(_ADAPTIVE)
    if before == "false":
        yield
        return
    spark.conf.set(_ADAPTIVE, "false")
    try:
        yield
    finally:
        spark.conf.set(_ADAPTIVE, str(before))
