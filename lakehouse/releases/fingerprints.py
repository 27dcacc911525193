"""Fingerprints: what the files behind a released version were when it was released, and whether they still are.

A version of a Delta table is its data files and the log entries up to it. None of them ever changes, so each is hashed
once: the first release that shows it records its size and SHA-256 in ``ops.fingerprints``. What comes into the log
afterwards, such as the checkpoint of a maintenance, is recorded by whoever has written it.

One small file of a log does change: that which names its newest checkpoint. It is recorded with each checkpoint, and
has to be what it was until there is another.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow.compute as pc
from deltalake.exceptions import DeltaError

from lakehouse import ops, tables

LOG = "ops.fingerprints"
# Those with a dot before them are Hadoop's checksums of the files that they are named after.
_LOG_ENTRY = re.compile(r"^\.?(\d{20})\.(?:json|crc|checkpoint\..*parquet)(?:\.crc)?$")
_CHECKPOINT = re.compile(r"/(\d{20})\.checkpoint\.")
_POINTER = "_delta_log/_last_checkpoint"
_CHUNK = 1 << 20


MISSING = "is missing"
"""What is wrong with a file that is not there."""


@dataclass(frozen=True)
class Fault:
    """A file that is not what it was when its version was released.

    Attributes:
        table: Name that readers use.
        version: The released version that needs the file, the newest of those that were asked for.
        file: Path within the table's folder; None when the table is meant as a whole.
        what: What is wrong with it.
    """

    table: str
    version: int
    file: str | None
    what: str

    def __str__(self) -> str:
        """One line for a person."""
        return f"{self.table} version {self.version}: {self.file + ': ' if self.file else ''}{self.what}"


@dataclass(frozen=True)
class Expected:
    """What the files of a version were when it was released: path within the table's folder to size and SHA-256.

    Attributes:
        data: The data files.
        log: The log entries up to the version, and what of the log was recorded later.
    """

    data: dict[str, tuple[int, str]]
    log: dict[str, tuple[int, str]]


def record(versions: Mapping[str, int], run_id: str, logs: Iterable[str] = ()) -> None:
    """Record the fingerprints of versions that are about to be released; only files that are new are read.

    A version that has been recorded before is left alone: what has been damaged since must not pass for good.

    Args:
        versions: Table, by the name that readers use, to version.
        run_id: The step that releases.
        logs: Tables of whose logs that is recorded, too, which has come since their newest version with a
            fingerprint, or beside it; one that was never released has no fingerprints, and gets none.
    """
    known = recorded()
    new = {table: version for table, version in versions.items() if version not in known.get(table, set())}
    facts = {"recorded_at": dt.datetime.now(dt.UTC), "run_id": run_id}
    rows = []
    for table, version in sorted(new.items()):
        base = max((known_one for known_one in known.get(table, ()) if known_one < version), default=None)
        rows.append({**facts, "table_name": table, **take(tables.next_table(table), version, base)})
    if looked_at := sorted((known.keys() | new.keys()) & set(logs)):
        recorded_rows = ops.read(LOG, where=pc.field("table_name").isin(looked_at)).to_pylist() + rows
        for table in looked_at:
            if grown := _grown([row for row in recorded_rows if row["table_name"] == table]):
                rows.append(facts | grown)
    if rows:
        ops.append(LOG, rows)


def _grown(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What has come into the log of a table, all of whose fingerprints are given, as a row that adds to its newest."""
    table, version = rows[0]["table_name"], max(row["version"] for row in rows)
    known = {entry["path"] for row in rows for entry in row["log_entries"]}
    root = tables.location(tables.next_table(table))
    new = _with_pointer(root, [name for _, name in _log_entries(root) if name not in known])
    if not new:
        return None
    # A row that builds on itself: it adds to what is known of the version.
    facts = {"table_name": table, "version": version, "base_version": version, "added": [], "removed": []}
    return facts | {"log_entries": _rows(_hash(root, new))}


def newest_checkpoint(stored: str) -> int | None:
    """The version of the newest checkpoint of a table's log; None without one.

    Args:
        stored: Name of an existing stored table.
    """
    return max(_checkpoints(name for _, name in _log_entries(tables.location(stored))), default=None)


