"""Sizes as the command line has them: ``1k``, ``100k``, ``1M``, ``10M`` rows."""

from __future__ import annotations

import re

UNITS = {"": 1, "k": 1_000, "M": 1_000_000}


def rows_of(size: str) -> int:
    """How many rows a size stands for.

    Args:
        size: A number, and a unit of ``k`` or ``M``.

    Raises:
        ValueError: It is none.
    """
    found = re.fullmatch(r"([1-9]\d*)([kM]?)", size)
    if not found:
        raise ValueError(f"{size!r} is not a size. Write a number of rows such as 100k or 10M.")
    return int(found[1]) * UNITS[found[2]]
