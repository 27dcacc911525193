"""What is wrong with this machine or this platform, and the way out."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from lakehouse.errors import LakeError
from lakehouse.platform import engine, jars, lifecycle, processes
from lakehouse.platform.errors import PlatformError
from lakehouse.platform.parts import parts
from lakehouse.platform.supervisor import Supervisor, socket_path
from lakehouse.settings import SecretsError, settings
from lakehouse.wording import first_line

PYTHON_VERSIONS = ((3, 11), (3, 13))
# What the whole platform holds when it has just started, with room for one run.
FREE_MEMORY_BYTES = 5 * 1024**3
FREE_DISK_BYTES = 5 * 1024**3
GIB = 1024**3


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: What.
        found: How it is.
        way_out: What to do about it; nothing when it is fine.
    """

    subject: str
    found: str
    way_out: str = ""

    @property
    def fine(self) -> bool:
        """Whether there is nothing to do."""
        return not self.way_out


def examine() -> Iterator[Finding]:
    """Look at everything that a start depends on, one thing after the other."""
    try:
        states = Supervisor().states()
    except SecretsError:  # what is found about the state folder says so
        states = {}
    running = {name for name, info in states.items() if info["pid"]}
    yield _python()
    yield _settings()
    yield _memory(running)
    yield _disk()
    yield from _files()
    yield _java()
    yield _jars()
    elsewhere = _engine_elsewhere() if settings().spark_remote else None
    if elsewhere:
        yield elsewhere
    yield _database()
    yield _supervisor(bool(states))
    yield from _ports(running)
    if running:
        stands = {one.part.name: one for one in lifecycle.status()}
        yield from of_parts(stands.values())
        # Spark's client would try for minutes to find an engine that is not there.
        if elsewhere.fine if elsewhere else stands["engine"].works:
            yield _views()


def _python() -> Finding:
    found = ".".join(str(number) for number in sys.version_info[:3])
    first, last = PYTHON_VERSIONS
    if first <= sys.version_info[:2] <= last:
        return Finding("Python", found)
    return Finding(
        "Python", found, "install Python 3.11, 3.12 or 3.13, delete .venv and run ./lake again: it takes the newest"
    )


def _settings() -> Finding:
    s = settings()
    numbers = list(s.ports.model_dump().values())
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if twice:
        return Finding("settings", f"port {twice[0]} is given to two parts", "give each its own, in lake.toml")
    return Finding("settings", f"valid; state in {s.home}")


def _memory(running: set[str]) -> Finding:
    memory = psutil.virtual_memory()
    found = f"{memory.available / GIB:.1f} GiB free of {memory.total / GIB:.1f}"
    if running or memory.available >= FREE_MEMORY_BYTES:
        return Finding("memory", found)
    return Finding(
        "memory",
        f"{found}; the platform wants {FREE_MEMORY_BYTES // GIB}",
        "end other programs, or give the engine less with LAKE_SPARK_MEMORY=1g",
    )


def _disk() -> Finding:
    free = shutil.disk_usage(_existing(settings().home)).free
    found = f"{free / GIB:.1f} GiB free for {settings().home}"
    if free >= FREE_DISK_BYTES:
        return Finding("disk", found)
    return Finding("disk", found, "make room, or set LAKE_HOME to a folder on a larger disk")


