"""A batch of a source: its records get their types, are judged row by row, counted, and taken or rejected.

Landing and replay share this, so that a row is judged the same way whenever it comes.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakehouse.contracts import TECHNICAL_COLUMNS
from lakehouse.contracts.parts import Column as Declared
from lakehouse.errors import LakeError
from lakehouse.quality.rules import NOT_NULL, any_of, applies, broken_rules, domain, is_about_values, key
from lakehouse.quality.rules import label as reason_of
from lakehouse.readers.batch import UNKNOWN_KEY
from lakehouse.wording import counted

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, Row

    from lakehouse.contracts import Contract
    from lakehouse.quality.rules import Rule
    from lakehouse.quality.suites import Suite

TYPES = {name: type_ for name, (type_, _) in TECHNICAL_COLUMNS.items()}
QUARANTINE = {
    **TYPES,
    "_raw": "STRING",
    "_columns": "ARRAY<STRING>",
    "_reasons": "ARRAY<STRING>",
    "_codes": "ARRAY<STRING>",
    "_batch": "STRING",
    "_rejected": "BOOLEAN",
}
RULE = "rule"
"""Code of a reason that is a broken rule of the suite."""
REQUIRED = "required"
"""Code of a reason that is a value which is missing though the contract requires it."""

LARGE_BATCH = 8 << 20
"""Bytes of files from which on a batch is grouped by its keys, and not sorted by them: another query, which is narrow.

The sort of a million flights took 2 seconds. A thousand took 0.8 longer with queries about their keys.
"""
MORE_DAYS = 5
"""How many further days are named that a batch is rejected for."""

MASK = "***"
_FAULTS = "array<struct<code:string,text:string,column:string>>"
_DELIVERY = ("_interval",)
"""Of a range each day is judged as if it came alone; what comes back on another day is for the gate to find."""
_WHOLE_ROW, _WHOLE_KEYS = "*", "+"
"""In place of a column: nothing of a record could be read; all of it, but it has more than the contract declares."""

_EXACT = {
    "SMALLINT": ("tinyint",),
    "INT": ("tinyint", "smallint"),
    "BIGINT": ("tinyint", "smallint", "int"),
    "FLOAT": ("tinyint", "smallint"),
    "DOUBLE": ("tinyint", "smallint", "int", "float"),
    "TIMESTAMP": ("date", "timestamp_ntz"),
}
"""Types to those whose values are all among theirs."""
_DIGITS = {"FLOAT": 7, "DOUBLE": 15}
"""Digits of which a type can hold every integer."""
_LONGEST = "decimal(38,0)"
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")


@dataclass(frozen=True)
class Rejection:
    """Why a batch is rejected whole.

    Attributes:
        code: ``all_rows_bad`` or ``below_mostly``.
        why: Which rule, how many rows.
        days: The days whose rows are the cause.
    """

    code: str
    why: str
    days: tuple[dt.date, ...]


class RejectedBatchError(LakeError):
    """A batch breaks its contract or suite so far that nothing of it is taken.

    Args:
        message: Which rule, how many rows, examples.
        code: ``all_rows_bad`` or ``below_mostly``.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(f"[{code}] {message}")
        self.code = code


