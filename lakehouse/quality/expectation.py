"""One expectation of a suite, as Great Expectations means it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lakehouse.quality import rules


@dataclass(frozen=True)
class Expectation:
    """One expectation of a suite.

    Attributes:
        type: GX's name for it.
        kwargs: Its arguments.
        severity: ``critical``, ``warning`` or ``info``.
        meta: Its author's notes.
    """

    type: str
    kwargs: dict[str, Any]
    severity: str = "critical"
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def mostly(self) -> float:
        """The least share of rows that must keep a row-level expectation."""
        return float(self.kwargs.get("mostly", 1))

    @property
    def label(self) -> str:
        """The expectation as a person reads it."""
        return str(self.meta.get("label") or rules.label(self))

    @property
    def columns(self) -> list[str]:
        """Columns that it is about."""
        kwargs = self.kwargs
        named = [kwargs[name] for name in ("column", "column_A", "column_B") if kwargs.get(name)]
        return named + list(kwargs.get("column_list") or ())
