"""Maintain: delete rows whose time is over, put small files together, and remove the files that nothing needs any more.

A version of a table is needed as long as readers see it or may go back to it, a registered model was trained on it, or
predictions that are kept were made from it. Its files are kept, all others go. What models say beside their
predictions, in the shadow or when they are asked what if, is never released: of it only the newest version is needed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa
from deltalake.exceptions import DeltaError

from lakehouse import contracts, ops, release_log, table_days, tables
from lakehouse.errors import LakeError
from lakehouse.landing import quarantine
from lakehouse.maintenance import compaction, retention
from lakehouse.ml import model_folders
from lakehouse.ml.model_spec import SCORING_STEPS, ModelSpec, tables_without_release
from lakehouse.registry import registry
from lakehouse.releases import fingerprints, unreleased
from lakehouse.releases import release as releases
from lakehouse.settings import settings
from lakehouse.steps import Run, step
from lakehouse.wording import counted

CHECKPOINT_COMMITS = 10
"""So many commits after the last checkpoint of a log, it gets another."""

GRACE_HOURS = 24
"""A file that is younger is never removed: a query may be reading it, or a write be about to commit it."""


WORK = {"expired": "days that are no longer kept deleted of", "compacted": "small files put together of"}


class MaintenanceError(LakeError):
    """It is not certain what is needed, so nothing is removed."""


@dataclass(frozen=True)
class Pinned:
    """A version that is needed.

    Attributes:
        version: Which.
        why: What needs it, in words.
        bytes: Size of the files that only versions other than the newest have.
    """

    version: int
    why: tuple[str, ...]
    bytes: int


@dataclass(frozen=True)
class Work:
    """What would be done to the rows or files of a table.

    Attributes:
        table: Name that readers use.
        what: What would be done, in words.
        days: The days of the rows.
        files: How many files hold them now.
        bytes: Size of these files.
    """

    table: str
    what: str
    days: str
    files: int
    bytes: int


@dataclass(frozen=True)
class Plan:
    """What would be removed of one table, and what is kept.

    Attributes:
        table: Name that readers use.
        files: Paths of the data files that nothing needs, with their size.
        pinned: The versions that are needed.
    """

    table: str
    files: dict[str, int]
    pinned: tuple[Pinned, ...]

    @property
    def bytes(self) -> int:
        """Size of what would be removed."""
        return sum(self.files.values())


def maintain(
    keep_days: int | None = None, grace_hours: int = GRACE_HOURS, today: dt.date | None = None
) -> dict[str, Any]:
    """Delete what contracts no longer keep, put small files together, and remove what nothing needs.

    Readers see the outcome of all tables in one release. Killed at any point, it is completed by the next call.

    Args:
        keep_days: How long a version that is no longer released can be gone back to; the setting ``keep_days``
            without it.
        grace_hours: How old a file must be to be removed.
        today: The day that retention is counted from; that of the clock without it.

    Returns:
        ``expired`` and ``compacted``: table to the days of the rows; ``files`` and ``bytes`` removed; ``ops_files``:
        files that the platform's own tables had before and after.

    Raises:
        MaintenanceError: It is not certain what is needed. Nothing has been removed.
        lakehouse.maintenance.compaction.ChangedRowsError: Rows would have changed. Nothing of it is visible.
    """
    names, never_released = sorted({row["table_name"] for row in release_log.history()}), without_release()
    day = today or dt.datetime.now(dt.UTC).date()
    with ExitStack() as stack:
        # Nobody writes, releases or rolls back meanwhile: what a plan leaves out stays unneeded until it is gone.
        held = stack.enter_context(releases.writers([*names, *_beside_predictions()]))
        run = stack.enter_context(step("maintain", "the lake", None, writes=release_log.LOG))
        run.beside = held.values()
        for table in releases.catch_up():
            run.say("%s: the release had been killed before readers saw it; they do now", table)
        done: dict[str, dict[str, str]] = {}
        versions: dict[str, int] = {}
        try:
            for table in names:
                if _settled(table, run):
                    done[table] = _renew(table, day, run)
                    if done[table]:
                        versions[table] = run.versions_out[tables.next_table(table)]
        finally:
            # Of those before one that fails, too, or before the time is over.
            try:
                checkpoint(done, run.run_id, versions)
            finally:
                _show(versions, done, run)
        done |= {table: _renew_without_release(table, spec, day, run) for table, spec in never_released.items()}
        run.details |= _by_work(done)
        checkpoint(never_released, run.run_id)
        plans = plan(keep_days, grace_hours)
        run.details["removed"] = {each.table: {"files": len(each.files), "bytes": each.bytes} for each in plans}
        for each in plans:
            run.check_lock()
            _remove(each.files)
            gone, kept = counted(len(each.files), "file"), counted(len(each.pinned), "version")
            run.say("%s: %s removed, %s kept", each.table, gone, kept)
        ops_files = {table: compact_ops(table, grace_hours) for table in ops.SCHEMAS}
        return {
            **_by_work(done),
            "files": sum(len(each.files) for each in plans),
            "bytes": sum(each.bytes for each in plans),
            "ops_files": {table: found for table, found in ops_files.items() if found is not None},
        }


def _settled(table: str, run: Run) -> bool:
    """Take back what a killed maintenance has left of a table; no, when rows of another step wait for their release."""
    if _waits(table, run.step):
        run.say("%s: has rows that have not been released, and is left as it is", table)
        return False
    # Of a maintenance that was killed before its release, or half of another withdrawal.
    unreleased.withdraw(table, run)
    return True


def _waits(table: str, maintenance: str) -> bool:
    """Whether rows wait for their release that are of another step than a maintenance."""
    return (
        bool(unreleased.pending(table))
        and tables.last_commit(tables.next_table(table))["userMetadata"].get("step") != maintenance
    )


def _renew(table: str, today: dt.date, run: Run) -> dict[str, str]:
    """Delete the expired days of a table, and put its small files together; readers do not see the outcome yet."""
    stored, done = tables.next_table(table), {}
    before, made = tables.head(stored), None
    source = tables.split(table)[1]
    if table.startswith("bronze.") and source in contracts.sources():
        first = retention.first_kept(contracts.load(source), today)
        with _noted(f"quarantine.{source}", run):
            for each, found in retention.planned(source, today).items():
                version = retention.expire(each, first, run)
                if each == stored and version is not None:
                    done["expired"], made = str(found.days), version
    if (chosen := compaction.planned(table)) and (version := compaction.compact(table, run)) is not None:
        done["compacted"], made = str(chosen.days), version
    if before is not None and made is not None:
        run.versions_in[stored], run.versions_out[stored] = before, made
    return done


def without_release() -> dict[str, ModelSpec]:
    """The tables of what models say beside their predictions, each to its model, where ``model.yaml`` can be read."""
    known = table_days.specs()
    return {table: known[table] for table in _beside_predictions() if table in known}


def _beside_predictions() -> list[str]:
    """All tables of what models say beside their predictions, also where ``model.yaml`` is wrong, or gone."""
    trained = ops.read("ops.models", ["model_name"])["model_name"].to_pylist()
    names = sorted({*model_folders.models(), *trained})
    return [table for name in names for table in tables_without_release(name) if tables.head(table) is not None]


def _renew_without_release(table: str, spec: ModelSpec, today: dt.date, run: Run) -> dict[str, str]:
    """The same for a table that is never released: what is written is there."""
    done = {}
    with _noted(table, run):
        if old := retention.outdated(table, spec, today):
            retention.forget(table, old, run)
            done["expired"] = str(old.days)
        if (chosen := compaction.planned(table)) and compaction.compact(table, run) is not None:
            done["compacted"] = str(chosen.days)
    return done


@contextmanager
def _noted(stored: str, run: Run) -> Iterator[None]:
    """Name the versions before and after what is done to a table that no release shows."""
    before = tables.head(stored)
    yield
    after = tables.head(stored)
    if before is not None and after is not None and after != before:
        run.versions_in[stored], run.versions_out[stored] = before, after


def _show(versions: dict[str, int], done: dict[str, dict[str, str]], run: Run) -> None:
    """Show readers what has been made of tables, in one release, and record what that was."""
    found = _by_work(done)
    run.details |= found
    if versions:
        said = "; ".join(f"{WORK[what]} {', '.join(of)}" for what, of in found.items() if of)
        releases.carry_over(versions, run, f"maintenance: {said}")


def _by_work(done: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """What has been done, each kind of it with its tables and their days."""
    return {what: {table: days[what] for table, days in done.items() if what in days} for what in WORK}


def checkpoint(names: Iterable[str], run_id: str, versions: Mapping[str, int] | None = None) -> list[str]:
    """Write a checkpoint of each log to which many commits have come since its last, and record their fingerprints.

    Args:
        names: Tables, by the name that readers use.
        run_id: The step that does it.
        versions: Versions of some of them that are about to be released: their fingerprints are recorded beside.

    Returns:
        The tables whose logs got one.
    """
    written = []
    logs = {table: log for table in names if (log := tables.delta(tables.next_table(table))) is not None}
    for table, log in logs.items():
        newest = fingerprints.newest_checkpoint(tables.next_table(table)) or 0
        if log.version() - newest >= CHECKPOINT_COMMITS:
            log.create_checkpoint()
            written.append(table)
    # Of all of them: a run that was killed may have left one.
    fingerprints.record(versions or {}, run_id, logs)
    return written


def upcoming(today: dt.date | None = None) -> list[Work]:
    """What rows would be deleted, and what files be put together, now, and what is left alone; nothing is changed.

    Args:
        today: The day that retention is counted from; that of the clock without it.
    """
    found = []
    day, beside = today or dt.datetime.now(dt.UTC).date(), without_release()
    for table in [*sorted({row["table_name"] for row in release_log.history()}), *beside]:
        layer, name = tables.split(table)
        if table not in beside and _waits(table, "maintain"):
            found.append(Work(table, "nothing, as it has rows that have not been released", "none", 0, 0))
            continue
        if layer == "bronze" and name in contracts.sources():
            for stored, old in retention.planned(name, day).items():
                size = sum(file.bytes for file in old.files)
                found.append(Work(tables.reader_name(stored), "delete rows", str(old.days), len(old.files), size))
        if table in beside and (gone := retention.outdated(table, beside[table], day)):
            rows, sizes = counted(gone.rows, "row that was", "rows that were"), _sizes(table, None)
            what = f"delete {rows} scored before {gone.since.date()}"
            found.append(Work(table, what, str(gone.days), len(sizes), sum(sizes.values())))
        if chosen := compaction.planned(table):
            files = f"{len(chosen.files)} → {chosen.parts}"
            found.append(Work(table, f"put files together, {files}", str(chosen.days), len(chosen.files), chosen.bytes))
    return found


def upcoming_ops() -> list[Work]:
    """Which of the platform's own tables have files that would be put together now; nothing is changed."""
    found = []
    for table in ops.SCHEMAS:
        if tables.head(table) is not None and len(sizes := _sizes(table, None)) > 1:
            found.append(Work(table, "put files together", "all", len(sizes), sum(sizes.values())))
    return found


