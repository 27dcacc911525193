"""A step: one function of (dataset, interval) that leaves a row in ``ops.runs`` whatever happens to it."""

from __future__ import annotations

import datetime as dt
import getpass
import hashlib
import importlib
import json
import logging
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from lakehouse import engine, locks, ops
from lakehouse.interval import Interval
from lakehouse.lineage import openlineage
from lakehouse.settings import PROJECT_DIR

log = logging.getLogger("lakehouse")

CODE = ("lake", "lake.toml", "lakehouse", "spark_jobs", "models", "dbt", "dags", "expectations")
"""Where a new file is code though git does not know it yet."""


@dataclass
class Run:
    """A step that is under way, and what it has to report.

    Attributes:
        run_id: Unique id; a retry has its own.
        step: What is done: land, gate, release, build, train, score.
        dataset: What it is done to: a table, source or model.
        interval: The days it is about, if any.
        versions_in: Versions of the tables it read.
        versions_out: Versions that it wrote.
        committed: Those of them that replaced an interval, as they were committed: a step can fail afterwards.
        details: Anything else worth keeping, JSON-serialisable.
        parts: What the step consists of, each with a row of its own beside that of the step: values of the columns of
            ``ops.runs`` that differ from the step's.
        told_only: What it consists of beside these and has no row, as it makes no version, views and data tests of dbt:
            OpenLineage alone is told of it.
        assertions: Of a gate and of dbt's data tests: table to rows as ``ops.gate_results`` has them.
        lock: That of the table that it writes.
        beside: Those of other tables, which nobody may write meanwhile either.
    """

    step: str
    dataset: str
    interval: Interval | None
    run_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    rows_in: int | None = None
    rows_out: int | None = None
    rows_quarantined: int | None = None
    bytes_in: int | None = None
    versions_in: dict[str, int] = field(default_factory=dict)
    versions_out: dict[str, int] = field(default_factory=dict)
    committed: dict[str, int] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    parts: list[dict[str, Any]] = field(default_factory=list)
    told_only: list[dict[str, Any]] = field(default_factory=list)
    assertions: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    lock: locks.WriterLock | None = None
    beside: Collection[locks.WriterLock] = ()

    def commit(self) -> dict[str, Any]:
        """What each commit of this step says of itself (``userMetadata``)."""
        return {
            "run_id": self.run_id,
            "step": self.step,
            "dataset": self.dataset,
            "interval": str(self.interval) if self.interval else None,
            "code_version": code_version(),
            "token": self.lock.token if self.lock else None,
        }

    def check_lock(self) -> None:
        """Refuse to go on when another writer has taken over.

        Raises:
            lakehouse.locks.StaleWriterError: It has.
        """
        for lock in (*filter(None, [self.lock]), *self.beside):
            lock.check()

    def say(self, message: str, *args: object) -> None:
        """Log a line that a person reads in the task's log."""
        log.info(message, *args)


@contextmanager
def step(name: str, dataset: str, interval: Interval | None, *, writes: str | None = None) -> Iterator[Run]:
    """Run a step under its table's writer lock, and record it in ``ops.runs``, failed or not.

    Args:
        name: What is done.
        dataset: What it is done to.
        interval: The days it is about.
        writes: The stored table that it writes, which is locked meanwhile.
    """
    run = Run(name, dataset, interval)
    started, clock, cpu = dt.datetime.now(dt.UTC), time.monotonic(), time.process_time()
    meter = engine.Meter()
    where = f" {interval}" if interval else ""
    run.say("%s %s%s: started", name, dataset, where)
    error: str | None = None
    facts = {
        "run_id": run.run_id,
        "step": name,
        "dataset": dataset,
        "interval_start": interval and interval.start,
        "interval_end": interval and interval.end,
        "started_at": started,
        "code_version": code_version(),
    }
    openlineage.send([openlineage.started(facts)])
    try:
        with ExitStack() as stack:
            if writes:
                run.lock = stack.enter_context(locks.writer(writes))
            yield run
    except BaseException as exception:
        if "pyspark" in sys.modules and engine.lost(exception):
            lost = engine.EngineLostError(
                f"The Spark engine has gone away in the middle of {name} {dataset}{where}. Nothing of it is visible; "
                "the supervisor starts the engine again, and the step can be repeated from its start."
            )
            error = f"{type(lost).__name__}: {lost}"
            raise lost from exception
        error = f"{type(exception).__name__}: {exception}"
        raise
    finally:
        seconds = time.monotonic() - clock
        row = {
            **facts,
            "ended_at": dt.datetime.now(dt.UTC),
            "seconds": seconds,
            "cpu_seconds": time.process_time() - cpu,
            "engine_cpu_seconds": meter.cpu_seconds(),
            "engine_peak_memory": meter.peak_memory(),
            "status": "failed" if error else "success",
            "error": error,
            "rows_in": run.rows_in,
            "rows_out": run.rows_out,
            "rows_quarantined": run.rows_quarantined,
            "bytes_in": run.bytes_in,
            "versions_in": sorted(run.versions_in.items()),
            "versions_out": sorted((run.committed | run.versions_out).items()),
            "details": json.dumps(run.details, default=str) if run.details else None,
            "lock_token": run.lock.token if run.lock else None,
            **_airflow_context(),
        }
        told_only, parts = (
            [{**row, "run_id": str(uuid.uuid4()), **part} for part in each] for each in (run.told_only, run.parts)
        )
        ops.append("ops.runs", [row, *parts])
        openlineage.send(_lineage(run, row, told_only + parts))
        if error is None:
            run.say("%s %s%s: done in %.1f s", name, dataset, where, seconds)


