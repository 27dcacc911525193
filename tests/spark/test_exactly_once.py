"""Killed at any point and tried again, run twice, at once or out of order: readers get the rows of one clean run.

Steps run in processes of their own, on the real engine, and are killed with SIGKILL. What readers see is compared by a
hash of its content: a count of rows is answered from the log, and proves nothing about the files.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lakehouse import ops, release_log, tables, warehouse
from lakehouse.engine import spark
from lakehouse.interval import Interval
from lakehouse.ml import model_folders
from lakehouse.releases import audit, fingerprints, release, unreleased
from lakehouse.releases.audit import gate
from lakehouse.releases.rollback import rollback
from lakehouse.settings import settings
from lakehouse.steps import code_version, job
from tests.spark.apart import OVERTAKEN, SECONDS, Apart

land = job("land")
SOURCE, TABLE, STORED, QUARANTINE = "planes", "bronze.planes", "bronze_next.planes", "quarantine.planes"
BASE, DAY, NEXT = (Interval.parse(f"2013-01-{day}") for day in (12, 13, 14))
OWN_TO_A_RUN = ("_batch", "run_id", "scored_at")


def run(phase: str, interval: Interval, table: str, model: str, steps: tuple[str, ...]) -> None:
    """What a process of its own does: steps one after the other, and at a phase of one of them it dies or stops.

    Args:
        phase: A key of ``harm``.
        interval: The days of all steps.
        table: What is gated and released.
        model: A module that knows what ``flight_delay`` reads here, if it is asked for.
        steps: Keys of ``known_steps``.
    """
    from spark_jobs import land as land_job

    logging.basicConfig(level=logging.INFO)

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def patch(
        module: Any, name: str, before: Callable[[], None] | None = None, after: Callable[[], None] | None = None
    ) -> None:
        original = getattr(module, name)

        def patched(*args: Any, **kwargs: Any) -> Any:
            if before:
                before()
            outcome = original(*args, **kwargs)
            if after:
                after()
            return outcome

        setattr(module, name, patched)

    def die_at_the_first_new_file() -> None:
        folder = Path(tables.location(tables.next_table(table)))
        known = set(folder.rglob("*.parquet"))

        def watch() -> None:
            while not set(folder.rglob("*.parquet")) - known:
                pass
            die()

        threading.Thread(target=watch, daemon=True).start()

    harm: dict[str, Callable[[], None]] = {
        "none": lambda: None,
        "before the write": lambda: patch(tables, "replace_interval", before=die),
        "after data files": lambda: patch(tables, "replace_interval", before=die_at_the_first_new_file),
        "after the commit": lambda: patch(tables, "replace_interval", after=die),
        "after landing": lambda: patch(land_job, "run", after=die),
        "before the gate": lambda: patch(audit, "gate", before=die),
        "after the verdict": lambda: patch(audit.ops, "append", after=die),
        "after the gate": lambda: patch(audit, "gate", after=die),
        "before the release": lambda: patch(release, "_record", before=die),
        "after the record": lambda: patch(release, "_record", after=die),
        "after the views": lambda: patch(release, "_point", after=die),
        "after the release": lambda: patch(release, "release", after=die),
        "paused before the commit": lambda: patch(tables, "replace_interval", before=stop),
        "paused before the record": lambda: patch(fingerprints, "record", after=stop),
        "paused after the record": lambda: patch(release, "_record", after=stop),
        "paused before dbt": lambda: patch(warehouse, "run_dbt", before=stop),
        "after data files of dbt": lambda: patch(warehouse, "run_dbt", before=die_at_the_first_new_file),
        "after dbt": lambda: patch(warehouse, "run_dbt", after=die),
    }
    harm[phase]()
    if model:
        spec = importlib.import_module(model).made_up()
        model_folders.load = lambda _name: spec
    known_steps: dict[str, Callable[[], object]] = {
        "land": lambda: job("land")(SOURCE, interval),
        "gate": lambda: audit.gate([table], interval),
        "release": lambda: release.release([table], interval),
        "build": lambda: warehouse.build(interval, "+dim_planes"),
        "score": lambda: job("score")("flight_delay", interval),
    }
    for step in steps:
        known_steps[step]()


def start(phase: str, interval: Interval, *steps: str, table: str = TABLE, model: str = "") -> Apart:
    return Apart(run, phase, interval, table, model, steps)


def killed(phase: str, interval: Interval, *steps: str, table: str = TABLE, model: str = "") -> None:
    code, errors = start(phase, interval, *steps, table=table, model=model).ended()
    assert code == -signal.SIGKILL, errors[-3000:]


def content(name: str) -> str:
    """A hash of all values of all rows, whatever their order, without what a run says of itself, new with each try."""
    rows = sorted(repr(tuple(row)) for row in spark().table(name).drop(*OWN_TO_A_RUN).collect())
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def visible() -> tuple[str, str]:
    """What readers see, and what has been set aside."""
    return content(TABLE), content(QUARANTINE)


def publish(interval: Interval) -> None:
    land(SOURCE, interval)
    gate([TABLE], interval)
    release.release([TABLE], interval)


@pytest.fixture(scope="module")
def base(drop: Path) -> Iterator[int]:
    """The release that every test starts from. The file of DAY has a row that goes to quarantine."""
    path = drop / SOURCE / f"{SOURCE}_{DAY}.csv"
    original = path.read_text()
    lines = original.split("\n")
    path.write_text("\n".join([*lines[:5], lines[5] + ",surplus", *lines[6:]]))
    publish(BASE)
    yield release_log.released()[TABLE].release_id
    path.write_text(original)


@pytest.fixture(scope="module")
def clean(base: int) -> dict[str, tuple[str, str]]:
    """What readers see before, after DAY, and after DAY and NEXT, by one clean run of each."""
    before = visible()
    publish(DAY)
    one = visible()
    publish(NEXT)
    two = visible()
    assert len({before, one, two}) == 3
    return {"before": before, "one": one, "two": two}


@pytest.fixture(autouse=True)
def _from_the_base(base: int, clean: dict[str, tuple[str, str]]) -> None:
    rollback(TABLE, base)
    assert content(TABLE) == clean["before"][0]


PHASES = {
    "gate": ("before the gate", "after the verdict", "after the gate"),
    "release": ("before the release", "after the record", "after the views", "after the release"),
}
"""Of the steps that all tables have in common."""


def killed_from_the_gate_on(table: str, interval: Interval, before: str, wanted: str) -> None:
    """Gate and release what was written, each retry killed at the next phase; readers see all of it or nothing."""
    for phase in PHASES["gate"]:
        killed(phase, interval, "gate", table=table)
        assert content(table) == before
    gate([table], interval)
    for phase in PHASES["release"]:
        killed(phase, interval, "release", table=table)
        # What was recorded is seen when the views have followed.
        assert content(table) == (before if phase in ("before the release", "after the record") else wanted)
    release.release([table], interval)
    assert content(table) == content(tables.next_table(table)) == wanted


@pytest.mark.parametrize("phase", ["before the write", "after data files", "after the commit", "after landing"])
def test_a_landing_that_was_killed_and_is_tried_again_leaves_the_rows_of_a_clean_run(
    phase: str, clean: dict[str, tuple[str, str]]
) -> None:
    killed(phase, DAY, "land")
    assert content(TABLE) == clean["before"][0]
    if phase == "after the commit":  # of the good rows, and before that of the bad ones
        for goes_on in (gate, release.release):
            with pytest.raises(unreleased.UnfinishedWriteError, match="the step land"):
                goes_on([TABLE], DAY)
    publish(DAY)
    assert visible() == clean["one"]
    assert content(STORED) == clean["one"][0]


def test_a_gate_and_a_release_that_were_killed_at_each_of_their_phases_leave_the_rows_of_a_clean_run(
    clean: dict[str, tuple[str, str]],
) -> None:
    land(SOURCE, DAY)
    killed_from_the_gate_on(TABLE, DAY, clean["before"][0], clean["one"][0])
    assert visible() == clean["one"]


def test_a_run_that_is_repeated_whole_leaves_the_same_rows(clean: dict[str, tuple[str, str]]) -> None:
    publish(DAY)
    publish(DAY)
    assert visible() == clean["one"]


def test_days_that_come_out_of_order_leave_the_same_rows(clean: dict[str, tuple[str, str]]) -> None:
    publish(NEXT)
    publish(DAY)
    assert visible() == clean["two"]


@pytest.mark.parametrize("other", [DAY, NEXT])
def test_two_runs_at_once_leave_the_rows_of_clean_runs(other: Interval, clean: dict[str, tuple[str, str]]) -> None:
    steps = ("land", "gate", "release")
    runs = [(interval, start("none", interval, *steps)) for interval in (DAY, other)]
    for interval, process in runs:
        code, errors = process.ended()
        if code:
            assert re.search(OVERTAKEN, errors), errors[-3000:]
            publish(interval)
    assert visible() == (clean["one"] if other == DAY else clean["two"])


@contextmanager
def asleep(phase: str, interval: Interval, *steps: str) -> Iterator[Callable[[], tuple[int, str]]]:
    """A process that was stopped, and has lost its locks meanwhile; wakes it, and gives its exit code and errors."""
    stale = start(phase, interval, *steps)

    def wake() -> tuple[int, str]:
        os.kill(stale.pid, signal.SIGCONT)
        return stale.ended()

    try:
        deadline = time.monotonic() + SECONDS
        while Path(f"/proc/{stale.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            assert time.monotonic() < deadline and stale.alive()
            time.sleep(0.05)
        with psycopg.connect(settings().postgres_url("lake"), autocommit=True) as connection:
            # What a network that is cut, or a database that is restarted, does to its lock.
            connection.execute("select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and granted")
        yield wake
    finally:
        stale.kill()


def test_a_writer_that_was_asleep_while_another_took_over_does_not_commit(clean: dict[str, tuple[str, str]]) -> None:
    with asleep("paused before the commit", NEXT, "land", "gate", "release") as wake:
        publish(DAY)
        head = tables.head(STORED)
        code, errors = wake()
    assert code == 1
    assert "StaleWriterError" in errors
    assert tables.head(STORED) == head
    assert visible()[0] == clean["one"][0]


def test_a_release_that_was_asleep_while_another_took_over_is_not_recorded(clean: dict[str, tuple[str, str]]) -> None:
    with asleep("paused before the record", NEXT, "land", "gate", "release") as wake:
        publish(DAY)
        releases = len(release_log.history())
        code, errors = wake()
    assert code == 1
    assert "StaleWriterError" in errors
    assert len(release_log.history()) == releases
    assert visible()[0] == clean["one"][0]


def test_a_release_that_was_asleep_after_its_record_leaves_the_views_to_who_has_taken_over(
    clean: dict[str, tuple[str, str]],
) -> None:
    with asleep("paused after the record", NEXT, "land", "gate", "release") as wake:
        publish(DAY)
        code, errors = wake()
    assert code == 1
    assert "StaleWriterError" in errors
    assert visible() == clean["two"]


def test_a_build_that_was_asleep_while_another_took_over_does_not_commit(clean: dict[str, tuple[str, str]]) -> None:
    stored = "gold_next.dim_planes"
    publish(DAY)
    with asleep("paused before dbt", NEXT, "build") as wake:
        warehouse.build(DAY, "+dim_planes")
        head, said = tables.head(stored), tables.last_commit(stored)["userMetadata"]
        code, errors = wake()
    assert code == 1
    assert "StaleWriterError" in errors
    assert tables.head(stored) == head
    assert (said["token"], said["code_version"]) == (token("gold_next"), code_version())


def token(table: str) -> int:
    """The number of the last writer of a table."""
    with psycopg.connect(settings().postgres_url("lake"), autocommit=True) as connection:
        row = connection.execute("select token from writer_tokens where table_name = %s", [table]).fetchone()
    assert row is not None
    return int(row[0])


def test_a_build_that_is_killed_at_each_of_its_phases_leaves_the_rows_of_a_clean_one(
    clean: dict[str, tuple[str, str]],
) -> None:
    gold, stored = "gold.dim_planes", "gold_next.dim_planes"

    def build() -> None:
        warehouse.build(NEXT, "+dim_planes")

    publish(DAY)
    warehouse.build(DAY, "+dim_planes")
    assert gold in ops.read("ops.lineage_columns")["table_name"].to_pylist()
    gate([gold], DAY)
    base = release.release([gold], DAY)
    before = content(gold)
    publish(NEXT)
    build()
    gate([gold], NEXT)
    release.release([gold], NEXT)
    wanted = content(gold)
    rollback(gold, base)
    assert content(gold) == before != wanted
    version = tables.head(stored)

    killed("after data files of dbt", NEXT, "build", table=gold)
    assert content(gold) == before
    killed("after dbt", NEXT, "build", table=gold)
    assert tables.head(stored) != version
    assert content(gold) == before
    assert warehouse.prepare(NEXT) == [gold]
    assert content(stored) == before
    assert warehouse.prepare(NEXT) == []
    build()
    killed_from_the_gate_on(gold, NEXT, before, wanted)
