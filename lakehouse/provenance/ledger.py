"""Provenance: which writes the rows of a table's version come from, and what those writes have read.

A write is a commit of a step that landed, built or scored, for readers or beside them. Of a version of a table, each
day's rows come from one of the writes before it: the newest that wrote that day and was not taken back. So days are
followed from table to table, backward to the source files and forward to the predictions, without a word in the rows
themselves.

How the days of a table hang together with those of its inputs is declared: see :mod:`lakehouse.table_days`. What a
write has read is what it has recorded: an input that is no longer declared counts, too, and as one that is read whole.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

from lakehouse import contracts, ops, tables
from lakehouse.interval import Interval
from lakehouse.ml.model_spec import SCORING_STEPS, ModelSpec
from lakehouse.readers.files import relative
from lakehouse.release_log import history
from lakehouse.settings import settings
from lakehouse.table_days import Days, Shape, Span, days_of, held, shape, specs

WRITING = ("land", "replay", "build", *SCORING_STEPS)
"""Steps whose commits hold rows."""


Files = dict[str, tuple[frozenset[dt.date], dict[str, Any]]]
"""Source file to the days of its rows, and what is known of it: size in bytes, SHA-256, rows."""


@dataclass(frozen=True)
class Write:
    """A commit that holds rows.

    Attributes:
        table: Name that readers use.
        version: Version that the commit made.
        step: Which step.
        interval: The days that the step was about.
        run: Its row in ``ops.runs``; None when the step was killed before it left one.
        batches: Of a replay, the days of the rows that were in quarantine, each with the ``run_id`` of the landing
            that they had come with. That landing may have failed: then none of its rows were in the table before.
    """

    table: str
    version: int
    step: str
    interval: Interval | None
    run: dict[str, Any] | None = field(compare=False)
    batches: Mapping[dt.date, str] = field(default_factory=dict, compare=False)

    @property
    def holds_rows(self) -> bool:
        """Whether it has written rows, and not only deleted some."""
        return self.step in WRITING

    @property
    def reads(self) -> dict[str, int]:
        """Table, by the name that readers use, to the version that was read.

        Not the quarantine that a replay has read: with which landing its rows have come is known by ``batches``.
        """
        return {
            tables.reader_name(stored): version
            for stored, version in (self.run or {}).get("versions_in") or ()
            if not stored.startswith("quarantine.")
        }

    @property
    def reads_exactly(self) -> bool:
        """Whether ``reads`` are those of this table; else they are those of all the tables of a build."""
        return self.run is None or self.run["dataset"] == self.table

    @property
    def details(self) -> dict[str, Any]:
        """What else the step has recorded."""
        found: dict[str, Any] = json.loads((self.run or {}).get("details") or "{}")
        return found


@dataclass(frozen=True)
class Ledger:
    """What was written, judged and released.

    Attributes:
        runs: Rows of ``ops.runs``.
        releases: Rows of ``ops.releases``, oldest first.
        verdicts: Rows of ``ops.gate_results``.
        commits: Gives a table's commits, newest first, each with ``version``, ``operation``, ``userMetadata``.
        shape: Gives a table's shape.
        held: Gives the days between which the files of a version hold rows, as far as that is known: see :func:`held`.
    """

    runs: Sequence[dict[str, Any]]
    releases: Sequence[dict[str, Any]]
    verdicts: Sequence[dict[str, Any]]
    commits: Callable[[str], list[dict[str, Any]]]
    shape: Callable[[str], Shape]
    held: Callable[[str, int], Sequence[Interval] | None]
    _commits: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict, repr=False)
    _written: dict[tuple[str, int], frozenset[dt.date]] = field(default_factory=dict, repr=False)
    _chains: dict[tuple[str, int], list[Write]] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls) -> Ledger:
        """The ledger of this platform, as it is now."""
        return cls(
            ops.read("ops.runs").sort_by("ended_at").to_pylist(),
            history(),
            ops.read("ops.gate_results").sort_by("checked_at").to_pylist(),
            lambda table: tables.commits(tables.next_table(table), limit=1_000_000),
            cache(shape),
            cache(held),
        )

    @cached_property
    def _writing_runs(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Table and version to the run that wrote it, that of the table before that of the whole build."""
        found: dict[tuple[str, int], dict[str, Any]] = {}
        for run in self.runs:
            if run["step"] in WRITING and run["status"] == "success":
                for stored, version in run["versions_out"] or ():
                    key = tables.reader_name(stored), version
                    if stored.startswith("quarantine."):  # what is there has gone no further
                        continue
                    if key not in found or found[key]["dataset"] != key[0] == run["dataset"]:
                        found[key] = run
        return found

    @cached_property
    def _runs_by_id(self) -> dict[str, dict[str, Any]]:
        return {run["run_id"]: run for run in self.runs if run["step"] in WRITING}

    @cached_property
    def _unnamed(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Like ``_writing_runs``, of the commits that their run has not named: it failed later, or made several."""
        runs = self._runs_by_id.values()
        touched = {run["dataset"] for run in runs if run["status"] != "success" or run["step"] == "shadow"}
        if "warehouse" in touched:
            touched |= {run["dataset"] for run in runs if run["step"] == "build"}
        return {
            (table, version): self._runs_by_id[said["run_id"]]
            for table in sorted(map(tables.reader_name, touched - {"warehouse"}))
            for version, entry in self._log(table).items()
            if _holds_rows(entry)
            and (said := entry["userMetadata"]).get("run_id") in self._runs_by_id
            and (table, version) not in self._writing_runs
        }

    def writes(self) -> list[Write]:
        """All recorded writes, oldest first."""
        return [
            Write(table, version, run["step"], _interval(run), run, self._batches(table, version, run))
            for (table, version), run in sorted(
                (self._writing_runs | self._unnamed).items(), key=lambda each: (each[1]["ended_at"], each[0])
            )
        ]

    def _batches(self, table: str, version: int, run: Mapping[str, Any]) -> dict[dt.date, str]:
        commit = self._log(table).get(version, {}) if run["step"] == "replay" else {}
        return _batches(commit.get("userMetadata", {}))

    def files_of(self, run_id: str) -> Files:
        """The files that a landing has read, whatever came of it.

        Args:
            run_id: Its id.
        """
        run = self._runs_by_id.get(run_id)
        return {} if run is None else landed(Write(run["dataset"], 0, run["step"], _interval(run), run))

    def chain(self, table: str, version: int) -> list[Write]:
        """The writes that the rows of a version can come from, newest first; those taken back are left out.

        A deletion of days whose time was over is among them, as a write of no rows: see :attr:`Write.holds_rows`.

        Args:
            table: Name that readers use.
            version: A version that it has had.
        """
        key = table, version
        if key not in self._chains:
            self._chains[key] = list(self._chain(table, version))
        return self._chains[key]

    def _log(self, table: str) -> dict[int, dict[str, Any]]:
        if table not in self._commits:
            self._commits[table] = {entry["version"]: entry for entry in self.commits(table)}
        return self._commits[table]

    def _chain(self, table: str, version: int) -> Iterator[Write]:
        commits, at = self._log(table), version
        while at in commits:
            said = commits[at]["userMetadata"]
            if "restored" in said:
                at = int(said["restored"])
                continue
            if "CREATE" in commits[at].get("operation", ""):
                return
            if said.get("step") in WRITING or "expired" in said:
                interval = Interval.parse(said["interval"]) if said.get("interval") else None
                run = self._writing_runs.get((table, at)) or self._runs_by_id.get(said.get("run_id", ""))
                yield Write(table, at, said["step"], interval, run, _batches(said))
            at -= 1

    def written(self, write: Write) -> Days:
        """The days whose rows a write has replaced.

        Args:
            write: Which.
        """
        own = self._own(write)
        declared = self.shape(write.table)
        if own is None or not declared.rewrites or write.interval is None:
            return own
        key = write.table, write.version
        if key not in self._written:
            first, last = (dt.timedelta(days) for days in declared.rewrites)
            later = days_of(write.interval.end + first, write.interval.end + last)
            # What an earlier write has rewritten, one before it had written as its own.
            before = [self._own(earlier) or frozenset() for earlier in self.chain(write.table, write.version - 1)]
            self._written[key] = own | (later & frozenset().union(*before))
        return self._written[key]

    def _own(self, write: Write) -> Days:
        """The days that a write is about: those that it would have replaced on an empty table."""
        declared = self.shape(write.table)
        if declared.writes is None or write.interval is None:
            return None
        first, last = (dt.timedelta(days) for days in declared.writes)
        return days_of(write.interval.start + first, write.interval.end + last)

    def owners(self, table: str, version: int, days: Days) -> list[tuple[Write, Days]]:
        """The writes that the rows of some days come from, newest first, each with its days.

        Args:
            table: Name that readers use.
            version: The version that is read.
            days: Which days; None for all.
        """
        found: list[tuple[Write, Days]] = []
        left: set[dt.date] | None = None if days is None else set(days)
        taken: set[dt.date] = set()
        for write in self.chain(table, version):
            written = self.written(write)
            if written is None:
                found.append((write, days))
                break
            own = written - taken if left is None else written & left
            if own and write.holds_rows:
                found.append((write, frozenset(own)))
            taken |= written
            if left is not None:
                left -= written
                if not left:
                    break
        return found

    def inputs(self, write: Write, days: Days) -> list[tuple[str, int, Days]]:
        """What the rows of some days of a write were made from: table, version, and the days of its rows.

        Args:
            write: Which.
            days: Its days; None for all.
        """
        spans = self.shape(write.table).reads
        return [
            (table, version, _shifted(days, spans.get(table))) for table, version in sorted(self._reads(write).items())
        ]

    def _reads(self, write: Write) -> dict[str, int]:
        """What a write has read; of a table without a record of its own, what of the build's it reads now."""
        spans = self.shape(write.table).reads
        return {
            table: version
            for table, version in write.reads.items()
            if write.reads_exactly or not spans or table in spans
        }

    def affected(self, origin: Mapping[tuple[str, int], Days]) -> dict[Write, Days]:
        """The writes whose rows were made from those of other writes, at first or second hand, with their days.

        Args:
            origin: Table and version of a write to the days in question.

        Returns:
            The writes of ``origin`` among them, oldest first.
        """
        found: dict[tuple[str, int], Days] = {}
        writes = self.writes()
        before: dict[tuple[str, int], Days] | None = None
        # Once more, until nothing is added: the models of a build have the same time, and read one another.
        while found != before:
            before = dict(found)
            for write in writes:
                days = self._hit(write, origin, found)
                if days is None or days:
                    found[write.table, write.version] = days
        return {write: found[key] for write in writes if (key := (write.table, write.version)) in found}

    def _hit(self, write: Write, origin: Mapping[tuple[str, int], Days], found: Mapping[tuple[str, int], Days]) -> Days:
        """The days of a write that are in question themselves, or were made from those that were found."""
        days = origin.get((write.table, write.version), frozenset())
        written, spans = self.written(write), self.shape(write.table).reads
        for table, version in self._reads(write).items():
            if days is None:
                break
            touched = self._touched(table, version, found)
            if touched and write.batches and table == write.table:
                touched = self._left_by(write, version, touched)
            hit = _reached(touched, spans.get(table), written)
            days = None if hit is None else days | hit
        return written if days is None else days

    def _left_by(self, write: Write, version: int, days: frozenset[dt.date]) -> frozenset[dt.date]:
        """Of some days, those whose rows a replay has left as they were; it puts a rejected delivery in their place."""
        return frozenset(
            day for day in days if write.batches.get(day) in (None, self._delivery(write.table, version, day))
        )

    def _delivery(self, table: str, version: int, day: dt.date) -> str | None:
        """The landing that the rows of a day came with."""
        for write in self.chain(table, version):
            written = self.written(write)
            if written is not None and day not in written:
                continue
            if write.step == "land":
                return None if write.run is None else str(write.run["run_id"])
            if day in write.batches:
                return write.batches[day]
        return None

    def _touched(self, table: str, version: int, found: Mapping[tuple[str, int], Days]) -> Days:
        """The days of a version whose rows come from writes that were found, each with its days."""
        days: set[dt.date] = set()
        if not any(name == table for name, _ in found):
            return frozenset()
        for write, own in self.owners(table, version, None):
            if (write.table, write.version) in found:
                hit = found[write.table, write.version]
                if hit is None or own is None:
                    return None
                days |= own & hit
        return frozenset(days)

    def still(self, write: Write, version: int | None, days: Days) -> Days:
        """The days of a write that are the rows of a version.

        Args:
            write: Which.
            version: The version that is read; None for a table that has none.
            days: The days in question.
        """
        if version is None:
            return frozenset()
        for owner, own in self.owners(write.table, version, days):
            if owner == write:
                return own
        return frozenset()

    def with_rows(self, table: str, version: int | None, days: Days) -> str:
        """Some days of a version for a person, without those that have no rows: a step may be about more than it finds.

        Args:
            table: Name that readers use.
            version: The version; None for a table that has none.
            days: Its days, as :meth:`still` gives them.

        Returns:
            Like :func:`ranges`, after ``up to`` where it is not known which of the days have rows.
        """
        if version is None or not days:
            return ranges(days)
        spans = self.held(table, version)
        if spans is None:
            return f"up to {ranges(days)}"
        return ranges(frozenset(day for day in days if any(span.start <= day <= span.end for span in spans)))

    def verdict(self, table: str, version: int) -> dict[str, Any] | None:
        """What the gate said of a version at last: its run, verdict, time and page, and the number of its rules.

        ``broken`` are those that do not hold, ``not_judged`` those that compare with a history that is still too short.

        Args:
            table: Name that readers use.
            version: Its version.
        """
        rows = self._verdicts.get((table, self._judged(table, version)))
        if not rows:
            return None
        last = [row for row in rows if row["run_id"] == rows[-1]["run_id"]]
        return {
            **{name: last[0][name] for name in ("run_id", "verdict", "checked_at", "page")},
            "rules": len(last),
            "broken": [_rule(row) for row in last if row["success"] is False],
            "not_judged": [_rule(row) for row in last if row["success"] is None],
        }

    def _judged(self, table: str, version: int) -> int:
        """The version whose verdict holds for another: maintenance makes new versions of rows that were judged."""
        while (table, version) not in self._verdicts:
            said = self._log(table).get(version, {}).get("userMetadata", {})
            before = next((said[key] for key in ("compacted", "expired", "restored") if key in said), None)
            if before is None:
                break
            version = int(before)
        return version

    @cached_property
    def _verdicts(self) -> dict[tuple[str, int], list[dict[str, Any]]]:
        found: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for row in self.verdicts:
            found.setdefault((row["table_name"], row["version"]), []).append(row)
        return found

    def release_of(self, table: str, version: int) -> dict[str, Any] | None:
        """The first release that has shown a version, or None.

        Args:
            table: Name that readers use.
            version: Its version.
        """
        return next((row for row in self.releases if (row["table_name"], row["version"]) == (table, version)), None)

    def shown_by(self, write: Write, days: Days) -> list[int]:
        """The releases that have shown rows of a write.

        Args:
            write: Which.
            days: The days in question.
        """
        return [row["release_id"] for row in self._showing(write, days)]

    def first_shown_by(self, write: Write, days: Days) -> dict[str, Any] | None:
        """The release that has made rows of a write visible, or None; versions after its own show them, too.

        Args:
            write: Which.
            days: The days in question.
        """
        return next(self._showing(write, days), None)

    def _showing(self, write: Write, days: Days) -> Iterator[dict[str, Any]]:
        for row in self.releases:
            of_table = row["table_name"] == write.table and row["version"] >= write.version
            if of_table and self.still(write, row["version"], days) != frozenset():
                yield row

    @cached_property
    def specs(self) -> dict[str, ModelSpec]:
        """Table of predictions to the model that makes them; their files are read once."""
        return specs()

    def released_version(self, table: str) -> int | None:
        """The version that readers see.

        Args:
            table: Name that readers use.
        """
        return next((row["version"] for row in reversed(self.releases) if row["table_name"] == table), None)


def landed(write: Write) -> Files:
    """The files that a landing has read, by what it has recorded.

    Args:
        write: A landing; what was not one has none.
    """
    return {name: (_days_of_file(write, name, facts), facts) for name, facts in write.details.get("files", {}).items()}


def _days_of_file(write: Write, name: str, facts: Mapping[str, Any]) -> frozenset[dt.date]:
    """The day that a file is about; all days of the landing where that is not known."""
    if "day" in facts:
        return frozenset({dt.date.fromisoformat(facts["day"])})
    days = list(write.interval.days()) if write.interval else []
    source = tables.split(write.table)[1]
    if len(days) > 1 and source in contracts.sources():  # landed before the day was recorded
        contract = contracts.load(source)
        if contract.server.location is not None:
            drop = settings().drop_url
            return frozenset(day for day in days if relative(contract.location(day, drop)) == name) or frozenset(days)
    return frozenset(days)


def features_of(spec: ModelSpec, versions: Collection[str], source: str | None = None) -> str:
    """The table, of those that a training has read, that its features came from: model.yaml may name another by now.

    Args:
        spec: The model, as it is now.
        versions: The tables that the training has read.
        source: The table that the version was given to score, where that is known.
    """
    known = [table for table in (source, spec.features.table) if table is not None and table in versions]
    others = [table for table in versions if table != spec.label.table]
    return [*known, *others, *versions][0]


def ranges(days: Days) -> str:
    """Days for a person: ``2013-01-01/2013-02-28, 2013-03-03``; ``all`` for the whole of a table.

    Args:
        days: Which.
    """
    if days is None:
        return "all"
    found: list[list[dt.date]] = []
    for day in sorted(days):
        if found and day - found[-1][1] == dt.timedelta(1):
            found[-1][1] = day
        else:
            found.append([day, day])
    return ", ".join(str(Interval(first, last)) for first, last in found)


def _shifted(days: Days, span: Span | None) -> Days:
    if days is None or span is None:
        return None
    return frozenset(day + dt.timedelta(by) for day in days for by in range(span[0], span[1] + 1))


def _reached(touched: Days, span: Span | None, written: Days) -> frozenset[dt.date] | None:
    """The days of a write that read one of the days touched; None for all of them."""
    if touched is not None and not touched:
        return frozenset()
    if touched is None or span is None or written is None:
        return None
    return frozenset(day - dt.timedelta(by) for day in touched for by in range(span[0], span[1] + 1)) & written


def _batches(said: Mapping[str, Any]) -> dict[dt.date, str]:
    """What the commit of a replay says of where the rows come from that were in quarantine."""
    return {dt.date.fromisoformat(day): run_id for day, run_id in said.get("batches", {}).items() if run_id}


def _holds_rows(entry: Mapping[str, Any]) -> bool:
    """Whether a commit has written rows, and not only brought back or made a table."""
    said = entry["userMetadata"]
    return said.get("step") in WRITING and "restored" not in said and "CREATE" not in entry.get("operation", "")


def _interval(run: Mapping[str, Any]) -> Interval | None:
    return Interval(run["interval_start"], run["interval_end"]) if run["interval_start"] else None


def _rule(row: Mapping[str, Any]) -> str:
    column = f" on {row['column_name']}" if row["column_name"] else ""
    return f"{row['expectation']}{column} ({row['severity']})"
