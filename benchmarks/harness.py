"""Two sides of a benchmark, run in turn: times, processor time, memory, and whether both have left the same.

The pairs are interleaved (ours, theirs, theirs, ours, …), so that a machine that gets slower or faster meanwhile does
it to both. What counts is the ratio within a pair; the median of the pairs is given, with a bootstrap interval.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from scipy import stats

from lakehouse import engine
from lakehouse.platform import jars

RESULTS = Path(__file__).parent / "results"
VERSIONS = ("pyspark", "deltalake", "duckdb", "great-expectations", "mlflow", "scikit-learn", "pyarrow")
SAMPLE_SECONDS = 0.1
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Side:
    """One side of a benchmark.

    Attributes:
        name: What it is, such as ``delta-rs``.
        run: The work that is timed.
        output: What the work has left, to be compared with the other side's; not timed.
        prepare: What has to be done before each run; not timed.
    """

    name: str
    run: Callable[[], object]
    output: Callable[[], Any]
    prepare: Callable[[], object] | None = None


@dataclass(frozen=True)
class Goal:
    """What a ratio is to reach.

    Attributes:
        bound: The number.
        speed: The ratio is of speeds (theirs ÷ ours in seconds, more is better), else of times (ours ÷ theirs).
    """

    bound: float
    speed: bool = False

    def ratio(self, ours: float, theirs: float) -> float:
        """The ratio of a pair of times in seconds."""
        return theirs / ours if self.speed else ours / theirs

    def met(self, ratio: float) -> bool:
        """Whether a ratio reaches the goal."""
        return ratio >= self.bound if self.speed else ratio <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.speed else '≤'} {self.bound}"


@dataclass(frozen=True)
class Usage:
    """What one run took.

    Attributes:
        seconds: Wall time.
        cpu_seconds: Processor time of this process, the platform's processes and all their children.
        peak_memory: The most bytes that these had in memory together; pages that they share count for each.
    """

    seconds: float
    cpu_seconds: float
    peak_memory: int


@dataclass
class Result:
    """Outcome of a benchmark, as its JSON file has it.

    Attributes:
        name: Of the benchmark, such as ``R3``.
        title: What is divided by what.
        size: Of the data.
        goal: What the ratio is to reach.
        sides: Names of our side and of the other, if there is one.
        ours: Runs of our side.
        theirs: Runs of the other side, pair by pair.
        measured: The figure of each run, where it is not the ratio of the seconds of a pair.
        outputs: What each side has left.
        notes: What a reader has to know of how it was measured.
        facts: Further figures, such as counts of Spark jobs.
        machine: Where, when, and with which versions.
    """

    name: str
    title: str
    size: str
    goal: Goal
    sides: tuple[str, ...]
    ours: list[Usage] = field(default_factory=list)
    theirs: list[Usage] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)
    outputs: tuple[Any, Any] = (None, None)
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def ratios(self) -> list[float]:
        """The ratio of each pair, or the figure of each run."""
        return self.measured or [
            self.goal.ratio(a.seconds, b.seconds) for a, b in zip(self.ours, self.theirs, strict=True)
        ]

    @property
    def ratio(self) -> float:
        """Median of the pairs."""
        return statistics.median(self.ratios)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Bootstrap interval (95 %, percentile) of the median; None with fewer than three pairs."""
        return interval(self.ratios)

    @property
    def valid(self) -> bool:
        """Whether both sides have left the same."""
        return bool(self.outputs[0] == self.outputs[1])

    @property
    def met(self) -> bool:
        """Whether the ratio is valid and reaches its goal."""
        return self.valid and self.goal.met(self.ratio)

    def save(self, folder: Path = RESULTS) -> Path:
        """Keep it as JSON.

        Args:
            folder: Where to.
        """
        folder.mkdir(exist_ok=True)
        path = folder / f"{self.name}-{self.size}.json"
        path.write_text(json.dumps(asdict(self), indent=1, default=str, ensure_ascii=False) + "\n", "utf-8")
        return path

    @classmethod
    def load(cls, path: Path) -> Result:
        """Read what :meth:`save` has kept.

        Args:
            path: The file.
        """
        found = json.loads(path.read_text("utf-8"))
        for side in ("ours", "theirs"):
            found[side] = [Usage(**usage) for usage in found[side]]
        fixed = {name: tuple(found[name]) for name in ("sides", "outputs", "notes")}
        return cls(**found | fixed | {"goal": Goal(**found["goal"])})


def interval(ratios: list[float]) -> tuple[float, float] | None:
    """Bootstrap interval (95 %, percentile) of the median of some ratios; None with fewer than three.

    Args:
        ratios: One for each pair.
    """
    if len(ratios) < 3:
        return None
    found = stats.bootstrap(
        (np.array(ratios),), np.median, confidence_level=CONFIDENCE, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(found.low), float(found.high)


def compare(result: Result, ours: Side, theirs: Side, pairs: int, warm: int = 1) -> Result:
    """Run both sides in turn, and keep what they took and what they have left.

    Args:
        result: Where it is kept.
        ours: Our side.
        theirs: The other side.
        pairs: How often each side is timed.
        warm: Runs of each side that are not timed: code is compiled, files come into the cache.
    """
    result.machine = machine()
    for _ in range(warm):
        for side in (ours, theirs):
            measure(side)
    kept = {ours.name: result.ours, theirs.name: result.theirs}
    for pair in range(pairs):
        for side in (ours, theirs) if pair % 2 == 0 else (theirs, ours):
            kept[side.name].append(measure(side))
            print(f"{result.name} {side.name}: {kept[side.name][-1].seconds:.2f} s", flush=True)
    result.outputs = (ours.output(), theirs.output())
    result.machine["load_after"] = os.getloadavg()[0]
    return result


def measure(side: Side) -> Usage:
    """Run one side once.

    Args:
        side: Prepared here, then timed.
    """
    if side.prepare:
        side.prepare()
    with _peak() as peak:
        before, started = _cpu_seconds(), time.perf_counter()
        side.run()
        seconds = time.perf_counter() - started
        used = _cpu_seconds() - before
    return Usage(seconds, used, peak[0])


def machine() -> dict[str, Any]:
    """Processor, memory, load, versions and day."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    (delta,) = (jar.coordinate.rpartition(":")[2] for jar in jars.locked() if ":delta-spark_" in jar.coordinate)
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in VERSIONS} | {"delta-spark": delta},
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "load_before": os.getloadavg()[0],
    }


def _family() -> list[psutil.Process]:
    """This process, what it has started, and what the supervisor of the platform has started."""
    roots = [psutil.Process()]
    if jvm := engine.process():
        roots.append(jvm.parent() or jvm)
    return list({each.pid: each for root in roots for each in [root, *root.children(recursive=True)]}.values())


def _cpu_seconds() -> float:
    seconds = 0.0
    for each in _family():
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        # Those of children are of such as have ended.
        seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


@contextmanager
def _peak() -> Iterator[list[int]]:
    found, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLE_SECONDS):
            total = 0
            for each in _family():
                try:
                    total += each.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            found[0] = max(found[0], total)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()