def _files() -> Iterator[Finding]:
    home = settings().home
    if not os.access(_existing(home), os.W_OK):
        yield Finding("state folder", f"{home} cannot be written", "set LAKE_HOME to a folder of yours")
        return
    if not home.exists():
        yield Finding("state folder", "not made yet")
        return
    try:
        lifecycle.make_home()
    except PlatformError as error:
        yield Finding("state folder", str(error), "set LAKE_HOME to another folder")
        return
    private = [home, home / "secrets.json", home / "supervisor", home / "postgres", home / "engine" / "spark.conf"]
    for path in private:
        if path.exists() and (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
            yield Finding("state folder", f"others may read {path} (mode {mode:o})", f"chmod go= {path}")
            return
    secrets = home / "secrets.json"
    try:
        if secrets.exists():
            json.loads(secrets.read_text() or "{}")
    except json.JSONDecodeError as error:
        yield Finding("state folder", f"{secrets} is broken: {error}", "take it from a backup, or `lake reset`")
        return
    yield Finding("state folder", "private to its owner")


def _java() -> Finding:
    if settings().spark_remote:
        return Finding("Java", "not needed: the engine is elsewhere")
    try:
        program = engine.java()
        version = engine.java_version(program)
    except (PlatformError, OSError) as error:
        return Finding("Java", str(error), "correct JAVA_HOME or unset it")
    if version in engine.JAVA_VERSIONS:
        return Finding("Java", f"{version} ({program})")
    return Finding("Java", f"{version} ({program})", "set JAVA_HOME to a Java 17 or 21, or unset it")


def _engine_elsewhere() -> Finding:
    from lakehouse.platform import remote_engine

    try:
        remote_engine.check()
    except PlatformError as error:
        return Finding("engine", str(error), "start that server, or unset SPARK_REMOTE")
    return Finding("engine", "the one that SPARK_REMOTE names listens")


def _jars() -> Finding:
    if settings().spark_remote:
        return Finding("JARs", "not needed: the engine is elsewhere")
    missing = jars.missing()
    broken = [jar for jar in missing if jar.path.exists()]
    if broken:
        return Finding("JARs", f"{broken[0].path} is not the file that was locked", "`lake up` fetches it again")
    if missing:
        # Nothing is wrong: that is how a fresh home looks.
        return Finding("JARs", f"{len(missing)} of {len(jars.locked())} are fetched at the next start")
    return Finding("JARs", f"all {len(jars.locked())} there, checksums right")


def _database() -> Finding:
    s = settings()
    if s.database_url is None:
        return Finding("database", "embedded PostgreSQL")
    try:
        with psycopg.connect(s.postgres_url("postgres"), connect_timeout=5) as connection:
            row = connection.execute(
                "select current_setting('server_version'), rolcreatedb or rolsuper from pg_roles "
                "where rolname = current_user"
            ).fetchone()
    except psycopg.Error as error:
        return Finding(
            "database", f"DATABASE_URL does not answer: {str(error).strip()}", "correct DATABASE_URL, or unset it"
        )
    if row and row[1]:
        return Finding("database", f"PostgreSQL {row[0]} of DATABASE_URL")
    return Finding("database", "the user of DATABASE_URL may not create databases", "alter role … createdb")


def _supervisor(answers: bool) -> Finding:
    if answers:
        return Finding("supervisor", "runs")
    strays = processes.strays()
    if strays:
        numbers = ", ".join(str(process.pid) for process in strays[:8])
        return Finding(
            "supervisor",
            f"gone, but {len(strays)} processes of the platform run on ({numbers})",
            "`lake up` takes over, `lake down` ends them",
        )
    if socket_path().exists():
        return Finding("supervisor", f"gone without a good-bye; {socket_path()} is stale", "`lake up` or `lake down`")
    return Finding("supervisor", "not started")


def _ports(running: set[str]) -> Iterator[Finding]:
    for part in parts().values():
        for name, port in part.port_numbers().items():
            if part.name in running:
                yield Finding(f"port {port}", f"{part.name} listens" if _open(port) else f"{part.name} is starting")
            elif owner := processes.port_owner(port):
                yield Finding(
                    f"port {port}",
                    f"wanted by {part.name}, taken by {owner}",
                    f"stop that, or choose another port with LAKE_PORTS__{name.upper()} or in lake.toml",
                )
            else:
                yield Finding(f"port {port}", f"free for {part.name}")


def of_parts(stands: Iterable[lifecycle.Status]) -> Iterator[Finding]:
    """What is to be done about parts, by how they stand.

    Args:
        stands: One of each part.
    """
    for one in stands:
        if one.works:
            yield Finding(one.part.name, "works")
        elif one.state == "stopped":
            yield Finding(one.part.name, "not started")
        elif one.state in ("starting", "running") and one.uptime < one.part.start_seconds:
            yield Finding(
                one.part.name,
                f"{one.state}: {one.health}",
                f"it was started {one.uptime} s ago and has {one.part.start_seconds}: ask again; "
                f"`lake logs {one.part.name}` says what it does",
            )
        else:
            yield Finding(
                one.part.name,
                f"{one.state}: {one.health or 'see its log'}",
                f"`lake logs {one.part.name}` says why; `lake up` tries again",
            )


def _views() -> Finding:
    from deltalake.exceptions import DeltaError
    from pyspark.errors import PySparkException

    from lakehouse.releases.release import outdated

    try:
        names = outdated()
    except (LakeError, PySparkException, DeltaError, OSError) as error:
        return Finding(
            "released views",
            f"could not be looked at: {first_line(error)}",
            "ask again when all parts work; `lake verify` looks at the tables",
        )
    if names:
        return Finding(
            "released views",
            f"{', '.join(names)}: not there, or not what is released",
            "`lake maintain` shows what is released, unless somebody is releasing it just now",
        )
    return Finding("released views", "show what is released")


def _open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
