"""Bad deliveries: each ends in quarantine or is refused with its code, and nothing else breaks."""

from __future__ import annotations

import datetime as dt
import gzip
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lakehouse import contracts, ops, readers
from lakehouse.engine import process
from lakehouse.interval import Interval
from lakehouse.landing.batches import RejectedBatchError
from lakehouse.readers.batch import SourceError
from lakehouse.readers.files import MAX_RECORD
from lakehouse.settings import settings
from tests.cases.bad_input.make import Case, avro, cases, csv, jsonl, parquet
from tests.spark.sources import BOUNDS, FIRST, Source, expect
from tests.spark.sources import new_source as new_source

CASES = list(cases())
GOOD = {
    "csv": csv,
    "csv.gz": lambda: gzip.compress(csv()),
    "jsonl": jsonl,
    "jsonl.gz": lambda: gzip.compress(jsonl()),
    "parquet": parquet,
    "avro": avro,
}
UNIQUE_OF_A_DAY = expect("compound_columns_to_be_unique", column_list=["id", "_interval"], mostly=0.5)
MEGABYTE = 1 << 20


CHECK = """
import re, sys
from pathlib import Path
from lakehouse.readers.batch import SourceError
from lakehouse.readers.files import check_text

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

before = peak()
try:
    check_text(sys.argv[1], "UTF-8", quoted=bool(sys.argv[2]))
except SourceError as error:
    print(error.code, peak() - before)
"""


def land(source: Source, day: str) -> tuple[str | None, tuple[tuple[str, ...], ...]]:
    """Land a day; the code with which it was refused, or the codes of the rows in quarantine."""
    try:
        source.land(day)
    except SourceError as error:
        assert source.file(day).name in str(error) or source.name in str(error)
        return error.code, ()
    except RejectedBatchError as error:
        run = ops.read("ops.runs").sort_by("ended_at").to_pylist()[-1]
        assert run["rows_in"] == run["rows_quarantined"] > 0
        return error.code, ()
    run = ops.read("ops.runs").sort_by("ended_at").to_pylist()[-1]
    assert run["rows_in"] == run["rows_out"] + run["rows_quarantined"]
    here = [row["_codes"] for row in source.bad("_interval, _codes") if row["_interval"] == dt.date.fromisoformat(day)]
    assert len(here) == run["rows_quarantined"]
    return None, tuple(map(tuple, here))


