"""Processes that have lost their parent, and who holds a port."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import psutil

from lakehouse.settings import settings


def clear_the_way(part: str) -> None:
    """End what an earlier process of a part has left behind, and note this process as the new one.

    A part that was killed cannot end its children: the workers of a scheduler would go on writing
    beside the tasks that are tried again. The supervisor makes each part the leader of a process
    group, and the group outlives its leader.

    Args:
        part: Name of the part that the calling process is about to become.
    """
    kill(_left_behind(part))
    record = _record(part)
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({"pid": os.getpid(), "started": psutil.Process().create_time()}))


def strays(parts: Iterable[str]) -> list[psutil.Process]:
    """Processes of parts that no supervisor watches any more.

    Args:
        parts: Names of the parts to look for; to be asked only while no supervisor runs.
    """
    return [process for part in parts for process in _left_behind(part, leader_too=True)]


def kill(processes: Iterable[psutil.Process], patience: float = 0) -> None:
    """End processes.

    Args:
        processes: Which.
        patience: Seconds that they have to end in good order.
    """
    processes = list(processes)
    if patience:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)
        _, processes = psutil.wait_procs(processes, timeout=patience)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=5)


def port_owner(port: int) -> str | None:
    """Who listens on a port of the loopback interface, in words; None when it is free.

    Args:
        port: TCP port.
    """
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
            if connection.pid is None:
                return "a process of another user"
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(connection.pid)
                command = " ".join(process.cmdline())
                return f"process {connection.pid} ({command[:80]})"
            return f"process {connection.pid}"
    return None


def _record(part: str) -> Path:
    return settings().home / "run" / f"{part}.json"


def _left_behind(part: str, leader_too: bool = False) -> list[psutil.Process]:
    try:
        record = json.loads(_record(part).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return []
    group, started = record["pid"], record["started"]
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if process.pid == os.getpid() or os.getpgid(process.pid) != group:
                continue
            if process.pid == group and abs(process.create_time() - started) > 1:
                return []  # the number was given to another process since
            if process.pid != group or leader_too:
                found.append(process)
    return found
