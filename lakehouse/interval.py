"""Intervals: the days that a run is about, and Airflow's partition key for them."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from dataclasses import dataclass

from lakehouse.errors import LakeError


class InvalidIntervalError(LakeError, ValueError):
    """The text is neither a day nor a range of days."""


def day(text: str) -> dt.date:
    """Read a day as it is written everywhere: ``2013-03-01``.

    Args:
        text: The day.

    Raises:
        ValueError: It is written in another way, also in one that ISO 8601 knows; or there is no such day.
    """
    try:
        found = dt.date.fromisoformat(text)
    except ValueError as error:
        written_well = re.fullmatch(r"\d{4}-\d\d-\d\d", text)
        raise ValueError(f"there is no {text}: {error}" if written_well else f"{text!r} is no day") from error
    if found.isoformat() != text:
        raise ValueError(f"{text} is another way to write {found}")
    return found


@dataclass(frozen=True, order=True)
class Interval:
    """One day or a range of days; both ends are included.

    Attributes:
        start: First day.
        end: Last day.
    """

    start: dt.date
    end: dt.date

    def __post_init__(self) -> None:
        if self.end < self.start:
            raise InvalidIntervalError(f"The interval {self.start}/{self.end} ends before it starts.")

    @classmethod
    def parse(cls, text: str) -> Interval:
        """Read ``2013-03-01`` or ``2013-01-01/2013-02-28`` (the notation of ISO 8601).

        Args:
            text: The interval as a user or Airflow's partition key gives it.

        Raises:
            InvalidIntervalError: The text is not of that form, or names a day that does not exist.
        """
        start, separator, end = text.strip().partition("/")
        try:
            first = day(start)
            last = day(end) if separator else first
        except ValueError as error:
            raise InvalidIntervalError(
                f"{text!r} is not an interval ({error}). Write a day as 2013-03-01, a range as 2013-01-01/2013-02-28."
            ) from error
        return cls(first, last)

    def __str__(self) -> str:
        return self.start.isoformat() if self.is_day else f"{self.start.isoformat()}/{self.end.isoformat()}"

    @property
    def is_day(self) -> bool:
        """Whether the interval is a single day."""
        return self.start == self.end

    def days(self) -> Iterator[dt.date]:
        """Each day, in order."""
        for offset in range((self.end - self.start).days + 1):
            yield self.start + dt.timedelta(days=offset)

    def contains(self, day: dt.date) -> bool:
        """Whether a day is one of the interval's.

        Args:
            day: Any day.
        """
        return self.start <= day <= self.end

    def overlaps(self, other: Interval) -> bool:
        """Whether two intervals have a day in common.

        Args:
            other: Another interval.
        """
        return self.start <= other.end and other.start <= self.end

    def sql(self, column: str) -> str:
        """A SQL predicate that is true for the rows of this interval.

        Args:
            column: Name of a DATE column.
        """
        return f"{column} between date'{self.start.isoformat()}' and date'{self.end.isoformat()}'"
