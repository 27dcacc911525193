"""The warehouse: the dbt project that builds the silver views and the next versions of the gold tables.

dbt runs in process, and everything it writes besides tables goes to the state folder. Airflow (through
Cosmos) runs the same project with :func:`environment` and :func:`build_environment`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lakehouse import locks
from lakehouse.errors import LakeError
from lakehouse.settings import PROJECT_DIR, settings

if TYPE_CHECKING:
    from lakehouse.interval import Interval
    from lakehouse.steps import Run

PROJECT = PROJECT_DIR / "dbt"
SOURCES = PROJECT / "models" / "sources.yml"
FOLDERS = ("models", "macros", "tests")
PROFILE, TARGET = "lakehouse", "lake"
FAILED = ("error", "fail", "runtime error")
# What a model is made from does not depend on the day, but its SQL names one.
ANY_DAY = "2000-01-01"

log = logging.getLogger("lakehouse")


class BuildFailedError(LakeError):
    """dbt could not build or test a model; the message is dbt's.

    Args:
        message: What a person reads.
        results: What dbt says of all models and tests.

    Attributes:
        seconds: The models that were run, with their seconds.
        failed: The tables and views that could not be built, by the name that readers use, each with the reason.
        refuted: Whether a data test has found rows.
    """

    def __init__(self, message: str, results: Iterable[Any] = ()) -> None:
        super().__init__(message)
        results = list(results)
        models = [result for result in results if result.node.resource_type.value == "model"]
        self.refuted = any(each.status == "fail" for each in results)
        self.seconds = {
            each.node.name: round(each.execution_time, 3) for each in models if each.status in ("success", *FAILED)
        }
        self.failed = {
            _table(each.node.unique_id): _reason(each.message or str(each.status))
            for each in models
            if each.status in FAILED
        }


class DataTestFailedError(BuildFailedError):
    """What dbt has built breaks a data test; building it again would change nothing."""


@dataclass(frozen=True)
class CompiledModel:
    """A model as the engine would run it.

    Attributes:
        table: What it makes, by the name that readers use.
        path: Its file, in the dbt project.
        query: Its SQL.
    """

    table: str
    path: str
    query: str


def environment() -> dict[str, str]:
    """The environment variables that dbt needs to run this project against this platform's engine."""
    return {
        "DBT_PROJECT_DIR": str(PROJECT),
        "DBT_PROFILES_DIR": str(PROJECT),
        "DBT_LOG_PATH": str(settings().home / "dbt" / "logs"),
        "DBT_THRIFT_PORT": str(settings().ports.thrift),
        # dbt keeps what has this prefix out of its logs and artifacts.
        "DBT_ENV_SECRET_SQL_PASSWORD": settings().secret("sql_password"),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DO_NOT_TRACK": "1",
    }


def build_environment(interval: Interval, commit: dict[str, Any] | None = None) -> dict[str, str]:
    """The environment variables of one build, which the project's macros read.

    Args:
        interval: The days that the build is about.
        commit: What the Delta commits say of themselves (``userMetadata``).
    """
    days = {"DBT_INTERVAL_START": interval.start.isoformat(), "DBT_INTERVAL_END": interval.end.isoformat()}
    return days | ({"DBT_COMMIT": json.dumps(commit)} if commit else {})


def manifest_path() -> Path:
    """Where dbt's manifest of the project is kept."""
    return settings().home / "dbt" / "target" / "manifest.json"


def parsed_path() -> Path:
    """Where dbt keeps what it has parsed; another dbt that is told so, and given the same profile, need not parse."""
    return manifest_path().with_name("partial_parse.msgpack")


def ensure_manifest() -> Path:
    """The path of an up-to-date manifest; the project is parsed only when its files have changed."""
    _write_sources()
    path = manifest_path()
    stamp = path.with_name("manifest.hash")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path.with_name("manifest.lock")):
        digest = _digest()
        if not (path.exists() and stamp.exists() and stamp.read_text() == digest):
            _invoke(["parse", "--write-json"])
            stamp.write_text(digest)
    return path


def stored_models() -> list[str]:
    """Names of the models that are stored tables, such as ``gold.fct_flights``, in the order of the manifest."""
    return [
        f"{node['schema'].removesuffix('_next')}.{node['alias']}"
        for node in _manifest()["nodes"].values()
        if node["resource_type"] == "model" and node["config"]["materialized"] not in ("view", "ephemeral")
    ]


