"""Replay: take the quarantined rows of an interval through the contract and suite as they are now."""

from __future__ import annotations

import datetime as dt
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any

from lakehouse import contracts, readers, tables
from lakehouse.engine import sql
from lakehouse.errors import LakeError
from lakehouse.interval import Interval
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
from lakehouse.releases.release import behind
from lakehouse.releases.unreleased import pending, unfinished, withdraw
from lakehouse.steps import Run, step

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

PLACE = ["_interval", "_source_file", "_source_row"]


class ReplayError(LakeError):
    """The quarantined rows cannot join the rows that they were delivered with."""


def run(source: str, interval: Interval, dry_run: bool = False) -> dict[str, Any]:
    """Replay one interval of a source: rows that pass now join the landed ones, the others stay, with new reasons.

    A second call changes nothing, and makes no commit. A batch that was rejected whole is judged as a whole again.

    Args:
        source: Name of a contract.
        interval: Day or range of days.
        dry_run: Only judge the rows and say what would become of them; nothing is written.

    Returns:
        ``rows_in`` (landed and quarantined rows of the interval), ``rows_out``, ``rows_quarantined``,
        ``rows_replayed``, ``version`` of the bronze table, and ``unreleased``: whether it has rows that wait for their
        release, or for a release that was killed to be completed.

    Raises:
        ReplayError: What the rows were delivered with is not there any more.
        RejectedBatchError: A batch that was rejected still is.
        SourceError: The contract does not have the columns any more that the rows were delivered with.
        lakehouse.quality.suites.InvalidSuiteError: A rule is about a column that is not there.
    """
    contract = contracts.load(source)
    contract.check_days(interval)
    bronze, stored, quarantine = f"bronze.{source}", f"bronze_next.{source}", f"quarantine.{source}"
    from pyspark.sql import functions as F

    with step("replay", bronze, interval, writes=stored) as this:
        if not dry_run:
            _settle(bronze, interval, this)
        head, before = tables.head(stored), tables.head(quarantine)
        this.rows_in = this.rows_out = this.rows_quarantined = 0
        if head is None or not before:
            this.say("%s %s: nothing is in quarantine", source, interval)
            return _outcome(this, head, 0, bronze)
        this.versions_in = {stored: head, quarantine: before}
        where = interval.sql("_interval")
        kept = sql(f"select * from {quarantine} version as of {before} where {where}")
        if not set(QUARANTINE) <= set(kept.columns):
            raise ReplayError(
                f"{quarantine} was written before it could be replayed. Land {source} {interval} again, then replay."
            )
        batches = _batches(kept)
        if not batches:
            this.say("%s %s: nothing is in quarantine", source, interval)
            return _outcome(this, head, 0, bronze)
        whole = _whole(source, stored, batches)

        landed = sql(f"select * from {stored} version as of {head} where {where}")
        if whole:
            days = ", ".join(f"date'{day}'" for day in sorted(whole))
            landed = landed.where(f"_interval not in ({days})")
        parsed = _together(kept, landed, contract)
        known = {*(column.name for column in contract.columns), *tables.columns(stored), *parsed.columns}
        suite = suites.load(bronze, known)
        with ExitStack() as stack:
            with readers.reading(contract, interval):
                judged, counts = stack.enter_context(_judging(parsed, suite))
            verdict = rejection(counts, suite, whole)
            passing = 0 if verdict else counts["passing"]
            this.rows_in, this.rows_out = counts["rows"], counts["landed"]
            this.rows_quarantined = counts["quarantined"] - passing
            this.details = {"broken": counts["broken"], "replayed": passing}
            version = head
            if dry_run:
                this.rows_out += passing
                this.details["dry_run"] = True
                said = verdict.why if verdict else examples(judged.where(~_landed()), contract, suite)
                this.say(
                    "%s %s: %d quarantined rows would be replayed, %d would stay%s",
                    source, interval, passing, this.rows_quarantined, f": {said}" if this.rows_quarantined else "",
                )  # fmt: skip
                return _outcome(this, head, passing, bronze)
            if passing:
                version = _join(judged.where(_landed() | ~is_bad()), stored, quarantine, batches, interval, this)
                this.rows_out = tables.written_rows(stored)
            if passing or counts["changed"] or kept.count() > counts["quarantined"]:
                rest = judged.where(~_landed() if verdict else ~_landed() & is_bad())
                rest = rest.withColumn("_rejected", F.lit(verdict is not None)).select(*QUARANTINE)
                tables.replace_interval(rest, quarantine, "_interval", interval, this)
                this.rows_quarantined = tables.written_rows(quarantine)
            if verdict:
                raise RejectedBatchError(
                    f"{source} {interval}: {verdict.why} {examples(judged, contract, suite, verdict.days)} "
                    f"All rows stay in {quarantine}.",
                    verdict.code,
                )

        if this.rows_in != this.rows_out + this.rows_quarantined:
            raise RuntimeError(
                f"{bronze} {interval}: {this.rows_in} rows were landed or in quarantine, but {this.rows_out} were "
                f"written and {this.rows_quarantined} kept. Nothing is released; this is a fault of the platform."
            )
        if version != head:
            this.versions_out = {stored: version}
        this.say(
            "%s %s: %d quarantined rows replayed, %d stay in quarantine",
            source, interval, passing, this.rows_quarantined,
        )  # fmt: skip
        return _outcome(this, version, passing, bronze)


