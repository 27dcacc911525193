"""Override: a person publishes what a gate has turned down, gives a reason, and is named on the release."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from lakehouse import ops, release_log, steps, tables
from lakehouse.errors import LakeError
from lakehouse.interval import Interval
from lakehouse.release_log import LOG
from lakehouse.releases import release as releases
from lakehouse.steps import step


class OverrideError(LakeError):
    """A gate's verdict cannot be overridden; nothing has changed."""


@dataclass(frozen=True)
class Verdict:
    """What a gate has turned down.

    Attributes:
        gate_run: ``run_id`` of the gate.
        versions: Table to the version that was judged, for the whole set.
        broken: The critical rules that are broken, in words.
        checked_at: When the gate began to judge.
        interval: The days that were written.
        views: The queries that the views without rows had in the build that was judged.
    """

    gate_run: str
    versions: dict[str, int]
    broken: list[str]
    checked_at: dt.datetime
    interval: Interval | None
    views: dict[str, str]


def override(gate_run: str, reason: str, by: str | None = None) -> int:
    """Release exactly the versions that a gate has turned down, all tables of its set.

    The gate has withdrawn them, but they are still in the Delta log. The stored tables are restored to them, so the
    next write goes on from there. Rows that landing has sent to quarantine stay there: no gate has judged those.

    Args:
        gate_run: ``run_id`` of the gate in ``ops.gate_results``.
        reason: Why they may be seen in spite of the broken rules.
        by: Who says so; the user of the process without it.

    Returns:
        The id of the release. A second call for the same gate changes nothing, and returns the release that there is.

    Raises:
        OverrideError: There is no such verdict, it was not a bad one, there is no reason, or the tables have been
            written or released since.
        lakehouse.tables.VersionGoneError: A version is no longer kept.
    """
    if not reason.strip():
        raise OverrideError("An override needs a reason: it is kept with the release.")
    verdict = judged(gate_run)
    names = ", ".join(sorted(verdict.versions))
    with releases.writers(verdict.versions) as held, step("override", names, verdict.interval, writes=LOG) as run:
        run.beside = held.values()
        log = release_log.history()
        now = {row["table_name"]: row["override_of"] for row in log}
        again = all(now.get(table) == gate_run for table in verdict.versions)
        run.details |= {"override_of": gate_run, "broken": verdict.broken}
        for table, version in sorted(verdict.versions.items()):
            _refuse_outdated(table, version, verdict, log)
        for rule in verdict.broken:
            run.say("published in spite of: %s", rule)
        return releases.publish(
            verdict.versions,
            run,
            reason=reason.strip(),
            by=by or steps.user(),
            marks={table: {"override_of": gate_run} for table in verdict.versions},
            queries=None if again else verdict.views,  # another release may have changed them since
        )


def judged(gate_run: str) -> Verdict:
    """What a gate has turned down.

    Args:
        gate_run: ``run_id`` of the gate in ``ops.gate_results``.

    Raises:
        OverrideError: There is no such verdict, the gate has passed, or it has not judged its whole set.
    """
    rows = ops.read("ops.gate_results").filter(pc.field("run_id") == gate_run).to_pylist()
    if not rows:
        raise OverrideError(
            f"No gate has the run id {gate_run!r}. The failed ones: select distinct run_id, table_name, checked_at "
            "from ops.gate_results where verdict = 'failed' order by checked_at desc."
        )
    if all(row["verdict"] == "passed" for row in rows):
        raise OverrideError(f"The gate {gate_run} has passed: its tables need `lake release`, and no override.")
    ended = ops.read("ops.runs").filter(pc.field("run_id") == gate_run).to_pylist()
    if not ended:
        raise OverrideError(f"The gate {gate_run} was killed before it had judged all tables of its set. Run it again.")
    details = json.loads(ended[0]["details"] or "{}")
    start, end = ended[0]["interval_start"], ended[0]["interval_end"]
    return Verdict(
        gate_run,
        {row["table_name"]: row["version"] for row in rows},
        [
            f"{row['table_name']}: {row['expectation']}{' on ' + row['column_name'] if row['column_name'] else ''}"
            for row in rows
            if not row["success"] and row["severity"] == "critical"
        ],
        min(row["checked_at"] for row in rows),
        Interval(start, end) if start else None,
        details.get("views", {}),
    )


def _refuse_outdated(table: str, version: int, verdict: Verdict, log: list[dict[str, Any]]) -> None:
    # Going back to the version that was judged would take back whatever has come since.
    current = next((row for row in reversed(log) if row["table_name"] == table), None)
    if current and current["override_of"] == verdict.gate_run:
        return
    if current and current["released_at"] > verdict.checked_at:
        raise OverrideError(
            f"{table} has been released since that gate, by release {current['release_id']} ({current['reason']}). "
            "Write the interval again; its gate can be overridden then."
        )
    newest = tables.last_commit(tables.next_table(table))
    unchanged = (version, current["version"] if current else 0)
    if newest["version"] != version and newest["userMetadata"].get("restored") not in unchanged:
        raise OverrideError(
            f"{table} has been written since version {version} was judged (version {newest['version']}, by the step "
            f"{newest['userMetadata'].get('step', 'unknown')}). Gate that one; its verdict can be overridden."
        )
