"""The warehouse: the dbt project that builds the silver views and the next versions of the gold tables.

dbt runs in process, and everything it writes besides tables goes to the state folder. Airflow (through
Cosmos) runs the same project with :func:`environment` and :func:`variables`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lakehouse.errors import LakeError
from lakehouse.settings import PROJECT_DIR, settings

if TYPE_CHECKING:
    from lakehouse.interval import Interval

PROJECT = PROJECT_DIR / "dbt"
SOURCES = PROJECT / "models" / "sources.yml"
FOLDERS = ("models", "macros", "tests")

log = logging.getLogger("lakehouse")


class BuildFailedError(LakeError):
    """dbt could not build or test a model; the message is dbt's."""


def environment() -> dict[str, str]:
    """The environment variables that dbt needs to run this project against this platform's engine."""
    home = settings().home / "dbt"
    return {
        "DBT_PROJECT_DIR": str(PROJECT),
        "DBT_PROFILES_DIR": str(PROJECT),
        "DBT_TARGET_PATH": str(home / "target"),
        "DBT_LOG_PATH": str(home / "logs"),
        "DBT_THRIFT_PORT": str(settings().ports.thrift),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "DO_NOT_TRACK": "1",
    }


def variables(interval: Interval, commit: dict[str, Any] | None = None) -> dict[str, Any]:
    """The dbt variables of a build.

    Args:
        interval: The days that the build is about.
        commit: What the Delta commits say of themselves (``userMetadata``).
    """
    days: dict[str, Any] = {
        "interval_start": interval.start.isoformat(),
        "interval_end": interval.end.isoformat(),
    }
    return days | ({"commit": json.dumps(commit)} if commit else {})


def manifest_path() -> Path:
    """Where dbt's manifest of the project is kept."""
    return settings().home / "dbt" / "target" / "manifest.json"


def ensure_manifest() -> Path:
    """The path of an up-to-date manifest; the project is parsed only when its files have changed."""
    _write_sources()
    path = manifest_path()
    stamp = path.with_name("manifest.hash")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path.with_name("manifest.lock")):
        digest = _digest()
        if not (path.exists() and stamp.exists() and stamp.read_text() == digest):
            _invoke(["parse"])
            stamp.write_text(digest)
    return path


def stored_models() -> list[str]:
    """Names of the models that are stored tables, such as ``gold.fct_flights``, in the order of the manifest."""
    return [
        f"{node['schema'].removesuffix('_next')}.{node['alias']}"
        for node in _manifest()["nodes"].values()
        if node["resource_type"] == "model" and node["config"]["materialized"] not in ("view", "ephemeral")
    ]


def interval_column(table: str) -> str | None:
    """The DATE column that tells which interval a row belongs to; None for a table that is rebuilt whole.

    Args:
        table: A stored model by the name that readers use, such as ``gold.fct_flights``.
    """
    _, _, name = table.partition(".")
    column: str | None = _manifest()["nodes"][f"model.lakehouse.{name}"]["config"]["meta"].get("interval_column")
    return column


def run_dbt(
    interval: Interval,
    select: Sequence[str] | None = None,
    *,
    commit: dict[str, Any] | None = None,
    full_refresh: bool = False,
) -> dict[str, float]:
    """Build and test the models for an interval.

    Args:
        interval: The days that the build is about.
        select: dbt selectors; all models without it.
        commit: What the Delta commits say of themselves.
        full_refresh: Create the tables anew, for a model whose columns have changed: the interval has to cover
            the whole history then.

    Returns:
        Model to seconds.

    Raises:
        BuildFailedError: A model or a test of one failed.
    """
    ensure_manifest()
    command = ["build", "--exclude-resource-type", "unit_test", "--vars", json.dumps(variables(interval, commit))]
    if select:
        command += ["--select", *select]
    if full_refresh:
        command.append("--full-refresh")
    results = _invoke(command)
    seconds: dict[str, float] = {}
    failures = []
    for result in results:
        name, status = result.node.name, str(result.status)
        if status in ("error", "fail", "runtime error"):
            failures.append(f"{result.node.resource_type.value} {name}: {(result.message or status).strip()}")
        elif status == "skipped":
            log.info("%s: skipped", name)
        elif result.node.resource_type.value == "model":
            seconds[name] = result.execution_time
            log.info("%s.%s: built in %.1f s", result.node.schema, name, result.execution_time)
        elif status == "warn":
            log.warning("test %s: %s", name, result.message)
        else:
            log.info("test %s: passed", name)
    if failures:
        raise BuildFailedError("dbt failed. " + "\n".join(failures))
    return seconds


def build(interval: Interval, select: str | None = None, *, full_refresh: bool = False) -> dict[str, float]:
    """Build the warehouse for an interval: what ``lake build`` and the DAG's tasks do.

    Args:
        interval: The days that the build is about.
        select: dbt selectors, separated by blanks; all models without it.
        full_refresh: Create the tables anew.

    Returns:
        Model to seconds.
    """
    from lakehouse.steps import step

    with step("build", select or "warehouse", interval, writes="gold_next") as run:
        run.check_lock()
        seconds = run_dbt(
            interval, select.split() if select else None, commit=run.commit(), full_refresh=full_refresh
        )
        run.details["models"] = seconds
        return seconds


def _write_sources() -> None:
    text = sources_yaml()
    if not SOURCES.exists() or SOURCES.read_text() != text:
        SOURCES.write_text(text)


def sources_yaml() -> str:
    """The properties file of the dbt sources, generated from the contracts."""
    from lakehouse.contracts import dbt_sources

    properties = dbt_sources()
    for source in properties["sources"]:
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


def _invoke(command: list[str]) -> Any:
    from dbt.cli.main import dbtRunner

    with _environment():
        outcome = dbtRunner().invoke(["--quiet", "--no-write-json", *command])
    if outcome.exception is not None:
        raise BuildFailedError(f"dbt failed. {outcome.exception}") from outcome.exception
    return outcome.result


@contextmanager
def _environment() -> Iterator[None]:
    before = os.environ.copy()
    os.environ.update(environment())
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
