"""One writer per table: a PostgreSQL advisory lock with a rising token.

The lock belongs to a database session, so it is freed when its holder dies. The database ends a session that is silent:
a holder that is paused, or whose machine is gone, does not keep others waiting. The token rises with each holder, so
that a writer that was paused while another took over finds out before it commits.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from lakehouse.errors import LakeError
from lakehouse.settings import settings

LOCK_TIMEOUT_SECONDS = 600
SILENCE_SECONDS = 60
"""After which a holder is taken for lost, as is a task that Airflow does not hear of."""

HEARTBEAT_SECONDS = 10

log = logging.getLogger("lakehouse")


class TableLockedError(LakeError):
    """Another writer has held the table for too long."""


class StaleWriterError(LakeError):
    """This writer's lock has passed on to another; it must not commit."""


@dataclass(frozen=True)
class WriterLock:
    """A held lock.

    Attributes:
        table: The stored table that may be written.
        token: This holder's number; it is higher than that of every earlier holder.
    """

    table: str
    token: int
    connection: psycopg.Connection

    def check(self) -> None:
        """Make sure that the lock is still held.

        Raises:
            StaleWriterError: The session that held it is gone, or a later writer has a higher token.
        """
        try:
            row = self.connection.execute(
                "select token from writer_tokens where table_name = %s", [self.table]
            ).fetchone()
        except psycopg.OperationalError as error:
            raise StaleWriterError(
                f"The lock on {self.table} was lost: {error}. Nothing is written; run it again."
            ) from error
        if row is None or row[0] != self.token:
            raise StaleWriterError(
                f"Another writer has taken over {self.table} (token {row and row[0]}, this one has {self.token}). "
                "Nothing is written."
            )


@contextmanager
def _heartbeat(connection: psycopg.Connection) -> Iterator[None]:
    """Have the session say something now and then, for as long as the block lasts and this process runs."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            try:
                connection.execute("select 1")
            except psycopg.OperationalError as error:
                # Its holder finds out by itself before it commits.
                log.warning("A lock was lost: %s", error)
                return

    thread = threading.Thread(target=beat, name="heartbeat of a lock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


_held: list[WriterLock] = []


def check_held(table: str) -> None:
    """Make sure that this process still holds what it has taken of a table; nothing when it has taken nothing.

    For what no lock can be handed to: dbt only tells by events what it is about to do.

    Args:
        table: The stored table, or layer that is written whole.

    Raises:
        StaleWriterError: It does not.
    """
    for lock in tuple(_held):
        if lock.table == table:
            lock.check()


@contextmanager
def writer(table: str, timeout_seconds: int = LOCK_TIMEOUT_SECONDS, *, gives_way: bool = True) -> Iterator[WriterLock]:
    """Hold the right to write one table.

    Args:
        table: The stored table.
        timeout_seconds: How long to wait for another writer to finish.
        gives_way: Whether it passes on when nobody hears of this process for a minute. Who has it must
            then ask for :meth:`WriterLock.check` before a commit.

    Raises:
        TableLockedError: The other writer did not finish in time.
    """
    url = settings().postgres_url("lake")
    # Of a machine that does not answer, a session is given up as early as the database gives one up.
    with psycopg.connect(url, autocommit=True, tcp_user_timeout=SILENCE_SECONDS * 1000) as connection:
        connection.execute(f"set lock_timeout = '{int(timeout_seconds)}s'")
        if gives_way:
            connection.execute(f"set idle_session_timeout = '{int(SILENCE_SECONDS)}s'")
        try:
            connection.execute("select pg_advisory_lock(hashtextextended(%s, 0))", [table])
        except psycopg.errors.LockNotAvailable as error:
            raise TableLockedError(
                f"{table} has been locked by another writer for {timeout_seconds} s. "
                "See select * from pg_locks where locktype = 'advisory', or wait and run it again."
            ) from error
        token = connection.execute(
            "insert into writer_tokens values (%s, 1) on conflict (table_name) "
            "do update set token = writer_tokens.token + 1 returning token",
            [table],
        ).fetchone()
        assert token is not None
        lock = WriterLock(table, token[0], connection)
        _held.append(lock)
        try:
            with _heartbeat(connection):
                yield lock
        finally:
            _held.remove(lock)
