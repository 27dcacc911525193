"""Audit: gate what a step has written, record the verdict, and withdraw what did not pass."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from lakehouse import completeness, data_docs, history, ops, tables
from lakehouse.errors import LakeError
from lakehouse.locks import writer
from lakehouse.release import NotReleasedError, pending, refuse_withdrawn, released, withdraw
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
    """
    from lakehouse.gate import check

    with step("gate", ", ".join(sorted(names)), interval) as run:
        state = released()
        passed: dict[str, int] = {}
        failures: list[str] = []
        refuse_withdrawn(names, interval)
        for table in sorted(names):
            stored = tables.next_table(table)
            version = tables.head(stored)
            if version is None:
                raise NotReleasedError(f"{table} has not been written yet: there is nothing to check.")
            if table in state and not pending(table):
                passed[table] = state[table].version
                run.say("%s: nothing new since version %d was released", table, state[table].version)
                continue
            result = check(
                stored, version, suite_name=table, watch=history.watch(table, interval), also=completeness.rules(table)
            )
            history.record(result, run.run_id)
            checked_at = dt.datetime.now(dt.UTC)
            page = data_docs.write(result, run.run_id, checked_at)
            ops.append(
                "ops.gate_results",
                [
                    {
                        "run_id": run.run_id,
                        "checked_at": checked_at,
                        "table_name": table,
                        "version": version,
                        "verdict": "passed" if result.success else "failed",
                        "page": page,
                        **row,
                    }
                    for row in result.rows()
                ],
            )
            run.versions_in[stored] = version
            run.assertions[table] = result.rows()
            if result.success:
                passed[table] = version
                run.say("%s version %d: %s", table, version, result.summary())
            else:
                failures.append(f"{table} version {version}: {result.summary()}")
        if failures:
            for table in sorted(names):
                with writer(tables.next_table(table)) as run.lock:
                    withdraw(table, run)
            raise GateFailedError(
                "The gate is shut. " + " ".join(failures) + " Readers still see the last release. "
                "All results: select * from ops.gate_results where run_id = '" + run.run_id + "'."
            )
        return passed