def recorded() -> dict[str, set[int]]:
    """The versions of each table that have fingerprints."""
    found: dict[str, set[int]] = {}
    for row in ops.read(LOG, ["table_name", "version"]).to_pylist():
        found.setdefault(row["table_name"], set()).add(row["version"])
    return found


def take(stored: str, version: int, base: int | None = None) -> dict[str, Any]:
    """The fingerprint of a version, as what differs from an earlier one.

    Args:
        stored: Name of the stored table.
        version: Which.
        base: An earlier version with a fingerprint. One that can no longer be read is as good as none.

    Returns:
        ``version``, ``base_version``, ``added`` and ``removed`` data files, and ``log_entries`` since the base.
    """
    root = tables.location(stored)
    now = data_files(stored, version)
    try:
        before = data_files(stored, base) if base is not None else set()
    except DeltaError:
        base, before = None, set()
    new_log = [name for number, name in _log_entries(root) if number <= version and (base is None or number > base)]
    added, entries = _hash(root, sorted(now - before)), _hash(root, _with_pointer(root, new_log))
    return {
        "version": version,
        "base_version": base,
        "added": _rows(added),
        "removed": sorted(before - now),
        "log_entries": _rows(entries),
    }


def data_files(stored: str, version: int) -> set[str]:
    """The data files of a version, by their path within the table's folder.

    Args:
        stored: Name of the stored table.
        version: Which.

    Raises:
        deltalake.exceptions.DeltaError: The log does not hold the version, or is damaged.
    """
    log = tables.delta(stored, version)
    if log is None:
        raise DeltaError(f"The table {stored} does not exist.")
    return set(log.get_add_actions(flatten=True).column("path").to_pylist())


def expected(rows: Iterable[dict[str, Any]], version: int) -> Expected | None:
    """What the files of a version were, put together from its fingerprint and those that it builds on.

    Args:
        rows: The rows of ``ops.fingerprints`` of one table.
        version: Which version.

    Returns:
        None when the version, or one that it builds on, has no fingerprint.
    """
    rows = sorted(rows, key=lambda row: row["recorded_at"])
    by_version = {row["version"]: row for row in rows if row["base_version"] != row["version"]}
    chain: list[dict[str, Any]] = []
    at: int | None = version
    while at is not None:
        if at not in by_version:
            return None
        chain.append(by_version[at])
        at = by_version[at]["base_version"]
    data: dict[str, tuple[int, str]] = {}
    log: dict[str, tuple[int, str]] = {}
    for row in reversed(chain):
        data |= _facts(row["added"])
        for path in row["removed"]:
            data.pop(path, None)
        log |= _facts(row["log_entries"])
    for row in rows:
        facts = _facts(row["log_entries"])
        if row["base_version"] == row["version"]:
            log |= facts
        elif _POINTER in facts:
            log[_POINTER] = facts[_POINTER]
    return Expected(data, log)


def check(table: str, versions: Iterable[int], rows: Iterable[dict[str, Any]]) -> Iterator[Fault]:
    """Read every byte of released versions and compare it with what was recorded, and each page with its checksum.

    A file that several of them need is read once, and named with the newest of them.

    Args:
        table: Name that readers use.
        versions: Which.
        rows: The rows of ``ops.fingerprints`` of the table.
    """
    rows = list(rows)
    stored = tables.next_table(table)
    recorded_of: dict[int, Expected] = {}
    for version in sorted(versions):
        if facts := expected(rows, version):
            recorded_of[version] = facts
        else:
            what = "has no fingerprint, so nothing can be said of it; its next release has one"
            yield Fault(table, version, None, what)
    files = {path: fact for facts in recorded_of.values() for path, fact in (facts.log | facts.data).items()}
    unreadable: dict[str, OSError] = {}
    found = _hash(tables.location(stored), files, unreadable)
    wrong: set[str] = set()
    for path, (size, digest) in files.items():
        error = unreadable.get(path)
        if what_is_wrong := f"cannot be read: {error}" if error else _difference(found.get(path), size, digest):
            if path == _POINTER and _points_on(stored, rows):
                continue
            wrong.add(path)
            needed_by = max(each for each, facts in recorded_of.items() if path in facts.log or path in facts.data)
            yield Fault(table, needed_by, path, what_is_wrong)
    # What the recorded entries say is right; what lies beside them, such as a forged checkpoint, must say the same.
    sound: dict[str, int] = {}
    for version, facts in recorded_of.items():
        if wrong & (facts.log.keys() | facts.data.keys()):
            continue
        try:
            named = data_files(stored, version)
        except DeltaError as error:
            yield Fault(table, version, None, f"cannot be read though its entries are as recorded: {error}")
            continue
        for path in sorted(named ^ facts.data.keys()):
            where = "in the log, but not recorded" if path in named else "recorded, but the log does not name it"
            yield Fault(table, version, path, where)
        sound |= dict.fromkeys(facts.data, version)
    for path, broken in _broken_pages(tables.location(stored), sound):
        yield Fault(table, sound[path], path, f"cannot be read though it is as it was released: {broken}")


