"""Row rules: a row-level expectation as a Spark condition that is true for the rows that break it.

The meaning is that of Great Expectations' own Spark engine, nulls and NaN included, so that what landing
takes out of the batch of a day is exactly what the gate would count as unexpected in it. Two things follow from that:
a null never breaks a rule that is about values (``expect_column_values_to_not_be_null`` is the rule about
nulls), and every row of a group of duplicates breaks a uniqueness rule, the first one too.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

LABEL_LENGTH = 120
"""Longest text of a rule's arguments in a reason; a long set of values is cut there."""

NOT_NULL = "expect_column_values_to_not_be_null"
UNIQUE = "expect_column_values_to_be_unique"
COMPOUND_UNIQUE = "expect_compound_columns_to_be_unique"
UNIQUE_WITHIN_RECORD = "expect_select_column_values_to_be_unique_within_record"
INCREASING = "expect_column_values_to_be_increasing_within_tolerance"
OWN_TYPES = {
    INCREASING: frozenset(
        {"column", "tolerance_days", "order_by", "within", "mostly", "row_condition", "condition_parser"}
    ),
}
"""Expectations that Great Expectations does not have, with their arguments.

See :mod:`lakehouse.quality.gx_expectations`.
"""

ORDER, GROUP = ("_source_row",), ("_source_file",)
"""What orders rows, and which belong together, where a rule does not say: as they stand in their file."""


_DAY = 24 * 60 * 60 * 1_000_000  # microseconds


class Rule(Protocol):
    """What this module needs to know of an expectation."""

    @property
    def type(self) -> str:
        """Name of the expectation, such as ``expect_column_values_to_be_between``."""

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """Its arguments, as the suite's JSON has them."""

    @property
    def columns(self) -> Sequence[str]:
        """Columns that it is about."""


class UnsupportedRuleError(ValueError):
    """The expectation cannot be decided row by row."""


def is_row_rule(rule: Rule) -> bool:
    """Whether an expectation can be decided row by row; all others are about the table as a whole.

    Args:
        rule: An expectation.
    """
    condition = rule.kwargs.get("row_condition")
    return rule.type in ROW_RULES and (condition is None or _condition_text(rule) is not None)


def label(rule: Rule) -> str:
    """A rule as a person reads it: ``expect_column_values_to_be_between(departure_time, 0..2400)``.

    Two rules that are not the same have two labels: by these the rows are counted that break them.

    Args:
        rule: An expectation of any type.
    """
    kwargs = rule.kwargs
    columns = kwargs.get("column") or ", ".join(kwargs.get("column_list") or ())
    if rule.type == "expect_column_pair_values_a_to_be_greater_than_b":
        operator = ">=" if kwargs.get("or_equal") else ">"
        text = f"{kwargs['column_A']} {operator} {kwargs['column_B']}"
    elif "column_A" in kwargs:
        text = f"{kwargs['column_A']}, {kwargs['column_B']}"
    elif "min_value" in kwargs or "max_value" in kwargs:
        low, high = kwargs.get("min_value"), kwargs.get("max_value")
        limits = "".join(
            (
                "" if low is None else f"{_text(low)}{'<' if kwargs.get('strict_min') else ''}",
                "..",
                "" if high is None else f"{'<' if kwargs.get('strict_max') else ''}{_text(high)}",
            )
        )
        text = f"{columns}, {limits}" if columns else limits
    elif rule.type == INCREASING:
        text = f"{columns}, {_text(kwargs.get('tolerance_days', 0))} days"
    else:
        names = ("value_set", "value", "regex", "regex_list", "strftime_format")
        values = [kwargs[name] for name in names if name in kwargs]
        text = ", ".join([*([columns] if columns else []), *map(_text, values)])
    for name in ("order_by", "within", "ignore_row_if"):
        if kwargs.get(name):
            text += f", {name} {_text(kwargs[name])}"
    if len(text) > LABEL_LENGTH:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        text = f"{text[: LABEL_LENGTH - 10]}… {digest}"
    condition = _condition_text(rule)
    return f"{rule.type}({text})" + (f" where {condition}" if condition else "")


