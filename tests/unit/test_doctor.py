"""What `lake doctor` finds, each thing broken by itself, and the way out that it names."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from typer.testing import CliRunner

from lakehouse.cli import command_line
from lakehouse.errors import LakeError
from lakehouse.platform import doctor, engine, jars, lifecycle, processes, supervisor
from lakehouse.platform.doctor import Finding
from lakehouse.platform.parts import Part
from lakehouse.releases import release
from lakehouse.settings import settings
from tests.platforms import free_ports

GIB = 1024**3
ask_java = engine.java_version


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder of its own, of which there is nothing yet, on a machine with room."""
    monkeypatch.setenv("LAKE_HOME", str(tmp_path / "lake"))
    monkeypatch.setenv("LAKE_JARS", str(tmp_path / "jars"))
    for name, port in free_ports().items():
        monkeypatch.setenv(name, port)
    for name in ("JAVA_HOME", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    machine(monkeypatch, free=8)
    monkeypatch.setattr(engine, "java_version", lambda program: 21)
    settings.cache_clear()
    yield tmp_path / "lake"
    monkeypatch.undo()
    settings.cache_clear()


def machine(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    memory = SimpleNamespace(available=free * GIB, total=16 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)


def wrong() -> dict[str, Finding]:
    """What is not fine, by its subject."""
    return {each.subject: each for each in doctor.examine() if not each.fine}


def test_nothing_is_wrong_with_a_machine_that_has_never_seen_the_platform(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "java_version", ask_java)
    found = {each.subject: each.found for each in doctor.examine()}
    assert wrong() == {}
    assert (found["supervisor"], found["state folder"]) == ("not started", "not made yet")
    assert found["JARs"].endswith("are fetched at the next start")


def test_a_port_that_is_taken_is_named_with_who_has_it(home: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", settings().ports.airflow))
        other.listen()
        [(subject, finding)] = wrong().items()
    assert subject == f"port {settings().ports.airflow}"
    assert "wanted by api-server" in finding.found and f"process {os.getpid()} " in finding.found
    assert "LAKE_PORTS__AIRFLOW" in finding.way_out


def test_too_little_memory_is_said_with_what_is_wanted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, free=1.5)
    finding = wrong()["memory"]
    assert finding.found == "1.5 GiB free of 16.0; the platform wants 5" and "LAKE_SPARK_MEMORY" in finding.way_out


def test_a_full_disk_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=GIB))
    assert "LAKE_HOME" in wrong()["disk"].way_out


@pytest.mark.parametrize("version", [(3, 10, 9), (3, 14, 0)])
def test_a_python_that_does_not_do_is_said(
    home: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int]
) -> None:
    monkeypatch.setattr(doctor, "sys", SimpleNamespace(version_info=version))
    finding = wrong()["Python"]
    assert finding.found == ".".join(map(str, version)) and "3.11, 3.12 or 3.13" in finding.way_out


def test_a_java_that_is_not_there_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(home / "no-java"))
    assert "JAVA_HOME" in wrong()["Java"].way_out


def test_a_java_that_is_too_old_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "java_version", lambda program: 11)
    assert wrong()["Java"].found.startswith("11 ")


def test_a_jar_that_is_not_the_locked_one_is_named(home: Path) -> None:
    spoilt = jars.locked()[0].path
    spoilt.parent.mkdir(parents=True)
    spoilt.write_bytes(b"half a download")
    finding = wrong()["JARs"]
    assert str(spoilt) in finding.found and "lake up" in finding.way_out


def test_a_database_that_does_not_answer_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = free_ports(("nobody",))["LAKE_PORTS__NOBODY"]
    monkeypatch.setenv("DATABASE_URL", f"postgresql://lake:x@127.0.0.1:{nobody}")
    settings.cache_clear()
    finding = wrong()["database"]
    assert "does not answer" in finding.found and "DATABASE_URL" in finding.way_out