def parse(raw: DataFrame, contract: Contract, added: Mapping[str, str]) -> DataFrame:
    """Give each column its contract's type, and say of each row why it cannot have it.

    Args:
        raw: Records in the readers' common shape.
        contract: Declares the types and which columns must be there.
        added: Columns that the contract does not have, with the types that they shall have.

    Returns:
        Typed columns, everything whose name begins with ``_`` but ``_malformed``, and ``_faults``: what is wrong
        with a row as structs of code, text and column; empty for a good row.
    """
    from pyspark.sql import functions as F

    from lakehouse.readers import jsonl

    sources = dict(raw.dtypes)

    def typed(column: Declared) -> Column:
        value, found, type_ = F.col(column.name), sources[column.name], column.spark_type
        if _is_exact(found, type_):
            return value.cast(type_)
        # By its text, like any other text and like a replay, which has no more of it.
        return _read(jsonl.kept(value, found, type_).cast("string"), column)

    def faults_of(column: Declared) -> list[tuple[Column, Column]]:
        """What can be wrong with a value: the condition, and what is said then."""
        name, value, result = column.name, F.col(column.name), typed(column)
        shown = F.substring(value.cast("string"), 1, 100)

        def because(code: str, *text: Column) -> Column:
            return F.struct(F.lit(code).alias("code"), F.concat(*text).alias("text"), F.lit(name).alias("column"))

        unfit = because("type", F.lit(f"{name}: '"), shown, F.lit(f"' is not of type {column.spark_type}"))
        found = [(value.isNotNull() & result.isNull(), unfit)]
        if column.spark_type in ("DOUBLE", "FLOAT"):
            infinite = F.isnan(result) | (F.abs(result) == float("inf"))
            found.append(
                (infinite, because("not_finite", F.lit(f"{name}: '"), shown, F.lit("' is not a finite number")))
            )
        if column.required:
            found.append((value.isNull(), because(REQUIRED, F.lit(f"{name}: is required and missing"))))
        return found

    has_more = F.col("_malformed.code") == UNKNOWN_KEY
    none = F.array().cast(_FAULTS)
    malformed = F.array(
        F.struct(
            F.col("_malformed.code").alias("code"),
            F.col("_malformed.text").alias("text"),
            F.when(has_more, F.lit(_WHOLE_KEYS)).otherwise(F.lit(_WHOLE_ROW)).alias("column"),
        )
    ).cast(_FAULTS)
    drifted = [_undeclared(name, type_) for name, type_ in added.items()]
    judged = [*contract.columns, *(column for column in drifted if sources[column.name] != column.spark_type.lower())]
    possible = list(map(faults_of, judged))
    # Most rows are good, and need no array: conditions alone are cheap.
    faulty = any_of(condition for each in possible for condition, _ in each)
    firsts = [F.coalesce(*(F.when(condition, said) for condition, said in each)) for each in possible]
    faults = F.when(faulty, F.array_compact(F.array(*firsts))).otherwise(none)
    return raw.select(
        *(typed(column).alias(column.name) for column in (*contract.columns, *drifted)),
        *(name for name in raw.columns if name.startswith("_") and name != "_malformed"),
        # Each of the two is there once: their expressions are long, and would be compiled again.
        F.concat(
            F.when(F.col("_malformed").isNotNull(), malformed).otherwise(none),
            F.when(~has_more, none).otherwise(faults),
        ).alias("_faults"),
    )


def types_of(added: Mapping[str, str], table: DataFrame) -> dict[str, str]:
    """The types of columns that the contract does not have: those that the table has given them, else their file's.

    Args:
        added: Name to the type in the file.
        table: The table's rows, or some of them.
    """
    known = dict(table.dtypes) if added else {}
    return {name: known.get(name, type_).upper() for name, type_ in added.items()}


def _undeclared(name: str, type_: str) -> Declared:
    return Declared(name, type_, "", False, None, "internal", False, None)


def _is_exact(found: str, declared: str) -> bool:
    """Whether each value of a type is one of the contract's type, so that a cast changes none."""
    return found == declared.lower() or declared == "STRING" or found in _EXACT.get(declared, ())


def _read(text: Column, column: Declared) -> Column:
    """A text as the contract's type; null where it is none, or could not be kept without cutting or rounding it.

    A fraction is the nearest one that a DOUBLE or FLOAT can hold.
    """
    from pyspark.sql import functions as F

    type_ = column.spark_type
    if column.format:
        return F.try_to_timestamp(text, F.lit(column.format)).try_cast(type_)
    if type_ in ("DATE", "TIMESTAMP"):
        # Spark takes 1000 for a year, and 10:30 for a time of today.
        text = F.when(F.trim(text).like("____-%-%"), text)
    value = text.try_cast(type_)
    if type_ == "DATE":  # Spark passes over whatever follows the day
        return F.when(value == text.try_cast("timestamp_ntz"), value)
    if type_ in _DIGITS:
        is_long_integer = (F.length(text) > _DIGITS[type_]) & F.trim(text).rlike("^[+-]?[0-9]+$")
        same = value.try_cast(_LONGEST).eqNullSafe(text.try_cast(_LONGEST))
        return F.when(~is_long_integer | same, value)
    if decimal := _DECIMAL.fullmatch(type_):
        precision, scale = map(int, decimal.groups())
        return F.when(value == text.try_cast(f"decimal(38,{38 - precision + scale})"), value)
    return value


