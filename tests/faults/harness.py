"""Runs the daily job with something harmed at a point of it, and compares all tables with undisturbed runs."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

import psutil

from lakehouse.airflow_client import AirflowClient
from lakehouse.interval import Interval
from tests.faults import reader
from tests.faults.daily import MODEL, Job, Outcome, hashed
from tests.faults.points import POINTS, Point
from tests.platforms import Platform

FIRST_DAY, LAST_DAY = dt.date(2013, 1, 9), dt.date(2013, 2, 28)
"""Of the windows that are trained on; the demo's begins a day earlier."""

DAGS_OF_A_DAY = ("ingest", "build", "score")
RECOVERY_SECONDS = 180
WRITING_SECONDS, WAKING_SECONDS = 20, 120
"""What a writer that was woken has to write, or not to, and then to end."""

STARVING = ("fill the disk", "take the files")
"""Deeds after which the engine has nothing to answer a reader with, for a while."""


class HarnessError(AssertionError):
    """The harness could not tell a right outcome from a wrong one."""


@dataclass(frozen=True)
class Result:
    """How a point ended.

    Attributes:
        point: Its name.
        passed: Whether all held.
        faults: What did not, in words.
        seconds: The run, recovery included.
        restarted: Runs of Airflow that had to be started again by hand.
        polls: How often the reader was answered meanwhile.
        unanswered: How often not.
    """

    point: str
    passed: bool
    faults: list[str]
    seconds: float
    restarted: int
    polls: int
    unanswered: int


def choose(count: int, seed: int, points: Sequence[Point] = POINTS) -> list[Point]:
    """Some points, every victim before any one a second time; among equals the DAG that was chosen least.

    Args:
        count: How many at most.
        seed: Of the choice.
        points: To choose from.
    """
    rest = list(points)
    random.Random(seed).shuffle(rest)
    chosen: list[Point] = []
    while rest and len(chosen) < count:
        victims, dags = (Counter(getattr(point, what) for point in chosen) for what in ("victim", "dag"))
        chosen.append(min(rest, key=lambda point: (victims[point.victim], dags[point.dag])))
        rest.remove(chosen[-1])
    return chosen


def in_runs(points: Sequence[Point]) -> list[list[Point]]:
    """Points that can share a run: one of the loading, one of the build and one of the scoring, and only kills.

    What is taken from a part for a while could be missing in the next DAG, and a training is a run of its own.

    Args:
        points: In the order in which they are to be tried.
    """
    days = [[point for point in points if point.dag == dag and point.deed == "kill"] for dag in DAGS_OF_A_DAY]
    shared = [[point for point in points if point is not None] for points in zip_longest(*days)]
    return [*shared, *([point] for point in points if not any(point in day for day in days))]