def test_a_port_that_two_parts_want_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_PORTS__MLFLOW", str(settings().ports.airflow))
    settings.cache_clear()
    assert f"port {settings().ports.airflow} is given to two parts" in wrong()["settings"].found


def test_secrets_that_others_may_read_are_named(home: Path) -> None:
    lifecycle.make_home()
    settings().secret("sql_password")
    (home / "secrets.json").chmod(0o644)
    finding = wrong()["state folder"]
    assert "secrets.json (mode 644)" in finding.found and finding.way_out == f"chmod go= {home / 'secrets.json'}"


def test_secrets_that_are_broken_are_said(home: Path) -> None:
    lifecycle.make_home()
    settings().secret("sql_password")
    (home / "secrets.json").write_text('{"sql_password": ')
    supervisor.socket_path().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    supervisor.socket_path().touch()  # of a supervisor that could be asked with the password alone
    assert "lake reset" in wrong()["state folder"].way_out
    lifecycle.reset()
    assert not home.exists()


def test_a_folder_of_somebody_else_is_said_and_left_alone(home: Path) -> None:
    home.mkdir()
    (home / "thesis.tex").touch()
    assert "thesis.tex" in wrong()["state folder"].found
    assert [path.name for path in home.iterdir()] == ["thesis.tex"]


def test_a_supervisor_that_went_without_a_good_bye_is_said(home: Path) -> None:
    lifecycle.make_home()
    supervisor.socket_path().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    supervisor.socket_path().touch()
    finding = wrong()["supervisor"]
    assert "is stale" in finding.found and "lake up" in finding.way_out


def test_parts_that_a_dead_supervisor_has_left_are_named(home: Path) -> None:
    lifecycle.make_home()
    supervisor.folder().mkdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as left:
        processes.record_session(left.pid)
        finding = wrong()["supervisor"]
        left.communicate(b"\n")
    assert f"({left.pid})" in finding.found and "lake down" in finding.way_out


def test_a_part_that_still_starts_is_given_its_time(home: Path) -> None:
    part = Part("mlflow", run=lambda: sys.exit(), check=lambda started: None, start_seconds=60)
    [young, old] = [
        finding.way_out
        for uptime in (5, 600)
        for finding in doctor.of_parts([lifecycle.Status(part, "running", 1, "Connection refused", uptime)])
    ]
    assert young == "it was started 5 s ago and has 60: ask again; `lake logs mlflow` says what it does"
    assert old == "`lake logs mlflow` says why; `lake up` tries again"


@pytest.mark.parametrize("server", ["works", "is down"])
def test_views_are_looked_at_when_the_engine_elsewhere_is_there(
    home: Path, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    def fails() -> None:
        raise LakeError("The log of releases is damaged.\nMore of it.")

    monkeypatch.setattr(doctor, "settings", lambda: settings().model_copy(update={"spark_remote": "sc://elsewhere"}))
    engine_there = Finding("engine", server, "" if server == "works" else "start it")
    monkeypatch.setattr(doctor, "_engine_elsewhere", lambda: engine_there)
    monkeypatch.setattr(doctor, "Supervisor", lambda: SimpleNamespace(states=lambda: {"mlflow": {"pid": 1}}))
    monkeypatch.setattr(lifecycle, "status", lambda: [])
    monkeypatch.setattr(release, "outdated", fails)
    found = {each.subject: each for each in doctor.examine()}
    if server == "works":
        assert found["released views"].found == "could not be looked at: The log of releases is damaged."
        assert found["released views"].way_out
    else:
        assert "released views" not in found


def test_the_command_prints_the_way_out_and_fails(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = CliRunner().invoke(command_line(), ["doctor"])
    assert said.exit_code == 0 and "FAIL" not in said.output, said.output
    machine(monkeypatch, free=1)
    said = CliRunner().invoke(command_line(), ["doctor"])
    assert said.exit_code == 1 and "FAIL  memory: 1.0 GiB free" in said.output and "way out: end other" in said.output