def is_about_values(rule: Rule) -> bool:
    """Whether a rule is about the values of one column, each by itself, and not in comparison with others.

    Args:
        rule: A row-level expectation.
    """
    return "column" in rule.kwargs and rule.type not in (INCREASING, UNIQUE)


def domain(rule: Rule) -> Column:
    """The condition that is true, and never null, for the rows that a rule's own condition selects.

    Args:
        rule: A row-level expectation.
    """
    from pyspark.sql import functions as F

    condition = _condition_text(rule)
    return F.lit(True) if condition is None else F.coalesce(F.expr(condition), F.lit(False))


def key(rule: Rule) -> tuple[list[str], Column] | None:
    """Of a rule that says that a key is unique, its columns, and which rows have the key; None of any other rule.

    Args:
        rule: A row-level expectation.
    """
    of_arguments = KEYS.get(rule.type)
    if of_arguments is None:
        return None
    columns, which = of_arguments(rule.kwargs)
    return columns, domain(rule) & which


def breaks(rule: Rule, known: Column | None = None, each: Sequence[str] = ()) -> Column:
    """The condition that is true, and never null, for the rows that break a rule.

    Args:
        rule: A row-level expectation.
        known: True for the rows whose values are known; of the others the rule says nothing.
        each: Columns: rows are compared only with those that have the same values in them.

    Raises:
        UnsupportedRuleError: The expectation cannot be decided row by row.
    """
    from pyspark.sql import functions as F

    if not is_row_rule(rule):
        raise UnsupportedRuleError(f"{label(rule)} cannot be decided row by row.")
    rows = domain(rule) if known is None else domain(rule) & known
    compares = _COMPARES.get(rule.type)
    broken = compares(rule.kwargs, rows, each) if compares else _BREAKS[rule.type](rule.kwargs, rows)
    return F.coalesce(rows & broken, F.lit(False))


def applies(rule: Rule) -> Column:
    """The condition that is true for the rows that a rule speaks about: those that ``mostly`` is a share of.

    Args:
        rule: A row-level expectation.
    """
    kwargs = rule.kwargs
    if "column" in kwargs:
        everything = rule.type in (NOT_NULL, "expect_column_values_to_be_null")
        return domain(rule) if everything else domain(rule) & _column(kwargs["column"]).isNotNull()
    return domain(rule) & _considered(kwargs)


def broken_rules(
    df: DataFrame,
    rules: Sequence[Rule],
    column: str = "_broken",
    known: Callable[[Rule], Column] | None = None,
    each: Sequence[str] = (),
) -> DataFrame:
    """Add an array of text that names every rule which a row breaks; it is empty for a good row.

    All rules are decided in one pass over the data; each uniqueness rule adds one sort by its columns.

    Args:
        df: Rows with the columns that the rules are about.
        rules: Row-level expectations.
        column: Name of the array column.
        known: For a rule, the condition that is true for the rows whose values it can judge; all of them without it.
        each: Columns: rows are compared only with those that have the same values in them; without any, with all.
    """
    from pyspark.sql import functions as F

    none = F.array().cast("array<string>")
    if not rules:
        return df.withColumn(column, none)
    # Each condition once, be it a window, a UDF or long; and most rows break no rule, and need no array.
    conditions = {f"_rule_{i}": breaks(rule, known and known(rule), each) for i, rule in enumerate(rules)}
    labels = [F.when(F.col(name), F.lit(label(rule))) for name, rule in zip(conditions, rules, strict=True)]
    broken = F.when(any_of(map(F.col, conditions)), F.array_compact(F.array(*labels)))
    return df.withColumns(conditions).withColumn(column, F.coalesce(broken, none)).drop(*conditions)


def any_of(conditions: Iterable[Column]) -> Column:
    """Whether one of some conditions is true, which may be many: a tree of "or" would be too deep for Spark's client.

    Args:
        conditions: Conditions, which may be null.
    """
    from pyspark.sql import functions as F

    return F.coalesce(*(F.when(condition, F.lit(True)) for condition in conditions), F.lit(False))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _condition_text(rule: Rule) -> str | None:
    """The rule's row condition, where it is Spark SQL."""
    condition = rule.kwargs.get("row_condition")
    if isinstance(condition, Mapping):
        text = condition.get("pass_through_filter")
        return text if isinstance(text, str) and condition.get("type") == "pass_through" else None
    return condition if isinstance(condition, str) and rule.kwargs.get("condition_parser") == "spark" else None