def project_digest() -> str:
    """A hash that changes with the files of the dbt project, those that the contracts generate included."""
    _write_sources()
    return _digest()


def compiled_models() -> list[CompiledModel]:
    """The SQL of all models, each after those that it reads; no engine is asked.

    Raises:
        BuildFailedError: dbt could not.
    """
    from lakehouse.interval import Interval

    ensure_manifest()
    command = ["--no-write-json", "compile", "--no-introspect", "--no-populate-cache"]
    command += ["--select", "resource_type:model", "--indirect-selection", "empty"]
    # A sandbox of schemas makes no other lineage.
    variables = build_environment(Interval.parse(ANY_DAY)) | {"DBT_SCHEMA_PREFIX": ""}
    results = list(_invoke(command, variables, say=False))
    if failures := [f"{each.node.name}: {_reason(each.message or '')}" for each in results if each.status in FAILED]:
        raise BuildFailedError("dbt could not compile.\n" + "\n".join(failures))
    nodes = {each.node.unique_id: each.node for each in results}
    order = TopologicalSorter({name: node.depends_on_nodes for name, node in nodes.items()}).static_order()
    return [
        CompiledModel(f"{node.schema.removesuffix('_next')}.{node.alias}", node.original_file_path, node.compiled_code)
        for node in (nodes[name] for name in order if name in nodes)
        if node.config.materialized != "ephemeral"
    ]


def interval_column(table: str) -> str | None:
    """The DATE column that tells which interval a row belongs to; None for a table that is rebuilt whole.

    Args:
        table: A stored model by the name that readers use, such as ``gold.fct_flights``.
    """
    _, _, name = table.partition(".")
    column: str | None = _manifest()["nodes"][f"model.lakehouse.{name}"]["config"]["meta"].get("interval_column")
    return column


def meta(table: str) -> dict[str, Any] | None:
    """What the properties of a model declare under ``meta``; None when there is no such model.

    Args:
        table: By the name that readers use, such as ``gold.fct_flights``.
    """
    node = _manifest()["nodes"].get(f"model.lakehouse.{table.partition('.')[2]}")
    return None if node is None else dict(node["config"]["meta"])


def declared_sources() -> dict[str, dict[str, Any]]:
    """What the project knows of each source, as dbt's manifest has it: what its contract says, or said when last read.

    Returns:
        Source to its properties, ``columns`` and ``config`` among them.
    """
    return {node["name"]: node for node in _manifest()["sources"].values()}


def descriptions() -> dict[str, str]:
    """What the properties of each model say that it is, and the file of its query, by dbt's id of the model."""
    return {
        name: f"{node['description'].strip()}\n\nIts query: `{PROJECT.name}/{node['original_file_path']}`.".strip()
        for name, node in _manifest()["nodes"].items()
        if node["resource_type"] == "model"
    }


def inputs(table: str) -> list[str]:
    """The released tables that a model's query reads, directly or through the silver views.

    Args:
        table: By the name that readers use.
    """
    node = _manifest()["nodes"][f"model.lakehouse.{table.partition('.')[2]}"]
    found = {source for parent in node["depends_on"]["nodes"] for source in stored_inputs(parent.rpartition(".")[2])}
    return sorted(found)


def stored_inputs(name: str) -> list[str]:
    """The released tables behind a source or model of the dbt project: itself when it is stored, else what it reads.

    Args:
        name: Of a source table or model, such as ``stg_weather``.
    """
    node = _manifest()["nodes"].get(f"model.lakehouse.{name}")
    if node is None:
        return [f"bronze.{name}"]
    if node["config"]["materialized"] not in ("view", "ephemeral"):
        return [f"{node['schema'].removesuffix('_next')}.{node['alias']}"]
    return sorted({each for parent in node["depends_on"]["nodes"] for each in stored_inputs(parent.rpartition(".")[2])})


def upstream(tables: Iterable[str]) -> list[str]:
    """The tables that some tables are made from, directly or not, and themselves.

    Args:
        tables: By the names that readers use.
    """
    built = set(stored_models())
    found: list[str] = []
    queue = list(tables)
    while queue:
        table = queue.pop()
        if table not in found:
            found.append(table)
            queue += inputs(table) if table in built else []
    return found


def sources() -> dict[str, int]:
    """The released sources, by the name that readers use, with their versions: one state of all of them.

    ``ops.releases`` is asked, and not the views, which follow a release one after the other.
    """
    from lakehouse.release import released

    return {table: each.version for table, each in released().items() if table.startswith("bronze.")}


