"""Reproduction: what was made before and what is made again from the same pins, compared."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from lakehouse import tables
from lakehouse.errors import LakeError
from lakehouse.wording import first_line

PINNED = {
    "code_version": "the code",
    "model_sha256": "the model's folder",
    "lock_sha256": "the environment (uv.lock)",
    "environment": "Python or the machine",
}
"""What can differ between two makings from the same data: pin to what it stands for."""

_NOT_NAMED = (
    "model.yaml did not name it then. Check out the commit that it was made by (code_version of its run in ops.runs)."
)


class NotReproducedError(LakeError):
    """What was made again differs from what was made before."""


def require_known(table: str, state: Container[str], made: str) -> None:
    """Make sure that what was made then can have been made from a table.

    Args:
        table: A table that ``model.yaml`` names now.
        state: The tables that were released then.
        made: What was made, and from which release.

    Raises:
        NotReproducedError: It had not been released then.
    """
    if table not in state:
        raise NotReproducedError(f"{made}, by which {table} had not been released: {_NOT_NAMED}")


def require_columns(table: str, known: Container[str], wanted: Iterable[str], made: str) -> None:
    """Make sure that what was made then can have been made from some columns of a table.

    Args:
        table: A table that ``model.yaml`` names now.
        known: The columns of the version that was read then.
        wanted: The columns that ``model.yaml`` names now.
        made: What was made, and from which release.

    Raises:
        NotReproducedError: It had other columns then.
    """
    if missing := sorted({name for name in wanted if name not in known}):
        raise NotReproducedError(f"{made}, in which {table} has no column {', '.join(missing)}: {_NOT_NAMED}")


@dataclass(frozen=True)
class Difference:
    """Something that came out otherwise.

    Attributes:
        what: Which parameter, metric or hash.
        then: What it was.
        now: What it is.
    """

    what: str
    then: Any
    now: Any

    def __str__(self) -> str:
        """One line for a person."""
        return f"{self.what}: {self.then} then, {self.now} now"


def differences(kind: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """What differs between two sets of named values.

    Args:
        kind: What they are, such as ``metric``.
        then: The earlier ones.
        now: The ones made again.
    """
    return [
        Difference(f"{kind} {name}", then.get(name, "none"), now.get(name, "none"))
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]


def changed(then: Mapping[str, str], now: Mapping[str, str]) -> list[Difference]:
    """The pins other than the data that have changed: the reasons why something may come out otherwise.

    Args:
        then: Pins of what was made; one that was not recorded then is left out.
        now: The same of what is made now.
    """
    return [
        Difference(f"{meaning} ({pin})", then[pin], now[pin])
        for pin, meaning in PINNED.items()
        if pin in then and then[pin] != now[pin]
    ]


def conclude(what: str, found: list[Difference], reasons: list[Difference], details: dict[str, Any]) -> dict[str, Any]:
    """The outcome of a reproduction.

    Args:
        what: What was made again.
        found: What came out otherwise.
        reasons: What has changed since.
        details: Where the outcome is kept for ``ops.runs``.

    Returns:
        ``equal`` (true) and ``changed_since``: what has changed without changing the outcome.

    Raises:
        NotReproducedError: Something came out otherwise.
    """
    details |= {
        "equal": not found,
        "differences": [asdict(each) for each in found],
        "changed_since": [str(each) for each in reasons],
    }
    if not found:
        return {"equal": True, "changed_since": details["changed_since"]}
    why = (
        "What has changed since:\n" + "\n".join(map(str, reasons))
        if reasons
        else "Nothing that was recorded of the code and its surroundings has changed: see whether the files are whole, "
        "with `lake verify`."
    )
    raise NotReproducedError(f"{what} comes out otherwise:\n" + "\n".join(map(str, found)) + f"\n{why}")


@contextmanager
def named_if_damaged(read: Mapping[str, int | None]) -> Iterator[None]:
    """Name what the engine reads in the block, should it find a file of it damaged or missing.

    Args:
        read: Tables by the names that readers use, each with the release that has shown what is read of it; None for
            what readers see now.

    Raises:
        lakehouse.tables.UnreadableError: It has.
    """
    from pyspark.errors import PySparkException

    try:
        yield
    except PySparkException as error:
        if "[FAILED_READ_FILE" not in str(error):
            raise
        what = " or ".join(table + ("" if at is None else f" of release {at}") for table, at in read.items())
        asked = [f"`lake verify {table}{'' if at is None else f' --release {at}'}`" for table, at in read.items()]
        raise tables.UnreadableError(
            f"{what} cannot be read as it was written: {first_line(error)} "
            f"{' or '.join(asked)} names what is damaged or missing."
        ) from error