def _column(name: str) -> Column:
    from pyspark.sql import functions as F

    return F.col(name)


def _bound(value: Any) -> Any:
    """A limit as GX reads it from JSON: numbers as doubles, ISO dates and timestamps as such."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str):
        try:
            return dt.date.fromisoformat(value) if len(value) == len("2013-01-01") else _timestamp(value)
        except ValueError:
            return value
    return value


def _timestamp(text: str) -> dt.datetime:
    moment = dt.datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def _within(value: Column, kwargs: Mapping[str, Any]) -> Column:
    from pyspark.sql import functions as F

    low, high = _bound(kwargs.get("min_value")), _bound(kwargs.get("max_value"))
    limits = []
    if low is not None:
        limits.append(value > F.lit(low) if kwargs.get("strict_min") else value >= F.lit(low))
    if high is not None:
        limits.append(value < F.lit(high) if kwargs.get("strict_max") else value <= F.lit(high))
    return reduce(lambda a, b: a & b, limits)


def _considered(kwargs: Mapping[str, Any]) -> Column:
    """Which rows a rule about several columns speaks about, by its ``ignore_row_if``."""
    from pyspark.sql import functions as F

    pair = "column_A" in kwargs
    names = [kwargs["column_A"], kwargs["column_B"]] if pair else kwargs["column_list"]
    missing = [_column(name).isNull() for name in names]
    match kwargs.get("ignore_row_if", "both_values_are_missing" if pair else "all_values_are_missing"):
        case "both_values_are_missing" | "all_values_are_missing":
            return ~reduce(lambda a, b: a & b, missing)
        case "either_value_is_missing" | "any_value_is_missing":
            return ~reduce(lambda a, b: a | b, missing)
        case _:
            return F.lit(True)


def _value_rule(expected: Callable[[Column, Mapping[str, Any]], Column]) -> Callable[..., Column]:
    def condition(kwargs: Mapping[str, Any], _: Column) -> Column:
        value = _column(kwargs["column"])
        return value.isNotNull() & ~expected(value, kwargs)

    return condition


def _length(value: Column) -> Column:
    from pyspark.sql import functions as F

    return F.length(value)


def _repeated(names: Sequence[str], domain: Column) -> Column:
    """Whether a row shares its values with another row of the domain."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    group = Window.partitionBy(*(_column(name) for name in names))
    return domain & (F.count(F.when(domain, 1)).over(group) > 1)


def _is_time(value: Column, kwargs: Mapping[str, Any]) -> Column:
    # Python's reading of a format is what GX means by it, and Spark has no other like it.
    text = kwargs["strftime_format"]

    def readable(value: str | None) -> bool:
        import datetime

        if value is None:
            return False
        try:
            datetime.datetime.strptime(value, text)
        except ValueError:
            return False
        return True

    from pyspark.sql import functions as F

    return F.udf(readable, "boolean")(value)


def _is_json(value: Column, _: Mapping[str, Any]) -> Column:
    def readable(value: str | None) -> bool:
        import json

        try:
            json.loads(value or "")
        except (ValueError, RecursionError):
            return False
        return True

    from pyspark.sql import functions as F

    return F.udf(readable, "boolean")(value)