def source_state(reads: Mapping[str, int]) -> str:
    """What a build is told of the sources (``DBT_SOURCE_STATE``), as JSON.

    ``reads``: the version of each source that it is to read, whatever is released meanwhile; without any, it reads what
    the views show. ``made_from``: model to what its commit is to say that decides about its rows. ``unchanged``: the
    models that are left alone, since they would be made again as they are.

    Args:
        reads: Source to version.
    """
    made_from = repeatable(reads)
    return json.dumps({"reads": dict(reads), "made_from": made_from, "unchanged": unchanged(made_from)})


def repeatable(reads: Mapping[str, int]) -> dict[str, str]:
    """What decides about the rows of each table that is made whole from released sources, whatever the day.

    Args:
        reads: Source to the version that is read.

    Returns:
        Model to a hash of the project and of the versions that its query reads.
    """
    project, found = project_digest(), {}
    for table in stored_models():
        read = inputs(table)
        name = table.partition(".")[2]
        if not _names_days(f"model.lakehouse.{name}") and all(each in reads for each in read):
            versions = {each: reads[each] for each in read}
            found[name] = hashlib.sha256(json.dumps([project, versions]).encode()).hexdigest()
    return found


def unchanged(made_from: Mapping[str, str]) -> list[str]:
    """The models whose released rows were made from the same as a build would make them from.

    Args:
        made_from: Outcome of :func:`repeatable`.
    """
    from lakehouse import tables
    from lakehouse.release import pending

    same = []
    for table in stored_models():
        name, stored = table.partition(".")[2], tables.next_table(table)
        if name in made_from and tables.head(stored) and not pending(table):
            written = next(tables.lineage(stored, since=0), {})
            if written.get("made_from") == made_from[name]:
                same.append(name)
    return same


def _names_days(unique_id: str) -> bool:
    """Whether the SQL of a model, or of one that it reads, names days: those of the build, or today."""
    manifest = _manifest()
    node = manifest["nodes"].get(unique_id)
    if node is None:  # a source
        return False
    waiting, seen = list(node["depends_on"]["macros"]), set()
    texts = [node["raw_code"]]
    while waiting:
        macro = waiting.pop()
        if macro not in seen and macro.startswith("macro.lakehouse."):
            seen.add(macro)
            texts.append(manifest["macros"][macro]["macro_sql"])
            waiting += manifest["macros"][macro]["depends_on"]["macros"]
    if any(re.search(r"DBT_INTERVAL|\bcurrent_|\bnow\(|\brand|\buuid\(", text) for text in texts):
        return True
    return any(map(_names_days, node["depends_on"]["nodes"]))


def run_dbt(
    interval: Interval,
    select: Sequence[str] | None = None,
    *,
    reads: Mapping[str, int] | None = None,
    commit: dict[str, Any] | None = None,
    full_refresh: bool = False,
) -> dict[str, float]:
    """Build and test the models for an interval.

    Args:
        interval: The days that the build is about.
        select: dbt selectors; all models without it.
        reads: Source to the version that the stored tables are made from; without it, what its view shows meanwhile.
        commit: What the Delta commits say of themselves.
        full_refresh: Create the tables anew, for a model whose columns have changed: the interval has to cover
            the whole history then.

    Returns:
        Model to seconds.

    Raises:
        BuildFailedError: A model or a test of one failed.
    """
    ensure_manifest()
    # The SQL is that of one interval: what dbt writes of it is of no use to anybody else.
    command = ["--no-write-json", "build", "--exclude-resource-type", "unit_test"]
    if select:
        command += ["--select", *select]
    if full_refresh:
        command.append("--full-refresh")
    results = list(
        _invoke(command, build_environment(interval, commit) | {"DBT_SOURCE_STATE": source_state(reads or {})})
    )
    if not results:
        raise BuildFailedError(f"Nothing in the dbt project matches the selection {' '.join(select or [])!r}.")
    _refuse_failures(results)
    return {
        result.node.name: round(result.execution_time, 3)
        for result in results
        if result.node.resource_type.value == "model"
    }


def run_data_tests(interval: Interval) -> dict[str, float]:
    """Ask the data tests of the dbt project about what was built; ``run_dbt`` does so after each model.

    Args:
        interval: The days that the build was about.

    Returns:
        Test to seconds.

    Raises:
        DataTestFailedError: A test has found rows.
        BuildFailedError: A test could not be run.
    """
    ensure_manifest()
    command = ["--no-write-json", "test", "--exclude-resource-type", "unit_test", "--no-populate-cache"]
    results = list(_invoke(command, build_environment(interval)))
    _refuse_failures(results)
    return {result.node.name: round(result.execution_time, 3) for result in results}


