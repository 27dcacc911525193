"""Writers of one table, all at the same time: what one was told is released is there once, and no two are mixed."""

from __future__ import annotations

import csv
import datetime as dt
import os
import re
import sys
from pathlib import Path

import pytest

from infra.demo.upstream import deliver
from lakehouse import audit, release
from lakehouse.engine import spark
from lakehouse.interval import Interval
from lakehouse.steps import job
from tests.spark.apart import Apart

# `./lake faults --writers N` sets more.
WRITERS = int(os.environ.get("LAKEHOUSE_TEST_WRITERS", "3"))
SOURCE, TABLE = "planes", "bronze.planes"
DAY, NEXT, BOTH = (Interval.parse(days) for days in ("2013-01-18", "2013-01-19", "2013-01-18/2013-01-19"))
FIRST = 900
"""A writer whose rows are there before the others begin."""

OVERTAKEN = r"WithdrawnError|NotAuditedError|TableLockedError|StaleWriterError|UnfinishedWriteError"


def write(interval: Interval) -> None:
    """What each writer does, in a process of its own: it says by which release its rows are visible."""
    job("land")(SOURCE, interval)
    audit.gate([TABLE], interval)
    print("released by", release.release([TABLE], interval), file=sys.stderr)


def delivery(folder: Path, writer: int) -> dict[str, int]:
    """Files for one writer, which are told by the seats of every aircraft; gives the rows of each day."""
    deliver(str(folder), since=DAY.start, until=NEXT.end + dt.timedelta(days=1), sources=[SOURCE])
    counts: dict[str, int] = {}
    for day in BOTH.days():
        path = folder / SOURCE / f"{SOURCE}_{day}.csv"
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        with path.open("w", newline="") as file:
            out = csv.DictWriter(file, list(rows[0]))
            out.writeheader()
            out.writerows(row | {"seats": writer} for row in rows)
        counts[str(day)] = len(rows)
    return counts


def visible() -> dict[str, tuple[int, int, int]]:
    """What readers see of the days: rows, aircraft, and whose they are; more than one writer's are a fault."""
    rows = spark().sql(
        f"select _interval, count(*), count(distinct tail_number), collect_set(seats) from {TABLE} "
        f"where _interval between '{DAY}' and '{NEXT}' group by all"
    )
    found = {str(day): (count, planes, list(seats)) for day, count, planes, seats in rows.collect()}
    assert all(len(seats) == 1 for _, _, seats in found.values()), f"writers are mixed: {found}"
    return {day: (count, planes, int(seats[0])) for day, (count, planes, seats) in found.items()}


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("intervals", [[DAY], [DAY, BOTH, NEXT]], ids=["of one day", "of days that overlap"])
def test_writers_at_once_leave_what_the_last_of_them_was_told_is_released(
    intervals: list[Interval], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whose = {writer: intervals[writer % len(intervals)] for writer in range(1, WRITERS + 1)} | {FIRST: BOTH}

    def started(writer: int) -> Apart:
        monkeypatch.setenv("LAKE_DROP", str(tmp_path / str(writer)))
        return Apart(write, whose[writer])

    rows = {writer: delivery(tmp_path / str(writer), writer) for writer in whose}[FIRST]
    told = {FIRST: started(FIRST).ended()}
    at_once = {writer: started(writer) for writer in whose if writer != FIRST}
    told |= {writer: process.ended() for writer, process in at_once.items()}

    released: dict[int, set[int]] = {}
    for writer, (code, errors) in told.items():
        if code:
            assert re.search(OVERTAKEN, errors), errors[-3000:]
        else:
            [release_id] = re.findall(r"^released by (\d+)$", errors, re.MULTILINE)
            # Of one interval, whoever writes last has its rows released, by whoever asks for it.
            released.setdefault(int(release_id), set()).add(writer)
    assert len(released) > 1, "every writer but the first was overtaken"
    seen = visible()
    for day in map(str, BOTH.days()):
        newest = max(
            release_id
            for release_id, told_so in released.items()
            if any(day in map(str, whose[writer].days()) for writer in told_so)
        )
        count, planes, writer = seen[day]
        assert count == planes == rows[day]
        assert writer in released[newest], (seen, released)
