"""Wording: what a count, or an error of another program, needs to read well."""

from __future__ import annotations


def counted(number: int, thing: str, several: str | None = None) -> str:
    """A number with what it counts: ``1 row``, ``2 rows``.

    Args:
        number: How many.
        thing: What is counted, as one is called.
        several: What more or less than one are called; ``thing`` with an s without it.
    """
    return f"{number} {thing if number == 1 else several or thing + 's'}"


def first_line(error: BaseException, width: int = 300) -> str:
    """The beginning of what an error says, as a sentence.

    Args:
        error: Of another program, which may say much.
        width: Characters at most.
    """
    line = str(error).partition("\n")[0].strip()
    return f"{line[: width - 1]}…" if len(line) > width else f"{line.rstrip('.')}."
