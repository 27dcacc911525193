"""Masking: which columns hold values that nobody is shown, and verdicts without them.

What a person sees of a table, apart from its rows, goes through here: the verdicts of gates, with their pages, alerts
and ``ops.gate_results``, and profiles. Examples of bad rows are masked where they are made:
:mod:`lakehouse.landing.batches`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from lakehouse import contracts, ops
from lakehouse.ml import model_folders
from lakehouse.ml.model_spec import PREDICTIONS

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult

HIDDEN = "…"
"""What is shown in place of a personal value."""

_COUNTS = frozenset(
    {
        "element_count",
        "missing_count",
        "missing_percent",
        "unexpected_count",
        "unexpected_percent",
        "unexpected_percent_nonmissing",
        "unexpected_percent_total",
    }
)
_ABOUT_THE_SCHEMA = ("expect_table_column", "expect_column_to_exist", "expect_table_row_count_to_be_between")
_OF_WHOLE_ROWS = ("unexpected_rows_expectation", "expect_query_results_to_match_comparison")
_CONDITION = re.compile(r"\[[A-Z0-9_.]+\]")


def hidden_columns(table: str, columns: Iterable[str] = ()) -> frozenset[str]:
    """Columns of a table whose values are shown to nobody.

    Those that a contract classifies as personal, confidential or restricted; of a source also those that its contract
    does not know, because nobody has classified them; and elsewhere those that have the name of such a column, or are
    made from one, as far as the lineage of columns tells. Of a contract or model that cannot be read now nobody knows:
    then all columns are hidden.

    Args:
        table: ``layer.table``, as readers name it.
        columns: The columns that it has.
    """
    layer, _, name = table.partition(".")
    hidden = contracts.personal_columns(table)
    if layer == "bronze" and name in contracts.sources():
        try:
            declared = {column.name for column in contracts.load(name).columns}
        except contracts.ContractError:
            declared = set()
        return hidden | set(columns) - declared - contracts.TECHNICAL_COLUMNS.keys()
    if layer == "ml" and name.removeprefix(PREDICTIONS) in model_folders.problems():
        return hidden | set(columns)
    return hidden | _made_from_hidden(table)


def hide(validation: ExpectationSuiteValidationResult, columns: Collection[str]) -> None:
    """Take the values of some columns out of what a gate has found; the counts stay.

    Args:
        validation: Great Expectations' result, which is changed.
        columns: The columns.
    """
    for found in validation.results:
        if columns and _is_about(found, columns):
            _hide(found)


def without_values(error: str) -> str:
    """What is left of an error of Spark when the values that it quotes are not to be shown.

    Args:
        error: Its text.
    """
    kind = _CONDITION.search(error)
    return f"{kind[0] if kind else 'an error'} (its text is not shown: it may quote a personal value)"


def _is_about(found: ExpectationValidationResult, columns: Collection[str]) -> bool:
    config = found.expectation_config
    if config is None or config.type.startswith(_ABOUT_THE_SCHEMA):
        return False
    words = set(re.findall(r"\w+", json.dumps(config.kwargs, default=str, ensure_ascii=False)))
    return config.type in _OF_WHOLE_ROWS or not words.isdisjoint(columns)


def _hide(found: ExpectationValidationResult) -> None:
    before: dict[str, Any] = found.result or {}
    if "unexpected_percent" in before:
        kept = {name: value for name, value in before.items() if name in _COUNTS}
        if before.get("partial_unexpected_list"):
            kept["partial_unexpected_list"] = [HIDDEN]
        if "partial_unexpected_counts" in before:
            kept["partial_unexpected_counts"] = []
    else:  # about the table as a whole, or not evaluated
        kept = {"observed_value": HIDDEN} if before else {}
    found.result = kept
    info = found.exception_info or {}
    for entry in [info] if "raised_exception" in info else list(info.values()):
        if isinstance(entry, dict) and entry.get("raised_exception"):
            entry["exception_message"] = without_values(str(entry.get("exception_message")))
            entry["exception_traceback"] = ""


def _made_from_hidden(table: str) -> set[str]:
    """The columns of a table that a value of a hidden column of a source goes into, over any number of steps."""
    if not any(contracts.personal_columns(f"bronze.{source}") for source in contracts.sources()):
        return set()
    log = ops.read("ops.lineage_columns")
    if not len(log):
        return set()
    newest = log.filter(pc.equal(log["recorded_at"], pc.max(log["recorded_at"])))
    edges = newest.filter(pc.equal(newest["kind"], "direct")).to_pylist()
    reached = {
        (f"{layer}.{source}", column)
        for source in contracts.sources()
        for column in contracts.personal_columns(f"bronze.{source}")
        for layer in ("source", "bronze")
    }
    while (
        more := {
            (edge["table_name"], edge["column_name"])
            for edge in edges
            if (edge["source_table"], edge["source_column"]) in reached
        }
        - reached
    ):
        reached |= more
    return {column for name, column in reached if name == table and column is not None}
