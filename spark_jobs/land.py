"""Land: bring what a source delivered for an interval into its bronze table, bad rows into quarantine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lakehouse import contracts, readers, suites, tables
from lakehouse.contracts import TECHNICAL_COLUMNS
from lakehouse.errors import LakeError
from lakehouse.readers import SourceError
from lakehouse.release import withdraw
from lakehouse.rules import applies, broken_rules
from lakehouse.steps import Run, step

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from lakehouse.contracts import Column as Declared
    from lakehouse.contracts import Contract
    from lakehouse.interval import Interval

TYPES = {name: type_ for name, (type_, _) in TECHNICAL_COLUMNS.items()}
QUARANTINE = {**TYPES, "_raw": "STRING", "_reasons": "ARRAY<STRING>"}


class RejectedBatchError(LakeError):
    """A batch breaks its contract or suite so far that nothing of it is taken."""


def run(source: str, interval: Interval) -> dict[str, Any]:
    """Land one interval of a source, replacing what was landed for it before.

    Args:
        source: Name of a contract.
        interval: Day or range of days.

    Returns:
        ``rows_in``, ``rows_out``, ``rows_quarantined``, ``version`` of the bronze table.

    Raises:
        SourceError: A file is missing, empty, or not what the contract says.
        RejectedBatchError: Too many rows break a critical rule; all of them are in quarantine.
    """
    contract = contracts.load(source)
    contract.check_day(interval.start)
    contract.check_day(interval.end)
    bronze, stored, quarantine = f"bronze.{source}", f"bronze_next.{source}", f"quarantine.{source}"
    with step("land", bronze, interval, writes=stored) as this:
        tables.create(
            stored,
            {column.name: column.spark_type for column in contract.columns} | TYPES,
            statistics=["_interval", *(c.name for c in contract.columns if c.key_position and not c.pii)],
            comments={column.name: column.description for column in contract.columns}
            | {name: text for name, (_, text) in TECHNICAL_COLUMNS.items()},
        )
        tables.create(quarantine, QUARANTINE, statistics=["_interval"])
        withdraw(bronze, this)

        batch = readers.read(contract, interval)
        suite = suites.load(bronze)
        judged = judge(parse(batch.rows, contract), suite.row_rules()).persist()
        try:
            counts = count(judged, suite)
            this.rows_in, this.bytes_in = counts["rows"], sum(int(f["bytes"]) for f in batch.files.values())
            this.details = {"files": batch.files, "broken": counts["broken"]}
            if counts["rows"] == 0 and not contract.allow_empty:
                raise SourceError(
                    f"{source} {interval}: {', '.join(batch.files) or 'the query'} has no rows, and the contract does "
                    "not allow an empty batch. Nothing was replaced."
                )
            verdict = rejection(counts, suite)
            if verdict:
                this.rows_out, this.rows_quarantined = 0, counts["rows"]
                _quarantine(judged, quarantine, interval, this)
                raise RejectedBatchError(
                    f"{source} {interval}: {verdict} {examples(judged)} "
                    f"All {counts['rows']} rows are in {quarantine}, none became visible."
                )
            good = judged.where("size(_reasons) = 0").select(*(c.name for c in contract.columns), *TYPES)
            version = tables.replace_interval(good, stored, "_interval", interval, this)
            if counts["bad"] or tables.last_commit(quarantine)["version"] > 0:
                _quarantine(judged.where("size(_reasons) > 0"), quarantine, interval, this)
        finally:
            judged.unpersist()

        this.rows_out, this.rows_quarantined = tables.written_rows(stored), counts["bad"]
        if this.rows_in != this.rows_out + this.rows_quarantined:
            raise RuntimeError(
                f"{bronze} {interval}: {this.rows_in} rows came in, but {this.rows_out} were written and "
                f"{this.rows_quarantined} quarantined. Nothing is released; this is a fault of the platform."
            )
        this.versions_out = {stored: version}
        this.say(
            "%s %s: %d rows in from %d files, %d landed, %d quarantined",
            source, interval, this.rows_in, len(batch.files), this.rows_out, this.rows_quarantined,
        )  # fmt: skip
        for rule, rows in counts["broken"].items():
            this.say("%s %s: %d rows break %s", source, interval, rows, rule)
        return {
            "rows_in": this.rows_in,
            "rows_out": this.rows_out,
            "rows_quarantined": this.rows_quarantined,
            "version": version,
        }


def parse(raw: DataFrame, contract: Contract) -> DataFrame:
    """Give each column its contract's type, and say of each row why it cannot have it.

    Args:
        raw: Records in the readers' common shape.
        contract: Declares the types and which columns must be there.

    Returns:
        Typed columns, provenance, ``_raw`` and ``_reasons`` (array of text, empty for a good row).
    """
    from pyspark.sql import functions as F

    def typed(declared: Declared) -> Column:
        text = f"`{declared.name}`"
        if declared.format:
            text = f"try_to_timestamp({text}, '{declared.format}')"
        return F.expr(f"try_cast({text} as {declared.spark_type})").alias(declared.name)

    def fault(declared: Declared) -> Column:
        name, value = declared.name, F.col(declared.name)
        shown = F.substring(value.cast("string"), 1, 100)
        wrong = F.when(
            value.isNotNull() & typed(declared).isNull(),
            F.concat(F.lit(f"{name}: '"), shown, F.lit(f"' is not of type {declared.spark_type}")),
        )
        missing = F.lit(f"{name}: is required and missing")
        return wrong.when(value.isNull(), missing) if declared.required else wrong

    faults = F.array(*map(fault, contract.columns))
    reasons = F.when(F.col("_malformed").isNotNull(), F.array("_malformed")).otherwise(F.array_compact(faults))
    return raw.select(
        *map(typed, contract.columns),
        *TYPES,
        "_raw",
        reasons.alias("_reasons"),
    )


def judge(parsed: DataFrame, rules: list[Any]) -> DataFrame:
    """Add to ``_reasons`` every critical row rule that a row breaks.

    Args:
        parsed: Outcome of :func:`parse`.
        rules: The suite's critical row rules.
    """
    from pyspark.sql import functions as F

    judged = broken_rules(parsed, rules)
    # A value that could not be read is null by now; what the rules say of it would be about that null.
    return judged.select(
        *(F.col(name) for name in parsed.columns if name != "_reasons"),
        F.when(F.size("_reasons") > 0, F.col("_reasons")).otherwise(F.col("_broken")).alias("_reasons"),
    )


def count(judged: DataFrame, suite: suites.Suite) -> dict[str, Any]:
    """Count a judged batch in one pass: rows, bad rows, and bad rows per critical rule.

    Args:
        judged: Outcome of :func:`judge`.
        suite: The table's suite.
    """
    from pyspark.sql import functions as F

    labels = [rule.label for rule in suite.row_rules()]
    bad = F.size("_reasons") > 0
    known = F.arrays_overlap("_reasons", F.array(*map(F.lit, labels)).cast("array<string>"))

    def total(condition: Column) -> Column:
        return F.coalesce(F.sum(condition.cast("long")), F.lit(0))

    row = judged.agg(
        F.count("*").alias("rows"),
        total(bad).alias("bad"),
        total(bad & ~known).alias("unreadable"),
        *(total(F.array_contains("_reasons", label)).alias(f"broken_{i}") for i, label in enumerate(labels)),
        *(total(applies(rule)).alias(f"applies_{i}") for i, rule in enumerate(suite.row_rules())),
    ).collect()[0]
    broken = {label: int(row[f"broken_{i}"]) for i, label in enumerate(labels) if row[f"broken_{i}"]}
    considered = {label: int(row[f"applies_{i}"]) for i, label in enumerate(labels)}
    if row["unreadable"]:
        broken["the types of the contract"] = int(row["unreadable"])
    return {"rows": int(row["rows"]), "bad": int(row["bad"]), "broken": broken, "considered": considered}


def rejection(counts: dict[str, Any], suite: suites.Suite) -> str | None:
    """Why a batch is to be rejected whole, or None.

    Args:
        counts: Outcome of :func:`count`.
        suite: The table's suite; a rule's ``mostly`` is the least share that must keep it of the rows that
            it applies to, which for most rules are those with a value.
    """
    rows = counts["rows"]
    if rows and counts["bad"] == rows:
        return "not one row keeps the contract."
    for rule in suite.row_rules():
        broken, considered = counts["broken"].get(rule.label, 0), counts["considered"][rule.label]
        if broken and (considered - broken) / considered < rule.mostly:
            return f"{broken} of {considered} rows break {rule.label}; at least {rule.mostly:.4%} must keep it."
    return None


def examples(judged: DataFrame, limit: int = 5) -> str:
    """The first bad rows of a batch, in words: file, row, reasons.

    Args:
        judged: Outcome of :func:`judge`.
        limit: How many.
    """
    rows = (
        judged.where("size(_reasons) > 0").orderBy("_interval", "_source_file", "_source_row")
        .select("_source_file", "_source_row", "_reasons").limit(limit).collect()
    )  # fmt: skip
    return (
        "For example "
        + "; ".join(f"{row['_source_file']} row {row['_source_row']}: {', '.join(row['_reasons'])}" for row in rows)
        + "."
    )


def _quarantine(bad: DataFrame, quarantine: str, interval: Interval, this: Run) -> None:
    tables.replace_interval(bad.select(*QUARANTINE), quarantine, "_interval", interval, this)