def _refuse_failures(results: Sequence[Any]) -> None:
    failed = [result for result in results if result.status in FAILED]
    if not failed:
        return
    kind = DataTestFailedError if all(result.status == "fail" for result in failed) else BuildFailedError
    described = [
        f"{result.node.resource_type.value} {result.node.name}: {_reason(result.message or str(result.status))}"
        for result in failed
    ]
    raise kind("dbt failed.\n" + "\n".join(described), results)


def build(interval: Interval, select: str | None = None, *, full_refresh: bool = False) -> dict[str, float]:
    """Build the warehouse for an interval: what ``lake build`` and the DAG's tasks do.

    Args:
        interval: The days that the build is about.
        select: dbt selectors, separated by blanks; all models without it.
        full_refresh: Create the tables anew.

    Returns:
        Model to seconds.
    """
    from lakehouse import column_lineage
    from lakehouse.steps import step

    prepare(interval)
    with step("build", "warehouse", interval, writes="gold_next") as run:
        selected, reads = select.split() if select else None, sources()
        seconds = _run_dbt_of(run, interval, selected, reads, full_refresh=full_refresh)
        run.details["models"] = seconds
        _describe(run, seconds, reads)
        column_lineage.record()
        return seconds


def _run_dbt_of(
    run: Run, interval: Interval, select: Sequence[str] | None, reads: Mapping[str, int], *, full_refresh: bool = False
) -> dict[str, float]:
    """Run dbt for a step, which says of each model whether it was built, when one of them was not, too.

    What breaks a data test is withdrawn: a gate does not know of it.
    """
    try:
        return run_dbt(interval, select, reads=reads, commit=run.commit(), full_refresh=full_refresh)
    except BuildFailedError as error:
        if error.seconds or error.failed:
            _describe(run, error.seconds, reads, error.failed)
        if error.refuted:
            _withdraw(run)
        raise


def _withdraw(run: Run) -> list[str]:
    """Bring all tables of the warehouse back to what is released; the step has the lock of the gold tables."""
    from lakehouse.release import pending, withdraw

    stale = [table for table in stored_models() if pending(table)]
    for table in stale:
        withdraw(table, run)
    return stale


def test(interval: Interval) -> dict[str, float]:
    """Run the data tests as a step of its own, when dbt was run by Airflow, model by model.

    When one of them finds rows, all that was built is withdrawn: its gate may have passed.

    Args:
        interval: The days that the build was about.

    Returns:
        Test to seconds.

    Raises:
        DataTestFailedError: A test has found rows.
        BuildFailedError: A test could not be run.
    """
    from lakehouse.steps import step

    with step("test", "warehouse", interval, writes="gold_next") as run:
        run.versions_in = _heads()
        try:
            run.details["tests"] = seconds = run_data_tests(interval)
        except BuildFailedError as error:
            if error.refuted:
                _withdraw(run)
            raise
        return seconds


def prepare(interval: Interval) -> list[str]:
    """Withdraw what an earlier build has made and not released, so that this one starts from released rows and views.

    Args:
        interval: The days that the build is about.

    Returns:
        The tables that were brought back.
    """
    from lakehouse import contracts
    from lakehouse.release import pending, withdraw_views
    from lakehouse.steps import step

    for problem in contracts.problems().values():
        log.warning("the warehouse is built with what this contract said before: %s", problem)
    with locks.writer("gold_next") as lock:
        if stale := [table for table in stored_models() if pending(table)]:
            with step("withdraw", ", ".join(stale), interval) as run:
                run.lock = lock
                _withdraw(run)
        # Also where no table waits: a gate that has shut has taken back the tables, and no view.
        withdraw_views()
    return stale


def record(interval: Interval) -> None:
    """Leave the row of a build in ``ops.runs`` when dbt was run by Airflow, model by model.

    Args:
        interval: The days that the build was about.
    """
    from lakehouse import column_lineage
    from lakehouse.steps import step

    with step("build", "warehouse", interval, writes="gold_next") as run:
        _describe(run, {}, _settle(interval, run))
        column_lineage.record()


