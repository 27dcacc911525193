"""Writers of one table, all at the same time: what one was told is released is there once, and no two are mixed."""

from __future__ import annotations

import itertools
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from lakehouse import contracts
from lakehouse.engine import spark
from lakehouse.interval import Interval
from lakehouse.quality import suites
from lakehouse.releases import audit, release
from lakehouse.steps import job
from tests.faults.schedules import HEADER
from tests.spark.apart import OVERTAKEN, Apart
from tests.spark.sources import new_source as new_source

# `./lake faults --writers N` sets more.
WRITERS = int(os.environ.get("LAKEHOUSE_TEST_WRITERS", "3"))
DAY, NEXT, BOTH = (Interval.parse(days) for days in ("2020-01-18", "2020-01-19", "2020-01-18/2020-01-19"))
ROWS = 200
FIRST = 99
"""A writer whose rows are there before the others begin."""

_numbers = itertools.count()


def write(source: str, home: Path, interval: Interval) -> None:
    """What each writer does, in a process of its own: it says by which release its rows are visible."""
    contracts.SOURCES_DIR, contracts.SUITES_DIR = home / "contracts", home / "suites" / "bronze"
    suites.SUITES_DIR = home / "suites"
    job("land")(source, interval)
    audit.gate([f"bronze.{source}"], interval)
    print("released by", release.release([f"bronze.{source}"], interval), file=sys.stderr)


def delivery(folder: Path, source: str, writer: int) -> None:
    """Files of both days for one writer, which are told by their amounts."""
    for place, day in enumerate(BOTH.days()):
        path = folder / source / f"{source}_{day}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEADER + "".join(f"{place * ROWS + i},P{i},{writer},1,{day}\n" for i in range(ROWS)))


def visible(source: str) -> dict[str, tuple[int, int, list[int]]]:
    """What readers see of each day: how many rows, how many different ones, and whose they are."""
    rows = spark().sql(f"select day, count(*), count(distinct id), collect_set(amount) from bronze.{source} group by 1")
    return {str(day): (count, different, list(map(int, whose))) for day, count, different, whose in rows.collect()}


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("intervals", [[DAY], [DAY, BOTH, NEXT]], ids=["of one day", "of days that overlap"])
def test_writers_at_once_leave_what_the_last_of_them_was_told_is_released(
    intervals: list[Interval], new_source: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = new_source(f"writers_{next(_numbers)}").name
    whose = {writer: intervals[writer % len(intervals)] for writer in range(1, WRITERS + 1)} | {FIRST: BOTH}

    def started(writer: int) -> Apart:
        delivery(tmp_path / str(writer), source, writer)
        monkeypatch.setenv("LAKE_DROP", str(tmp_path / str(writer)))
        return Apart(write, source, tmp_path, whose[writer])

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
    seen = visible(source)
    for day in BOTH.days():
        newest = max(
            release_id
            for release_id, writers in released.items()
            if any(day in whose[writer].days() for writer in writers)
        )
        count, different, [writer] = seen[str(day)]
        assert count == different == ROWS
        assert writer in released[newest], (seen, released)
