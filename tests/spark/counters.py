"""What the engine has done, counted by Spark's own REST interface: a number that a busy machine does not change."""

from __future__ import annotations

import json
import os
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lakehouse.engine import spark

PATIENCE = 30


@dataclass
class Count:
    """What was done within :func:`counting`.

    Attributes:
        jobs: Spark jobs.
        statements: Queries and commands that Spark's SQL has run, those that Delta runs for itself included.
        bytes_written: Bytes that tasks have written to tables.
    """

    jobs: int = -1
    statements: int = -1
    bytes_written: int = -1


@contextmanager
def counting() -> Iterator[Count]:
    """Count what the engine does in the block, whoever asks for it."""
    found = Count()
    job, statement = _mark()
    yield found
    last_job, last_statement = _mark()
    found.jobs, found.statements = last_job - job - 1, last_statement - statement - 1
    stages = {stage for each in _ask("jobs") if job < each["jobId"] < last_job for stage in each["stageIds"]}
    found.bytes_written = sum(stage["outputBytes"] for stage in _ask("stages") if stage["stageId"] in stages)


def _mark() -> tuple[int, int]:
    """The numbers of a job and its statement that are run for this alone; all before them have been told by then."""
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
            statements = [
                each["id"]
                for each in _ask("sql?details=false&length=100000")
                if not set(jobs).isdisjoint(each["successJobIds"])
            ]
            if statements:
                return max(jobs), max(statements)
        time.sleep(0.1)
    raise TimeoutError(f"Spark has not told of the job {tag} in {PATIENCE} s.")


def _ask(what: str) -> Any:
    base = f"http://127.0.0.1:{os.environ['TEST_SPARK_UI']}/api/v1/applications"
    with urllib.request.urlopen(base, timeout=PATIENCE) as response:
        (application,) = json.load(response)
    with urllib.request.urlopen(f"{base}/{application['id']}/{what}", timeout=PATIENCE) as response:
        return json.load(response)
