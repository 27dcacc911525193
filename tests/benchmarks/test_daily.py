"""The other side of the daily run: its rules, its tables and its data are what they are said to be."""

from __future__ import annotations

import datetime as dt
import subprocess
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from benchmarks import daily, glue
from benchmarks.comparators import rules
from benchmarks.comparators.daily import MODELS, PREDICTIONS, SOURCES, CheckFailedError, Day, federal_holidays
from benchmarks.comparators.landing import replace as write
from benchmarks.data import digest, flights_of
from benchmarks.sizes import bytes_of
from infra.demo.upstream import deliver
from lakehouse.quality.suites import SUITES_DIR
from tests import reference

DAY = dt.date(2013, 3, 1)
FIRST = DAY - dt.timedelta(days=3)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Day:
    """Four days of real flights, landed and built day by day."""
    folder = tmp_path_factory.mktemp("daily")
    deliver(folder / "drop", since=FIRST - dt.timedelta(days=1), until=DAY, sources=SOURCES)
    run = Day(FIRST - dt.timedelta(days=1), folder / "drop", SUITES_DIR, folder / "tables", "")
    run.land("flight_schedule")
    run = replace(run, day=FIRST)
    while run.day <= DAY:
        for source in SOURCES:
            run.land(source)
        run.build()
        run = replace(run, day=run.day + dt.timedelta(days=1))
    return replace(run, day=DAY)


def rows(run: Day, table: str, where: str = "true") -> list[dict[str, object]]:
    folder = run.root / table.replace(".", "/")
    files = f"read_parquet({daily.DeltaTable(folder).file_uris()})"
    found = duckdb.sql(f"set timezone = 'UTC'; select * from {files} where {where} order by all")
    return found.to_arrow_table().to_pylist()


def test_a_size_of_files_is_a_number_with_a_unit() -> None:
    assert [bytes_of(size) for size in ("1MB", "100MB", "1GB")] == [1_000_000, 100_000_000, 1_000_000_000]
    with pytest.raises(ValueError, match="100 MB"):
        bytes_of("100 MB")