class Harness:
    """A platform on which faults are tried.

    Args:
        platform: It runs, with ``inject`` on its PYTHONPATH, and the demo has run on it.
        airflow: A client of its REST API.
    """

    def __init__(self, platform: Platform, airflow: AirflowClient) -> None:
        self.platform = platform
        self.job = Job(platform, airflow)
        self.folder = platform.home / "faults"
        self.folder.mkdir(exist_ok=True)
        self._queries = reader.queries(lambda table: [r[0] for r in platform.sql(f"show columns in {table}")])
        self._variant = 0
        self._expected: dict[int, tuple[Outcome, dict[str, str]]] = {}

    def undisturbed(self) -> None:
        """Run the day twice without a fault, with one input and another: the outcomes that the others are held to."""
        self.job.run()
        first = self.job.outcome()
        for variant in (1, 0):
            self.job.deliver(variant)
            self.job.run()
            self._expected[variant] = self.job.outcome(), self._slices()
        if faults := differences(first, self._expected[0][0]):
            raise HarnessError(f"a day that is run again without a fault is another one: {'; '.join(faults)}")
        before, after = (self._expected[variant][1] for variant in (0, 1))
        if same := [table for table in before if before[table] == after[table]]:
            raise HarnessError(f"both inputs leave the same rows in {', '.join(same)}: nothing could be seen there")

    def try_points(self, points: Sequence[Point]) -> list[Result]:
        """Run the day with other input than before, and with faults; recovery is the platform's, retries are plain.

        Args:
            points: Where, and who: some that can share a run (:func:`in_runs`).

        Returns:
            One for each point. What is wrong after a run that several have shared is wrong for each of them.

        Raises:
            HarnessError: The undisturbed runs are not what they should be.
        """
        if not self._expected:
            self.undisturbed()
        return self._try_training(points) if points[0].dag == "train" else self._try_day(points)

    def _try_day(self, points: Sequence[Point]) -> list[Result]:
        before, after = self._variant, 1 - self._variant
        models = self.job.models()
        self.job.deliver(after)
        self._variant = after
        self._arm(points)
        started = time.monotonic()
        starved = any(point.deed in STARVING for point in points)
        with reader.reading(self._connect, self._queries, starved=starved) as seen:
            try:
                restarted = self.job.run()
            finally:
                faults = self._wake()
        faults += self._have_fired(points) + self._unnamed(points)
        expected, slices = self._expected[after]
        faults += differences(Outcome(expected.hashes, models), self.job.outcome())
        for table, states in seen.states.items():
            allowed = [self._expected[before][1][table], slices[table]]
            if not is_subsequence(states, allowed):
                faults.append(f"readers of {table} saw {len(states)} states, of which one was neither old nor new")
        faults += seen.faults(self._queries)
        faults += self._is_whole()
        seconds = time.monotonic() - started
        return [
            Result(point.name, not faults, faults, seconds, restarted, seen.polls, seen.unanswered) for point in points
        ]

    def _try_training(self, points: Sequence[Point]) -> list[Result]:
        before = self.job.outcome()
        window = self._untrained(before)
        self._arm(points)
        started = time.monotonic()
        restarted = self.job.train(str(window))
        faults = self._have_fired(points) + self._unnamed(points) + self._is_whole()
        found = self.job.outcome()
        faults += differences(Outcome(before.hashes, found.models), found)
        made = set(found.models) - set(before.models)
        right = (MODEL, str(window.start), str(window.end), 1)
        if wrong := {row for row in made if row[0] == "version" and row[1:] != right}:
            faults.append(f"the registry has got {wrong}, and not one version of {window}")
        if not any(row[0] == "version" for row in made):
            faults.append(f"the registry has no version of {window}")
        # What was killed was whole in the end: the same pins make no second version.
        restarted += self.job.train(str(window))
        faults += differences(found, self.job.outcome())
        seconds = time.monotonic() - started
        return [Result(point.name, not faults, faults, seconds, restarted, 0, 0) for point in points]

    def _untrained(self, outcome: Outcome) -> Interval:
        """Another window each time: a training that has been done is not done again."""
        trained = {row[2] for row in outcome.models if row[0] == "version"}
        days = (FIRST_DAY + dt.timedelta(days=number) for number in range(len(trained) + 1))
        return next(Interval(day, LAST_DAY) for day in days if str(day) not in trained)

    def _arm(self, points: Sequence[Point]) -> None:
        self.job.reasons.clear()
        self._forget()
        for number, point in enumerate(points):
            fault: dict[str, Any] = asdict(point)
            if point.watched:
                layer, name = point.watched.split(".")
                fault["folder"] = str(self.platform.home / "warehouse" / f"{layer}.db" / name)
            (self.folder / f"{number}.armed").write_text(json.dumps(fault))

    def _forget(self) -> None:
        for path in self.folder.glob("*"):
            path.unlink()

    def _have_fired(self, points: Sequence[Point]) -> list[str]:
        failures = self.folder / "failures.txt"
        faults = failures.read_text().splitlines() if failures.exists() else []
        faults += [
            f"the run has not come to the point {point.name!r}"
            for number, point in enumerate(points)
            if not (self.folder / f"{number}.fired").exists()
        ]
        self._forget()  # the next run would come to what this one has not
        return faults

    def _wake(self) -> list[str]:
        """Wake the writer that was paused, now that another has done its work, and let it do what it still does."""
        asleep = self.folder / "asleep.json"
        if not asleep.exists():
            return []
        parent, task = map(int, json.loads(asleep.read_text()))
        try:
            os.kill(task, signal.SIGCONT)
            # Its parent comes later: it would hear from Airflow that the task is no longer wanted, and end it.
            time.sleep(WRITING_SECONDS)
            os.kill(parent, signal.SIGCONT)
            psutil.Process(task).wait(WAKING_SECONDS)
        except ProcessLookupError:
            return ["the writer that was paused, or its parent, was ended in its sleep"]
        except psutil.TimeoutExpired:
            return [f"the writer that was woken still runs after {WAKING_SECONDS} s"]
        except psutil.NoSuchProcess:
            pass
        return []

    def _unnamed(self, points: Sequence[Point]) -> list[str]:
        """Whether runs have failed and none of them says what the matter was."""
        reasons = self.job.reasons
        return [
            f"failed runs say {[reason[-1000:] for reason in reasons]}, and not {point.named}"
            for point in points
            if point.named and reasons and not any(re.search(point.named, reason) for reason in reasons)
        ]

    def _is_whole(self) -> list[str]:
        end = time.monotonic() + RECOVERY_SECONDS
        while (status := self.platform.lake("status", check=False)).returncode != 0:
            if time.monotonic() > end:
                return [f"not all parts are back: {status.stdout[-1500:]}"]
            time.sleep(1)
        return []

    def _slices(self) -> dict[str, str]:
        return {table: hashed(self.platform.sql(query)) for table, query in self._queries.items()}

    def _connect(self) -> Any:
        from pyhive import hive

        return hive.connect(
            host="127.0.0.1",
            port=self.platform.port("thrift"),
            username="lake",
            password=self.platform.secret("sql_password"),
            auth="CUSTOM",
        )


def differences(expected: Outcome, found: Outcome) -> list[str]:
    """Tables whose content is not what it should be, in words.

    Args:
        expected: After an undisturbed run.
        found: After the disturbed one.
    """
    faults = [
        f"{table} holds other rows than after an undisturbed run (count/sum/xor {found.hashes.get(table)}, "
        f"not {expected.hashes.get(table)})"
        for table in sorted(expected.hashes.keys() | found.hashes.keys())
        if expected.hashes.get(table) != found.hashes.get(table)
    ]
    if expected.models != found.models:
        faults.append(f"the registry holds {found.models}, not {expected.models}")
    return faults


def is_subsequence(states: Sequence[str], allowed: Sequence[str]) -> bool:
    """Whether what was seen is the old state, the new one, or first the old and then the new.

    Args:
        states: Different contents, in order.
        allowed: The old and the new one.
    """
    rest = iter(allowed)
    return all(state in rest for state in states)