@contextmanager
def judging(
    parsed: DataFrame, suite: Suite, size: int = 0, **more: Column
) -> Iterator[tuple[DataFrame, dict[str, Any]]]:
    """Judge a batch by its suite, and count it: gives the rows, which the engine keeps meanwhile, and the counts.

    Args:
        parsed: Outcome of :func:`parse`.
        suite: The table's suite.
        size: Bytes of the files that it came in, if any: decides the way, not the answer.
        more: As for :func:`count`.
    """
    rules = suite.row_rules()
    keys = _keys(rules) if size >= LARGE_BATCH else []
    others = [rule for rule in rules if key(rule) is None] if keys else rules
    with ExitStack() as stack:
        rows = judged = stack.enter_context(_kept(judge(parsed, others)))
        for each in keys:
            repeated = stack.enter_context(_kept(_repeated(judged, each)))
            if repeated.count():
                rows = _mark(rows, each, repeated, rules)
        yield rows, count(rows, suite, **more)


@contextmanager
def _kept(rows: DataFrame) -> Iterator[DataFrame]:
    rows.persist()
    try:
        yield rows
    finally:
        rows.unpersist()


@dataclass(frozen=True)
class _Key:
    """A key that has to be unique.

    Attributes:
        rule: The rule that says so.
        columns: Names of its columns.
        which: The condition that is true for the rows that have the key.
    """

    rule: Rule
    columns: tuple[str, ...]
    which: Column


def _keys(rules: list[Any]) -> list[_Key]:
    found = [(rule, parts) for rule in rules if (parts := key(rule))]
    return [_Key(rule, (*columns, *_DELIVERY), which & _known(rule)) for rule, (columns, which) in found]


def _repeated(judged: DataFrame, unique: _Key) -> DataFrame:
    from pyspark.sql import functions as F

    groups = judged.where(unique.which).groupBy(*(F.col(name).alias(f"_key_{name}") for name in unique.columns))
    return groups.agg(F.count(F.lit(1)).alias("_times")).where("_times > 1")


def _mark(judged: DataFrame, unique: _Key, repeated: DataFrame, rules: list[Any]) -> DataFrame:
    """Add the rule about a key to the reasons of the rows whose key is among those that repeat."""
    from pyspark.sql import functions as F

    named = {name: f"_key_{name}" for name in unique.columns}
    same = [F.col(name).eqNullSafe(F.col(other)) for name, other in named.items()]
    broken = unique.which & F.col("_times").isNotNull()
    reasons = _in_order(F.array_append("_reasons", F.lit(reason_of(unique.rule))), rules)
    codes = F.array_append("_codes", F.lit(RULE))
    return (
        judged.join(repeated, same, "left")
        .withColumns(
            {
                "_reasons": F.when(broken, reasons).otherwise(F.col("_reasons")),
                "_codes": F.when(broken, codes).otherwise(F.col("_codes")),
            }
        )
        .drop(*named.values(), "_times")
    )


def _in_order(reasons: Column, rules: list[Any]) -> Column:
    """Reasons as :func:`judge` orders them: what cannot be read, and then the rules as they stand in the suite."""
    from pyspark.sql import functions as F

    labels = F.array(*map(F.lit, map(reason_of, rules)))
    faults = F.filter(reasons, lambda text: ~F.array_contains(labels, text))
    return F.concat(faults, F.filter(labels, lambda text: F.array_contains(reasons, text)))


def judge(parsed: DataFrame, rules: list[Any]) -> DataFrame:
    """Say of every row all that is wrong with it, in ``_reasons`` and ``_codes``.

    A value that could not be read is null by now; rules about its column are not asked, all others are. ``_unread``
    and ``_missing`` name the columns whose value could not be read, or is missing though it is required; in place of a
    column, ``_unread`` says that a whole record could not be read, or has a key too many.

    Args:
        parsed: Outcome of :func:`parse`.
        rules: Critical row rules of the suite; :func:`judging` adds those about the keys of a large batch.
    """
    from pyspark.sql import functions as F

    def of_faults(part: str, condition: Callable[[Column], Column] | None = None) -> Column:
        faults = F.filter("_faults", condition) if condition else F.col("_faults")
        texts = F.transform(faults, lambda fault: fault[part])
        return F.when(F.size("_faults") == 0, F.array().cast("array<string>")).otherwise(texts)

    faulty = parsed.withColumns(
        {
            "_unread": of_faults("column", lambda fault: fault["code"] != REQUIRED),
            "_missing": of_faults("column", lambda fault: fault["code"] == REQUIRED),
            "_reasons": of_faults("text"),
            "_codes": of_faults("code"),
        }
    )
    judged = broken_rules(faulty.drop("_faults"), rules, known=_known, each=_DELIVERY)
    codes = F.concat("_codes", F.transform("_broken", lambda _: F.lit(RULE)))
    keeps_all = F.size("_broken") == 0
    return judged.withColumns(
        {
            "_reasons": F.when(keeps_all, F.col("_reasons")).otherwise(F.concat("_reasons", "_broken")),
            "_codes": F.when(keeps_all, F.col("_codes")).otherwise(codes),
        }
    ).drop("_broken")


