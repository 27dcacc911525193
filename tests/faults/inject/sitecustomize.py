"""Lies on the PYTHONPATH of a platform that is tested: at a named point of a step, something is harmed, once.

The platform itself knows nothing of this. ``$LAKE_HOME/faults`` holds a file for each fault that is armed
(:class:`tests.faults.points.Point`); the process that gets to its point first renames it, and does the deed. Without
such a file every function does what it always does.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, ValuesView
from pathlib import Path
from typing import Any

TARGETS = (
    ("lakehouse.tables", "replace_interval"),
    ("lakehouse.ops", "append"),
    ("lakehouse.readers", "missing"),
    ("lakehouse.quality.gate", "check"),
    ("lakehouse.quality.gate", "check_all"),
    ("lakehouse.releases.fingerprints", "record"),
    ("lakehouse.releases.release", "_record"),
    ("lakehouse.releases.release", "_point"),
    ("lakehouse.releases.release", "release"),
    ("lakehouse.warehouse", "prepare"),
    ("lakehouse.warehouse", "record"),
    ("lakehouse.registry.registry", "fetch"),
    ("lakehouse.registry.registry", "register"),
    ("lakehouse.registry.registry", "set_alias"),
    ("lakehouse.registry.comparison", "contest"),
    ("dbt.adapters.spark.connections", "PyhiveConnectionWrapper.execute"),
)
WATCH_SECONDS = 60
WHILE_SECONDS = 30
"""For which something is late, or is taken."""

HOME = os.environ.get("LAKE_HOME")


def armed(target: str, when: str, arguments: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    """The faults for this point that no other process was first to take."""
    assert HOME
    for path in Path(HOME, "faults").glob("*.armed"):
        with contextlib.suppress(FileNotFoundError):  # another process was first
            fault = json.loads(path.read_text())
            if fault["target"] == target and fault["when"] == when and fault["match"] in words(arguments):
                path.rename(path.with_suffix(".fired"))
                yield fault


def aimed(fault: dict[str, Any]) -> dict[str, Any]:
    """The fault with the process of its victim, if that is a part: it may have been started anew since it was armed."""
    if fault["victim"] in ("task", "drop") or "pid" in fault:
        return fault
    return {**fault, "pid": pid_of(fault["victim"])}


def pid_of(victim: str) -> int:
    """Process of a part."""
    from lakehouse.platform.supervisor import Supervisor

    part = "engine" if victim == "python-worker" else victim
    end = time.monotonic() + WATCH_SECONDS
    while not (pid := Supervisor().states().get(part, {}).get("pid")):
        if time.monotonic() > end:
            raise TimeoutError(f"{part} does not run")
        time.sleep(0.1)
    return int(pid)


def words(arguments: tuple[Any, ...]) -> str:
    """What tells one call from another: the first arguments; frames of data are not asked for their rows."""
    return " ".join(
        str(each) if isinstance(each, str | list | tuple | dict | ValuesView) else name_of(each)
        for place, each in enumerate(arguments[:2])
        if place == 0 or isinstance(each, str | list | tuple)
    )


def name_of(thing: object) -> str:
    """The name of what has one, as contracts and models do; of a frame it would be a column."""
    name = getattr(thing, "name", None)
    return name if isinstance(name, str) else ""


def new_files(fault: dict[str, Any], known: set[Path]) -> bool:
    """Whether the table of a fault has data files that it did not have."""
    return bool(set(Path(fault["folder"]).rglob("*.parquet")) - known)


def do(fault: dict[str, Any]) -> None:
    """Do to the victim of a fault what the fault names; a deed that fails is told to the harness."""
    with telling(fault):
        fault = aimed(fault)
        if fault["victim"] == "python-worker":
            kill_a_python_worker(int(fault["pid"]))
        else:
            DEEDS[fault["deed"]](fault)


@contextlib.contextmanager
def telling(fault: dict[str, Any]) -> Iterator[None]:
    """Have the harness know of an error: nothing was harmed then."""
    try:
        yield
    except Exception as error:
        fails(fault, repr(error))
        raise


def fails(fault: dict[str, Any], why: str) -> None:
    """Have the harness know that nothing was harmed."""
    assert HOME
    with Path(HOME, "faults", "failures.txt").open("a") as file:
        file.write(f"nothing was harmed at the point {fault['name']!r}: {why}\n")


def kill(fault: dict[str, Any]) -> None:
    """End it at once."""
    os.kill(victims(fault)[0], signal.SIGKILL)


def hang(fault: dict[str, Any]) -> None:
    """Stop it with all of its processes; nobody wakes them."""
    for pid in victims(fault):
        with contextlib.suppress(ProcessLookupError):  # a connection that has been closed meanwhile
            os.kill(pid, signal.SIGSTOP)


def be_late(fault: dict[str, Any]) -> None:
    """Stop it with all of its processes, and wake them after a while."""
    pids = victims(fault)
    after_a_while(f"for pid in {pids}:\n    try: os.kill(pid, {signal.SIGCONT:d})\n    except ProcessLookupError: pass")
    hang(fault)


def pause(fault: dict[str, Any]) -> None:
    """Stop this task and the process that speaks for it to Airflow; the harness wakes both, by what it finds here."""
    pids = [os.getppid(), os.getpid()]
    assert HOME
    Path(HOME, "faults", "asleep.json").write_text(json.dumps(pids))
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)


LIMIT = """
import contextlib, os, resource, sys, time
import psutil

