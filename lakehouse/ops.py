"""The platform's own tables: what ran, what the gates said, what was released, what files and columns are made of.

They are Delta tables that SQL reads like any other. Steps append to them with ``deltalake``: one small
commit, without Spark.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Schema, write_deltalake

from lakehouse import locks, tables

_UTC = pa.timestamp("us", tz="UTC")
_VERSIONS = pa.map_(pa.string(), pa.int64())
_FILES = pa.list_(pa.struct([("path", pa.string()), ("bytes", pa.int64()), ("sha256", pa.string())]))

COMPACT_EVERY = 64
"""After so many commits the files of a table are put together, so that none has more small ones than that."""

SCHEMAS: dict[str, pa.Schema] = {
    "ops.runs": pa.schema(
        [
            ("run_id", pa.string()),
            ("step", pa.string()),
            ("dataset", pa.string()),
            ("interval_start", pa.date32()),
            ("interval_end", pa.date32()),
            ("started_at", _UTC),
            ("ended_at", _UTC),
            ("seconds", pa.float64()),
            ("cpu_seconds", pa.float64()),
            ("engine_cpu_seconds", pa.float64()),
            ("engine_peak_memory", pa.int64()),
            ("status", pa.string()),
            ("error", pa.string()),
            ("rows_in", pa.int64()),
            ("rows_out", pa.int64()),
            ("rows_quarantined", pa.int64()),
            ("bytes_in", pa.int64()),
            ("versions_in", _VERSIONS),
            ("versions_out", _VERSIONS),
            ("details", pa.string()),
            ("code_version", pa.string()),
            ("lock_token", pa.int64()),
            ("airflow_dag_id", pa.string()),
            ("airflow_run_id", pa.string()),
            ("airflow_task_id", pa.string()),
            ("airflow_try_number", pa.int32()),
        ]
    ),
    "ops.gate_results": pa.schema(
        [
            ("run_id", pa.string()),
            ("checked_at", _UTC),
            ("suite", pa.string()),
            ("table_name", pa.string()),
            ("version", pa.int64()),
            ("verdict", pa.string()),
            ("expectation", pa.string()),
            ("column_name", pa.string()),
            ("kwargs", pa.string()),
            ("severity", pa.string()),
            ("success", pa.bool_()),
            ("element_count", pa.int64()),
            ("unexpected_count", pa.int64()),
            ("unexpected_percent", pa.float64()),
            ("observed_value", pa.string()),
            ("details", pa.string()),
            ("page", pa.string()),
        ]
    ),
    "ops.profiles": pa.schema(
        [
            ("run_id", pa.string()),
            ("profiled_at", _UTC),
            ("source", pa.string()),
            ("table_name", pa.string()),
            ("version", pa.int64()),
            ("per", pa.string()),
            ("interval_start", pa.date32()),
            ("interval_end", pa.date32()),
            ("column_name", pa.string()),
            ("data_type", pa.string()),
            ("row_count", pa.int64()),
            ("null_count", pa.int64()),
            ("distinct_count", pa.int64()),
            ("min", pa.string()),
            ("max", pa.string()),
            ("mean", pa.float64()),
            ("stddev", pa.float64()),
            ("quantiles", pa.map_(pa.string(), pa.float64())),
            ("top_values", pa.list_(pa.struct([("value", pa.string()), ("count", pa.int64())]))),
            ("histogram", pa.list_(pa.struct([("x", pa.float64()), ("y", pa.float64())]))),
        ]
    ),
    "ops.alerts": pa.schema(
        [
            ("alert_id", pa.int64()),
            ("at", _UTC),
            ("event", pa.string()),
            ("table_name", pa.string()),
            ("version", pa.int64()),
            ("interval_start", pa.date32()),
            ("interval_end", pa.date32()),
            ("rule", pa.string()),
            ("severity", pa.string()),
            ("message", pa.string()),
            ("run_id", pa.string()),
            ("route", pa.string()),
            ("by", pa.string()),
        ]
    ),
    "ops.releases": pa.schema(
        [
            ("release_id", pa.int64()),
            ("released_at", _UTC),
            ("table_name", pa.string()),
            ("version", pa.int64()),
            ("previous_version", pa.int64()),
            ("interval_start", pa.date32()),
            ("interval_end", pa.date32()),
            ("reason", pa.string()),
            ("run_id", pa.string()),
            ("rollback_to", pa.int64()),
            ("maintains", pa.int64()),
            ("override_of", pa.string()),
            ("released_by", pa.string()),
            ("views", pa.map_(pa.string(), pa.string())),
        ]
    ),
    "ops.models": pa.schema(
        [
            ("registered_at", _UTC),
            ("model_name", pa.string()),
            ("model_version", pa.int32()),
            ("role", pa.string()),
            ("reason", pa.string()),
            ("decided_by", pa.string()),
            ("run_id", pa.string()),
            ("mlflow_run_id", pa.string()),
            ("candidate", pa.string()),
            ("window_start", pa.date32()),
            ("window_end", pa.date32()),
            ("release_id", pa.int64()),
            ("versions", _VERSIONS),
            ("row_order", pa.string()),
            ("seed", pa.int64()),
            ("code_version", pa.string()),
            ("lock_sha256", pa.string()),
            ("model_sha256", pa.string()),
            ("input_sha256", pa.string()),
            ("predictions_sha256", pa.string()),
            ("environment", pa.string()),
            ("metrics", pa.map_(pa.string(), pa.float64())),
        ]
    ),
    "ops.model_events": pa.schema(
        [
            ("at", _UTC),
            ("model_name", pa.string()),
            ("model_version", pa.int32()),
            ("event", pa.string()),
            ("champion_before", pa.int32()),
            ("serves_from", pa.date32()),
            ("reason", pa.string()),
            ("decided_by", pa.string()),
            ("run_id", pa.string()),
            ("release_id", pa.int64()),
            ("evaluation_start", pa.date32()),
            ("evaluation_end", pa.date32()),
            ("evaluation_rows", pa.int64()),
            ("evaluation_sha256", pa.string()),
            ("evidence", pa.string()),
        ]
    ),
    "ops.model_metrics": pa.schema(
        [
            ("measured_at", _UTC),
            ("run_id", pa.string()),
            ("model_name", pa.string()),
            ("model_version", pa.int32()),
            ("role", pa.string()),
            ("interval_start", pa.date32()),
            ("interval_end", pa.date32()),
            ("metric", pa.string()),
            ("segment", pa.string()),
            ("value", pa.float64()),
            ("reference", pa.float64()),
            ("verdict", pa.string()),
        ]
    ),
    "ops.retrain_decisions": pa.schema(
        [
            ("at", _UTC),
            ("model_name", pa.string()),
            ("model_version", pa.int32()),
            ("interval_start", pa.date32()),
            ("interval_end", pa.date32()),
            ("decision", pa.string()),
            ("causes", pa.list_(pa.string())),
            ("reason", pa.string()),
            ("window_start", pa.date32()),
            ("window_end", pa.date32()),
            ("decided_by", pa.string()),
            ("run_id", pa.string()),
            ("evidence", pa.string()),
        ]
    ),
    "ops.fingerprints": pa.schema(
        [
            ("recorded_at", _UTC),
            ("run_id", pa.string()),
            ("table_name", pa.string()),
            ("version", pa.int64()),
            ("base_version", pa.int64()),
            ("added", _FILES),
            ("removed", pa.list_(pa.string())),
            ("log_entries", _FILES),
        ]
    ),
    "ops.lineage_columns": pa.schema(
        [
            ("recorded_at", _UTC),
            ("digest", pa.string()),
            ("table_name", pa.string()),
            ("column_name", pa.string()),
            ("source_table", pa.string()),
            ("source_column", pa.string()),
            ("kind", pa.string()),
            ("transformation", pa.string()),
        ]
    ),
}


VIEWS = {
    # Views: they cost no commit, and cannot disagree with the runs.
    "ops.lineage_tables": """
