"""`lake logs` and `lake reset`: what they show, and what they leave alone."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lakehouse.cli import command_line
from lakehouse.engine import EngineDownError, process_record, spark
from lakehouse.platform import lifecycle
from lakehouse.platform.commands import logs
from lakehouse.platform.errors import PlatformError
from lakehouse.platform.parts import Part
from lakehouse.registry import registry
from lakehouse.registry.registry import RegistryDownError
from lakehouse.settings import settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder with the logs of two parts, of which none runs."""
    monkeypatch.setenv("LAKE_HOME", str(tmp_path / "lake"))
    settings.cache_clear()
    folder = lifecycle.make_home() / "logs"
    folder.mkdir()
    for part in ("engine", "scheduler"):
        (folder / f"{part}.log").write_text("".join(f"{part} says {number}\n" for number in range(100)))
    yield tmp_path / "lake"
    monkeypatch.undo()
    settings.cache_clear()


def shown(capfd: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capfd.readouterr().out.splitlines() if " says " in line]


def test_logs_show_the_last_lines_of_all_parts(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logs(lines=2)
    assert shown(capfd) == [f"{part} says {number}" for part in ("engine", "scheduler") for number in (98, 99)]


def test_logs_show_a_part_or_a_group_of_them(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logs(["engine"], lines=1)
    assert shown(capfd) == ["engine says 99"]
    logs(["airflow"], lines=1)
    assert shown(capfd) == ["scheduler says 99"]


def test_logs_say_which_parts_there_are(home: Path) -> None:
    with pytest.raises(PlatformError, match=r"no part 'spark' here\. The parts are: postgres, engine, .*or: airflow"):
        logs(["spark"])
    with pytest.raises(PlatformError, match="nothing was started"):
        logs(["triggerer"])


def test_a_part_that_cannot_be_made_ready_is_stopped_and_not_taken_for_one_that_works(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finish() -> None:
        raise PlatformError("no core")

    asked: list[str] = []
    start = lifecycle._Start({}, print)
    monkeypatch.setattr(start, "_info", lambda _part: {"statename": "STOPPED"})
    monkeypatch.setattr(start, "_ask", lambda _part, what, _wait: asked.append(what))
    monkeypatch.setattr(start, "_await", lambda _part: None)
    fetched: Future[object] = Future()
    fetched.set_result(None)
    part = Part("engine", run=sys.exit, check=lambda _started: None, finish=finish)
    with pytest.raises(PlatformError, match="no core"):
        start._bring_up(part, fetched)
    assert asked == ["startProcess", "stopProcess"]


def test_reset_asks_and_deletes_the_state_folder(home: Path) -> None:
    (home / "warehouse").mkdir()
    refused = CliRunner().invoke(command_line(), ["reset"], input="n\n")
    assert refused.exit_code == 1 and (home / "warehouse").exists()
    done = CliRunner().invoke(command_line(), ["reset"], input="y\n")
    assert done.exit_code == 0 and f"{home} is gone" in done.output and not home.exists()
    assert CliRunner().invoke(command_line(), ["reset", "--yes"]).exit_code == 0  # there is nothing to do


def test_reset_leaves_a_folder_that_the_platform_has_not_made(home: Path) -> None:
    (home / lifecycle.HOME_MARKER).unlink()
    with pytest.raises(PlatformError, match="not a state folder of the platform"):
        lifecycle.reset()
    assert (home / "logs" / "engine.log").exists()


def test_what_needs_the_engine_or_mlflow_does_not_wait_for_them_after_down(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process_record().parent.mkdir()
    process_record().write_text("{}")
    lifecycle.down()
    with pytest.raises(EngineDownError, match=f"The engine of {home} is not running"):
        spark.__wrapped__()  # not a session that this process has kept from another test
    monkeypatch.setattr(settings(), "mlflow_tracking_uri", None)  # benchmarks of the same process have set it
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")  # given back at the end
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))  # a port that nobody answers, and that nobody else can take meanwhile
        monkeypatch.setattr(settings().ports, "mlflow", server.getsockname()[1])
        with pytest.raises(RegistryDownError, match=f"MLflow of {home} is not running"):
            registry.connect.__wrapped__()
        server.listen()
        assert registry.connect.__wrapped__()  # it can be there without an engine
