"""The watchman: a part that lives and does not answer is ended, so that the supervisor starts it anew."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import pytest

from lakehouse.platform import health
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