with written as (
    select *, explode(versions_out) as (stored, version)
    from ops.runs
    where dataset <> 'warehouse'
        and step in ('land', 'replay', 'build', 'train', 'score', 'shadow', 'what_if', 'monitor', 'maintain')
),
read as (
    select *, explode_outer(versions_in) as (source_stored, source_version)
    from written
    -- What a replay leaves in quarantine has been there before.
    where step <> 'replay' or stored not like 'quarantine.%'
    union all
    select
        * except (models),
        concat('models.', regexp_extract(dataset, '[.]predictions_(.+)$', 1)),
        explode(array_compact(array_distinct(cast(models as array<bigint>))))
    from (
        select *, case step
            when 'score' then map_keys(from_json(get_json_object(details, '$.model_versions'), 'map<string, bigint>'))
            when 'shadow' then from_json(get_json_object(details, '$.model_versions'), 'array<string>')
            else array(get_json_object(details, '$.model_version'))
        end as models
        from written
        where step in ('score', 'shadow', 'what_if') and dataset like '%.predictions|_%' escape '|'
    )
)
select
    run_id,
    step,
    replace(stored, '_next.', '.') as table_name,
    version,
    coalesce(
        replace(source_stored, '_next.', '.'),
        if(step = 'land', concat('source.', substring_index(dataset, '.', -1)), null)
    ) as source_table,
    source_version,
    interval_start,
    interval_end,
    ended_at
