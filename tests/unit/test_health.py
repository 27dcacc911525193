"""The watchman: a part that lives and does not answer is ended, so that the supervisor starts it anew."""

from __future__ import annotations

import contextlib
import http.client
import io
import socketserver
import threading
import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn
from unittest.mock import Mock

import pytest
from supervisor.childutils import EventListenerProtocol

from lakehouse.platform import health, supervisor
from lakehouse.platform.parts import Part


@dataclass
class Kept:
    """A supervisor that keeps one part running."""

    pid: int = 100
    signals: list[tuple[Any, ...]] = field(default_factory=list)

    def states(self) -> dict[str, dict[str, Any]]:
        now = int(time.time())
        return {"mlflow": {"statename": "RUNNING", "pid": self.pid, "start": now - 1000, "now": now}}

    def call(self, method: str, *arguments: Any) -> None:
        self.signals.append((method, *arguments))
        self.pid += 1


class Dying(Kept):
    """A supervisor that answers once."""

    def states(self) -> dict[str, dict[str, Any]]:
        self.signals.append(("states",))
        return super().states() if len(self.signals) == 1 else {}


class Idle(Kept):
    """A supervisor that keeps nothing running but its watchman."""

    def states(self) -> dict[str, dict[str, Any]]:
        return {"health": {"statename": "RUNNING", "pid": self.pid}}


class Broken(io.StringIO):
    """What nobody reads any more when a result comes."""

    def write(self, text: str) -> int:
        if "RESULT" in text:
            raise BrokenPipeError(text)
        return super().write(text)


TICK = "ver:3.0 server:supervisor serial:1 pool:health poolserial:1 eventname:TICK_5 len:15\nwhen:1201063880"
"""An event of the supervisor's clock: https://supervisord.org/events.html."""


@pytest.mark.parametrize(
    ("kept", "output", "look", "parents", "names"),
    [
        (Kept(), io.StringIO(), None, [7, 7, 1], ["mlflow"]),
        (Dying(), io.StringIO(), None, [7, 1], ["mlflow"]),
        (Kept(), Broken(), None, [7, 1], ["mlflow"]),
        (Kept(), io.StringIO(), http.client.HTTPException("half an answer"), [7, 1], ["mlflow"]),
        (Kept(), io.StringIO(), RuntimeError("a mistake of the watchman"), [7], None),
        (Idle(), io.StringIO(), None, [7, 1], None),
    ],
    ids=["waiting", "asking", "answering", "looking", "alive", "idle"],
)
def test_a_supervisor_that_was_killed_is_started_anew_whatever_was_going_on(
    kept: Kept,
    output: io.StringIO,
    look: Exception | None,
    parents: list[int],
    names: list[str] | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "logs").mkdir()
    started = Mock()
    monkeypatch.setattr(health, "SECONDS_TO_END", 0.2)
    monkeypatch.setattr(health, "Supervisor", lambda: kept)
    monkeypatch.setattr(health, "Watchman", lambda: Mock(look=Mock(side_effect=look)))
    monkeypatch.setattr(health, "settings", lambda: SimpleNamespace(home=tmp_path))
    monkeypatch.setattr(health, "listener", EventListenerProtocol())
    monkeypatch.setattr("lakehouse.platform.health.os.getppid", chain(parents, repeat(parents[-1])).__next__)
    monkeypatch.setattr("lakehouse.platform.health.subprocess.Popen", started)
    monkeypatch.setattr("sys.stdin", io.StringIO(2 * TICK))
    for name in ("ready", "ok"):
        monkeypatch.setattr(health.listener, name, partial(getattr(health.listener, name), output))
    with contextlib.suppress(OSError, http.client.HTTPException, RuntimeError):
        health.main()
    if names is None:
        assert not started.called
    else:
        [(command,), _] = started.call_args
        assert command[1:] == ["-m", "lakehouse.platform", "up", *names]


def test_a_part_that_ends_before_it_is_killed_does_not_end_the_watchman(watched: Any) -> None:
    kept, make = watched

    def check() -> None:
        raise OSError("no answer")

    watchman = make(check)
    kept.call = Mock(side_effect=xmlrpc.client.Fault(70, "NOT_RUNNING"))
    for _ in range(health.FAILURES_BEFORE_RESTART):
        watchman.look()
    kept.call.assert_called_once_with("signalProcess", "mlflow", "KILL")


def test_an_answer_that_breaks_off_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "socket"
    monkeypatch.setattr(supervisor, "socket_path", lambda: path)
    monkeypatch.setattr(supervisor, "settings", lambda: SimpleNamespace(secret=lambda _name: "x"))
    for said in (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n<?xml", b"HTTP/1.1 200 OK\r\n", b""):
        with socketserver.UnixStreamServer(str(path), half_an_answer(said)) as server:
            threading.Thread(target=server.handle_request).start()
            assert supervisor.Supervisor().states() == {}, said
        path.unlink()


def half_an_answer(said: bytes) -> type[socketserver.StreamRequestHandler]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(said)

    return Handler


def run() -> NoReturn:
    raise AssertionError("nobody starts it")


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Kept, Callable[[Callable[[], None]], health.Watchman]]]:
    """The supervisor, and what makes a watchman of a part that is checked in some way."""
    kept = Kept()

    def make(check: Callable[[], None]) -> health.Watchman:
        part = Part("mlflow", run=run, check=lambda _started: check())
        monkeypatch.setattr(health, "parts", lambda: {"mlflow": part})
        return health.Watchman(io.StringIO())

    monkeypatch.setattr(health, "Supervisor", lambda: kept)
    monkeypatch.setattr(health, "SECONDS_FOR_AN_ANSWER", 0.05)
    monkeypatch.setattr(health, "SECONDS_BETWEEN_CHECKS", 0)
    yield kept, make


def test_a_part_that_hangs_is_killed_after_some_checks_and_its_successor_is_left_alone(watched: Any) -> None:
    kept, make = watched
    woken = threading.Event()

    def check() -> None:
        if kept.pid == 100:
            woken.wait(60)

    watchman = make(check)
    try:
        for _ in range(health.FAILURES_BEFORE_RESTART - 1):
            watchman.look()
        assert kept.signals == []
        watchman.look()
        assert kept.signals == [("signalProcess", "mlflow", "KILL")]
        for _ in range(2 * health.FAILURES_BEFORE_RESTART):
            watchman.look()
    finally:
        woken.set()
    assert kept.signals == [("signalProcess", "mlflow", "KILL")]


def test_a_part_that_only_stumbles_is_left_alone(watched: Any) -> None:
    kept, make = watched
    answers = [OSError("busy")] * (health.FAILURES_BEFORE_RESTART - 1) + [None]

    def check() -> None:
        answers.append(answer := answers.pop(0))
        if answer:
            raise answer

    watchman = make(check)
    for _ in range(3 * len(answers)):
        watchman.look()
    assert kept.signals == []
