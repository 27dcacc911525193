"""Processes that have lost their parent, and who holds a port."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

import psutil

from lakehouse.settings import settings


def become(program: str | Path, *arguments: str | Path) -> NoReturn:
    """Replace this process by a program: the supervisor watches the program itself and not a shell before it.

    Args:
        program: Path of the program.
        *arguments: Its arguments.
    """
    os.execv(program, [str(program), *map(str, arguments)])  # noqa: S606


def clear_the_way() -> None:
    """End what parts that were killed have left behind; to be called by a child of the supervisor.

    A part that was killed cannot end its children: a scheduler's tasks would go on writing beside those
    that are tried again. All that the parts start is in the supervisor's session; what is there and does
    not descend from the supervisor has lost its part.
    """
    session, parent = os.getsid(0), os.getppid()
    family = {parent, *(process.pid for process in psutil.Process(parent).children(recursive=True))}
    kill(process for process in _members(session) if process.pid not in family)


def record_session(pid: int) -> None:
    """Note the supervisor's session, so that its processes are found when it is gone.

    Args:
        pid: The supervisor's process, which leads the session.
    """
    _record().write_text(json.dumps({"session": pid, "started": psutil.Process(pid).create_time()}))


def strays() -> list[psutil.Process]:
    """Processes of the recorded session; to be asked only when no supervisor answers."""
    try:
        record = json.loads(_record().read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return []
    session, started = record["session"], record["started"]
    if psutil.boot_time() > started:
        return []
    with contextlib.suppress(psutil.NoSuchProcess):
        if abs(psutil.Process(session).create_time() - started) > 1:
            return []  # the number was given to another process since
    return _members(session)


def working_in(folder: Path) -> list[psutil.Process]:
    """Processes whose working directory is a folder, each with its name in ``info``.

    Args:
        folder: Which.
    """
    place = str(folder.resolve())
    return [process for process in psutil.process_iter(["name", "cwd"]) if process.info["cwd"] == place]


def kill(processes: Iterable[psutil.Process], patience: float = 0) -> None:
    """End processes, and wait for their end.

    Args:
        processes: Which.
        patience: Seconds that they have to end in good order.
    """
    left = list(processes)
    if patience:
        _signal(left, signal.SIGTERM)
        _, left = psutil.wait_procs(left, timeout=patience)
    _signal(left, signal.SIGKILL)
    psutil.wait_procs(left, timeout=5)


def port_owner(port: int) -> str | None:
    """Who listens on a port, in words; None when it is free.

    Args:
        port: TCP port.
    """
    for connection in psutil.net_connections("tcp"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,):
            with contextlib.suppress(psutil.Error, TypeError):
                process = psutil.Process(connection.pid)
                return f"process {process.pid} ({' '.join(process.cmdline()).strip()[:80]})"
            return "a process of another user"
    return None


def _record() -> Path:
    return settings().home / "supervisor" / "session.json"


def _members(session: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
