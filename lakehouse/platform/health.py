"""The supervisor's watchman: asks each part whether it still works, and has one that hangs restarted.

An event listener of the supervisor. A part that dies is the supervisor's own business; this is for
the part that lives and does not answer, and for the death of the supervisor itself.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import xmlrpc.client
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from supervisor.childutils import listener

from lakehouse.platform.parts import Part, parts
from lakehouse.platform.supervisor import HEALTH, Supervisor
from lakehouse.settings import settings

SECONDS_BETWEEN_CHECKS = 15
SECONDS_FOR_AN_ANSWER = 15
# A busy part may be slow, and a restart loses its work: it is given more than a minute.
FAILURES_BEFORE_RESTART = 4
SECONDS_TO_END = 2


@dataclass
class Watch:
    """What is known of one part.

    Attributes:
        pid: Process that the rest is about.
        failures: Checks in a row that have failed.
        worked: Whether a check of this process has ever passed.
        pending: A check that has not come back.
    """

    pid: int = 0
    failures: int = 0
    worked: bool = False
    pending: Future[None] | None = None


class Watchman:
    """Checks all parts that should work, and restarts one that does not."""

    def __init__(self, log: TextIO = sys.stderr) -> None:
        self._supervisor = Supervisor()
        self._parts = parts()
        self._watches = {name: Watch() for name in self._parts}
        self._pool = ThreadPoolExecutor(len(self._parts) + 1, thread_name_prefix="check")
        self._log = log
        self._last = 0.0

    def look(self) -> None:
        """Check every part once, if it is time: at every tick while one of them fails, else now and then."""
        troubled = any(watch.failures for watch in self._watches.values())
        if not troubled and time.monotonic() - self._last < SECONDS_BETWEEN_CHECKS:
            return
        self._last = time.monotonic()
        running = {
            name: info
            for name, info in self._supervisor.states().items()
            if name in self._parts and info["statename"] == "RUNNING"
        }
        for name, info in running.items():
            watch = self._watches[name]
            if watch.pid != info["pid"]:
                self._watches[name] = watch = Watch(pid=info["pid"])
            if watch.pending is None or watch.pending.done():
                started = datetime.fromtimestamp(info["start"], UTC)
                watch.pending = self._pool.submit(self._parts[name].check, started)
        wait_for([future for name in running if (future := self._watches[name].pending)], timeout=SECONDS_FOR_AN_ANSWER)
        for name, info in running.items():
            self._judge(self._parts[name], self._watches[name], info)

    def _judge(self, part: Part, watch: Watch, info: dict[str, Any]) -> None:
        assert watch.pending is not None
        if not watch.pending.done():
            problem: object = f"no answer in {SECONDS_FOR_AN_ANSWER} s"
        else:
            problem = watch.pending.exception()
            watch.pending = None
        if problem is None:
            if watch.failures:
                self._say(f"{part.name} works again")
            if not watch.worked:
                self._pool.submit(self._warm_up, part)
            watch.failures, watch.worked = 0, True
            return
        if not watch.worked and info["now"] - info["start"] < part.start_seconds:
            return  # still starting
        watch.failures += 1
        self._say(f"{part.name} failed check {watch.failures} of {FAILURES_BEFORE_RESTART}: {problem}")
        if watch.failures >= FAILURES_BEFORE_RESTART:
            self._say(f"{part.name} is restarted")
            # It does not listen to what is polite any more.
            with contextlib.suppress(xmlrpc.client.Fault):  # it has ended by itself
                self._supervisor.call("signalProcess", part.name, "KILL")
            watch.failures = 0

    def _warm_up(self, part: Part) -> None:
        try:
            part.warm_up()
        except Exception as error:  # in the words of the part's own client library; its check judges the part
            self._say(f"{part.name} could not be warmed up: {error}")

    def _say(self, text: str) -> None:
        print(f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}", file=self._log, flush=True)


def main() -> None:
    """Listen to the supervisor's clock until it ends."""
    supervisor = Supervisor()
    watchman = Watchman()
    parent = os.getppid()
    known: list[str] = []
    try:
        while True:
            listener.ready()
            header = sys.stdin.readline()
            if not header:
                break
            sys.stdin.read(int(header.rsplit("len:", 1)[1]))
            if states := supervisor.states():  # one that has ended meanwhile says nothing
                known = [name for name, info in states.items() if info["pid"] and name != HEALTH]
            watchman.look()
            listener.ok()
    finally:
        # An orderly supervisor ends its listeners by a signal. One that was killed is started anew by whoever is left.
        if known and _has_lost(parent):
            _start_anew(known)


def _has_lost(parent: int) -> bool:
    """Whether the parent of this process has ended; its pipes close a moment before it has."""
    end = time.monotonic() + SECONDS_TO_END
    while os.getppid() == parent:
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _start_anew(names: list[str]) -> None:
    with (settings().home / "logs" / "recovery.log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "lakehouse.platform", "up", *names],
            env={name: value for name, value in os.environ.items() if not name.startswith("SUPERVISOR_")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