def _settle(interval: Interval, run: Run) -> dict[str, int]:
    """The one state of the sources that all models were built from; they are built again when there are several.

    One dbt reads one state. A model that has failed is built by a dbt of its own, which reads what is released then.

    Args:
        interval: The days that the build is about.
        run: The step that records it.

    Returns:
        Source to version.
    """
    states: list[dict[str, int]] = []
    for said in _built(run).values():
        if (one := said.get("reads", {})) not in states:
            states.append(one)
    if len(states) == 1:
        return states[0]
    reads = sources()
    if states:
        moved = sorted({table for one in states for table in reads if one.get(table) != states[0].get(table)})
        run.say("%s: released before some models were built by themselves; it is built again", ", ".join(moved))
        _run_dbt_of(run, interval, None, reads)
    return reads


def _built(run: Run) -> dict[str, dict[str, Any]]:
    """The tables that a build has written and nobody has released yet, with what their commits say of themselves.

    Args:
        run: The step that builds, or that records what the tasks of the same run of a DAG have built.
    """
    from lakehouse import tables
    from lakehouse.release import pending

    # Without Airflow the second is none, and so is the run of a commit that does not name its own.
    ours = {run.run_id, os.environ.get("AIRFLOW_CTX_DAG_RUN_ID")} - {None}
    found = {
        table: tables.last_commit(tables.next_table(table))["userMetadata"]
        for table in stored_models()
        if pending(table)
    }
    return {table: said for table, said in found.items() if said.get("run_id") in ours}


def _describe(
    run: Run, seconds: dict[str, float], reads: Mapping[str, int], failed: Mapping[str, str] | None = None
) -> None:
    """Say what a build has read and written: as a whole, and each of its models.

    Args:
        run: The build.
        seconds: Model to seconds.
        reads: Source to the version that was read.
        failed: Of a build that failed, the models that could not be built, with the reasons.
    """
    from lakehouse import tables

    run.versions_in = {tables.next_table(table): version for table, version in reads.items()}
    heads, built = _heads(), [tables.next_table(table) for table in _built(run)]
    run.versions_out = heads if failed is None else {stored: heads[stored] for stored in built}
    facts = {
        "cpu_seconds": None,
        "engine_cpu_seconds": None,
        "details": json.dumps({"build_run_id": run.run_id}),
    }
    for stored in built:
        table = tables.reader_name(stored)
        run.parts.append(
            {
                **facts,
                "dataset": table,
                "seconds": seconds.get(table.partition(".")[2]),
                "status": "success",
                "error": None,
                "versions_in": _read_by(table, run.versions_in),
                "versions_out": [(stored, heads[stored])],
            }
        )
    for table, reason in (failed or {}).items():
        run.parts.append(
            {
                **facts,
                "dataset": table,
                "seconds": seconds.get(table.partition(".")[2]),
                "status": "failed",
                "error": _said(reason),
                "versions_in": _read_by(table, run.versions_in),
                "versions_out": [],
            }
        )


def _read_by(table: str, sources_read: Mapping[str, int]) -> list[tuple[str, int]]:
    """The versions that a model was made from: those of the sources, and of the models that were built before it."""
    from lakehouse import tables

    known = {**sources_read, **_heads()}
    return sorted((name, known[name]) for each in inputs(table) if (name := tables.next_table(each)) in known)


def _said(reason: str) -> str:
    return f"{BuildFailedError.__name__}: {reason}"


def record_failure(event: Any) -> None:
    """Leave a row in ``ops.runs`` for a model that could not be built, when dbt is run by Airflow.

    Then no step is there that would, as the gate, which records what was built, is not reached.

    Args:
        event: What dbt does; it calls this with each of its events.
    """
    if event.info.name != "NodeFinished":
        return
    node = event.data.node_info
    if node.resource_type != "model" or node.node_status not in FAILED:
        return
    from lakehouse import tables
    from lakehouse.interval import Interval
    from lakehouse.steps import record_failed

    table = _table(node.unique_id)
    days = Interval.parse(f"{os.environ['DBT_INTERVAL_START']}/{os.environ['DBT_INTERVAL_END']}")
    reads = json.loads(os.environ["DBT_SOURCE_STATE"])["reads"]
    stored = {tables.next_table(source): version for source, version in reads.items()}
    record_failed(
        "build",
        table,
        days,
        seconds=event.data.run_result.execution_time,
        error=_said(_reason(event.data.run_result.message)),
        versions_in=_read_by(table, stored),
    )


def _table(unique_id: str) -> str:
    """What a model makes, by the name that readers use, of dbt's id of the model."""
    node = _manifest()["nodes"][unique_id]
    return f"{node['schema'].removesuffix('_next')}.{node['alias']}"


