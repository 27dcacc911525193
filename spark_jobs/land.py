"""Land: bring what a source delivered for an interval into its bronze table, bad rows into quarantine."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from lakehouse import contracts, readers, tables
from lakehouse.contracts import TECHNICAL_COLUMNS
from lakehouse.engine import spark
from lakehouse.landing.batches import (
    QUARANTINE,
    TYPES,
    RejectedBatchError,
    examples,
    is_bad,
    judging,
    parse,
    rejection,
    types_of,
)
from lakehouse.quality import suites
from lakehouse.readers import jsonl
from lakehouse.readers.batch import SourceError
from lakehouse.releases.unreleased import withdraw
from lakehouse.steps import Run, step
from lakehouse.wording import counted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from lakehouse.interval import Interval


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
        lakehouse.quality.suites.InvalidSuiteError: A rule is about a column that is not there.
    """
    contract = contracts.load(source)
    contract.check_days(interval)
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

        with readers.reading(contract, interval):
            batch = readers.read(contract, interval)
        size = sum(int(facts["bytes"]) for facts in batch.files.values())
        drifted = tables.columns(stored) if contract.schema_drift == "evolve" else batch.added
        suite = suites.load(bronze, {*(column.name for column in contract.columns), *batch.added, *drifted, *TYPES})
        added = types_of(batch.added, spark().table(stored))
        parsed = parse(batch.rows, contract, added)
        with ExitStack() as stack:
            with readers.reading(contract, interval):
                judged, counts = stack.enter_context(judging(parsed, suite, size))
            readers.check_unchanged(batch)
            this.rows_in, this.bytes_in = counts["rows"], size
            files = {path: {**facts, "rows": counts["files"].get(path, 0)} for path, facts in batch.files.items()}
            this.details = {"files": files, "broken": counts["broken"]}
            empty = [path for path, facts in files.items() if not facts["rows"]]
            if (empty or counts["rows"] == 0) and not contract.allow_empty:
                raise SourceError(
                    f"{source} {interval}: {', '.join(empty) or 'the query'} has no rows, and the contract does "
                    "not allow an empty batch. Nothing was replaced.",
                    "no_rows",
                )
            if verdict := rejection(counts, suite):
                this.rows_out = 0
                this.rows_quarantined = _quarantine(judged, quarantine, interval, this, rejected=True)
                _require_all(this)
                raise RejectedBatchError(
                    f"{source} {interval}: {verdict.why} {examples(judged, contract, suite, verdict.days)} "
                    f"All {counts['rows']} rows are in {quarantine}, none became visible. Correct the source and land "
                    f"it again, or the suite and `lake replay {source} --interval {interval}`.",
                    verdict.code,
                )
            good = judged.where(~is_bad()).select(*(c.name for c in contract.columns), *batch.added, *TYPES)
            # Should the gate shut, bronze and its quarantine go back together.
            before = tables.head(quarantine)
            version = tables.replace_interval(
                good, stored, "_interval", interval, this, also={"goes_with": {quarantine: before}}
            )
            this.rows_out, this.rows_quarantined = tables.written_rows(stored), 0
            if counts["bad"] or before:
                this.rows_quarantined = _quarantine(judged.where(is_bad()), quarantine, interval, this)

        _require_all(this)
        this.versions_out = {stored: version}
        this.say(
            "%s %s: %s in from %s, %d landed, %d quarantined",
            source, interval, counted(this.rows_in, "row"), counted(len(batch.files), "file"),
            this.rows_out, this.rows_quarantined,
        )  # fmt: skip
        for rule, rows in counts["broken"].items():
            this.say("%s %s: %s %s", source, interval, counted(rows, "row breaks", "rows break"), rule)
        return {
            "rows_in": this.rows_in,
            "rows_out": this.rows_out,
            "rows_quarantined": this.rows_quarantined,
            "version": version,
        }


def _quarantine(bad: DataFrame, quarantine: str, interval: Interval, this: Run, rejected: bool = False) -> int:
    """Replace the interval in quarantine, and count the rows that were written, by Delta."""
    from pyspark.sql import functions as F

    rows = (
        jsonl.as_text(bad).withColumns({"_batch": F.lit(this.run_id), "_rejected": F.lit(rejected)}).select(*QUARANTINE)
    )
    tables.replace_interval(rows, quarantine, "_interval", interval, this)
    return tables.written_rows(quarantine)


def _require_all(this: Run) -> None:
    assert this.rows_out is not None and this.rows_quarantined is not None
    if this.rows_in != this.rows_out + this.rows_quarantined:
        raise RuntimeError(
            f"{this.dataset} {this.interval}: {this.rows_in} rows came in, but {this.rows_out} were written and "
            f"{this.rows_quarantined} quarantined. Nothing is released; this is a fault of the platform."
        )