def test_both_files_of_a_day_are_about_the_same_flights_and_each_has_a_name_of_its_own(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.csv" for name in ("flight_schedule", "flight_actuals")}
    flights_of(DAY, 4000, files)
    flights_of(DAY, 4000, {"flight_actuals": tmp_path / "again.csv"})
    assert (tmp_path / "again.csv").read_bytes() == files["flight_actuals"].read_bytes()
    key = "carrier, flight_number, scheduled_departure"
    count = (
        f"select count(*), count(distinct ({key})), "
        "count(distinct (carrier, flight_number, origin, scheduled_departure.strftime('%H%M'))) from '{0}'"
    )
    for file in files.values():
        assert duckdb.sql(count.format(file)).fetchall() == [(4002, 4000, 4000)]
    schedule, actuals = files.values()
    both = f"select count(*) from (select distinct {key} from '{schedule}') join (from '{actuals}') using ({key})"
    assert duckdb.sql(both).fetchall() == [(4002,)]
    assert sum(file.stat().st_size for file in files.values()) == pytest.approx(
        4000 * daily.BYTES_OF_A_FLIGHT, rel=0.05
    )


def test_bad_rows_go_to_quarantine_and_a_file_full_of_them_is_refused(tmp_path: Path) -> None:
    run = Day(DAY, tmp_path, SUITES_DIR, tmp_path / "tables", "")
    flights_of(DAY, 4000, {"flight_schedule": tmp_path / "flight_schedule" / f"flight_schedule_{DAY}.csv"})
    for _ in range(2):
        run.land("flight_schedule")
        # Four airports, four distances, and two rows that are there twice.
        assert digest(tmp_path / "tables/bronze/flight_schedule")["rows"] == 4002 - 12
        assert digest(tmp_path / "tables/quarantine/flight_schedule")["rows"] == 12
    assert all(each.success for each in run.check("bronze.flight_schedule") if each.severity == "critical")
    name = tmp_path / "airlines" / f"airlines_{DAY}.csv"
    name.parent.mkdir()
    name.write_text("carrier,name\nUA,United\nnone,Nobody\n")
    with pytest.raises(CheckFailedError, match="1 of 2 rows are bad"):
        run.land("airlines")


def test_what_breaks_a_critical_rule_is_not_let_through(tmp_path: Path) -> None:
    table = duckdb.sql("select 'UA' as carrier, 'United' as name, date '2013-03-01' as _interval, '' as _source_file, "
                       "1::bigint as _source_row union all select 'none', 'N', date '2013-03-01', '', 2")  # fmt: skip
    write(tmp_path / "bronze" / "airlines", table.to_arrow_reader())
    with pytest.raises(CheckFailedError, match=r"match_regex.*broken=1"):
        Day(DAY, tmp_path, SUITES_DIR, tmp_path, "").check("bronze.airlines")


def test_every_rule_of_the_days_tables_is_asked() -> None:
    whole = {
        "expect_table_columns_to_match_set",
        "expect_table_row_count_to_be_between",
        "expect_column_mean_to_be_between",
        "expect_column_unique_value_count_to_be_between",
    }
    tables = [*(f"bronze.{source}" for source in SOURCES), *(f"gold.{name}" for name in MODELS), f"ml.{PREDICTIONS}"]
    for table in tables:
        for expectation in rules.read(SUITES_DIR, table):
            assert (
                bool(rules.breaks(expectation)) + bool(rules.unique(expectation)) + (expectation["type"] in whole) == 1
            ), expectation
            assert not {"row_condition", "strict_min", "strict_max"} & expectation["kwargs"].keys()


@pytest.mark.parametrize("by", reference.DAILY_DELAY_KEYS)
def test_daily_delays_are_those_of_the_original_flights(built: Day, by: str) -> None:
    expected = reference.daily_delays(FIRST, DAY - dt.timedelta(days=1), by)
    found = rows(built, f"gold.daily_delays_by_{by}", f"flight_date >= '{FIRST}'")
    assert found == [
        {name: None if value != value else value for name, value in row.items()} for row in expected.to_dict("records")
    ]


def test_features_are_those_of_the_original_flights(built: Day) -> None:
    some = reference.sample_flights(DAY, DAY, 60)
    expected = reference.features_for(some, first_day=FIRST - dt.timedelta(days=1)).to_dict("records")
    found = rows(built, "gold.flight_delay_features", f"flight_id in ({', '.join(map(repr, some))})")
    assert len(found) == len(expected) == 60
    for mine, theirs in zip(found, expected, strict=True):
        mine["scheduled_departure"] = mine["scheduled_departure"].replace(tzinfo=None)  # type: ignore[attr-defined]
        assert mine == {name: None if value != value else value for name, value in theirs.items()}


def test_what_is_built_passes_its_rules(built: Day) -> None:
    for name in MODELS:
        assert all(each.success for each in built.check(f"gold.{name}") if each.severity == "critical")


def test_holidays_are_those_of_the_calendar() -> None:
    assert sorted(federal_holidays(2013)) == reference.HOLIDAYS


def test_a_summary_tells_other_verdicts_apart() -> None:
    verdict = ("expect_table_row_count_to_be_between", '{"min_value": 1}', "critical", True, None)
    one, other = daily.summary([verdict]), daily.summary([(*verdict[:3], False, None)])
    assert one["rules"] == other["rules"] == 1
    assert one["failed"] == []
    assert other["failed"] == ['expect_table_row_count_to_be_between {"min_value": 1}']
    assert one["sha256"] != other["sha256"]


def test_the_java_of_the_glue_is_not_asked_for_a_module_that_it_lacks(tmp_path: Path) -> None:
    program = tmp_path / "java"
    program.write_text(glue.JAVA.format(java="/bin/echo"))
    program.chmod(0o755)
    asked = [program, "-cp", "a b", "--add-modules=jdk.incubator.vector", "Main"]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout == "-cp a b Main\n"
