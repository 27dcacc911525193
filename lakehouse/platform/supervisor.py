"""The supervisor that keeps the parts running: its configuration, and how it is spoken to."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

from supervisor.xmlrpc import SupervisorTransport

from lakehouse.platform import processes
from lakehouse.platform.errors import PlatformError
from lakehouse.platform.parts import Part, environment, parts
from lakehouse.settings import PROJECT_DIR, setting_variables, settings

START_SECONDS = 20
HEALTH = "health"
# A socket's path may have 107 bytes, and the daemon appends its process number to it for a moment.
LONGEST_SOCKET_PATH = 95


def folder() -> Path:
    """Where the supervisor's files lie."""
    return settings().home / "supervisor"


def socket_path() -> Path:
    """The supervisor's socket: in the state folder, or, where that path is too long for a socket, near by."""
    path = folder() / "supervisor.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"lake-{os.getuid()}-{name}" / "supervisor.sock"


class Supervisor:
    """A connection to the running supervisor."""

    def __init__(self) -> None:
        # One connection a call and thread: the protocol's client is not made for sharing.
        self._url = f"unix://{socket_path()}"

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a procedure of the supervisor's interface.

        Args:
            method: Name, such as ``startProcess``.
            *arguments: As the interface wants them.

        Raises:
            OSError: No supervisor answers.
            xmlrpc.client.Fault: It refuses.
        """
        if not socket_path().exists():  # nobody to give a password to, which would have to be made first
            raise FileNotFoundError(f"There is no {socket_path()}.")
        transport = SupervisorTransport("lake", settings().secret("supervisor_password"), self._url)
        proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport)
        try:
            return getattr(proxy.supervisor, method)(*arguments)
        except xmlrpc.client.ProtocolError as error:
            raise PlatformError(f"The supervisor refuses us ({error.errmsg}): was secrets.json changed?") from error
        except (http.client.HTTPException, ExpatError) as error:
            raise ConnectionError("The supervisor has ended in the middle of an answer.") from error
        finally:
            transport.close()

    def is_running(self) -> bool:
        """Whether a supervisor answers."""
        try:
            return bool(self.call("getState")["statename"] == "RUNNING")
        except OSError:
            return False

    def states(self) -> dict[str, dict[str, Any]]:
        """What the supervisor knows of each process, by name; nothing when it does not run."""
        try:
            return {info["name"]: info for info in self.call("getAllProcessInfo")}
        except OSError:
            return {}


def ensure_running() -> list[str]:
    """Start the supervisor, or let the one that runs take the present settings.

    Returns:
        Names of parts that were stopped because their settings have changed.
    """
    supervisor = Supervisor()
    if supervisor.is_running():
        _write_configuration()
        return _take_changes(supervisor)
    recover()
    _write_configuration()
    socket = socket_path()
    socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    socket.unlink(missing_ok=True)
    log = folder() / "supervisor.log"
    result = subprocess.run(
        [sys.executable, "-m", "supervisor.supervisord", "--configuration", folder() / "supervisord.conf"],
        env={**environment(), "LAKEHOUSE_HOME": str(settings().home), "LAKE_PROJECT": str(PROJECT_DIR)},
        cwd=folder(),
        capture_output=True,
        text=True,
        check=False,
    )
    end = time.monotonic() + START_SECONDS
    while not supervisor.is_running():
        if result.returncode != 0 or time.monotonic() > end:
            raise PlatformError(f"The supervisor did not start; see {log}.\n{(result.stderr or result.stdout).strip()}")
        time.sleep(0.1)
    processes.record_session(supervisor.call("getPID"))
    return []


def recover() -> list[str]:
    """End processes of the platform that run on although their supervisor is gone.

    Returns:
        What they were.
    """
    left = processes.strays()
    found = [f"process {process.pid} ({process.name()})" for process in left]
    processes.kill(left, patience=20)
    return found


def shut_down() -> None:
    """Stop every part in good order, then the supervisor, and wait for both."""
    supervisor = Supervisor()
    with contextlib.suppress(xmlrpc.client.Fault, OSError):
        supervisor.call("stopProcess", HEALTH)
    # Everything that nobody needs any more stops at the same time.
    for wave in _waves():
        stop(wave)
    pid = None
    with contextlib.suppress(OSError):
        pid = supervisor.call("getPID")
        supervisor.call("shutdown")
    if pid is not None:
        with contextlib.suppress(processes.psutil.NoSuchProcess):
            processes.psutil.Process(pid).wait(timeout=60)


def stop(names: list[str]) -> None:
    """Stop parts, all at the same time, and wait for them.

    Args:
        names: Which.
    """
    supervisor = Supervisor()
    for name in names:
        with contextlib.suppress(xmlrpc.client.Fault, OSError):
            supervisor.call("stopProcess", name, False)
    while any(
        info["statename"] in ("STOPPING", "RUNNING", "STARTING")
        for name, info in supervisor.states().items()
        if name in names
    ):
        time.sleep(0.1)


def _waves() -> Iterator[list[str]]:
    left = dict(parts())
    while left:
        needed = {name for part in left.values() for name in part.needs}
        wave = [name for name in left if name not in needed]
        yield wave
        for name in wave:
            del left[name]


def _take_changes(supervisor: Supervisor) -> list[str]:
    running = [name for name, info in supervisor.states().items() if info["pid"] and name != HEALTH]
    added, changed, removed = supervisor.call("reloadConfig")[0]
    stop([name for name in (*changed, *removed) if name != HEALTH])
    for name in (*changed, *removed):
        with contextlib.suppress(xmlrpc.client.Fault):
            supervisor.call("stopProcessGroup", name)
        supervisor.call("removeProcessGroup", name)
    for name in (*changed, *added):
        supervisor.call("addProcessGroup", name)
    return [name for name in running if name in changed]


def _write_configuration() -> None:
    folder().mkdir(mode=0o700, parents=True, exist_ok=True)
    (settings().home / "logs").mkdir(exist_ok=True)
    variables = {name: os.environ[name] for name in sorted(setting_variables()) if name in os.environ}
    variables["LAKE_HOME"] = str(settings().home)
    _write_private(_environment_file(), json.dumps(variables, indent=2))
    sections = [_daemon_section(), *(_program_section(part, number) for number, part in enumerate(parts().values()))]
    _write_private(folder() / "supervisord.conf", "\n".join([*sections, _health_section()]))


def _daemon_section() -> str:
    password = settings().secret("supervisor_password")
    return f"""\