def _outcome(this: Run, version: int | None, replayed: int, bronze: str) -> dict[str, Any]:
    return {
        "rows_in": this.rows_in,
        "rows_out": this.rows_out,
        "rows_quarantined": this.rows_quarantined,
        "rows_replayed": replayed,
        "version": version,
        "unreleased": pending(bronze) or behind(bronze),
    }


def _join(
    good: DataFrame,
    stored: str,
    quarantine: str,
    batches: dict[dt.date, tuple[str | None, bool]],
    interval: Interval,
    this: Run,
) -> int:
    names = [name for name in good.columns if not name.startswith("_")]
    facts = {
        "batches": {day.isoformat(): batch for day, (batch, _) in batches.items()},
        "goes_with": {quarantine: tables.head(quarantine)},
    }
    return tables.replace_interval(good.select(*names, *TYPES), stored, "_interval", interval, this, also=facts)


def _settle(bronze: str, interval: Interval, this: Run) -> None:
    """Take back unreleased rows, unless they are those of the interval, which is whole and not released yet."""
    if pending(bronze):
        about = tables.last_commit(tables.next_table(bronze))["userMetadata"].get("interval")
        if unfinished(bronze) or not about or not Interval.parse(about).overlaps(interval):
            withdraw(bronze, this)


def _batches(kept: DataFrame) -> dict[dt.date, tuple[str | None, bool]]:
    """The delivery that the quarantined rows of each day belong to, and whether all of it was rejected."""
    found = kept.select("_interval", "_batch", "_rejected").distinct().collect()
    return {row["_interval"]: (row["_batch"], bool(row["_rejected"])) for row in found}


def _whole(source: str, stored: str, batches: dict[dt.date, tuple[str | None, bool]]) -> set[dt.date]:
    """The days of which nothing was landed, so that what bronze has of them is an earlier delivery.

    Raises:
        ReplayError: Some rows of the delivery were landed, and are not there any more.
    """
    whole = set()
    for day, (batch, rejected) in batches.items():
        if batch is not None and _delivery(stored, day) == batch:
            continue
        if not rejected:
            raise ReplayError(
                f"The rows of {source} that are in quarantine for {day} belong to a delivery whose other rows have "
                f"been taken back. Run `lake land {source} --interval {day}` first."
            )
        whole.add(day)
    return whole


def _delivery(stored: str, day: dt.date) -> str | None:
    """The delivery that the rows of a day in bronze come from: the run that landed it."""
    for commit in tables.lineage(stored):
        about = commit.get("interval")
        if about and Interval.parse(about).contains(day):
            if commit.get("step") == "land":
                return str(commit["run_id"])
            if batch := commit.get("batches", {}).get(day.isoformat()):
                return str(batch)
    return None


def _together(kept: DataFrame, landed: DataFrame, contract: contracts.Contract) -> DataFrame:
    """Landed and quarantined rows together, because some rules compare rows with each other."""
    from pyspark.sql import functions as F

    # What is in bronze already was replayed by a run that was killed before it could take it out of quarantine.
    records = kept.join(landed, PLACE, "left_anti").withColumnRenamed("_reasons", "_before").drop("_codes")
    batch = readers.reread(records, contract)
    parsed = parse(batch.rows, contract, types_of(batch.added, landed)).withColumn("_landed", F.lit(False))
    there = landed.withColumn("_landed", F.lit(True)).withColumn(
        "_faults", F.array().cast(parsed.schema["_faults"].dataType)
    )
    return there.unionByName(parsed, allowMissingColumns=True)


def _landed() -> Column:
    from pyspark.sql import functions as F

    return F.col("_landed")


def _judging(parsed: DataFrame, suite: suites.Suite) -> AbstractContextManager[tuple[DataFrame, dict[str, Any]]]:
    from pyspark.sql import functions as F

    return judging(
        parsed,
        suite,
        landed=_landed(),
        quarantined=~_landed(),
        passing=~_landed() & ~is_bad(),
        changed=~_landed() & is_bad() & ~F.col("_before").eqNullSafe(F.col("_reasons")),
    )