from read
-- Maintenance makes each table from itself.
where step <> 'maintain' or source_stored = stored""",
    "ops.table_costs": """
with parts as (
    select dataset, seconds, get_json_object(details, '$.build_run_id') as build_run_id
    from ops.runs
    where step = 'build' and dataset <> 'warehouse'
),
steps as (
    select *, explode(split(dataset, ', ')) as name
    from ops.runs
    where get_json_object(details, '$.build_run_id') is null
),
shared as (
    select
        steps.*,
        case
            when parts.dataset is not null then parts.dataset
            when contains(name, '.') or name in ('warehouse', 'the lake', 'nothing') then name
            else concat('models.', substring_index(name, '@', 1))
        end as table_name,
        coalesce(
            parts.seconds / sum(parts.seconds) over (partition by run_id),
            1 / count(*) over (partition by run_id)
        ) as share
    from steps left join parts on parts.build_run_id = steps.run_id
)
select
    to_date(started_at) as day,
    table_name,
    step,
    count(*) as runs,
    sum(seconds * share) as seconds,
    sum(cpu_seconds * share) as cpu_seconds,
    sum(engine_cpu_seconds * share) as engine_cpu_seconds,
    sum(bytes_in) as bytes_in,
    sum(if(step = 'score' and status = 'success', rows_out, 0)) as predictions
from shared
group by all""",
    "ops.model_costs": """
select
    day,
    regexp_extract(table_name, '^(models[.]|ml(_shadow|_what_if)?[.]predictions_)(.+)$', 3) as model_name,
    sum(runs) as runs,
    sum(seconds) as seconds,
    sum(cpu_seconds) as cpu_seconds,
    sum(engine_cpu_seconds) as engine_cpu_seconds,
    sum(predictions) as predictions
from ops.table_costs
where table_name rlike '^(models[.]|ml(_shadow|_what_if)?[.]predictions_)'
group by all""",
}
"""Views over the platform's tables, by name."""


def append(table: str, rows: list[dict[str, Any]]) -> None:
    """Append rows to one of the platform's tables in one commit.

    Args:
        table: One of ``SCHEMAS``.
        rows: Column values; a column that is left out is null.
    """
    schema = SCHEMAS[table]
    unknown = {name for row in rows for name in row} - set(schema.names)
    if unknown:
        raise ValueError(f"{table} has no column {', '.join(sorted(unknown))}.")
    complete = [{name: row.get(name) for name in schema.names} for row in rows]
    log = tables.delta(table)
    write_deltalake(
        log or tables.location(table),
        pa.Table.from_pylist(complete, schema=schema),
        mode="append",
        # A table that an earlier version of the platform has made gets the columns that it lacks.
        schema_mode="merge",
        commit_properties=CommitProperties(max_commit_retries=50),
    )
    _keep_few_files(table, log)


