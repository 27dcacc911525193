"""Verify: are the files of the released tables still what they were when they were released?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pyarrow.compute as pc

from lakehouse import ops, tables
from lakehouse.errors import LakeError
from lakehouse.maintenance import maintain
from lakehouse.release_log import NotReleasedError, released
from lakehouse.releases import fingerprints
from lakehouse.steps import step
from lakehouse.wording import counted

SHOWN = 20


class DamagedError(LakeError):
    """Files of released tables are missing, or not what they were."""


def verify(names: list[str] | None = None, release_id: int | None = None, *, kept: bool = False) -> dict[str, Any]:
    """Read every byte of released versions, data and log, and compare it with what their release has recorded.

    Args:
        names: Tables by the name that readers use; all that are released without it.
        release_id: The state right after this release; the present one without it.
        kept: Also the earlier versions that every maintenance keeps, as models and predictions were made from them.
            Those that can only be gone back to are not among them: how long is for each maintenance to say.

    Returns:
        ``versions`` by table, and how many ``files`` and ``bytes`` were read.

    Raises:
        DamagedError: Something is not as recorded; each file is named, and all of them are in ``ops.runs``.
        lakehouse.release_log.NotReleasedError: A table has no released version, or there is no such release.
        lakehouse.maintenance.maintain.MaintenanceError: It is not certain what is kept.
    """
    state = released(release_id)
    if missing := sorted(set(names or ()) - state.keys()):
        by_then = "" if release_id is None else f" as of release {release_id}"
        views = (
            f" {tables.VIEW_LAYER} has views, which hold no files."
            if any(each.startswith(f"{tables.VIEW_LAYER}.") for each in missing)
            else ""
        )
        raise NotReleasedError(
            f"{', '.join(missing)}: not released{by_then}.{views} Released: {', '.join(sorted(state)) or 'nothing'}."
        )
    wanted = {table: {state[table].version} for table in sorted(names or state)}
    if kept:
        for plan in maintain.plan(0):
            if plan.table in wanted:  # what is never released has no fingerprints
                wanted[plan.table] |= {each.version for each in plan.pinned}
    with step("verify", ", ".join(wanted) or "nothing", None) as run:
        files = bytes_ = 0
        faults: list[fingerprints.Fault] = []
        every = ops.read(fingerprints.LOG)
        for table, versions in wanted.items():
            rows = every.filter(pc.field("table_name") == table).to_pylist()
            found = list(fingerprints.check(table, versions, rows))
            of_versions = [facts for version in versions if (facts := fingerprints.expected(rows, version))]
            read = {path: size for facts in of_versions for path, (size, _) in (facts.data | facts.log).items()}
            files += len(read)
            bytes_ += sum(read.values())
            faults += found
            which = f"version{'s' if len(versions) > 1 else ''} {', '.join(map(str, sorted(versions)))}"
            run.say("%s %s: %s", table, which, counted(len(found), "fault") if found else "as it was released")
        newest = {table: max(versions) for table, versions in wanted.items()}
        run.versions_in, run.bytes_in = {tables.next_table(table): each for table, each in newest.items()}, bytes_
        run.details = {"files": files, "faults": [asdict(fault) for fault in faults]}
        if faults:
            more = f"\n… and {len(faults) - SHOWN} more, in the details of this run in ops.runs" * (len(faults) > SHOWN)
            lines = "\n".join(map(str, faults[:SHOWN])) + more
            raise DamagedError(
                f"{counted(len(faults), 'fault')} in the files of released tables:\n{lines}\n"
                + (
                    "Maintenance removes what is older than `keep_days` and not needed. "
                    if release_id and any(fault.what == fingerprints.MISSING for fault in faults)
                    else ""
                )
                + "Restore the files from a backup, or land and release the days again; `lake rollback` goes back to a "
                "release whose files are whole (`lake verify --release N`)."
            )
        every_version = {table: sorted(versions) for table, versions in wanted.items()}
        return {"versions": every_version if kept else newest, "files": files, "bytes": bytes_}