def plan(keep_days: int | None = None, grace_hours: int = GRACE_HOURS) -> list[Plan]:
    """What would be removed now, by table, and what is kept; nothing is changed.

    Args:
        keep_days: How long a version that is no longer released can be gone back to.
        grace_hours: How old a file must be to be removed.

    Raises:
        MaintenanceError: A version that is needed cannot be read.
    """
    days = settings().keep_days if keep_days is None else keep_days
    log = release_log.history()
    found = needed_by_releases(log, dt.datetime.now(dt.UTC) - dt.timedelta(days=days))
    for table in _beside_predictions():
        newest = tables.head(table)
        assert newest is not None
        found[table] = {newest: ["the newest version, which is never released"]}
    pins = (*needed_by_models(registry.registered()), *_needed_by_predictions(log, found))
    for table, version, why in pins:
        found.setdefault(table, {}).setdefault(version, []).append(why)
    for table, version, why in _needed_by_sources(found):
        found.setdefault(table, {}).setdefault(version, []).append(why)
    return [_plan(table, versions, max(days * 24, grace_hours)) for table, versions in sorted(found.items())]


def needed_by_releases(log: Sequence[dict[str, Any]], since: dt.datetime) -> dict[str, dict[int, list[str]]]:
    """The versions that readers have seen at some time since a moment, by table, each with what needs it.

    Args:
        log: The rows of ``ops.releases``, oldest release first.
        since: The moment.
    """
    found: dict[str, dict[int, list[str]]] = {}
    for number, row in enumerate(log):
        followers = (later["released_at"] for later in log[number + 1 :] if later["table_name"] == row["table_name"])
        until = next(followers, None)
        if until is None or until >= since:
            why = f"release {row['release_id']}" + (", which readers see" if until is None else "")
            found.setdefault(row["table_name"], {}).setdefault(row["version"], []).append(why)
    return found


