"""What the engine is asked and has done: numbers that a busy machine does not change.

Spark's own REST interface tells the jobs, and the client's ends of its requests are counted here.
"""

from __future__ import annotations

import json
import os
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

from lakehouse import ops, tables
from lakehouse.engine import spark
from lakehouse.platform import engine

PATIENCE = 30


@dataclass
class Count:
    """What was done within :func:`counting`.

    Attributes:
        statements: Queries and commands that this process has sent to the engine.
        jobs: Spark jobs.
        bytes_written: Bytes that tasks have written to tables.
        rows_read: Rows that tasks have read from files.
        what: What Spark says that each job was for.
    """

    statements: int = -1
    jobs: int = -1
    bytes_written: int = -1
    rows_read: int = -1
    what: list[str] = field(default_factory=list)


@contextmanager
def counting() -> Iterator[Count]:
    """Count what the engine does in the block, whoever asks for it."""
    found = Count()
    wait_for_warm_up()
    job = _mark()
    with _statements() as statements:
        yield found
    found.statements = len(statements)
    last_job = _mark()
    jobs = [each for each in _ask("jobs") if job < each["jobId"] < last_job]
    found.jobs, found.what = len(jobs), [_purpose(each) for each in jobs]
    stages = {stage for each in jobs for stage in each["stageIds"]}
    done = [stage for stage in _ask("stages") if stage["stageId"] in stages]
    found.bytes_written = sum(stage["outputBytes"] for stage in done)
    found.rows_read = sum(stage["inputRecords"] for stage in done)


def engine_cores() -> int:
    """How many tasks the engine can work at."""
    return sum(each["totalCores"] for each in _ask("executors"))


def running_tasks() -> int:
    """How many tasks the engine works at."""
    return sum(each["numActiveTasks"] for each in _ask("jobs?status=running"))


@contextmanager
def appending() -> Iterator[dict[str, int]]:
    """Count the commits that come to the platform's own tables in the block; a table that gets none is left out."""
    found: dict[str, int] = {}
    before = {table: tables.head(table) or 0 for table in ops.SCHEMAS}
    with mock.patch.object(ops, "compact", lambda _table: None):  # which comes with every 64th
        yield found
    now = {table: tables.head(table) or 0 for table in ops.SCHEMAS}
    found |= {table: now[table] - before[table] for table in ops.SCHEMAS if now[table] != before[table]}


@contextmanager
def reading_logs() -> Iterator[Counter[str]]:
    """Count how often this process opens the log of each table in the block, and reads it from its last checkpoint on.

    The engine reads logs, too, and does so or not as it thinks fit.
    """
    found: Counter[str] = Counter()

    class Counted(tables.DeltaTable):  # type: ignore[misc]
        def __init__(self, table_uri: str, *arguments: Any, **options: Any) -> None:
            found[".".join(Path(table_uri).parts[-2:]).replace(".db.", ".")] += 1
            super().__init__(table_uri, *arguments, **options)

    with mock.patch.object(tables, "DeltaTable", Counted):
        yield found


@contextmanager
def _statements() -> Iterator[list[None]]:
    """A list that grows with each query and each command; what asks for a schema or the like is none."""
    client: Any = spark().client
    sent: list[None] = []

    def counted(name: str) -> Any:
        real = getattr(client, name)

        def send(*arguments: Any, **options: Any) -> Any:
            sent.append(None)
            return real(*arguments, **options)

        return mock.patch.object(client, name, send)

    with ExitStack() as patches:
        for name in ("_execute", "_execute_and_fetch_as_iterator"):
            patches.enter_context(counted(name))
        yield sent


def wait_for_warm_up() -> None:
    """Wait until the platform has used its engine for the first time, which would be counted, too."""
    written = engine.folder() / "tmp" / "warm-up-connect" / "_delta_log" / f"{0:020}.json"
    for _ in range(PATIENCE * 20):
        commands = [each.info["cmdline"] or () for each in psutil.process_iter(["cmdline"])]
        if written.exists() and not any("lakehouse.platform.warm_up" in command for command in commands):
            return
        time.sleep(0.1)
    raise TimeoutError("The engine is not warm.")


def _mark() -> int:
    """The number of a job that is run for this alone; all before it have been told by then."""
    tag = f"mark-{uuid.uuid4().hex}"
    session = spark()
    session.addTag(tag)
    try:
        session.range(1).collect()
    finally:
        session.removeTag(tag)
    for _ in range(PATIENCE * 10):
        jobs = [each["jobId"] for each in _ask("jobs") if any(tag in name for name in each.get("jobTags", ()))]
        if jobs:
            return max(jobs)
        time.sleep(0.1)
    raise TimeoutError(f"Spark has not told of the job {tag} in {PATIENCE} s.")


def _purpose(job: dict[str, Any]) -> str:
    return str(job.get("description", job["name"]))


def _ask(what: str) -> Any:
    base = f"http://127.0.0.1:{os.environ['TEST_SPARK_UI']}/api/v1/applications"
    with urllib.request.urlopen(base, timeout=PATIENCE) as response:
        (application,) = json.load(response)
    with urllib.request.urlopen(f"{base}/{application['id']}/{what}", timeout=PATIENCE) as response:
        return json.load(response)
