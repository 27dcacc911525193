"""A reader of released views who never stops asking, and remembers each different answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.faults.daily import BEFORE, DAY, OF_THE_RUN, hashed, query_of

WATCHED = {
    "bronze.weather": ("observation_date", BEFORE),
    "bronze.flight_actuals": ("flight_date", BEFORE),
    "gold.fct_flights": ("flight_date", BEFORE),
    "gold.daily_delays_by_carrier": ("flight_date", BEFORE),
    "gold.flight_delay_features": ("flight_date", DAY),
    "ml.predictions_flight_delay": ("flight_date", DAY),
}
"""Table to the column and the day of its rows that a daily run replaces."""

TIMES_A_SECOND = 10

ABSENCES = (
    "Connection refused", "MetaException", "PSQLException", "SQLException", "Unable to instantiate",
    "Invalid SessionHandle", "SparkContext was shut down", "stopped SparkContext", "JDOException",
    "JDODataStoreException", "TException",
)  # fmt: skip
"""Words of an answer that says that nobody is there to answer."""

STARVED = ("Too many open files", "File too large")


@dataclass
class Seen:
    """What the reader has seen.

    Attributes:
        states: Table to its different contents, in the order in which they were seen.
        polls: How many answers there were.
        unanswered: How often nobody answered, since the engine or the database was being started again.
        wrong: Answers that are neither rows nor an absence: these must not be.
        to_the_end: Whether it has asked until it was told to stop.
    """

    states: dict[str, list[str]] = field(default_factory=dict)
    polls: int = 0
    unanswered: int = 0
    wrong: list[str] = field(default_factory=list)
    to_the_end: bool = False

    def faults(self, asked: Collection[str]) -> list[str]:
        """What was wrong, or not seen at all, in words: a reader that has seen nothing proves nothing.

        Args:
            asked: The tables that it was to ask for.
        """
        found = self.wrong[:3]
        if not self.to_the_end:
            found.append("the reader has ended before the run, or does not end")
        if unseen := sorted(set(asked) - self.states.keys()):
            found.append(f"the reader was never answered about {', '.join(unseen)}")
        return found


def queries(columns_of: Callable[[str], list[str]]) -> dict[str, str]:
    """The reader's queries.

    Args:
        columns_of: Names of a table's columns.
    """
    return {
        table: query_of(
            table, [name for name in columns_of(table) if name not in OF_THE_RUN], f"{column} = date'{day}'"
        )
        for table, (column, day) in WATCHED.items()
    }


@contextmanager
def reading(connect: Callable[[], Any], asked: dict[str, str], starved: bool = False) -> Iterator[Seen]:
    """Poll from a thread of its own for as long as the block lasts.

    Args:
        connect: Opens a connection of the DB API.
        asked: Table to query.
        starved: Whether the engine may lack a disk or file handles meanwhile.
    """
    seen, stop = Seen(), threading.Event()
    absences = (*ABSENCES, *(STARVED if starved else ()))
    thread = threading.Thread(target=_poll, args=(connect, asked, absences, seen, stop), daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join(timeout=60)


def _poll(
    connect: Callable[[], Any], asked: dict[str, str], absences: tuple[str, ...], seen: Seen, stop: threading.Event
) -> None:
    from pyhive.exc import OperationalError
    from thrift.transport.TTransport import TTransportException

    connection = None
    while not stop.is_set():
        for table, query in asked.items():
            started = time.monotonic()
            try:
                connection = connection or connect()
                cursor = connection.cursor()
                cursor.execute(query)
                content = hashed(cursor.fetchall())
            except (TTransportException, OSError, EOFError):
                connection, seen.unanswered = None, seen.unanswered + 1
            except OperationalError as error:
                # The metastore's database, or the session, is not back yet, or the engine has no disk or no files for
                # an answer: an absence, and not a wrong one.
                connection = None
                if any(words in str(error) for words in absences):
                    seen.unanswered += 1
                else:
                    seen.wrong.append(f"{table}: {str(error)[:500]}")
            else:
                seen.polls += 1
                states = seen.states.setdefault(table, [])
                if not states or states[-1] != content:
                    states.append(content)
            stop.wait(max(0.0, 1 / TIMES_A_SECOND - (time.monotonic() - started)))
    seen.to_the_end = True