kind, value, seconds, *pids = map(int, sys.argv[1:])
victim = psutil.Process(pids[0])
# The owner of a process may change its limits; root may not everywhere.
os.setresgid(*[victim.gids().real] * 3)
os.setresuid(*[victim.uids().real] * 3)
before = resource.prlimit(victim.pid, kind)
for pid in pids:
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        left = psutil.Process(pid).memory_info().vms if value < 0 else value
        resource.prlimit(pid, kind, (left, before[1]))
print("done", flush=True)
time.sleep(seconds)
with contextlib.suppress(psutil.NoSuchProcess):
    for each in (victim, *victim.children(recursive=True)):
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(each.pid, kind, before)
"""
"""What takes something from processes and gives it back after a while: a process of its own, as they may have ended."""


def limit(kind: int, value: int | None = None) -> Callable[[dict[str, Any]], None]:
    """Makes a deed that takes something from the victim and from what it starts, and gives it back after a while.

    Args:
        kind: Of the limits that the system sets to a process.
        value: How much is left; by default as much address space as it has already.
    """

    def deed(fault: dict[str, Any]) -> None:
        arguments = (kind, -1 if value is None else value, WHILE_SECONDS, *victims(fault))
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", LIMIT, *map(str, arguments)],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout
        # Not by the buffer of a file: this process may have no memory for one by then.
        said = os.read(process.stdout.fileno(), 1000)
        if said != b"done\n":
            raise OSError(f"The limit of {arguments[3]} was not set: what is wrong is in the log of this task.")

    return deed


def take_away(fault: dict[str, Any]) -> None:
    """Rename the folder of the drop that the match names, and name it as before after a while."""
    assert HOME
    folder = Path(HOME, "drop", fault["match"])
    away = folder.with_suffix(".away")
    after_a_while(f"os.rename({str(away)!r}, {str(folder)!r})")
    folder.rename(away)


DEEDS: dict[str, Callable[[dict[str, Any]], None]] = {
    "kill": kill,
    "hang": hang,
    "be late": be_late,
    "pause": pause,
    "fill the disk": limit(resource.RLIMIT_FSIZE, 0),
    "take the files": limit(resource.RLIMIT_NOFILE, 0),
    "take the memory": limit(resource.RLIMIT_AS),
    "take away": take_away,
}


def victims(fault: dict[str, Any]) -> list[int]:
    """Processes of the victim: of PostgreSQL those that answer its clients, too."""
    if fault["victim"] == "task":
        return [os.getpid()]
    pid = int(fault["pid"])
    if fault["victim"] != "postgres":
        return [pid]
    import psutil

    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def after_a_while(statements: str) -> None:
    """Have a process of its own run some Python, since this one may have ended by then."""
    code = f"import os, time\ntime.sleep({WHILE_SECONDS})\n{statements}"
    subprocess.Popen([sys.executable, "-I", "-c", code], start_new_session=True)


def kill_a_python_worker(engine: int) -> None:
    """Kill the first Python process that works for the engine, as soon as there is one."""
    import psutil

    end = time.monotonic() + WATCH_SECONDS
    while time.monotonic() < end:
        for process in psutil.Process(engine).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                # The daemon forks a worker for each task; its children are those that compute.
                if "pyspark" in " ".join(process.cmdline()) and process.ppid() != engine:
                    process.kill()
                    return
        time.sleep(0.01)
    raise TimeoutError("no Python process has worked for the engine")


def wrapper(target: str) -> Callable[..., Any]:
    """What stands around a function: looks for a fault before it, and after it."""

    def call(wrapped: Callable[..., Any], instance: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        arguments = (*args, *kwargs.values())
        for fault in armed(target, "before", arguments):
            do(fault)
        for fault in armed(target, "files", arguments):
            known = set(Path(fault["folder"]).rglob("*.parquet"))
            threading.Thread(target=watch, args=(fault, known), daemon=True).start()
        for fault in armed(target, "during", arguments):
            threading.Thread(target=do, args=(fault,), daemon=True).start()
        outcome = wrapped(*args, **kwargs)
        for fault in armed(target, "after", arguments):
            do(fault)
        return outcome

    return call


def watch(fault: dict[str, Any], known: set[Path]) -> None:
    """Wait for a first new data file, and do it then."""
    with telling(fault):
        fault = aimed(fault)  # now: the files may be there for a moment only
    end = time.monotonic() + WATCH_SECONDS
    while time.monotonic() < end:
        if new_files(fault, known):
            do(fault)
            return
    fails(fault, "no data file was written")


if HOME:
    with contextlib.suppress(ModuleNotFoundError):  # a Python without the platform's libraries
        import wrapt

        for _module, _function in TARGETS:
            wrapt.when_imported(_module)(
                lambda module, name=_function: wrapt.wrap_function_wrapper(
                    module, name, wrapper(f"{module.__name__}.{name}")
                )
            )