def _known(rule: Rule) -> Column:
    """The condition that is true for a row whose values a rule can be asked about."""
    from pyspark.sql import functions as F

    lost = _among("_unread", _WHOLE_ROW, *rule.columns) | _among("_missing", *rule.columns)
    return F.when(F.size("_unread") + F.size("_missing") == 0, F.lit(True)).otherwise(~lost)


def _among(array: str, *names: str) -> Column:
    from pyspark.sql import functions as F

    return F.arrays_overlap(array, F.array(*map(F.lit, names)))


def _lost(rule: Rule) -> Column:
    """The condition that is true for a judged row that does not keep a rule about values, though it was not asked.

    A value that cannot be read is there, and is none of those that the rule lets pass. One that is missing though
    required, or in a record that is not what was declared, is as a null, which is nothing to most rules.
    """
    from pyspark.sql import functions as F

    if not is_about_values(rule):
        return F.lit(False)
    if rule.type == NOT_NULL:
        lost = _among("_unread", _WHOLE_ROW, _WHOLE_KEYS, *rule.columns) | _among("_missing", *rule.columns)
        return domain(rule) & lost & ~F.array_contains("_reasons", reason_of(rule))
    return domain(rule) & _among("_unread", *rule.columns)


def is_bad() -> Column:
    """The condition that is true for a judged row with a reason to keep it out."""
    from pyspark.sql import functions as F

    return F.size("_reasons") > 0


def count(judged: DataFrame, suite: Suite, **more: Column) -> dict[str, Any]:
    """Count a judged batch in one pass: rows, bad rows, bad rows per critical rule, and rows per file.

    Rows, bad rows and those of each rule are there for each of the ``days``, too.

    Args:
        judged: Rows as :func:`judging` gives them.
        suite: The table's suite.
        more: Further conditions whose rows are counted, under these names.
    """
    from pyspark.sql import functions as F

    rules = suite.row_rules()
    labels = list(map(reason_of, rules))

    def total(condition: Column) -> Column:
        return F.coalesce(F.sum(condition.cast("long")), F.lit(0))

    groups = (
        judged.groupBy("_interval", "_source_file")
        .agg(
            F.count("*").alias("rows"),
            total(is_bad()).alias("bad"),
            total(F.size(F.array_remove("_codes", RULE)) > 0).alias("unreadable"),
            *(total(F.array_contains("_reasons", label)).alias(f"broken_{i}") for i, label in enumerate(labels)),
            *(total(applies(rule) | _lost(rule)).alias(f"applies_{i}") for i, rule in enumerate(rules)),
            *(total(_lost(rule)).alias(f"lost_{i}") for i, rule in enumerate(rules)),
            *(total(condition).alias(f"more_{name}") for name, condition in more.items()),
        )
        .collect()
    )

    def sums(groups: Collection[Row]) -> dict[str, Any]:
        def sum_of(name: str) -> int:
            return sum(int(group[name]) for group in groups)

        broken = {label: rows for i, label in enumerate(labels) if (rows := sum_of(f"broken_{i}"))}
        if rows := sum_of("unreadable"):
            broken["the types of the contract"] = rows
        return {
            "rows": sum_of("rows"),
            "bad": sum_of("bad"),
            "broken": broken,
            "considered": {label: sum_of(f"applies_{i}") for i, label in enumerate(labels)},
            "lost": {label: sum_of(f"lost_{i}") for i, label in enumerate(labels)},
            **{name: sum_of(f"more_{name}") for name in more},
        }

    files: Counter[str] = Counter()
    days: defaultdict[dt.date, list[Row]] = defaultdict(list)
    for group in groups:
        files[group["_source_file"]] += int(group["rows"])
        days[group["_interval"]].append(group)
    return sums(groups) | {"files": dict(files), "days": {day: sums(days[day]) for day in sorted(days)}}


