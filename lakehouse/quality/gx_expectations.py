"""Rules that landing decides row by row and Great Expectations does not have, as expectations of its own kind."""

from __future__ import annotations

from typing import Any

from great_expectations.core.metric_function_types import MetricPartialFunctionTypes
from great_expectations.execution_engine import SparkDFExecutionEngine
from great_expectations.expectations.expectation import ColumnMapExpectation, render_suite_parameter_string
from great_expectations.expectations.metrics.map_metric_provider import (
    ColumnMapMetricProvider,
    column_condition_partial,
)
from great_expectations.render import LegacyRendererType, RenderedStringTemplateContent
from great_expectations.render.renderer.renderer import renderer
from pyspark.sql import Column
from pyspark.sql import functions as F

from lakehouse.quality import rules


class ColumnValuesIncreasingWithinTolerance(ColumnMapMetricProvider):
    """Which dates lie no further than is tolerated before the latest of those above them."""

    condition_metric_name = "column_values.increasing_within_tolerance"
    condition_value_keys = ("tolerance_days", "order_by", "within")

    @column_condition_partial(
        engine=SparkDFExecutionEngine, partial_fn_type=MetricPartialFunctionTypes.WINDOW_CONDITION_FN
    )
    def _spark(cls, column: Column, **kwargs: Any) -> Column:  # noqa: N805 - GX makes it a method of the class
        arguments = {name: kwargs.get(name) for name in ("tolerance_days", "order_by", "within")}
        return ~rules.is_earlier({**arguments, "column": kwargs["_accessor_domain_kwargs"]["column"]}, F.lit(True))


class ExpectColumnValuesToBeIncreasingWithinTolerance(ColumnMapExpectation):
    """Expect dates to be no more than some days before the latest of those above them.

    Args:
        column: A column of dates or timestamps.
        tolerance_days: How many days a row may be late; 0.5 is twelve hours.
        order_by: The columns that order the rows; by default their place in their file.
        within: The columns that tell which rows belong together; by default their file.
        mostly: The least share of rows that must keep it.
    """

    tolerance_days: float = 0
    order_by: list[str] | None = None
    within: list[str] | None = None

    map_metric = "column_values.increasing_within_tolerance"
    success_keys = ("tolerance_days", "order_by", "within", "mostly")
    args_keys = ("column", "tolerance_days")

    @classmethod
    @renderer(renderer_type=LegacyRendererType.PRESCRIPTIVE)
    @render_suite_parameter_string
    def _prescriptive_renderer(
        cls, configuration: Any = None, result: Any = None, runtime_configuration: Any = None, **kwargs: Any
    ) -> list[RenderedStringTemplateContent]:
        arguments = configuration.kwargs if configuration else {}
        params = {"column": arguments.get("column"), "days": arguments.get("tolerance_days", 0)}
        text = "values must be no more than $days days before the latest value above them."
        shown = (runtime_configuration or {}).get("include_column_name") is not False
        return [
            RenderedStringTemplateContent(
                content_block_type="string_template",
                string_template={
                    "template": f"$column {text}" if shown else text,
                    "params": params,
                    "styling": (runtime_configuration or {}).get("styling"),
                },
            )
        ]