def is_earlier(kwargs: Mapping[str, Any], domain: Column, each: Sequence[str] = ()) -> Column:
    """Whether a date lies further before the latest of the dates above it than is tolerated.

    It is compared with the latest one, and not with the one right above it, so that taking rows out never makes another
    row break the rule: what landing lets through, the gate does too.

    Args:
        kwargs: Arguments of the expectation ``INCREASING``.
        domain: True for the rows that count.
        each: Columns: only rows that have the same values in them are above each other.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    value = _column(kwargs["column"])
    rows = Window.partitionBy(*map(_column, (*(kwargs.get("within") or GROUP), *each))).orderBy(
        *map(_column, kwargs.get("order_by") or ORDER)
    )
    above = rows.rowsBetween(Window.unboundedPreceding, -1)
    # In microseconds: an interval that is subtracted could leave the range of dates.
    moment = F.unix_micros(value.cast("timestamp"))
    latest = F.max(F.when(domain, moment)).over(above)
    return domain & F.coalesce(
        latest - moment > F.lit(int(float(kwargs.get("tolerance_days") or 0) * _DAY)), F.lit(False)
    )


def _not_increasing(kwargs: Mapping[str, Any], domain: Column, each: Sequence[str]) -> Column:
    return is_earlier(kwargs, domain & _column(kwargs["column"]).isNotNull(), each)


def _column_key(kwargs: Mapping[str, Any]) -> tuple[list[str], Column]:
    return [kwargs["column"]], _column(kwargs["column"]).isNotNull()


def _compound_key(kwargs: Mapping[str, Any]) -> tuple[list[str], Column]:
    return list(kwargs["column_list"]), _considered(kwargs)


def _key_rule(of_arguments: Callable[[Mapping[str, Any]], tuple[list[str], Column]]) -> Callable[..., Column]:
    def condition(kwargs: Mapping[str, Any], domain: Column, each: Sequence[str]) -> Column:
        columns, which = of_arguments(kwargs)
        return _repeated([*columns, *each], domain & which)

    return condition


def _not_greater(kwargs: Mapping[str, Any], _: Column) -> Column:
    a, b = _column(kwargs["column_A"]), _column(kwargs["column_B"])
    expected = (a >= b) | a.eqNullSafe(b) if kwargs.get("or_equal") else a > b
    return _considered(kwargs) & ~expected


def _not_equal(kwargs: Mapping[str, Any], _: Column) -> Column:
    return _considered(kwargs) & ~_column(kwargs["column_A"]).eqNullSafe(_column(kwargs["column_B"]))


def _not_unique_within_record(kwargs: Mapping[str, Any], _: Column) -> Column:
    columns = [_column(name) for name in kwargs["column_list"]]
    same = [a.eqNullSafe(b) for i, a in enumerate(columns) for b in columns[i + 1 :]]
    return _considered(kwargs) & reduce(lambda a, b: a | b, same)


_BREAKS: dict[str, Callable[[Mapping[str, Any], Any], Any]] = {
    NOT_NULL: lambda kwargs, _: _column(kwargs["column"]).isNull(),
    "expect_column_values_to_be_null": lambda kwargs, _: _column(kwargs["column"]).isNotNull(),
    "expect_column_values_to_be_between": _value_rule(_within),
    "expect_column_values_to_be_in_set": _value_rule(lambda value, kwargs: value.isin(kwargs["value_set"])),
    "expect_column_values_to_not_be_in_set": _value_rule(lambda value, kwargs: ~value.isin(kwargs["value_set"])),
    "expect_column_values_to_match_regex": _value_rule(lambda value, kwargs: value.rlike(kwargs["regex"])),
    "expect_column_values_to_not_match_regex": _value_rule(lambda value, kwargs: ~value.rlike(kwargs["regex"])),
    "expect_column_value_lengths_to_be_between": _value_rule(lambda value, kwargs: _within(_length(value), kwargs)),
    "expect_column_value_lengths_to_equal": _value_rule(lambda value, kwargs: _length(value) == kwargs["value"]),
    "expect_column_values_to_match_strftime_format": _value_rule(_is_time),
    "expect_column_values_to_be_json_parseable": _value_rule(_is_json),
    "expect_column_pair_values_a_to_be_greater_than_b": _not_greater,
    "expect_column_pair_values_to_be_equal": _not_equal,
    UNIQUE_WITHIN_RECORD: _not_unique_within_record,
}

KEYS: dict[str, Callable[[Mapping[str, Any]], Any]] = {UNIQUE: _column_key, COMPOUND_UNIQUE: _compound_key}
"""Those that say that a key is unique."""

_COMPARES: dict[str, Callable[[Mapping[str, Any], Any, Sequence[str]], Any]] = {
    INCREASING: _not_increasing,
    **{type_: _key_rule(of_arguments) for type_, of_arguments in KEYS.items()},
}
"""Those that compare a row with others."""

ROW_RULES = frozenset(_BREAKS) | frozenset(_COMPARES)
"""Expectation types that are decided row by row."""
