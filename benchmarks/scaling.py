"""R7, two executors against one, on a Spark standalone cluster of this machine.

Each executor has a worker of its own, which is pinned to a core. The speed-up is divided by that of two pinned
processes over one, which do nothing together: no engine can do better on this machine.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks import data, scoring
from benchmarks.harness import Goal, Result, Side, compare
from benchmarks.platform import isolate, start, stop
from benchmarks.sizes import rows_of

SIZE, QUICK_SIZE = "1M", "10k"
GOALS = {"scoring": Goal(0.92, speed=True), "shuffle": Goal(0.75, speed=True)}
ROWS_OF_SCALE_ONE = 6_000_000
"""Of TPC-H's ``lineitem``, about."""

SPIN = "total = 0\nfor i in range({steps}): total += i * i % 7\nprint(total)"
STEPS = 30_000_000
PATIENCE = 60
MEMORY = "3g"

SHUFFLE = """
select count(*) as groups, sum(lines) as lines, sum(quantity) as quantity, bit_xor(xxhash64(key, line, last)) as digest
from (
    select l_orderkey as key, l_linenumber as line, count(*) as lines, sum(l_quantity) as quantity,
        max(l_shipdate) as last
    from parquet.`{file}` group by l_orderkey, l_linenumber
)
"""
"""As many groups as rows, so that every row is sent to where its group is."""


@dataclass
class Cluster:
    """A master, and workers of one core each.

    Attributes:
        folder: Where it keeps its logs and scratch files.
        port: Of the master.
        ui: Port at which the engine tells of its executors.
        java: The Java that executors start with.
        master: The master's process.
        workers: Those that run, by the core that each is pinned to.
    """

    folder: Path
    port: int
    ui: int
    java: Path
    master: subprocess.Popen[bytes] | None = None
    workers: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """What the engine is told."""
        return f"spark://127.0.0.1:{self.port}"

    def begin(self) -> None:
        """Start the master and all workers."""
        self.master = self._start("master.Master", "--port", str(self.port))
        self.resize(len(cores()))

    def resize(self, size: int) -> None:
        """Have so many workers.

        Args:
            size: How many; each has the next core.
        """
        for core in cores()[size:]:
            if worker := self.workers.pop(core, None):
                _end(worker)
        for core in cores()[:size]:
            if core not in self.workers:
                with _pinned(core):
                    self.workers[core] = self._start(
                        "worker.Worker", "--cores", "1", "--memory", MEMORY, "--work-dir", str(self.folder), self.url
                    )

    def wait_for_executors(self) -> None:
        """Wait until the engine has an executor on each worker, and none that is gone.

        Raises:
            TimeoutError: It has not come to that.
        """
        base, found = f"http://127.0.0.1:{self.ui}/api/v1/applications", -1
        for _ in range(PATIENCE * 10):
            (application,) = httpx.get(base, timeout=PATIENCE).json()
            executors = httpx.get(f"{base}/{application['id']}/executors", timeout=PATIENCE).json()
            found = sum(each["id"] != "driver" and each["isActive"] for each in executors)
            if found == len(self.workers):
                return
            time.sleep(0.1)
        raise TimeoutError(f"The engine has {found} executors, and {len(self.workers)} workers. See {self.folder}.")

    def end(self) -> None:
        """Stop everything."""
        self.resize(0)
        if self.master is not None:
            _end(self.master)

    def _start(self, role: str, *arguments: str) -> subprocess.Popen[bytes]:
        from lakehouse.platform import engine

        opened = [f"--add-opens={package}=ALL-UNNAMED" for package in engine.OPENED_PACKAGES]
        command = [str(self.java), "-Xmx256m", *opened, "-cp", f"{_jars()}/*", f"org.apache.spark.deploy.{role}"]
        environment = os.environ | {
            "SPARK_HOME": str(_jars().parent),
            "JAVA_HOME": str(self.java.parents[1]),
            "SPARK_LOCAL_IP": "127.0.0.1",
            # A worker looks for it in a build of Spark otherwise, and finds none in a Python package.
            "SPARK_SCALA_VERSION": _scala(),
        }
        with (self.folder / f"{role}.log").open("ab") as log:
            return subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--webui-port", "0", *arguments],
                env=environment, stdout=log, stderr=log,
            )  # fmt: skip


def run(size: str, pairs: int) -> list[Result]:
    """Time two executors and one in turn, at scoring and at a shuffle.

    Args:
        size: Rows to score and, about, to shuffle, such as ``1M``.
        pairs: How often each side is timed.
    """
    with clustered() as (cluster, home):
        return [
            measure(cluster, "shuffle", *shuffle(size, home), size, pairs),
            measure(cluster, "scoring", *scored(size, home), size, pairs),
        ]