def needed_by_models(versions: Iterable[registry.ModelVersion]) -> list[tuple[str, int, str]]:
    """The versions of tables that models were trained on: table, version, and which model.

    Args:
        versions: Versions in the registry; one with the tag ``archived`` needs nothing.
    """
    return [
        (tag.removeprefix("version."), int(number), f"model {version.name} version {version.version}")
        for version in versions
        if version.tags.get("archived", "false").lower() != "true"
        for tag, number in version.tags.items()
        if tag.startswith("version.")
    ]


def _needed_by_predictions(
    log: Sequence[dict[str, Any]], seen: dict[str, dict[int, list[str]]]
) -> list[tuple[str, int, str]]:
    """The versions of features that the predictions were made from which are there, or can be gone back to."""
    found = []
    runs = ops.read("ops.runs", ["run_id", "step", "versions_in"]).to_pylist()
    read = {run["run_id"]: run["versions_in"] for run in runs if run["step"] in SCORING_STEPS}
    beside = _beside_predictions()
    for table, versions in seen.items():
        if tables.split(table)[0] != "ml" and table not in beside:
            continue
        made: set[tuple[str, int, str]] = set()
        for version in versions:
            made |= _scored_on(tables.next_table(table), version)
        for model, release_id, run_id in sorted(made):
            why = f"{table}, scored on release {release_id}"
            inputs = read.get(run_id) or _may_have_read(model, release_id, log)
            found += [(tables.reader_name(stored), number, why) for stored, number in inputs]
    return found