def record_others(rows: Iterable[Mapping[str, Any]], parent: tuple[str, str] | None = None) -> None:
    """Record what was done without being a step of ours: by another program, such as dbt, or by one that was killed.

    Args:
        rows: Of each, the columns of ``ops.runs`` but those that are known here: a new run, the code, Airflow's task.
        parent: Job and run that all of it is a part of; the task of Airflow, if any, without it.
    """
    here = {"code_version": code_version(), **_airflow_context()}
    whole = [{"run_id": str(uuid.uuid4()), **here, **row} for row in rows]
    ops.append("ops.runs", whole)
    openlineage.send(_told(whole, parent))


def _told(
    rows: Iterable[Mapping[str, Any]],
    parent: tuple[str, str] | None,
    assertions: Mapping[str, list[dict[str, Any]]] | None = None,
) -> Iterator[Any]:
    for row in rows:
        yield openlineage.started(row, parent)
        # What the data tests of a build say is theirs to tell, not that of each model that reads the same table.
        yield openlineage.ended(row, {}, assertions if row["step"] == "test" else None, parent=parent)


def _lineage(run: Run, row: dict[str, Any], parts: list[dict[str, Any]]) -> Iterator[Any]:
    yield from _told(parts, (openlineage.job_name(run.step, run.dataset), run.run_id), run.assertions)
    yield openlineage.ended(row, run.details, run.assertions)


@cache
def code_version() -> str:
    """The commit that the code is at, else the package's version.

    Where files differ from the commit, ``+changed.`` and a hash of them follow: no two states pass for the same code.
    """
    try:
        commit = _git("rev-parse", "HEAD").strip()
        differ = _git("diff", "--name-only", "--relative", "-z", "HEAD")
        new = _git("ls-files", "--others", "--exclude-standard", "-z", "--", *CODE)
    except (OSError, subprocess.CalledProcessError):
        from importlib.metadata import version

        return version("lakehouse")
    names = sorted({*differ.split("\0"), *new.split("\0")} - {""})
    return f"{commit}+changed.{_sha256_of(names)[:12]}" if names else commit


def user() -> str:
    """Who runs this process, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments],
        cwd=PROJECT_DIR,
        # Other processes of the project are at the index, too.
        env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
        capture_output=True,
        check=True,
    ).stdout.decode(errors="surrogateescape")


def _sha256_of(names: list[str]) -> str:
    """A hash of files of the project, those that are gone among them."""
    digest = hashlib.sha256()
    for name in names:
        path = PROJECT_DIR / name
        content = path.read_bytes() if path.is_file() else None
        size = "gone" if content is None else len(content)
        digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape") + (content or b""))
    return digest.hexdigest()


def job(name: str) -> Callable[..., Any]:
    """The ``run`` function of a Spark job, found by its file's name in ``spark_jobs/``.

    Args:
        name: Such as ``land``.
    """
    run: Callable[..., Any] = importlib.import_module(f"spark_jobs.{name}").run
    return run


def _airflow_context() -> dict[str, Any]:
    try_number = os.environ.get("AIRFLOW_CTX_TRY_NUMBER")
    return {
        "airflow_dag_id": os.environ.get("AIRFLOW_CTX_DAG_ID"),
        "airflow_run_id": os.environ.get("AIRFLOW_CTX_DAG_RUN_ID"),
        "airflow_task_id": os.environ.get("AIRFLOW_CTX_TASK_ID"),
        "airflow_try_number": int(try_number) if try_number else None,
    }