def _heads() -> dict[str, int]:
    """The newest versions of the stored models that there are."""
    from lakehouse import tables

    heads = {stored: tables.head(stored) for stored in map(tables.next_table, stored_models())}
    return {stored: version for stored, version in heads.items() if version is not None}


def docs(interval: Interval) -> Path:
    """Write dbt's documentation of the warehouse, with lineage and the columns that the engine has.

    Args:
        interval: The days that the SQL is shown for.

    Returns:
        The page to open.

    Raises:
        BuildFailedError: dbt could not.
    """
    ensure_manifest()
    _invoke(["docs", "generate", "--static"], build_environment(interval))
    return manifest_path().with_name("static_index.html")


def _write_sources() -> None:
    text = sources_yaml()
    if not SOURCES.exists() or SOURCES.read_text() != text:
        SOURCES.write_text(text)


def sources_yaml() -> str:
    """The properties file of the dbt sources, generated from the contracts; of one that cannot be read, it stays."""
    from lakehouse import contracts
    from lakehouse.contracts.for_dbt import dbt_sources

    before = yaml.load(SOURCES.read_text(), yaml.CSafeLoader) if contracts.problems() and SOURCES.exists() else None
    properties = dbt_sources(before)
    for source in properties["sources"]:
        source["schema"] = "{{ env_var('DBT_SCHEMA_PREFIX', '') }}" + source["schema"]
        for table in source["tables"]:
            for column in table["columns"]:
                # The gate has checked these rows before they were released: not once more at every build.
                column.pop("data_tests", None)
    body: str = yaml.safe_dump(properties, sort_keys=False, width=110, allow_unicode=True)
    return "# Generated from the contracts in spark_jobs/sources: do not edit.\n" + body


def _digest() -> str:
    digest = hashlib.sha256()
    files = [PROJECT / "dbt_project.yml", PROJECT / "profiles.yml"]
    for folder in FOLDERS:
        files += sorted(path for path in (PROJECT / folder).rglob("*") if path.is_file())
    for path in files:
        digest.update(str(path.relative_to(PROJECT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _manifest() -> dict[str, Any]:
    path = ensure_manifest()
    return _read_manifest(path, path.stat().st_mtime_ns)


@cache
def _read_manifest(path: Path, _modified: int) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(path.read_text())
    return manifest


def _invoke(command: list[str], variables: dict[str, str] | None = None, *, say: bool = True) -> Any:
    from dbt.cli.main import dbtRunner

    with _environment(variables or {}):
        outcome = dbtRunner(callbacks=[fence, *([_say] if say else [])]).invoke(
            ["--log-level", "none", *command, "--profile", PROFILE, "--target", TARGET]
        )
    locks.check_held("gold_next")  # says in its own words what dbt has failed with
    if outcome.exception is not None:
        raise BuildFailedError(f"dbt failed. {_reason(str(outcome.exception))}") from outcome.exception
    return outcome.result


def fence(event: Any) -> None:
    """Send no statement to the engine any more when another writer has taken over the gold tables.

    dbt calls this with each of its events. Right before a statement, in the thread that sends it, there is one.

    Args:
        event: What dbt does.

    Raises:
        lakehouse.locks.StaleWriterError: This process has held the lock of the gold tables, and has lost it.
    """
    if event.info.name == "SQLQuery":
        locks.check_held("gold_next")


def _say(event: Any) -> None:
    """Log a line for each model and test that dbt is done with, as it happens."""
    if event.info.name != "NodeFinished":
        return
    node, result = event.data.node_info, event.data.run_result
    name = f"{node.resource_type} {node.node_name}"
    if node.node_status in FAILED:
        log.error("%s: failed: %s", name, _reason(result.message))
    elif node.node_status == "skipped":
        log.warning("%s: skipped, since something before it failed", name)
    else:
        log.info("%s: %s in %.1f s", name, node.node_status, result.execution_time)


def _reason(message: str) -> str:
    """A message of dbt without the engine's stack and query plan, which take hundreds of lines."""
    kept: list[str] = []
    for line in map(str.strip, message.splitlines()):
        if line.startswith(("at ", "Caused by:")):
            break
        if line and line not in kept:
            kept.append(line)
        if re.search(r"; line \d+ pos \d+;?$", line):
            break
    return " ".join(kept)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = os.environ.copy()
    os.environ.update(environment(), **variables, DBT_TARGET_PATH=str(manifest_path().parent))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
