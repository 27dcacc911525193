"""Lies on the PYTHONPATH of a platform that is tested: at a named point of a step, something is killed, once.

The platform itself knows nothing of this. ``$LAKE_HOME/faults`` holds a file for each fault that is armed
(:class:`tests.faults.points.Fault`); the process that gets to its point first renames it, and does the deed. Without
such a file every function does what it always does.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TARGETS = (
    ("lakehouse.tables", "replace_interval"),
    ("lakehouse.ops", "append"),
    ("lakehouse.gate", "check"),
    ("lakehouse.gate", "check_all"),
    ("lakehouse.fingerprints", "record"),
    ("lakehouse.release", "_record"),
    ("lakehouse.release", "_point"),
    ("lakehouse.release", "release"),
    ("lakehouse.warehouse", "prepare"),
    ("lakehouse.warehouse", "record"),
    ("lakehouse.registry", "fetch"),
    ("lakehouse.registry", "register"),
    ("lakehouse.registry", "set_alias"),
    ("lakehouse.roles", "contest"),
    ("dbt.adapters.spark.connections", "PyhiveConnectionWrapper.execute"),
)
WATCH_SECONDS = 60
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


def words(arguments: tuple[Any, ...]) -> str:
    """What tells one call from another: the first arguments; frames of data are not asked for their rows."""
    return " ".join(
        str(each)
        for place, each in enumerate(arguments[:2])
        if isinstance(each, str | list | tuple) or (place == 0 and isinstance(each, dict))
    )


def new_files(fault: dict[str, Any], known: set[Path]) -> bool:
    """Whether the table of a fault has data files that it did not have."""
    return bool(set(Path(fault["folder"]).rglob("*.parquet")) - known)


def do(fault: dict[str, Any]) -> None:
    """Kill what the fault names."""
    number = signal.Signals[fault["signal"]]
    if fault["victim"] == "task":
        os.kill(os.getpid(), number)
    elif fault["victim"] == "python-worker":
        kill_a_python_worker(int(fault["pid"]))
    else:
        os.kill(int(fault["pid"]), number)


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
    end = time.monotonic() + WATCH_SECONDS
    while time.monotonic() < end:
        if new_files(fault, known):
            do(fault)
            return


if HOME:
    with contextlib.suppress(ModuleNotFoundError):  # a Python without the platform's libraries
        import wrapt

        for _module, _function in TARGETS:
            wrapt.when_imported(_module)(
                lambda module, name=_function: wrapt.wrap_function_wrapper(
                    module, name, wrapper(f"{module.__name__}.{name}")
                )
            )