def land_together(source: Source, days: dict[str, str]) -> dict[str, tuple[None, tuple[tuple[str, ...], ...]]]:
    """Land the days of cases that are not refused as one range; the codes of the rows in quarantine, by case."""
    first, *_, last = sorted(days.values()) * 2
    landed = source.land(f"{first}/{last}")
    bad, good = source.bad("_interval, _codes"), source.rows("_interval, _source_row")
    codes = {
        name: tuple(tuple(row["_codes"]) for row in bad if row["_interval"].isoformat() == day)
        for name, day in days.items()
    }
    kept = [row for row in good if first <= row["_interval"].isoformat() <= last]
    run = ops.read("ops.runs").sort_by("ended_at").to_pylist()[-1]
    assert run["rows_in"] == run["rows_out"] + run["rows_quarantined"] == len(kept) + sum(map(len, codes.values()))
    assert landed["rows_quarantined"] == run["rows_quarantined"]
    return {name: (None, each) for name, each in codes.items()}


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Neither this process nor the engine takes much more of the machine's memory in the block than they had."""
    engine = process()
    assert engine is not None
    pids = {"here": os.getpid(), "engine": engine.pid}
    before = {}
    for who, pid in pids.items():
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is counted from now on
        before[who] = _memory(pid, "VmRSS")
    yield
    grown = {who: (_memory(pid, "VmHWM") - before[who]) // MEGABYTE for who, pid in pids.items()}
    print(f"megabytes more than before, at most: {grown}")
    assert grown["here"] < 128 and grown["engine"] < 1024, grown


def _memory(pid: int, which: str) -> int:
    found = re.search(rf"^{which}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


@pytest.mark.parametrize("suffix", sorted(GOOD))
def test_each_ends_in_quarantine_or_is_refused(new_source: Any, suffix: str) -> None:
    source = new_source(f"bad_{suffix.replace('.', '_')}", suffix)
    source.rules(UNIQUE_OF_A_DAY, BOUNDS)
    source.put("2020-01-01", GOOD[suffix]())
    source.land("2020-01-01")
    source.publish("2020-01-01")
    visible = f"bronze.{source.name}"
    before = source.rows(table=visible)
    assert len(before) == 4

    mine = sorted((case for case in CASES if case.suffix == suffix), key=lambda case: case.refused is not None)
    days = {case.name: (FIRST + dt.timedelta(days=place)).isoformat() for place, case in enumerate(mine, start=1)}
    for case in mine:
        source.put(days[case.name], case.make())
    taken = [case for case in mine if case.refused is None]
    # One landing for all that are not refused: a day of a range is judged as it would be alone.
    found: dict[str, Any] = {}
    with bounded_memory():
        if taken:
            found = land_together(source, {case.name: days[case.name] for case in taken})
        found |= {case.name: land(source, days[case.name]) for case in mine if case not in taken}
    wanted = {case.name: (case.refused, case.bad) for case in mine}
    assert {name: found[name] for name in found if found[name] != wanted[name]} == {}
    assert found.keys() == wanted.keys()
    assert source.rows(table=visible) == before

    source.put("2020-12-31", GOOD[suffix]())
    source.land("2020-12-31")
    source.publish("2020-12-31")
    assert len(source.rows(table=visible)) == 8


def test_there_are_enough_of_them() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 80


@pytest.mark.parametrize(
    "name",
    ["csv_gz_bomb", "csv_cell_of_50_megabytes", "jsonl_cell_of_50_megabytes", "quote_left_open_for_megabytes"],
)
def test_a_huge_one_is_refused_in_bounded_memory(tmp_path: Path, name: str) -> None:
    case: Case = next(case for case in CASES if case.name == name)
    path = tmp_path / f"huge.{case.suffix}"
    path.write_bytes(case.make())
    # In a process of its own: this one has had such a file in memory, to make it.
    quoted = "quoted" if case.suffix.startswith("csv") else ""
    command = [sys.executable, "-c", CHECK, str(path), quoted]
    code, grown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert code == case.refused
    assert int(grown) < 3 * MAX_RECORD


def test_a_file_that_is_not_where_or_what_its_name_says(
    new_source: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = new_source("bad_names")
    day = "2020-01-05"
    contract = contracts.load(source.name)

    def refused() -> str:
        with pytest.raises(SourceError) as error:
            readers.read(contract, Interval.parse(day))
        return error.value.code

    source.put("2020-01-04", csv())
    half = source.file(day).with_name(f".{source.file(day).name}.part")
    half.write_bytes(csv())
    assert refused() == "not_arrived"  # half an upload has another name until it is whole
    look_alike = source.file(day).with_name(source.file(day).name.replace("a", "\u0430"))
    look_alike.write_bytes(csv())
    assert refused() == "not_arrived"
    with pytest.raises(SourceError, match="only looks like it"):
        readers.read(contract, Interval.parse(day))
    outside = tmp_path / "secret.csv"
    outside.write_bytes(csv())
    source.file(day).symlink_to(outside)
    assert refused() == "outside_drop"
    with monkeypatch.context() as patched:
        patched.setattr(settings(), "drop", f"file://{settings().drop_url}")
        assert refused() == "outside_drop"

    path = contracts.SOURCES_DIR / f"{source.name}.yaml"
    path.write_text(path.read_text().replace("{drop}/", "{drop}/../"))
    contracts.load.cache_clear()
    with pytest.raises(contracts.ContractError, match=r"Write it without '\.\.'") as error:
        source.land(day)
    assert error.value.code == "outside_drop"


def test_the_same_name_with_new_content_replaces_its_day(new_source: Any) -> None:
    source = new_source("bad_again")
    for last in ("7", "8"):
        source.put("2020-01-05", csv(f"{last},Ann,1,1,2020-01-05"))
        source.land("2020-01-05")
        source.publish("2020-01-05")
    assert [row["id"] for row in source.rows("id, _interval, _source_file, _source_row")] == [1, 2, 3, 4, 8]
