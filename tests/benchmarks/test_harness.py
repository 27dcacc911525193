"""The benchmarks' own arithmetic: pairs, ratios, void comparisons, and a page that says what was missed."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from benchmarks import figures, harness
from benchmarks.comparators import landing
from benchmarks.critical_path import covered, longest
from benchmarks.data import digest, flight_outcomes
from benchmarks.harness import Goal, Result, Side, Usage, compare, interval
from benchmarks.orchestration import clock
from benchmarks.sizes import rows_of

AT_MOST = Goal(1.8)


def result(goal: Goal = AT_MOST, ours: float = 2.0, outputs: tuple[object, object] = ("same", "same")) -> Result:
    found = Result("R0", "ours ÷ theirs", "1k", goal, ("ours", "theirs"), outputs=outputs)
    found.ours = [Usage(ours, 1.0, 2**30)] * 5
    found.theirs = [Usage(1.0, 1.0, 2**30)] * 5
    found.machine = harness.machine() | {"load_after": 0.0}
    return found


def test_sides_take_turns_and_each_pair_has_its_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    seconds = iter([3.0, 1.0, 2.0, 8.0, 5.0, 1.0])
    monkeypatch.setattr(harness, "measure", lambda side: (order.append(side.name), Usage(next(seconds), 0.0, 0))[1])
    sides = [Side(name, lambda: None, lambda: 1) for name in ("ours", "theirs")]
    found = compare(Result("R0", "", "1k", Goal(1.0), ("ours", "theirs")), *sides, pairs=3, warm=0)
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert found.ratios == [3.0, 4.0, 5.0]
    assert found.ratio == 4.0


def test_a_ratio_of_speeds_is_the_other_way_round() -> None:
    assert Goal(1.8).ratio(3.0, 2.0) == 1.5
    assert Goal(1.8).met(1.8)
    assert not Goal(1.8).met(1.81)
    assert Goal(0.6, speed=True).ratio(4.0, 2.0) == 0.5
    assert not Goal(0.6, speed=True).met(0.5)


def test_an_interval_needs_pairs_and_holds_the_median() -> None:
    assert interval([1.0, 2.0]) is None
    low, high = interval([1.0, 2.0, 2.1, 2.2, 9.0]) or (0.0, 0.0)
    assert 1.0 <= low <= 2.1 <= high <= 9.0


def test_a_run_is_charged_with_what_its_children_use() -> None:
    import subprocess
    import sys

    burn = "import time\nwhile time.process_time() < 0.5: pass\nb = bytearray(200_000_000)\ntime.sleep(0.5)"
    used = harness.measure(Side("burn", lambda: subprocess.run([sys.executable, "-c", burn], check=True), lambda: None))
    assert used.cpu_seconds >= 0.5
    assert used.seconds >= used.cpu_seconds * 0.5
    assert used.peak_memory > 200_000_000


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    kept = result()
    assert Result.load(kept.save(tmp_path)) == kept


def test_the_page_says_what_is_missed_and_what_is_void(tmp_path: Path) -> None:
    result().save(tmp_path)
    page = figures.write(tmp_path, tmp_path / "figures.md").read_text()
    assert "- R0, ours ÷ theirs, 1k: missed: 2.00 where ≤ 1.8 was the goal." in page
    assert "(figures/R0-1k.svg)" in page
    assert (tmp_path / "figures" / "R0-1k.svg").read_text().startswith("<?xml")
    result(Goal(2.5)).save(tmp_path)
    assert "## Missed goals\n\nNone." in figures.write(tmp_path, tmp_path / "figures.md").read_text()
    result(Goal(2.5), outputs=("a", "b")).save(tmp_path)
    assert "void: the two sides have not left the same" in figures.write(tmp_path, tmp_path / "figures.md").read_text()


def test_a_figure_of_each_run_needs_no_other_side(tmp_path: Path) -> None:
    found = result(Goal(0.05))
    found.theirs, found.sides, found.measured = [], ("a day",), [0.5, 0.25, 0.2, 0.3, 0.25]
    assert found.ratio == 0.25
    found.save(tmp_path)
    page = figures.write(tmp_path, tmp_path / "figures.md").read_text()
    assert "| 0.25 | 0.20 to 0.50 | missed: 0.25 where ≤ 0.05 was the goal |" in page
    assert "| a day | 2.00 |" in page
    assert "5 runs on" in page


def test_a_step_within_a_step_counts_once() -> None:
    def at(start: int, end: int) -> tuple[dt.datetime, dt.datetime]:
        return tuple(dt.datetime(2013, 3, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=s) for s in (start, end))  # type: ignore[return-value]

    assert covered([at(20, 25), at(0, 10), at(2, 5), at(9, 12)]) == 17
    assert covered([]) == 0


def test_the_critical_path_is_the_way_with_most_work_and_not_the_one_with_most_tasks() -> None:
    after = {"a": [], "b": ["a"], "c": ["b"], "d": ["a"], "end": ["c", "d"]}
    assert longest(after, {"a": 1, "b": 2, "c": 2, "d": 9}) == (["a", "d"], 10)
    assert longest(after, {"a": 1, "b": 2, "c": 2, "d": 3, "end": 1}) == (["a", "b", "c", "end"], 6)
    assert longest(after, {}) == ([], 0)


def test_a_time_of_the_day_may_be_on_the_next_day() -> None:
    began = dt.datetime(2013, 3, 1, 23, 59, 58, 700_000, dt.UTC)
    assert clock(began, "23:59:58") == dt.datetime(2013, 3, 1, 23, 59, 58, tzinfo=dt.UTC)
    assert clock(began, "00:00:03") == dt.datetime(2013, 3, 2, 0, 0, 3, tzinfo=dt.UTC)


def test_a_digest_is_that_of_the_rows_and_not_of_their_order_or_files(tmp_path: Path) -> None:
    rows = pa.table({"n": [1, 2, 3], "moment": pa.array([0, 1, 2], pa.timestamp("us", "UTC"))})
    write_deltalake(tmp_path / "one", rows)
    write_deltalake(tmp_path / "two", rows.slice(2))
    write_deltalake(tmp_path / "two", rows.slice(0, 2), mode="append")
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    write_deltalake(tmp_path / "two", rows.slice(0, 1), mode="append")
    assert digest(tmp_path / "one") != digest(tmp_path / "two")
    for numbers in ([9, 2, 3], [1, 9, 3], [1, 2, 9]):
        write_deltalake(tmp_path / "three", rows.set_column(0, "n", pa.array(numbers)), mode="overwrite")
        assert digest(tmp_path / "one") != digest(tmp_path / "three")
    assert digest(tmp_path / "one", ["moment"]) == digest(tmp_path / "three", ["moment"])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_comparator_finds_the_rows_that_the_data_has_bad(suffix: str, tmp_path: Path) -> None:
    day = dt.date(2013, 3, 1)
    flight_outcomes(day, 4000, tmp_path / f"day{suffix}")
    flight_outcomes(day, 4000, tmp_path / f"again{suffix}")
    assert (tmp_path / f"day{suffix}").read_bytes() == (tmp_path / f"again{suffix}").read_bytes()
    for _ in range(2):
        # Four airports, four delays, and two rows that are there twice.
        counts = landing.land(tmp_path / f"day{suffix}", day, tmp_path / "table", tmp_path / "quarantine")
        assert counts == (4002 - 12, 12)
        assert digest(tmp_path / "table")["rows"] == 3990
        assert digest(tmp_path / "quarantine")["rows"] == 12


def test_sizes_are_numbers_with_a_unit() -> None:
    assert [rows_of(size) for size in ("5", "1k", "100k", "10M")] == [5, 1_000, 100_000, 10_000_000]
    with pytest.raises(ValueError, match="10 million"):
        rows_of("10 million")


def test_the_page_of_figures_is_that_of_the_kept_results() -> None:
    assert figures.PAGE.read_text() == figures.text(figures.load(harness.RESULTS), figures.PAGE.stem)
