"""Wording: what a count, a wrong name, or an error of another program, needs to read well."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def counted(number: int, thing: str, several: str | None = None) -> str:
    """A number with what it counts: ``1 row``, ``2 rows``.

    Args:
        number: How many.
        thing: What is counted, as one is called.
        several: What more or less than one are called; ``thing`` with an s without it.
    """
    return f"{number} {thing if number == 1 else several or thing + 's'}"


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "", most: int = 1) -> str:
    """The question whether a name that is near to a wrong one was meant, with a blank before it.

    Args:
        word: What was written.
        known: What could have been.
        otherwise: What to say when nothing is near; nothing without it.
        most: How many near ones to name at most.
    """
    near = difflib.get_close_matches(word, list(known), n=most)
    said = f"Did you mean {' or '.join(near)}?" if near else otherwise
    return f" {said}" if said else ""


def first_line(error: BaseException, width: int = 300) -> str:
    """The beginning of what an error says, as a sentence.

    Args:
        error: Of another program, which may say much.
        width: Characters at most.
    """
    line = str(error).partition("\n")[0].strip()
    return f"{line[: width - 1]}…" if len(line) > width else f"{line.rstrip('.')}."