def measure(
    cluster: Cluster, name: str, work: Callable[[], object], output: Callable[[], Any], size: str, pairs: int
) -> Result:
    """Time two executors and one in turn, and two pinned processes and one.

    Args:
        cluster: With a worker for each core.
        name: One of :data:`GOALS`.
        work: What is timed.
        output: What it has left.
        size: Of the data.
        pairs: How often each side is timed.
    """
    left: dict[int, Any] = {}

    def side(executors: int, called: str) -> Side:
        def prepare() -> None:
            cluster.resize(executors)
            cluster.wait_for_executors()
            work()  # a new executor has compiled nothing yet
            left[executors] = output()

        return Side(called, work, lambda: left[executors], prepare)

    result = Result(
        f"R7-{name}",
        f"speed-up of {name} by a second executor ÷ that of a second pinned process",
        size,
        GOALS[name],
        ("two executors", "one executor"),
        notes=(
            "A standalone cluster on this machine: a worker of one core for each executor, pinned to that core. The "
            "driver is not pinned and takes its share of both. Each run comes after one that is not timed, whose "
            "outcome is what is compared. A ratio of 1 is all that the machine has.",
        ),
    )
    compare(result, side(2, "two executors"), side(1, "one executor"), pairs, warm=0)
    ceilings = [ceiling() for _ in range(max(pairs, 1))]
    most = statistics.median(ceilings)
    result.measured = [ratio / most for ratio in result.ratios]
    result.facts = {
        "Speed-up by a second executor (median)": round(statistics.median(result.measured) * most, 2),
        "Speed-up by a second pinned process (median)": round(most, 2),
    }
    return result


def ceiling() -> float:
    """How much faster two processes, each pinned to a core, do the work of one."""
    one = _spin(cores()[:1], STEPS)
    return one / _spin(cores()[:2], STEPS // 2)


def _spin(on: list[int], steps: int) -> float:
    begun = time.perf_counter()
    running = []
    for core in on:
        with _pinned(core):
            running.append(
                subprocess.Popen([sys.executable, "-c", SPIN.format(steps=steps)], stdout=subprocess.DEVNULL)
            )
    for process in running:
        process.wait()
    return time.perf_counter() - begun


def shuffle(size: str, home: Path) -> tuple[Callable[[], object], Callable[[], Any]]:
    """A query that sends nearly every row from one executor to the other, and what it has answered.

    Args:
        size: Rows, about.
        home: Where the data goes.
    """
    from lakehouse.engine import sql

    file = data.tpch("lineitem", rows_of(size) / ROWS_OF_SCALE_ONE, home)
    answer: dict[str, Any] = {}

    def ask() -> None:
        (row,) = sql(SHUFFLE.format(file=file)).collect()
        answer.update(row.asDict())

    return ask, lambda: {name: str(value) for name, value in answer.items()}


def scored(size: str, home: Path) -> tuple[Callable[[], object], Callable[[], Any]]:
    """The scoring of a day, and what it has written.

    Args:
        size: Rows.
        home: Where the data and the model go.
    """
    day, _ = scoring.prepared(size, home)
    return day.score, day.stored


@contextmanager
def clustered() -> Iterator[tuple[Cluster, Path]]:
    """A cluster with a worker on each of two cores, and an engine on it; gives its state folder, too."""
    from tests.platforms import free_ports

    if len(cores()) < 2:
        raise RuntimeError("Two executors need two cores.")
    root = Path(tempfile.mkdtemp(prefix="lake-benchmark-"))
    home, folder = root / "lake", root / "cluster"
    ports = list(free_ports(("master", "ui")).values())
    folder.mkdir()
    cluster = Cluster(folder, int(ports[0]), int(ports[1]), folder / "java" / "bin" / "java")
    conf = {
        "spark.ui.enabled": "true",
        "spark.ui.port": ports[1],
        "spark.executor.cores": "1",
        "spark.executor.memory": "2g",
        # Pieces of work that two executors can share evenly.
        "spark.sql.files.maxPartitionBytes": "8m",
        "spark.sql.shuffle.partitions": "8",
    }
    isolate(home, LAKE_SPARK_MASTER=cluster.url, LAKE_SPARK_CONF=json.dumps(conf))
    _write_java(cluster.java)
    try:
        cluster.begin()
        start("engine")
        yield cluster, home
    finally:
        stop()
        cluster.end()
        shutil.rmtree(root, ignore_errors=True)


def cores() -> list[int]:
    """The cores that this process may use, two at most."""
    return sorted(os.sched_getaffinity(0))[:2]


@contextmanager
def _pinned(core: int) -> Iterator[None]:
    """Have what is started meanwhile, and what that starts, run on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _write_java(path: Path) -> None:
    """A Java that executors can start with: Spark asks for a module that the Java of the environment lacks."""
    from lakehouse.platform import engine

    path.parent.mkdir(parents=True)
    path.write_text(
        "#!/bin/bash\n"
        'for each; do [[ $each == --add-modules=* ]] || kept+=("$each"); done\n'
        f'exec {shlex.quote(str(engine.java()))} "${{kept[@]}}"\n'
    )
    path.chmod(0o700)


def _jars() -> Path:
    spec = find_spec("pyspark")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "jars"


def _scala() -> str:
    (library,) = _jars().glob("scala-library-*.jar")
    return ".".join(library.stem.rpartition("-")[2].split(".")[:2])


def _end(process: subprocess.Popen[bytes]) -> None:
    parent = psutil.Process(process.pid)
    family = [parent, *parent.children(recursive=True)]
    process.terminate()
    _, alive = psutil.wait_procs(family, timeout=PATIENCE)
    for child in alive:
        child.kill()