def _broken_pages(root: str, paths: Iterable[str]) -> Iterator[tuple[str, Exception]]:
    """The data files with a page that was damaged before they were hashed; Spark writes a checksum of each."""
    import pyarrow as pa
    from pyarrow import parquet

    fs, folder = fsspec.url_to_fs(root)
    for path in paths:
        try:
            with fs.open(f"{folder}/{path}", "rb") as file:
                for _ in parquet.ParquetFile(file, page_checksum_verification=True).iter_batches():
                    pass
        except (OSError, pa.ArrowException) as error:
            yield path, error


def _points_on(stored: str, rows: Iterable[dict[str, Any]]) -> bool:
    """Whether a log's pointer names a checkpoint that is there, and has come after all that are recorded."""
    root = tables.location(stored)
    fs, folder = fsspec.url_to_fs(root)
    try:
        named = json.loads(fs.cat_file(f"{folder}/{_POINTER}"))["version"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False
    new = _checkpoints(name for _, name in _log_entries(root))
    return named in new - _checkpoints(entry["path"] for row in rows for entry in row["log_entries"])


def _checkpoints(names: Iterable[str]) -> set[int]:
    return {int(match[1]) for name in names if (match := _CHECKPOINT.search(name))}


def _with_pointer(root: str, names: list[str]) -> list[str]:
    """With the pointer to the newest checkpoint, if there is a checkpoint among them."""
    fs, folder = fsspec.url_to_fs(root)
    return [*names, _POINTER] if _checkpoints(names) and fs.exists(f"{folder}/{_POINTER}") else names


def _difference(found: tuple[int, str] | None, size: int, digest: str) -> str | None:
    if found is None:
        return MISSING
    if found[0] != size:
        return f"has {found[0]} bytes instead of {size}: {'truncated' if found[0] < size else 'something was added'}"
    if found[1] != digest:
        return f"its content has changed: SHA-256 {found[1][:12]}… instead of {digest[:12]}…"
    return None


def _log_entries(root: str) -> list[tuple[int, str]]:
    fs, path = fsspec.url_to_fs(root)
    found = []
    for entry in fs.ls(f"{path}/_delta_log", detail=False):
        name = entry.rsplit("/", 1)[-1]
        if match := _LOG_ENTRY.match(name):
            found.append((int(match[1]), f"_delta_log/{name}"))
    return sorted(found)


def _hash(root: str, paths: Iterable[str], unreadable: dict[str, OSError] | None = None) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of files; one that is missing is left out, and what cannot be read goes to ``unreadable``."""
    fs, folder = fsspec.url_to_fs(root)

    def one(path: str) -> tuple[str, tuple[int, str]] | None:
        digest, size = hashlib.sha256(), 0
        try:
            with fs.open(f"{folder}/{path}", "rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
        except FileNotFoundError:
            return None
        except OSError as error:
            if unreadable is None:
                raise
            unreadable[path] = error
            return None
        return path, (size, digest.hexdigest())

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(found for found in pool.map(one, paths) if found is not None)


def _rows(hashed: dict[str, tuple[int, str]]) -> list[dict[str, Any]]:
    return [{"path": path, "bytes": size, "sha256": digest} for path, (size, digest) in sorted(hashed.items())]


def _facts(rows: list[dict[str, Any]]) -> dict[str, tuple[int, str]]:
    return {row["path"]: (row["bytes"], row["sha256"]) for row in rows}