def _keep_few_files(table: str, log: DeltaTable | None) -> None:
    if log is not None and log.version() % COMPACT_EVERY == 0:
        compact(table)


def compact(table: str) -> tuple[int, int] | None:
    """Put the many small files of one of the platform's tables together; each append or replacement leaves one.

    The small ones stay on the disk until the next maintenance, for queries that are reading them.

    Args:
        table: One of ``SCHEMAS``.

    Returns:
        How many files it had before and has after; None while it does not exist, or somebody else is at it.
    """
    try:
        # Two at once would both keep their copy of the rows: deltalake does not notice, and cannot be asked to check.
        with locks.writer(f"compaction of {table}", timeout_seconds=1, gives_way=False):
            log = tables.delta(table)
            if log is None:
                return None
            before = len(log.file_uris())
            if before > 1:
                log.optimize.compact()
                log.create_checkpoint()
            return before, len(log.file_uris())
    except (locks.TableLockedError, psycopg.OperationalError):
        # It can wait, and a step whose database has gone away still has to be recorded.
        return None


def replace(table: str, rows: list[dict[str, Any]], where: dict[str, Any]) -> int:
    """Put rows in the place of those that are there for the same thing, in one commit.

    Args:
        table: One of ``SCHEMAS``.
        rows: Column values; a column that is left out is null.
        where: Columns and values that say which rows go; every new row has them.

    Returns:
        The version of the table that this has made.
    """
    schema = SCHEMAS[table]
    complete = [{name: row.get(name) for name in schema.names} for row in rows]
    log = tables.delta(table)
    write_deltalake(
        log or tables.location(table),
        pa.Table.from_pylist(complete, schema=schema),
        mode="overwrite",
        predicate=" and ".join(f"{name} = {_literal(value)}" for name, value in where.items()),
        commit_properties=CommitProperties(max_commit_retries=50),
    )
    _keep_few_files(table, log)
    return log.version() if log else 0  # of what was written: the writer has moved it on


def read(table: str, columns: list[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
    """Rows of one of the platform's tables.

    Args:
        table: One of ``SCHEMAS``.
        columns: Columns to read; all without it.
        where: Which rows, as in ``pc.field("model_name") == "flight_delay"``: files and parts of files that hold none
            of them are not read. All rows without it.
    """
    schema = SCHEMAS[table] if columns is None else pa.schema([SCHEMAS[table].field(name) for name in columns])
    log = tables.delta(table)
    if log is None:
        return schema.empty_table()
    have = {field.name for field in log.schema().fields}
    found = log.to_pyarrow_table(
        columns=[name for name in schema.names if name in have], filesystem=tables.filesystem(log), filters=where
    )
    for field in schema:
        if field.name not in have:
            found = found.append_column(field, pa.nulls(len(found), field.type))
    return found


def create() -> list[str]:
    """Create the platform's tables where they are missing, and add the columns that an older one lacks.

    Returns:
        The SQL statements that make them known to the engine.
    """
    for table, schema in SCHEMAS.items():
        log = DeltaTable.create(tables.location(table), schema=schema, mode="ignore")
        have = {field.name for field in log.schema().fields}
        if missing := [field for field in Schema.from_arrow(schema).fields if field.name not in have]:
            log.alter.add_columns(missing)
    known = [
        f"create table if not exists {table} using delta location {_literal(tables.location(table))}"
        for table in SCHEMAS
    ]
    return [*known, *(f"create or replace view {view} as {query}" for view, query in VIEWS.items())]


def _literal(value: Any) -> str:
    if isinstance(value, int):
        return str(value)
    text = f"'{str(value).replace(chr(39), chr(39) * 2)}'"
    return f"cast({text} as date)" if isinstance(value, dt.date) else text
