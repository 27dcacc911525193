"""Delta tables: where they are, which version they are at, and how an interval of one is replaced.

The log is read with ``deltalake`` (milliseconds, no Spark job); everything that writes rows goes through
the one engine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from pyarrow.fs import FileSystem, FileType, LocalFileSystem, SubTreeFileSystem

from lakehouse.engine import sql
from lakehouse.errors import LakeError
from lakehouse.settings import settings
from lakehouse.wording import did_you_mean, first_line

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

    from lakehouse.interval import Interval
    from lakehouse.steps import Run

GATED_LAYERS = ("bronze", "gold", "ml")
"""Layers whose stored tables live in ``<layer>_next`` and are read through released views."""

VIEW_LAYER = "silver"
"""Layer of views that hold no rows. dbt makes them in ``silver_next``; they are released with the tables of gold."""


WRITTEN_WHOLE = {"gold_next"}
"""Layers whose tables are written together, under one lock."""


class InvalidTableNameError(LakeError, ValueError):
    """A table name is not of the form ``layer.table``."""


class VersionGoneError(LakeError):
    """A version of a table is no longer kept."""


class UnknownColumnError(LakeError, LookupError):
    """There is no table or column of a name."""


class UnreadableError(LakeError):
    """A file of a table cannot be read, or has not the content any more that was written."""


def split(table: str) -> tuple[str, str]:
    """Split ``layer.table`` into its two parts.

    Args:
        table: A qualified name.

    Raises:
        InvalidTableNameError: The name is not qualified by exactly one layer.
    """
    layer, dot, name = table.partition(".")
    if not (dot and layer.isidentifier() and name.isidentifier()):
        raise InvalidTableNameError(f"{table!r} is not a table name. Write layer.table, such as gold.fct_flights.")
    return layer, name


def next_table(table: str) -> str:
    """The stored table behind a released view: ``bronze.x`` becomes ``bronze_next.x``.

    Args:
        table: Name that readers use. A table of a layer without a gate is its own stored table.
    """
    layer, name = split(table)
    return f"{layer}_next.{name}" if layer in GATED_LAYERS else table


def reader_name(stored: str) -> str:
    """The name by which readers know a stored table; the reverse of :func:`next_table`.

    Args:
        stored: Name of the stored table; any other name stays as it is.
    """
    layer, _, name = stored.partition(".")
    return f"{layer.removesuffix('_next')}.{name}"


def of_warehouse(names: Iterable[str]) -> bool:
    """Whether some of the tables are dbt's, which the views that hold no rows are released with.

    Args:
        names: Tables by the name that readers use.
    """
    return any(split(next_table(name))[0] in WRITTEN_WHOLE for name in names)


def location(stored: str) -> str:
    """Folder or object-store URL of a stored table.

    Args:
        stored: Name of the stored table, such as ``bronze_next.weather``.
    """
    layer, name = split(stored)
    return f"{settings().warehouse_url.rstrip('/')}/{layer}.db/{name}"


def delta(stored: str, version: int | None = None) -> DeltaTable | None:
    """The Delta log of a stored table, or None while the table does not exist.

    Args:
        stored: Name of the stored table.
        version: A version to pin; the newest without it.
    """
    try:
        return DeltaTable(location(stored), version=version)
    except TableNotFoundError:
        return None
    except DeltaError as error:
        error.add_note(stored if version is None else f"{stored} version {version}")
        raise


def filesystem(log: DeltaTable) -> FileSystem | None:
    """What pyarrow reads a table's files by, for ``DeltaTable.to_pyarrow_table`` and the like.

    deltalake's own calls Python from pyarrow's threads, and a process that ends while one of them still runs is
    aborted: 9 of 60 that read ``ops.runs`` were. So a table on a disk is read by pyarrow itself.

    Args:
        log: The table.

    Returns:
        The disk, seen from the table's folder; None for an object store, which is left to deltalake.
    """
    parts = urlsplit(log.table_uri)
    if parts.scheme not in ("", "file"):
        return None
    return SubTreeFileSystem(unquote(parts.path).rstrip("/"), LocalFileSystem())


def read(
    log: DeltaTable, columns: list[str] | None = None, where: list[tuple[str, str, Any]] | None = None
) -> pa.Table:
    """Rows of a table, without Spark, and like Spark with the checksum of each page that is read.

    Args:
        log: The table, at the version that is wanted.
        columns: Columns to read; all without it.
        where: Conditions that all hold, as ``[("carrier", "=", "UA")]``.

    Raises:
        UnknownColumnError: The table has no such column.
        UnreadableError: A page has other bytes than were written, or a file cannot be read at all.
    """
    from pyarrow import ArrowException, dataset, parquet  # a fifth of a second, which DAG files do not have

    rows = log.to_pyarrow_dataset(filesystem=filesystem(log))
    checked = dataset.ParquetFragmentScanOptions(page_checksum_verification=True)
    condition = parquet.filters_to_expression(where) if where else None
    for name in (*(columns or ()), *(each for each, *_ in where or ())):
        if name not in rows.schema.names:
            hint = did_you_mean(name, rows.schema.names, f"It has: {', '.join(rows.schema.names)}.", most=3)
            raise UnknownColumnError(f"The table at {log.table_uri} has no column {name}.{hint}")
    scanner = rows.scanner(columns, filter=condition, fragment_scan_options=checked)
    try:
        found = scanner.to_table()
        for file in rows.get_fragments(filter=condition):
            _check_columns(file.path, file.physical_schema.names, rows.schema.names)
    except (OSError, ArrowException, UnicodeDecodeError) as error:
        raise UnreadableError(
            f"Version {log.version()} of the table at {log.table_uri} cannot be read as it was written: "
            f"{str(error).rstrip('.')}. "
            "`lake verify` names the file that is damaged or missing; of a version that readers no longer see, with "
            "--release and the number of a release that has shown it."
        ) from error
    return found


def _check_columns(file: str, names: list[str], known: list[str]) -> None:
    # A footer has no checksum, and a column that is missing in a file is read as nulls.
    strange = set(names) - set(known) or {name for name in names if names.count(name) > 1}
    if strange:
        raise OSError(f"{file} has columns that the table has not: {', '.join(sorted(strange))}")


def _existing(stored: str, version: int | None = None) -> DeltaTable:
    log = delta(stored, version)
    if log is None:
        raise LookupError(f"The table {stored} does not exist.")
    return log


def head(stored: str) -> int | None:
    """Newest version of a stored table, or None while it does not exist."""
    log = delta(stored)
    return None if log is None else log.version()


def rows(stored: str, version: int) -> int:
    """How many rows a version has, by the statistics in its log: no file is read, and a file without any counts none.

    Args:
        stored: Name of an existing stored table.
        version: One of its versions.
    """
    log = _existing(stored, version)
    return sum(count or 0 for count in log.get_add_actions(flatten=True).column("num_records").to_pylist())


def types(stored: str, version: int) -> dict[str, str]:
    """The columns of a version and their types, as Delta's log writes them: ``integer``, ``decimal(10,2)``.

    Args:
        stored: Name of an existing stored table.
        version: One of its versions.
    """
    return types_of(_existing(stored, version))


def types_of(log: DeltaTable) -> dict[str, str]:
    """The columns of a version and their types, as Delta's log writes them.

    Args:
        log: The log, at the version.
    """
    fields = json.loads(log.schema().to_json())["fields"]
    return {
        field["name"]: field["type"] if isinstance(field["type"], str) else json.dumps(field["type"])
        for field in fields
    }


def columns(stored: str) -> frozenset[str]:
    """The names of the columns of a stored table; none while it does not exist.

    Args:
        stored: Name of the stored table.
    """
    log = delta(stored)
    return frozenset() if log is None else frozenset(field.name for field in log.schema().fields)


def last_commit(stored: str) -> dict[str, Any]:
    """What the newest commit says of itself: ``version``, ``operation``, ``userMetadata``, metrics.

    Args:
        stored: Name of an existing stored table.
    """
    log = _existing(stored)
    entry = log.history(1)[0]
    return entry | {"version": log.version(), "userMetadata": _metadata(entry)}


def commits(stored: str, limit: int | None = 500) -> list[dict[str, Any]]:
    """The newest commits of a stored table, newest first, each with ``version`` and its ``userMetadata`` as a dict.

    Args:
        stored: Name of a stored table; one that does not exist has none.
        limit: How many at most; all of them with None.
    """
    log = delta(stored)
    if log is None:
        return []
    return [entry | {"userMetadata": _metadata(entry)} for entry in log.history(limit)]


def check_kept(stored: str, version: int) -> None:
    """Make sure that a version can still be read: the log knows it, and all of its files are there.

    Args:
        stored: Name of the stored table.
        version: A version that it has had.

    Raises:
        VersionGoneError: Retention has taken it away, or the log or a file of it is damaged or missing.
    """
    try:
        log = delta(stored, version)
    except DeltaError as error:
        raise VersionGoneError(
            f"Version {version} of {stored} is not in the table's log: retention has removed it, or it is damaged, "
            f"which `lake verify` says. {first_line(error)}"
        ) from error
    if log is None:
        raise VersionGoneError(f"The table {stored} does not exist.")
    dataset = log.to_pyarrow_dataset(filesystem=filesystem(log))
    files = dataset.filesystem.get_file_info([fragment.path for fragment in dataset.get_fragments()])
    if gone := [file.path for file in files if file.type == FileType.NotFound]:
        raise VersionGoneError(
            f"Version {version} of {stored} can no longer be read: {len(gone)} of its {len(files)} files have been "
            f"removed (VACUUM), {gone[0]} for one."
        )


def create(stored: str, columns: dict[str, str], statistics: list[str], comments: dict[str, str] | None = None) -> None:
    """Create an empty Delta table if it does not exist. Its version 0 holds no rows.

    Args:
        stored: Name of the stored table.
        columns: Column name to Spark SQL type.
        statistics: Columns that queries filter on: Delta keeps min and max for these alone.
        comments: Descriptions of columns.
    """
    if delta(stored) is not None:
        return
    comments = comments or {}
    body = ", ".join(
        f"`{name}` {type_}" + (f" comment {_literal(comments[name])}" if comments.get(name) else "")
        for name, type_ in columns.items()
    )
    sql(
        f"create table if not exists {stored} ({body}) using delta tblproperties ("
        f"'delta.dataSkippingStatsColumns' = '{','.join(statistics)}', "
        "'delta.checkpointInterval' = '50', 'delta.logRetentionDuration' = 'interval 3650 days')"
    )


def lineage(stored: str, since: int = -1) -> Iterator[dict[str, Any]]:
    """What the commits say of themselves that a table's rows come from, the newest first.

    Commits that were taken back are passed over.

    Args:
        stored: Name of an existing stored table.
        since: Leave out this version and what came before it.
    """
    log = _existing(stored)
    version = head = log.version()
    commits = log.history(max(head - since, 1))
    while version > since and head - version < len(commits):
        commit = _metadata(commits[head - version])
        if "restored" in commit:
            version = int(commit["restored"])
        else:
            yield commit
            version -= 1


def replace_interval(
    df: DataFrame,
    stored: str,
    column: str,
    interval: Interval,
    run: Run,
    also: dict[str, Any] | None = None,
    within: str = "",
) -> int:
    """Replace exactly one interval of a table, and return the version that the commit made.

    Columns that the table does not have are added to it by the same commit.

    Args:
        df: The rows of the interval, in the table's columns.
        stored: Name of the stored table, which exists.
        column: DATE column that tells a row's interval.
        interval: What to replace; rows outside of it make Delta refuse the write.
        run: The step that writes; its lock is checked and its facts go into the commit.
        also: More that the commit is to say of itself.
        within: SQL condition; other rows of the interval stay.
    """
    condition = interval.sql(column) + (f" and {within}" if within else "")
    run.committed[stored] = version = overwrite(df, stored, condition, run, also, add_columns=True)
    return version


def overwrite(
    df: DataFrame, stored: str, condition: str, run: Run, also: dict[str, Any] | None = None, add_columns: bool = False
) -> int:
    """Replace the rows of a table for which a condition holds, in one commit, and return the version that it made.

    Args:
        df: The rows to have instead; one for which it does not hold makes Delta refuse the write.
        stored: Name of the stored table, which exists.
        condition: SQL that tells which rows.
        run: The step that writes; its lock is checked and its facts go into the commit.
        also: More that the commit is to say of itself.
        add_columns: Whether columns that the table does not have are added to it.
    """
    run.check_lock()
    (
        df.write.format("delta")
        .mode("overwrite")
        .option("replaceWhere", condition)
        .option("mergeSchema", add_columns)
        .option("userMetadata", json.dumps(run.commit() | (also or {})))
        .saveAsTable(stored)
    )
    run.check_lock()  # lost meanwhile, the step fails, and what it has written is not released
    version = head(stored)
    assert version is not None
    return version


def restore(stored: str, version: int, run: Run, also: dict[str, Any] | None = None) -> None:
    """Bring a stored table back to an earlier version, as a new commit.

    Args:
        stored: Name of the stored table.
        version: The version whose rows it shall have again.
        run: The step that restores.
        also: What the commit is to say of itself besides.
    """
    run.check_lock()
    log = _existing(stored)
    # A change of the log alone: the engine takes seconds for it, deltalake milliseconds.
    commit = json.dumps(run.commit() | {"restored": version} | (also or {}))
    log.restore(version, commit_properties=CommitProperties(custom_metadata={"userMetadata": commit}))


def written_rows(stored: str) -> int:
    """New rows of the newest commit, by Delta's own metrics, without those copied from a file that it replaced.

    Args:
        stored: Name of an existing stored table.
    """
    metrics = last_commit(stored).get("operationMetrics", {})
    return int(metrics.get("numOutputRows", 0)) - int(metrics.get("numCopiedRows", 0))


def content_sha256(df: DataFrame) -> str:
    """A hash of rows that depends on every value and on how often a row occurs, and not on their order.

    Args:
        df: The rows.
    """
    from pyspark.sql import functions as F

    # As text by name: a NULL is left out, so it is no other value; a double's text is exact.
    row = F.sha2(F.to_json(F.struct(*(F.col(name).cast("string").alias(name) for name in sorted(df.columns)))), 256)
    parts = [F.conv(F.substring(row, 1 + 16 * part, 16), 16, 10).cast("decimal(20,0)") for part in range(4)]
    total = df.agg(F.count("*").alias("rows"), *(F.sum(part).alias(f"part_{n}") for n, part in enumerate(parts)))
    facts = total.select(F.sha2(F.concat_ws("|", *total.columns), 256)).collect()
    return str(facts[0][0])


def _metadata(entry: dict[str, Any]) -> dict[str, Any]:
    try:
        metadata = json.loads(entry.get("userMetadata") or "{}")
    except json.JSONDecodeError:
        return {}
    return metadata if isinstance(metadata, dict) else {}


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
