"""Sizes as the command line has them: ``1k``, ``100k``, ``1M``, ``10M`` rows; ``100MB``, ``1GB`` of files."""

from __future__ import annotations

import re

UNITS = {"": 1, "k": 1_000, "M": 1_000_000}
BYTES = {"MB": 1_000_000, "GB": 1_000_000_000}


def rows_of(size: str) -> int:
    """How many rows a size stands for.

    Args:
        size: A number, and a unit of ``k`` or ``M``.

    Raises:
        ValueError: It is none.
    """
    return _number(size, UNITS, "a size. Write a number of rows such as 100k or 10M.")


def bytes_of(size: str) -> int:
    """How many bytes a size of files stands for.

    Args:
        size: A number, and a unit of ``MB`` or ``GB``.

    Raises:
        ValueError: It is none.
    """
    return _number(size, BYTES, "a size of files. Write a number such as 100MB or 1GB.")


def _number(size: str, units: dict[str, int], wanted: str) -> int:
    found = re.fullmatch(r"([1-9]\d*)([kMGB]*)", size)
    if not found or found[2] not in units:
        raise ValueError(f"{size!r} is not {wanted}")
    return int(found[1]) * units[found[2]]
