"""Up, down, and how things stand."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import threading
import time
import xmlrpc.client
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import Faults

from lakehouse.engine import process_record
from lakehouse.platform import processes, supervisor
from lakehouse.platform.errors import PlatformError
from lakehouse.platform.parts import Part, environment, parts, select
from lakehouse.platform.supervisor import Supervisor
from lakehouse.settings import PROJECT_DIR, SecretsError, settings

HOME_MARKER = "lake-home"
SECONDS_BETWEEN_POLLS = 0.25
LINES_OF_LOG = 25
LONGEST_TAIL = 64 * 1024
DEAD = ("BACKOFF", "EXITED", "FATAL")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Status:
    """How one part stands.

    Attributes:
        part: Which.
        state: The supervisor's word for it.
        pid: Process number, 0 without a process.
        health: ``ok``, what its check said, or nothing when it does not run.
        uptime: Seconds since it was started.
    """

    part: Part
    state: str
    pid: int
    health: str
    uptime: int

    @property
    def works(self) -> bool:
        """Whether it runs and answers."""
        return self.health == "ok"


def up(names: Sequence[str] = (), say: Say = print) -> None:
    """Start parts and what they need; one that works already is left alone.

    Each starts as soon as what it needs works.

    Args:
        names: Parts, or the group ``airflow``; none means all.
        say: Takes a line about the progress.

    Raises:
        PlatformError: A part did not start; the message says which, and has the end of its log.
    """
    wanted = select(names)
    make_home()
    with _alone(say):
        stopped = supervisor.ensure_running()
        if stopped:
            say(f"          other settings than before: {', '.join(stopped)} start again")
            wanted = select([*names, *stopped]) if names else wanted
        if settings().spark_remote and not names:
            _prepare_remote_engine(say)
        _Start(wanted, say).run()


def _prepare_remote_engine(say: Say) -> None:
    """Before Airflow is there, whose tasks would fail without it."""
    from lakehouse.platform import remote_engine

    remote_engine.check()
    if "postgres" in parts():
        _Start(select(["postgres"]), say).run()
    remote_engine.prepare()
    say("          the schemas and the platform's own tables are on the engine that SPARK_REMOTE names")


def down(say: Say = print) -> None:
    """Stop everything in good order, and wait for it.

    Args:
        say: Takes a line about the progress.
    """
    if not settings().home.exists():
        return
    with _alone(say):
        # Without its password the supervisor cannot be asked; it is ended below then, with all that it watches.
        with contextlib.suppress(SecretsError):
            if Supervisor().is_running():
                supervisor.shut_down()
        for left in supervisor.recover():
            say(f"ended {left}, which no supervisor watched")
        # Who asks for the engine from now on need not wait for it.
        process_record().unlink(missing_ok=True)


def status() -> list[Status]:
    """How each part stands, asked now."""
    known = Supervisor().states()

    def look(part: Part) -> Status:
        info = known.get(part.name)
        if info is None or not info["pid"]:
            return Status(part, info["statename"].lower() if info else "stopped", 0, "", 0)
        return Status(part, info["statename"].lower(), info["pid"], _health(part, info), info["now"] - info["start"])

    here = parts()
    with ThreadPoolExecutor(len(here) or 1) as pool:
        return list(pool.map(look, here.values()))


def reset(say: Say = print) -> None:
    """Stop everything and delete the state folder.

    Args:
        say: Takes a line about the progress.

    Raises:
        PlatformError: The folder is not one that the platform has made.
    """
    home = settings().home
    if not home.exists():
        return
    if not (home / HOME_MARKER).is_file():
        raise PlatformError(
            f"{home} is not a state folder of the platform (it has no file {HOME_MARKER}); nothing was deleted."
        )
    down(say)
    shutil.rmtree(home)
    if supervisor.socket_path().parent.exists():
        shutil.rmtree(supervisor.socket_path().parent)


def make_home() -> Path:
    """Create the state folder, which only its owner may enter, and mark it as ours."""
    home = settings().home
    marker = home / HOME_MARKER
    if not marker.exists():
        if home.exists() and any(path.name != "secrets.json" for path in home.iterdir()):
            # What is made before the platform is first started.
            ours = {
                "copies",
                "data_docs",
                "dbt",
                "drop",
                "lineage",
                "logs",
                "openlineage",
                "profiles",
                "secrets.json",
                "warehouse",
            }
            foreign = [path.name for path in home.iterdir() if path.name not in ours]
            if foreign:
                raise PlatformError(
                    f"The state folder {home} holds things that are not the platform's ({', '.join(foreign[:3])}): "
                    "set LAKE_HOME to an empty folder, or to one that does not exist."
                )
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.chmod(0o700)
        marker.write_text(f"State of the lakehouse platform of {PROJECT_DIR}. `lake reset` deletes this folder.\n")
    return home


class _Start:
    """One run of ``up``."""

    def __init__(self, wanted: dict[str, Part], say: Say) -> None:
        self._wanted = wanted
        self._say = say
        self._began = time.monotonic()
        self._supervisor = Supervisor()
        self._works = {name: threading.Event() for name in wanted}
        self._failed = threading.Event()
        self._log_sizes = {name: part.log.stat().st_size if part.log.exists() else 0 for name, part in wanted.items()}

    def run(self) -> None:
        environment_of_parts = environment()
        with ThreadPoolExecutor(2 * len(self._wanted) or 1) as pool, _environment(environment_of_parts):
            jobs = []
            for part in self._wanted.values():
                fetched = pool.submit(part.fetch)
                jobs.append(pool.submit(self._bring_up, part, fetched))
            done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
            for job in done:
                if job.exception():
                    self._failed.set()
            for job in done:
                job.result()

    def _bring_up(self, part: Part, fetched: Future[object]) -> None:
        info = self._info(part)
        if info["statename"] == "RUNNING" and _health(part, info) == "ok":
            fetched.result()
            self._works[part.name].set()
            self._line(f"{part.name} works already")
            return
        if info["statename"] not in ("RUNNING", "STARTING"):
            _refuse_taken_ports(part)
        fetched.result()
        for needed in part.needs:
            while not self._works[needed].wait(SECONDS_BETWEEN_POLLS):
                if self._failed.is_set():
                    return
        part.prepare()
        if info["statename"] not in ("RUNNING", "STARTING"):
            try:
                self._ask(part, "startProcess", False)
            except xmlrpc.client.Fault as fault:
                # The supervisor may have just restarted it by itself.
                if fault.faultCode != Faults.ALREADY_STARTED:
                    raise PlatformError(f"The supervisor cannot start {part.name}: {fault.faultString}.") from fault
        self._await(part)
        with contextlib.ExitStack() as unfinished:
            # The next start would take it for one that works already.
            unfinished.callback(self._stop, part)
            part.finish()
            unfinished.pop_all()
        self._works[part.name].set()
        self._line(f"{part.name} is up" + (f": {part.address}" if part.address else ""))

    def _await(self, part: Part) -> None:
        end = time.monotonic() + part.start_seconds
        pid = 0
        health = ""
        while not self._failed.is_set():
            info = self._info(part)
            if info["statename"] in DEAD or (pid and info["pid"] not in (0, pid)):
                raise self._failure(part, "ended while it was starting")
            pid = info["pid"] or pid
            if info["statename"] == "RUNNING":
                health = _health(part, info)
                if health == "ok":
                    return
            if time.monotonic() > end:
                raise self._failure(part, f"did not work within {part.start_seconds} s ({health})")
            time.sleep(SECONDS_BETWEEN_POLLS)

    def _failure(self, part: Part, what: str) -> PlatformError:
        self._stop(part)
        return PlatformError(f"{part.name} {what}. The end of {part.log}:\n{self._tail(part)}")

    def _stop(self, part: Part) -> None:
        with contextlib.suppress(xmlrpc.client.Fault):  # it has ended by itself
            self._ask(part, "stopProcess", False)

    def _tail(self, part: Part) -> str:
        """The last lines that the part wrote since this start."""
        if not part.log.exists():
            return "(no log)"
        size, before = part.log.stat().st_size, self._log_sizes[part.name]
        with part.log.open("rb") as file:
            # A log that is shorter than before is a new one.
            file.seek(max(before if before <= size else 0, size - LONGEST_TAIL))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-LINES_OF_LOG:])

    def _info(self, part: Part) -> dict[str, Any]:
        info: dict[str, Any] = self._ask(part, "getProcessInfo")
        return info

    def _ask(self, part: Part, method: str, *arguments: Any) -> Any:
        try:
            return self._supervisor.call(method, part.name, *arguments)
        except OSError as error:
            raise PlatformError(
                f"The supervisor has ended while {part.name} was starting: `lake up` starts it anew. "
                f"Its log is {supervisor.folder() / 'supervisor.log'}."
            ) from error

    def _line(self, text: str) -> None:
        self._say(f"{time.monotonic() - self._began:6.1f} s  {text}")


def _refuse_taken_ports(part: Part) -> None:
    for name, port in part.port_numbers().items():
        if owner := processes.port_owner(port):
            raise PlatformError(
                f"{part.name} cannot start: port {port} is taken by {owner}. Stop that, or choose another port "
                f"with LAKE_PORTS__{name.upper()} or in lake.toml."
            )


def _health(part: Part, info: dict[str, Any]) -> str:
    try:
        part.check(datetime.fromtimestamp(info["start"], UTC))
    except Exception as error:  # each part fails in the words of its own client library
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    return "ok"


@contextlib.contextmanager
def _alone(say: Say) -> Iterator[None]:
    # The lock goes with the process: a `lake up` that was killed does not lock out the next.
    with (settings().home / "lifecycle.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("         another `lake up` or `lake down` is at work; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    import os

    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