[supervisord]
logfile = {_quoted(folder() / "supervisor.log")}
logfile_maxbytes = 5MB
logfile_backups = 2
pidfile = {_quoted(folder() / "supervisor.pid")}
childlogdir = {_quoted(settings().home / "logs")}
umask = 077
{"user = root" if os.getuid() == 0 else ""}

[unix_http_server]
file = {_quoted(socket_path())}
chmod = 0700
username = lake
password = {password}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""


def _program_section(part: Part, number: int) -> str:
    return f"""\
[program:{part.name}]
command = {_python("lakehouse.platform.launch", part.name)}
directory = {_quoted(settings().home)}
environment = LAKEHOUSE_SETTINGS="{_settings_digest()}"
autostart = false
autorestart = true
startsecs = 2
startretries = 10
stopsignal = {part.stop_signal.name.removeprefix("SIG")}
stopwaitsecs = {part.stop_seconds}
stopasgroup = {str(part.stop_whole_group).lower()}
killasgroup = true
priority = {100 + number}
redirect_stderr = true
stdout_logfile = {_quoted(part.log)}
stdout_logfile_maxbytes = 10MB
stdout_logfile_backups = 3
"""


def _health_section() -> str:
    return f"""\
[eventlistener:{HEALTH}]
command = {_python("lakehouse.platform.launch", HEALTH)}
directory = {_quoted(settings().home)}
environment = LAKEHOUSE_SETTINGS="{_settings_digest()}"
events = TICK_5
buffer_size = 1
autorestart = true
stopasgroup = true
priority = 999
stderr_logfile = {_quoted(settings().home / "logs" / "health.log")}
stderr_logfile_maxbytes = 5MB
stderr_logfile_backups = 1
"""


def _environment_file() -> Path:
    # Read by lakehouse.platform.launch.
    return folder() / "environment.json"


def _settings_digest() -> str:
    # In the configuration, so that the supervisor itself sees which programs other settings have changed.
    database = settings().database_url  # a secret, which the settings do not write out
    text = settings().model_dump_json() + _environment_file().read_text()
    text += database.get_secret_value() if database else ""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _python(module: str, *arguments: str) -> str:
    return " ".join([f'"{_quoted(sys.executable)}"', "-m", module, *arguments])


def _quoted(value: str | Path) -> str:
    return str(value).replace("%", "%%")


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
