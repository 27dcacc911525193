"""What is done to a victim at a point: each deed does harm, and takes it back where it should."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest

from lakehouse import contracts
from lakehouse.quality import gate
from tests.faults.points import POINTS

SECONDS = 20
WRITES = """
import sys, time
while True:
    try:
        with open(sys.argv[1], "a") as file:
            file.write("x" * 10)
        said = "written"
    except OSError as error:
        said = error.strerror
    print(said, flush=True)
    time.sleep(0.05)
"""


@pytest.fixture
def inject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, which wraps nothing in this process."""
    monkeypatch.delenv("LAKE_HOME")
    path = Path(__file__).parent / "inject" / "sitecustomize.py"
    spec = importlib.util.spec_from_file_location("inject", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "HOME", str(tmp_path))
    monkeypatch.setattr(module, "WHILE_SECONDS", 2)
    (tmp_path / "faults").mkdir()
    return module


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that writes to a file again and again, and says how it went."""
    process = subprocess.Popen([sys.executable, "-c", WRITES, tmp_path / "file"], stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def says(victim: subprocess.Popen[str], *wanted: str) -> None:
    """Read on until it has said some words, one after the other; it says something all the time."""
    assert victim.stdout
    end = time.monotonic() + SECONDS
    for word in wanted:
        while victim.stdout.readline().strip() != word:
            assert time.monotonic() < end


def of(victim: subprocess.Popen[str], deed: str) -> dict[str, Any]:
    return {"name": "a point", "victim": "engine", "pid": victim.pid, "deed": deed, "match": ""}


def is_stopped(pid: int) -> bool:
    return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)


def test_every_point_names_a_deed(inject: ModuleType) -> None:
    assert {point.deed for point in POINTS} == set(inject.DEEDS)
    assert {point.target for point in POINTS} <= {".".join(target) for target in inject.TARGETS}


def test_who_is_killed_is_gone(inject: ModuleType, victim: subprocess.Popen[str]) -> None:
    inject.do(of(victim, "kill"))
    assert victim.wait(SECONDS) == -signal.SIGKILL


def test_who_hangs_stays_so_and_who_is_late_goes_on(inject: ModuleType, victim: subprocess.Popen[str]) -> None:
    inject.do(of(victim, "be late"))
    until(lambda: is_stopped(victim.pid))
    until(lambda: not is_stopped(victim.pid))
    inject.do(of(victim, "hang"))
    until(lambda: is_stopped(victim.pid))
    time.sleep(1.5 * inject.WHILE_SECONDS)
    assert is_stopped(victim.pid)


@pytest.mark.parametrize(
    ("deed", "said"), [("fill the disk", "File too large"), ("take the files", "Too many open files")]
)
def test_what_is_taken_comes_back(inject: ModuleType, victim: subprocess.Popen[str], deed: str, said: str) -> None:
    says(victim, "written")
    inject.do(of(victim, deed))
    says(victim, said, "written")


def test_limits_are_those_of_whoever_owns_the_process(inject: ModuleType) -> None:
    # Where the platform is root's, PostgreSQL runs as nobody.
    other: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
    with subprocess.Popen(["sleep", "60"], text=True, **other) as process:
        limits = Path(f"/proc/{process.pid}/limits")
        inject.do(of(process, "fill the disk"))
        assert re.search(r"Max file size +0 ", limits.read_text())
        until(lambda: not re.search(r"Max file size +0 ", limits.read_text()))
        process.kill()


def test_a_process_without_memory_cannot_have_more(inject: ModuleType) -> None:
    code = "import sys; print(flush=True); sys.stdin.readline(); bytearray(10**9)"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    process.stdout.readline()
    inject.WHILE_SECONDS = SECONDS
    inject.do(of(process, "take the memory"))
    _, errors = process.communicate("go\n", SECONDS)
    assert process.returncode == 1
    assert "MemoryError" in errors


def test_a_task_that_is_paused_says_whom_to_wake(inject: ModuleType, tmp_path: Path) -> None:
    parent = os.fork()
    if not parent:
        try:
            if not os.fork():
                inject.do({"victim": "task", "deed": "pause", "match": ""})
            os.wait()
        finally:
            os._exit(0)
    asleep = tmp_path / "faults" / "asleep.json"
    until(lambda: asleep.exists() and asleep.read_text().endswith("]"))
    pids = json.loads(asleep.read_text())
    until(lambda: all(map(is_stopped, pids)))
    assert pids[0] == parent
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(parent, 0)


def test_a_deed_that_fails_is_told(inject: ModuleType, victim: subprocess.Popen[str], tmp_path: Path) -> None:
    victim.kill()
    victim.wait()
    with pytest.raises(ProcessLookupError):
        inject.do(of(victim, "kill"))
    said = (tmp_path / "faults" / "failures.txt").read_text()
    assert said.startswith("nothing was harmed at the point 'a point': ProcessLookupError")


def test_a_folder_that_is_taken_away_comes_back(inject: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "drop" / "weather"
    folder.mkdir(parents=True)
    inject.do({"victim": "drop", "deed": "take away", "match": "weather"})
    assert not folder.exists()
    until(folder.exists)


def test_a_call_is_told_by_its_first_arguments(inject: ModuleType) -> None:
    known = contracts.load("weather")
    for first in (
        "bronze_next.weather",
        ["bronze.weather"],
        {"weather": 1},
        {1: gate.Request("weather")}.values(),
        known,
    ):
        assert "weather" in inject.words((first, None))
    assert inject.words(("select", "into weather", "third")) == "select into weather"
    assert inject.words((None, known)).strip() == ""
    assert inject.words((SimpleNamespace(name=["weather"]),)) == ""  # as a frame's column
