"""Wording: what a count needs to read well."""

from __future__ import annotations


def counted(number: int, thing: str, several: str | None = None) -> str:
    """A number with what it counts: ``1 row``, ``2 rows``.

    Args:
        number: How many.
        thing: What is counted, as one is called.
        several: What more or less than one are called; ``thing`` with an s without it.
    """
    return f"{number} {thing if number == 1 else several or thing + 's'}"
