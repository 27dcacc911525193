"""The dbt project: what it declares, as dbt's manifest has it, and how dbt is run.

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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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

PROJECT = PROJECT_DIR / "dbt"
SOURCES = PROJECT / "models" / "sources.yml"
FOLDERS = ("models", "macros", "tests")
PROFILE, TARGET = "lakehouse", "lake"
FAILED = ("error", "fail", "runtime error")
CONCLUDED = ("pass", "warn", "fail")
"""States of a data test that was run to its end."""
# What a model is made from does not depend on the day, but its SQL names one.
ANY_DAY = "2000-01-01"

log = logging.getLogger("lakehouse")


@dataclass(frozen=True)
class Outcome:
    """What one dbt has done.

    Attributes:
        models: The models that were run, with their seconds.
        tests: The data tests that were run, with their seconds.
        failed: The tables and views that could not be built, by the name that readers use, each with the reason.
        refuted: Whether a data test has found rows.
        failed_tests: The data tests that have found rows, or that could not be run.
        assertions: What the data tests have said of each table or view, in the words of ``ops.gate_results``:
            ``expectation``, ``success``, ``column_name``, ``severity``. Those that could not be run have said nothing.
    """

    models: dict[str, float] = field(default_factory=dict)
    tests: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    refuted: bool = False
    failed_tests: list[str] = field(default_factory=list)
    assertions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @classmethod
    def of(cls, results: Iterable[Any]) -> Outcome:
        """What dbt has done, by its results of models and tests."""
        run = [each for each in results if each.status != "skipped"]
        models, tests = ([each for each in run if each.node.resource_type.value == kind] for kind in ("model", "test"))
        assertions: dict[str, list[dict[str, Any]]] = {}
        for each in tests:
            for table in _tested_by(each.node) if each.status in CONCLUDED else ():
                assertions.setdefault(table, []).append(_assertion(each))
        return cls(
            models={each.node.name: round(each.execution_time, 3) for each in models},
            tests={each.node.name: round(each.execution_time, 3) for each in tests},
            failed={
                table_of(each.node.unique_id): reason(each.message or str(each.status))
                for each in models
                if each.status in FAILED
            },
            refuted=any(each.status == "fail" for each in tests),
            failed_tests=sorted(each.node.name for each in tests if each.status in FAILED),
            assertions=assertions,
        )


def _tested_by(test: Any) -> list[str]:
    """The tables and views that a data test asks: the one that it stands at, else all that its query names."""
    attached = getattr(test, "attached_node", None)
    return [table_of(each) for each in ([attached] if attached else test.depends_on.nodes) if each.startswith("model.")]


def _assertion(result: Any) -> dict[str, Any]:
    warns = result.status == "warn" or result.node.config.severity.lower() == "warn"
    return {
        "expectation": result.node.name,
        "success": result.status == "pass",
        "column_name": getattr(result.node, "column_name", None),
        "severity": "warning" if warns else "critical",
    }


class BuildFailedError(LakeError):
    """dbt could not build or test a model; the message is dbt's.

    Args:
        message: What a person reads.
        results: What dbt says of all models and tests.

    Attributes:
        outcome: What it has done nevertheless.
    """

    def __init__(self, message: str, results: Iterable[Any] = ()) -> None:
        super().__init__(message)
        self.outcome = Outcome.of(results)


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
        "DBT_THRIFT_HOST": settings().thrift_server,
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
            invoke(["parse", "--write-json"])
            stamp.write_text(digest)
    return path


def stored_models() -> list[str]:
    """Names of the models that are stored tables, such as ``gold.fct_flights``, in the order of the manifest."""
    return _models(lambda materialized: materialized not in ("view", "ephemeral"))


def selected(select: Sequence[str]) -> list[str]:
    """The stored tables among what a build would make.

    Args:
        select: dbt selectors.

    Raises:
        BuildFailedError: They match nothing of the project.
    """
    from lakehouse.interval import Interval

    ensure_manifest()
    built = [word for kind in ("model", "test", "seed", "snapshot") for word in ("--resource-type", kind)]
    command = ["--no-write-json", "list", *built, "--output", "json", "--output-keys", "unique_id", "--select", *select]
    found = invoke(command, build_environment(Interval.parse(ANY_DAY)), say=False)
    if not found:
        raise BuildFailedError(f"Nothing in the dbt project matches the selection {' '.join(select)!r}.")
    models = {json.loads(line)["unique_id"] for line in found}
    return [table for table in stored_models() if f"model.lakehouse.{table.partition('.')[2]}" in models]


def written_by_place() -> list[str]:
    """Names of the stored models that ``replace_interval`` writes, so that a column goes where its place is."""
    return _models(lambda materialized: materialized == "replace_interval")


def project_digest() -> str:
    """A hash that changes with the files of the dbt project, those that the contracts generate included."""
    _write_sources()
    return _digest()


def compiled_models() -> list[CompiledModel]:
    """The SQL of all models, each after those that it reads; no engine is asked.

    Raises:
        BuildFailedError: dbt could not.
    """
    nodes = {node.unique_id: node for node in compiled("resource_type:model")}
    order = TopologicalSorter({name: node.depends_on_nodes for name, node in nodes.items()}).static_order()
    return [
        CompiledModel(f"{node.schema.removesuffix('_next')}.{node.alias}", node.original_file_path, node.compiled_code)
        for node in (nodes[name] for name in order if name in nodes)
        if node.config.materialized != "ephemeral"
    ]


def compiled(select: str) -> list[Any]:
    """Dbt's nodes with their SQL compiled; no engine is asked.

    Args:
        select: Which ones, as dbt's ``--select`` takes it.

    Raises:
        BuildFailedError: dbt could not.
    """
    from lakehouse.interval import Interval

    ensure_manifest()
    command = ["--no-write-json", "compile", "--no-introspect", "--no-populate-cache"]
    command += ["--select", select, "--indirect-selection", "empty"]
    # A sandbox of schemas makes no other lineage.
    variables = build_environment(Interval.parse(ANY_DAY)) | {"DBT_SCHEMA_PREFIX": ""}
    results = list(invoke(command, variables, say=False))
    if failures := [f"{each.node.name}: {reason(each.message or '')}" for each in results if each.status in FAILED]:
        raise BuildFailedError("dbt could not compile.\n" + "\n".join(failures))
    return [each.node for each in results]


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
    return sorted({source for name in named(table) for source in stored_inputs(name)})


def named(table: str) -> list[str]:
    """The source tables and models that a model's query names, such as ``stg_weather``.

    Args:
        table: By the name that readers use.
    """
    node = _manifest()["nodes"][f"model.lakehouse.{table.partition('.')[2]}"]
    return [parent.rpartition(".")[2] for parent in node["depends_on"]["nodes"]]


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


def views() -> list[str]:
    """Names of the models that are views, such as ``silver.stg_weather``, in the order of the manifest."""
    return _models(lambda materialized: materialized == "view")


def _models(fits: Callable[[str], bool]) -> list[str]:
    return [
        table_of(unique_id)
        for unique_id, node in _manifest()["nodes"].items()
        if node["resource_type"] == "model" and fits(node["config"]["materialized"])
    ]


def declared_columns(table: str) -> list[dict[str, Any]]:
    """The columns that the properties of a model declare, each with ``name``, ``data_type`` and ``description``.

    Args:
        table: By the name that readers use.
    """
    return list(_manifest()["nodes"][f"model.lakehouse.{table.partition('.')[2]}"]["columns"].values())


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


def names_days(unique_id: str) -> bool:
    """Whether the SQL of a model, or of one that it reads, names days: those of the build, or today.

    Args:
        unique_id: dbt's id of the model.
    """
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
    return any(map(names_days, node["depends_on"]["nodes"]))


def table_of(unique_id: str) -> str:
    """What a model makes, by the name that readers use, of dbt's id of the model.

    Args:
        unique_id: Such as ``model.lakehouse.fct_flights``.
    """
    node = _manifest()["nodes"][unique_id]
    return f"{node['schema'].removesuffix('_next')}.{node['alias']}"


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
    invoke(["docs", "generate", "--static"], build_environment(interval))
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
    return "# Generated from the contracts in spark_jobs/sources: do not edit.\n" + _as_yaml(json.dumps(properties))


@cache  # asked for at each look at the manifest, dozens of times in a build, and 20 to 30 ms each
def _as_yaml(properties: str) -> str:
    body: str = yaml.safe_dump(json.loads(properties), sort_keys=False, width=110, allow_unicode=True)
    return body


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


def invoke(command: list[str], variables: dict[str, str] | None = None, *, say: bool = True) -> Any:
    """Run dbt in this process, against the platform's engine.

    Args:
        command: What would follow ``dbt`` on a command line.
        variables: Environment variables, those of :func:`environment` aside.
        say: Log a line for each model and test that is done.

    Returns:
        dbt's result, of the kind that the command has.

    Raises:
        BuildFailedError: dbt could not do it at all.
    """
    from dbt.cli.main import dbtRunner

    with _environment(variables or {}):
        outcome = dbtRunner(callbacks=[fence, *([_say] if say else [])]).invoke(
            ["--log-level", "none", *command, "--profile", PROFILE, "--target", TARGET]
        )
    locks.check_held("gold_next")  # says in its own words what dbt has failed with
    if outcome.exception is not None:
        raise BuildFailedError(f"dbt failed. {reason(str(outcome.exception))}") from outcome.exception
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
        log.error("%s: failed: %s", name, reason(result.message))
    elif node.node_status == "skipped":
        log.warning("%s: skipped, since something before it failed", name)
    else:
        log.info("%s: %s in %.1f s", name, node.node_status, result.execution_time)


def reason(message: str) -> str:
    """A message of dbt without the engine's stack and query plan, which take hundreds of lines.

    Args:
        message: Of a model or a test that has failed.
    """
    kept: list[str] = []
    for line in map(str.strip, message.splitlines()):
        if line.startswith(("at ", "Caused by:")):
            break
        if line and line not in kept:
            kept.append(line)
        if re.search(r"(; line \d+ pos \d+;?|SQLSTATE: \w+;)$", line):
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