def _may_have_read(model: str, release_id: int, log: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    """What a scoring that has left no record can have read: the features, or everything when they are not known."""
    state = {row["table_name"]: row["version"] for row in log if row["release_id"] <= release_id}
    features = next((spec.features.table for spec in model_folders.readable() if spec.name == model), None)
    return [(features, state[features])] if features and features in state else sorted(state.items())


def _needed_by_sources(kept: dict[str, dict[int, list[str]]]) -> list[tuple[str, int, str]]:
    """The versions of quarantine that readers see, that go with a kept version, or come back with a withdrawn landing.

    Args:
        kept: The versions of all tables that are kept: a table to its versions.
    """
    found = []
    for table, versions in kept.items():
        stored = quarantine.table_of(table)
        if stored is None or (newest := tables.head(stored)) is None:
            continue
        found.append((stored, newest, "the newest version"))
        for version, beside in quarantine.beside(table, sorted(versions)).items():
            if beside is not None:
                found.append((stored, beside, f"{table} version {version}"))
        for commit in tables.lineage(tables.next_table(table), since=release_log.released()[table].version):
            for name, version in commit.get("goes_with", {}).items():
                if version is not None:
                    found.append((name, version, f"a landing of {commit.get('interval')} that is not released"))
    return found


def _scored_on(stored: str, version: int) -> set[tuple[str, int, str]]:
    """Model, release of the features and run, of all rows of a version of a predictions table."""
    columns = ["model_name", "release_id", "run_id"]
    try:
        log = tables.delta(stored, version)
        assert log is not None
        batches = log.to_pyarrow_dataset(filesystem=tables.filesystem(log)).to_batches(columns=columns)
        found = {tuple(row.values()) for batch in batches for row in _distinct(batch, columns)}
    except (DeltaError, OSError) as error:
        raise _unreadable(stored, version, error) from error
    return found


def _distinct(batch: pa.RecordBatch, columns: list[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pa.Table.from_batches([batch]).group_by(columns).aggregate([]).to_pylist()
    return rows


def _plan(table: str, versions: dict[int, list[str]], hours: int) -> Plan:
    stored = tables.next_table(table)
    root = tables.location(stored)
    kept = {version: _sizes(stored, version) for version in versions}
    newest = _sizes(stored, None)
    log = tables.delta(stored)
    assert log is not None
    candidates = log.vacuum(
        retention_hours=hours,
        dry_run=True,
        enforce_retention_duration=False,
        full=True,
        keep_versions=sorted(versions),
    )
    needed = newest.keys() | {path for files in kept.values() for path in files}
    fs, folder = fsspec.url_to_fs(root)
    files = {}
    for path in candidates:
        name = path.rsplit("/", 1)[-1]
        # Hadoop's checksum of a file goes with the file, and stays with it.
        owner = path[: -len(name)] + name[1:].removesuffix(".crc") if name.startswith(".") else path
        if path in needed or owner in needed:
            if name.startswith("."):
                continue
            raise MaintenanceError(f"{table}: {path} is needed, and yet listed as one that is not. Nothing is removed.")
        try:
            files[f"{folder}/{path}"] = int(fs.info(f"{folder}/{path}")["size"])
        except FileNotFoundError:  # removed before; the log goes on naming it
            continue
    pinned = tuple(
        Pinned(version, tuple(dict.fromkeys(why)), sum(s for p, s in kept[version].items() if p not in newest))
        for version, why in sorted(versions.items())
    )
    return Plan(table, files, pinned)


def _sizes(stored: str, version: int | None) -> dict[str, int]:
    """The data files of a version, the newest without it, with their size."""
    try:
        log = tables.delta(stored, version)
    except DeltaError as error:
        raise _unreadable(stored, version, error) from error
    if log is None:
        raise MaintenanceError(f"{stored} has been released, but there is no table at {tables.location(stored)}.")
    actions = log.get_add_actions()
    return dict(zip(actions["path"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True))


def _unreadable(stored: str, version: int | None, error: Exception) -> MaintenanceError:
    which = "The newest version" if version is None else f"Version {version}"
    return MaintenanceError(
        f"{which} of {stored} is needed but cannot be read, so it is not known which files it has: {error}. "
        "Nothing is removed. `lake verify` says what is damaged."
    )


def _remove(paths: Iterable[str]) -> None:
    fs, _ = fsspec.url_to_fs(settings().warehouse_url)
    for path in paths:
        try:
            fs.rm_file(path)
        except FileNotFoundError:  # removed by a run that was killed
            continue


def compact_ops(table: str, grace_hours: int = GRACE_HOURS) -> tuple[int, int] | None:
    """Put the many small files of one of the platform's own tables together; each append has left one.

    Args:
        table: One of ``ops.SCHEMAS``.
        grace_hours: How long the small files stay, for queries that are reading them.

    Returns:
        How many files it had before and has after; None while it does not exist, or somebody else is at it.
    """
    found = ops.compact(table)
    log = tables.delta(table)
    if found and log is not None:
        log.vacuum(retention_hours=grace_hours, dry_run=False, enforce_retention_duration=False)
    return found
