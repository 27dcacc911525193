"""Sequences of what operators and upstreams do to one source, against a model of what must be visible."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from lakehouse import release_log, tables
from lakehouse.engine import spark
from lakehouse.landing.batches import RejectedBatchError
from lakehouse.releases import unreleased
from lakehouse.releases.rollback import rollback
from lakehouse.releases.unreleased import WithdrawnError
from tests.spark.sources import UNIQUE, Source, expect

DAYS = ("2020-01-05", "2020-01-06", "2020-01-07")
LIMITS = (10, 100)
"""What the amount of a row may be at most, in the one suite and in the other."""

HEADER = "id,person,amount,pieces,day\n"
Rows = dict[int, int]
"""Id of a row to its amount."""

Operation = tuple[Any, ...]

_day = st.sampled_from(DAYS)
_amounts = st.lists(st.sampled_from([5, 50, 500]), min_size=1, max_size=4)
_span = st.tuples(_day, _day).map(lambda pair: "/".join(sorted(pair)))
operations: st.SearchStrategy[list[Operation]] = st.lists(
    st.one_of(
        st.tuples(st.just("deliver"), _day, _amounts),
        st.tuples(st.just("load"), _day | _span),
        st.tuples(st.just("load"), _day | _span),
        st.tuples(st.just("land and leave"), _day),
        st.tuples(st.just("land two, release the first"), _day, _day),
        st.tuples(st.just("release again"), _day),
        st.tuples(st.just("change the limit")),
        st.tuples(st.just("replay"), _day),
        st.tuples(st.just("roll back"), st.integers(0, 5)),
    ),
    min_size=3,
    max_size=7,
)
"""A sequence; each day has been delivered once before it begins."""


@dataclass
class Model:
    """What must be visible, worked out without Spark.

    Attributes:
        delivered: Day to the rows of its file.
        limit: What the present suite lets pass.
        visible: Day to the rows that readers see.
        history: Release to what readers saw then.
    """

    delivered: dict[str, Rows] = field(default_factory=dict)
    limit: int = LIMITS[0]
    visible: dict[str, Rows] = field(default_factory=dict)
    history: dict[int, dict[str, Rows]] = field(default_factory=dict)

    def good(self, day: str) -> Rows:
        """Rows of a file that the present suite lets pass.

        Args:
            day: Of the file.
        """
        return {id_: amount for id_, amount in self.delivered[day].items() if amount <= self.limit}


def days_of(span: str) -> list[str]:
    """The days of ``DAYS`` in a day or range."""
    first, _, last = span.partition("/")
    return [day for day in DAYS if first <= day <= (last or first)]


class Machine:
    """Does each operation to the platform and to the model, and compares after each.

    Args:
        source: A source of its own.
    """

    def __init__(self, source: Source) -> None:
        self.source, self.model = source, Model()
        self._set_limit(LIMITS[0])
        for day in DAYS:
            self.do(("deliver", day, [5, 50]))

    @property
    def table(self) -> str:
        """The released table."""
        return f"bronze.{self.source.name}"

    def do(self, operation: Operation) -> None:
        """One operation, and the look at what readers see then.

        Args:
            operation: Its name and arguments.
        """
        name, *arguments = operation
        getattr(self, "_" + name.replace(",", "").replace(" ", "_"))(*arguments)
        self._look(operation)

    def _deliver(self, day: str, amounts: list[int]) -> None:
        place = DAYS.index(day) * 100
        rows = {place + i: amount for i, amount in enumerate(amounts)}
        self.source.put(day, HEADER + "".join(f"{i},P{i},{a},1,{day}\n" for i, a in rows.items()))
        self.model.delivered[day] = rows

    def _load(self, span: str) -> None:
        if self._land(span):
            self._publish(span)

    def _land(self, span: str) -> bool:
        try:
            self.source.land(span)
        except RejectedBatchError:
            # No row at all has passed: the batch is refused whole, and nothing becomes visible.
            assert not any(self.model.good(day) for day in days_of(span))
            return False
        return True

    def _publish(self, span: str) -> None:
        release_id = self.source.publish(span)
        self.model.visible = self.model.visible | {day: self.model.good(day) for day in days_of(span)}
        self.model.history[release_id] = self.model.visible

    def _land_and_leave(self, day: str) -> None:
        self._land(day)

    def _land_two_release_the_first(self, one: str, two: str) -> None:
        """A day's run is overtaken by that of another: its rows were taken back, so it must not report a success."""
        if not (self._land(one) and self._land(two)):
            return
        if one == two:
            self._publish(one)
            return
        try:
            self.source.publish(one)
        except WithdrawnError:
            self._publish(two)
        else:
            raise AssertionError(f"{one} was released although {two} has been landed since")

    def _release_again(self, day: str) -> None:
        before = release_log.released().get(self.table)
        if before is None or unreleased.pending(self.table):
            return
        # What was written last for the day may have been taken back: to say so is right.
        with contextlib.suppress(WithdrawnError):
            assert self.source.publish(day) == before.release_id

    def _change_the_limit(self) -> None:
        self._set_limit(next(limit for limit in LIMITS if limit != self.model.limit))

    def _set_limit(self, limit: int) -> None:
        bound = expect("column_values_to_be_between", column="amount", min_value=0, max_value=limit, mostly=0.01)
        self.source.rules(UNIQUE, bound)
        self.model.limit = limit

    def _replay(self, day: str) -> None:
        if day not in self.model.visible or unreleased.pending(self.table):
            return
        landed = set(self.model.visible[day])
        # As the command and the DAG do: a replay that has changed nothing releases nothing.
        release_id = self.source.publish(day) if self.source.replay(day)["unreleased"] else None
        now = {row["id"]: int(row["amount"]) for row in self._rows() if str(row["day"]) == day}
        assert landed <= now.keys()
        assert release_id is not None or now == self.model.visible[day]
        assert all(amount <= self.model.limit for id_, amount in now.items() if id_ not in landed)
        # Quarantine may hold a row of an older file of the day than the present one.
        self.model.visible = self.model.visible | {day: now}
        if release_id is not None:
            self.model.history[release_id] = self.model.visible

    def _roll_back(self, steps: int) -> None:
        known = sorted(self.model.history)
        if not known:
            return
        target = known[max(0, len(known) - 1 - steps)]
        release_id = rollback(self.table, target)["release_id"]
        self.model.visible = self.model.history[target]
        self.model.history[release_id] = self.model.visible

    def _rows(self) -> list[Any]:
        if self.table not in release_log.released():
            return []
        return spark().sql(f"select id, amount, day from {self.table}").collect()

    def _look(self, operation: Operation) -> None:
        seen = sorted((str(row["day"]), row["id"], int(row["amount"])) for row in self._rows())
        must = sorted((day, i, a) for day, rows in self.model.visible.items() for i, a in rows.items())
        assert seen == must, f"after {operation}: readers see {seen}, and must see {must}"
        state = release_log.released().get(self.table)
        if state is not None:
            head = tables.head(tables.next_table(self.table))
            assert head is not None and head >= state.version
