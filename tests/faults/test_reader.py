"""The reader that polls while something is killed: one that has seen nothing, or has died, is no proof."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults import reader

ASKED = {"bronze.a": "select a", "bronze.b": "select b"}


class Connection:
    """Of the DB API; answers each query by a function."""

    def __init__(self, answer: Callable[[str], str]) -> None:
        self.answer, self.asked = answer, threading.Event()

    def cursor(self) -> Connection:
        return self

    def execute(self, query: str) -> None:
        self.query = query

    def fetchall(self) -> list[tuple[str]]:
        rows = [(self.answer(self.query),)]
        if self.query == "select b":
            self.asked.set()
        return rows


def read(answer: Callable[[str], str]) -> reader.Seen:
    """Poll until both tables have been asked for, or the thread has ended."""
    connection = Connection(answer)
    with reader.reading(lambda: connection, ASKED) as seen:
        connection.asked.wait(timeout=2)
    return seen


def test_a_reader_that_was_answered_to_the_end_has_no_faults() -> None:
    seen = read(lambda query: query)
    assert seen.polls >= 2 and seen.faults(ASKED) == []
    seen.wrong.append("bronze.a: no such column")
    assert seen.faults(ASKED) == ["bronze.a: no such column"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_reader_that_has_died_is_a_fault() -> None:
    def fails(query: str) -> Any:
        if query == "select b":
            raise ZeroDivisionError
        return query

    dead = read(fails)
    assert dead.faults(ASKED)[0].startswith("the reader has ended before the run")
    assert dead.faults(["bronze.b"])[1] == "the reader was never answered about bronze.b"


def test_a_reader_that_nobody_has_answered_is_a_fault() -> None:
    def gone(query: str) -> Any:
        raise ConnectionError

    seen = read(gone)
    assert (seen.polls, seen.unanswered > 0) == (0, True)
    assert seen.faults(ASKED) == ["the reader was never answered about bronze.a, bronze.b"]
