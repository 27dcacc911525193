"""Audit: gate what a step has written, record the verdict, and withdraw what did not pass."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from lakehouse import ops, tables
from lakehouse.errors import LakeError
from lakehouse.quality import data_docs, history
from lakehouse.release_log import NotReleasedError, released
from lakehouse.releases import completeness, shift, silver_views
from lakehouse.releases.release import writers
from lakehouse.releases.unreleased import pending, refuse_part_of_build, refuse_unfinished, refuse_withdrawn, withdraw
from lakehouse.steps import step

if TYPE_CHECKING:
    from lakehouse.interval import Interval


class GateFailedError(LakeError):
    """A table breaks a critical rule of its suite; its new version has been withdrawn."""


def gate(names: list[str], interval: Interval | None) -> dict[str, Any]:
    """Check the heads of a set of tables against their suites; a set passes whole or not at all.

    A table without unreleased rows has been checked already and is left alone.

    Args:
        names: Tables by the name that readers use.
        interval: The days whose data is new in them.

    Returns:
        Table to the version that passed.

    Raises:
        GateFailedError: A critical expectation failed. Every table of the set is back at its released version.
        WithdrawnError: What was written for the interval has been taken back already.
        UnfinishedWriteError: What was written is of a step that has not come to its end.
        PartOfBuildError: Other tables of the same build are not checked with it.
    """
    from lakehouse.quality.gate import Request, check_all

    with step("gate", ", ".join(sorted(names)), interval) as run:
        state = released()
        passed: dict[str, int] = {}
        failures: list[str] = []
        unchecked: dict[str, Request] = {}
        refuse_withdrawn(names, interval)
        refuse_unfinished(names, state)
        refuse_part_of_build(names, interval, state)
        for table in sorted(names):
            stored = tables.next_table(table)
            version = tables.head(stored)
            if version is None:
                raise NotReleasedError(f"{table} has not been written yet: there is nothing to check.")
            if table in state and not pending(table, state):
                passed[table] = state[table].version
                run.say("%s: nothing new since version %d was released", table, state[table].version)
                continue
            also = completeness.rules(table) + shift.rules(table, interval)
            unchecked[table] = Request(
                stored, version, suite_name=table, watch=history.watch(table, interval), also=also
            )
        results = dict(zip(unchecked, check_all(unchecked.values()), strict=True)) if unchecked else {}
        history.record(results.values(), run.run_id)
        rows: list[dict[str, Any]] = []
        for table, result in results.items():
            checked_at = dt.datetime.now(dt.UTC)
            common = {
                "run_id": run.run_id,
                "checked_at": checked_at,
                "table_name": table,
                "version": result.version,
                "verdict": "passed" if result.success else "failed",
                "page": data_docs.write(result, run.run_id, checked_at),
            }
            run.assertions[table] = result.rows()
            rows += [common | row for row in run.assertions[table]]
            run.versions_in[result.table] = result.version
            if result.success:
                passed[table] = result.version
                run.say("%s version %d: %s", table, result.version, result.summary())
            else:
                failures.append(f"{table} version {result.version}: {result.summary()}")
        if rows:
            ops.append("ops.gate_results", rows)
        if failures:
            with writers(names) as held:
                if tables.of_warehouse(names):
                    run.details["views"] = silver_views.due_with(names)  # should a person override the verdict
                for table in sorted(names):
                    run.lock = held[tables.next_table(table)]
                    withdraw(table, run)
            raise GateFailedError(
                "The gate is shut. " + " ".join(failures) + " Readers still see the last release. "
                f"All results: select * from ops.gate_results where run_id = '{run.run_id}'. "
                f"To release it all the same, on record: `lake release --override {run.run_id} --reason WHY`."
            )
        return passed
