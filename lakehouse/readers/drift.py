"""Schema drift: which of a file's fields are columns of the contract, and what its policy says of the others.

Fields are found by name, never by place, so that no value can get into another column.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakehouse.contracts import TECHNICAL_COLUMNS
from lakehouse.contracts.parts import COLUMN_NAME
from lakehouse.readers.batch import SourceError

if TYPE_CHECKING:
    from lakehouse.contracts import Contract

MAX_FIELDS = 20_000
MAX_ADDED = 100
"""New columns that one delivery may bring; more than that is another table."""

_SHOWN = 5


@dataclass(frozen=True)
class Alignment:
    """How the fields of a file become columns.

    Attributes:
        fields: For each field of the file the column that it becomes, or None where it is not taken.
        added: Columns that the contract does not have.
        missing: Columns of the contract that the file does not have; they are null.
    """

    fields: tuple[str | None, ...]
    added: tuple[str, ...]
    missing: tuple[str, ...]


def align(names: Sequence[str], contract: Contract, place: str) -> Alignment:
    """Find the contract's columns among a file's fields.

    Args:
        names: The fields in their order.
        contract: Declares the columns, and by ``schemaDrift`` what to do with differences.
        place: File and line, for an error.

    Raises:
        SourceError: The fields are ambiguous, or differ in a way that the contract does not allow.
    """
    policy = contract.schema_drift
    expected = {column.name: column for column in contract.columns}
    if len(names) > MAX_FIELDS:
        raise SourceError(f"{place}: {len(names)} columns; at most {MAX_FIELDS} are read.", "too_many_columns")
    fields = list(names) if policy == "reject" else [name.strip().lower() for name in names]
    if not expected.keys() & set(fields):
        # What stands here instead of a header may be a person's data: it is not quoted.
        raise SourceError(
            f"{place}: this is not the header: none of {', '.join(expected)} is in it. {_way_out(policy)}",
            "header_missing",
        )
    for name in dict.fromkeys(fields):
        if fields.count(name) > 1 and (name or policy != "ignore"):
            raise SourceError(
                f"{place}: column {name!r} is there {fields.count(name)} times, and which one is meant is not known. "
                "Ask the sender for a file that has it once.",
                "column_duplicate",
            )
    unknown = [name for name in fields if name not in expected]
    missing = [name for name in expected if name not in fields]
    faults: list[tuple[str, str]] = []
    for name in missing:
        if policy == "reject" or expected[name].required:
            faults.append(("column_missing", f"column {name!r} is missing{_close(name, unknown)}"))
    if policy != "ignore":
        for name in unknown:
            if not name.strip():
                faults.append(("column_unnamed", f"column {fields.index(name) + 1} has no name"))
            elif policy == "reject":
                faults.append(("column_unexpected", f"column {name!r} is not in the contract"))
            elif not COLUMN_NAME.fullmatch(name) or name in TECHNICAL_COLUMNS:
                faults.append(("column_name", f"column {name!r} cannot be added: its name is not letters, digits, _"))
        if policy == "evolve" and len(unknown) > MAX_ADDED:
            faults = [("too_many_columns", f"{len(unknown)} new columns; at most {MAX_ADDED} are added")]
    if faults:
        shown = "; ".join(text for _, text in faults[:_SHOWN])
        more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise SourceError(
            f"{place}: {shown}{more}. The contract expects {', '.join(expected)}. {_way_out(policy)}", faults[0][0]
        )
    added = tuple(unknown) if policy == "evolve" else ()
    return Alignment(
        tuple(name if name in expected or name in added else None for name in fields), added, tuple(missing)
    )


def _way_out(policy: str) -> str:
    text = "Correct the file, or change the contract if the source has changed for good"
    return text + (", or its schemaDrift." if policy == "reject" else ".")


def _close(name: str, unknown: Sequence[str]) -> str:
    """A hint at the unknown field that may be meant, with what cannot be seen in it spelled out."""
    for other in unknown:
        if _folded(other) == name:
            return f" ({other!r} differs in case or spaces)"
    for other in difflib.get_close_matches(name, unknown, n=1, cutoff=0.6):
        strange = [f"{letter} is {unicodedata.name(letter, 'unnamed')}" for letter in other if not letter.isascii()]
        return f" ({other!r} only looks like it: {', '.join(strange)})" if strange else f" (is it {other!r}?)"
    return ""


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().lower()