def rejection(counts: dict[str, Any], suite: Suite, days: Collection[dt.date] | None = None) -> Rejection | None:
    """Why a batch is to be rejected whole, or None.

    Each day is judged by itself: what would be refused alone is not let in among many others. A value that cannot be
    read keeps no rule about the values of its column.

    Args:
        counts: Outcome of :func:`count`.
        suite: The table's suite; a rule's ``mostly`` is the least share that must keep it of the rows that
            it applies to, which for most rules are those with a value.
        days: The days that are judged; all without it.
    """
    found = {
        day: verdict
        for day, of_day in counts["days"].items()
        if (days is None or day in days) and (verdict := _verdict(of_day, suite))
    }
    if not found:
        return None
    (code, why), *_ = found.values()
    if len(counts["days"]) > 1:
        first, *more = found
        why = f"of {first}, {why}"
        if more:
            shown = ", ".join(map(str, more[:MORE_DAYS])) + (", …" if len(more) > MORE_DAYS else ".")
            why += f" {len(more)} more of its days are to be rejected: {shown}"
    return Rejection(code, why, tuple(found))


def _verdict(counts: dict[str, Any], suite: Suite) -> tuple[str, str] | None:
    """Code and text of why the rows of a day are not to be taken, or None."""
    rows = counts["rows"]
    if rows and counts["bad"] == rows:
        return "all_rows_bad", "not one row keeps the contract."
    for rule in suite.row_rules():
        label = reason_of(rule)
        considered, lost = counts["considered"][label], counts["lost"][label]
        broken = counts["broken"].get(label, 0) + lost
        if broken and (considered - broken) / considered < rule.mostly:
            unread = f", {lost} of them because there is no value that can be taken" if lost else ""
            others = f" It is not about {counted(rows - considered, 'other row')}." if rows > considered else ""
            why = f"{broken} of {considered} rows break {label}{unread}; at least {rule.mostly:.4%} must keep it."
            return "below_mostly", why + others
    return None


def examples(
    judged: DataFrame, contract: Contract, suite: Suite, days: Collection[dt.date] | None = None, limit: int = 5
) -> str:
    """The first bad rows of a batch, in words: file, row, reasons, values; those of personal columns masked.

    Args:
        judged: Rows as :func:`judging` gives them.
        contract: Says which columns are personal.
        suite: The table's suite.
        days: Those whose rows are shown; all without it.
        limit: How many.
    """
    from pyspark.sql import functions as F

    # What the contract does not know nobody has classified.
    personal = {name for name in judged.columns if not name.startswith("_")} - {
        column.name for column in contract.columns if not column.hidden
    }
    about = {reason_of(rule): rule.columns for rule in suite.row_rules()}
    shown = list(dict.fromkeys(name for names in about.values() for name in names if name in judged.columns))
    chosen = is_bad() if days is None else is_bad() & F.col("_interval").isin(*days)
    rows = (
        judged.where(chosen).orderBy("_interval", "_source_file", "_source_row")
        .select("_source_file", "_source_row", "_reasons", *shown).limit(limit).collect()
    )  # fmt: skip
    texts = []
    for row in rows:
        reasons = [
            reason + _values({name: row[name] for name in about[reason] if name in shown}, personal)
            if reason in about
            else masked(reason, personal)
            for reason in row["_reasons"]
        ]
        texts.append(f"{row['_source_file']} row {row['_source_row']}: {', '.join(reasons)}")
    return f"For example {'; '.join(texts)}."


def masked(reason: str, personal: Collection[str]) -> str:
    """A reason without the value that it quotes, if that is of a personal column.

    Args:
        reason: A reason that is about the contract's types.
        personal: Names of the personal columns.
    """
    name, quoted, rest = reason.partition(": '")
    if not quoted or name not in personal:
        return reason
    return f"{name}: '{MASK}' {rest[rest.rindex(quoted[-1]) + 1 :].strip()}"


def _values(values: Mapping[str, Any], personal: Collection[str]) -> str:
    shown = [f"{name} = {MASK if name in personal else value}" for name, value in values.items()]
    return f" ({', '.join(shown)})" if shown else ""
