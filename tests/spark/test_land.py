"""Landing on the real engine: real deliveries of the demo's upstream, and deliveries that are wrong."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import lakehouse
from lakehouse import contracts, ops, scaffold, tables
from lakehouse.engine import spark
from lakehouse.interval import Interval
from lakehouse.landing import batches
from lakehouse.landing.batches import RejectedBatchError
from lakehouse.quality import suites
from lakehouse.quality.gate import check
from lakehouse.quality.suites import InvalidSuiteError
from lakehouse.readers.batch import SourceError
from lakehouse.releases import release
from lakehouse.releases.audit import gate
from lakehouse.settings import PROJECT_DIR, settings
from lakehouse.steps import job
from tests.spark.sources import BOUNDS, expect
from tests.spark.sources import new_source as new_source

land = job("land")
DAY = Interval.parse("2013-01-05")


def rows(query: str) -> list[dict]:
    return [row.asDict() for row in spark().sql(query).collect()]


def last_run() -> dict:
    return ops.read("ops.runs").sort_by("ended_at").to_pylist()[-1]


def publish(source: str, interval: Interval) -> int:
    land(source, interval)
    gate([f"bronze.{source}"], interval)
    return release.release([f"bronze.{source}"], interval)


@pytest.fixture(scope="module")
def published(drop: Path) -> None:
    """Actuals of a day that a good file has brought."""
    publish("flight_actuals", DAY)


@pytest.fixture
def altered(drop: Path) -> Callable[..., Path]:
    """Changes one delivered file; the original is back after the test."""
    kept: dict[Path, bytes] = {}

    def change(source: str, day: str, edit: Callable[[list[str]], list[str]]) -> Path:
        [path] = (drop / source).glob(f"{source}_{day}.*")
        kept.setdefault(path, path.read_bytes())
        path.write_text("\n".join(edit(path.read_text().split("\n"))))
        return path

    yield change
    for path, content in kept.items():
        path.write_bytes(content)


def test_a_source_that_was_just_made_lands_as_its_page_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scaffold, "PROJECT_DIR", tmp_path)
    monkeypatch.setattr(contracts, "SOURCES_DIR", tmp_path / "spark_jobs" / "sources")
    monkeypatch.setattr(contracts, "SUITES_DIR", tmp_path / "expectations" / "bronze")
    monkeypatch.setattr(suites, "SUITES_DIR", tmp_path / "expectations")
    scaffold.new_source("just_made", history_start=dt.date(2013, 3, 1))
    page = (PROJECT_DIR / "docs" / "how-to" / "add-a-source.md").read_text()
    [delivered] = re.findall("printf '(.+)' >", page)
    [reason] = re.findall("`(updated_at: [^`]+)`", page.replace("\n", " "))
    file = Path(settings().drop_url) / "just_made" / "just_made_2013-03-01.csv"
    file.parent.mkdir(parents=True)
    file.write_text(delivered.replace("\\n", "\n"))

    day = Interval.parse("2013-03-01")
    assert publish("just_made", day) > 0
    [row] = rows("select id, updated_at, _source_row from bronze.just_made")
    assert row == {"id": 1, "updated_at": dt.datetime(2013, 3, 1, 10), "_source_row": 1}
    [bad] = rows("select _source_row, _reasons from quarantine.just_made")
    assert (bad["_source_row"], bad["_reasons"]) == (2, [reason])


@pytest.mark.parametrize(
    ("source", "reader"),
    [
        ("flight_actuals", pd.read_csv),
        ("weather", lambda p: pd.read_json(p, lines=True, precise_float=True)),
        ("airports", pd.read_parquet),
    ],
)
def test_every_row_arrives_with_its_values(drop: Path, source: str, reader: Callable[[Path], pd.DataFrame]) -> None:
    publish(source, DAY)
    [path] = (drop / source).glob(f"{source}_2013-01-05.*")
    delivered = reader(path)
    landed = lakehouse.read(f"bronze.{source}", where=[("_interval", "=", DAY.start)]).sort_values("_source_row")
    assert landed["_source_row"].tolist() == list(range(1, len(delivered) + 1))
    assert set(landed["_source_file"]) == {f"{source}/{path.name}"}
    for column in delivered.columns:
        want, got = delivered[column].tolist(), landed[column].tolist()
        for expected, actual in zip(want, got, strict=True):
            if pd.isna(expected):
                assert pd.isna(actual), column
            elif isinstance(actual, pd.Timestamp | dt.datetime):
                assert pd.Timestamp(expected).tz_convert("UTC") == pd.Timestamp(actual).tz_convert("UTC")
            elif isinstance(actual, dt.date):
                assert pd.Timestamp(expected).date() == actual
            else:
                assert expected == actual, column


def test_a_rerun_and_a_range_leave_the_same_rows(drop: Path) -> None:
    publish("flight_actuals", Interval.parse("2013-01-06"))
    publish("flight_actuals", Interval.parse("2013-01-07"))
    by_day = lakehouse.read("bronze.flight_actuals", where=[("_interval", ">=", dt.date(2013, 1, 6))])
    publish("flight_actuals", Interval.parse("2013-01-06/2013-01-07"))
    publish("flight_actuals", Interval.parse("2013-01-06"))
    again = lakehouse.read("bronze.flight_actuals", where=[("_interval", ">=", dt.date(2013, 1, 6))])
    order = ["_interval", "_source_row"]
    pd.testing.assert_frame_equal(
        by_day.sort_values(order, ignore_index=True), again.sort_values(order, ignore_index=True)
    )


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("days", [["2020-01-05", "2020-01-06"], ["2020-01-05/2020-01-06"]])
def test_a_key_that_comes_back_on_another_day_is_for_the_gate_in_a_range_as_day_by_day(
    new_source: Any, days: list[str], large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:
        monkeypatch.setattr(batches, "LARGE_BATCH", 1)
    source = new_source("comes_back")
    for day, ids in (("2020-01-05", (1, 2, 3, 3)), ("2020-01-06", (1, 4, 5, 6))):
        lines = [f"{number},Ann,5,1,{day}" for number in ids]
        source.put(day, "\n".join(["id,person,amount,pieces,day", *lines]) + "\n")
    for each in days:
        source.land(each)
        source.publish(each)
    assert [row["id"] for row in source.rows("id")] == [1, 2, 1, 4, 5, 6]
    assert [row["_source_row"] for row in source.bad()] == [3, 4]
    source.rules(expect("column_values_to_be_unique", column="id"), BOUNDS)
    [failure] = check(f"bronze_next.{source.name}").failures
    assert "unique(id): 2 of 6 rows break it" in str(failure)


def test_no_rule_is_asked_of_the_values_of_a_record_that_could_not_be_read(new_source: Any) -> None:
    source = new_source("unread_values")
    source.rules(expect("column_values_to_be_between", column="person", max_value=1, mostly=0.5))
    source.put("2020-01-05", "id,person,amount,pieces,day\n1,0,5,1,2020-01-05\n2,Joan,5,1\n3,1,5,1,2020-01-05\n")
    assert source.land("2020-01-05")["rows_quarantined"] == 1
    assert [(row["_source_row"], row["_codes"]) for row in source.bad()] == [(2, ["field_count"])]


def test_bad_rows_are_quarantined_with_their_reasons_and_nothing_is_lost(altered: Callable[..., Path]) -> None:
    def edit(lines: list[str]) -> list[str]:
        lines[2] = lines[2].replace(",", ";", 3)  # too few fields
        lines[3] += ",surplus"
        cells = lines[4].split(",")
        lines[4] = ",".join(["2013-13-01", cells[1], "twelve", *cells[3:]])
        cells = lines[5].split(",")
        lines[5] = ",".join([cells[0], "", *cells[2:]])
        return lines

    altered("flight_actuals", "2013-01-08", edit)
    outcome = land("flight_actuals", Interval.parse("2013-01-08"))
    bad = rows("select * from quarantine.flight_actuals where _interval = date'2013-01-08' order by _source_row")
    assert [row["_source_row"] for row in bad] == [2, 3, 4, 5]
    assert bad[0]["_reasons"] == ["malformed record: it does not have 12 fields"]
    assert bad[1]["_raw"].endswith(",surplus")
    assert bad[2]["_reasons"] == [
        "flight_date: '2013-13-01' is not of type DATE",
        "flight_number: 'twelve' is not of type INT",
    ]
    assert bad[3]["_reasons"] == ["carrier: is required and missing"]
    assert [row["_codes"] for row in bad] == [["field_count"], ["field_count"], ["type", "type"], ["required"]]
    assert bad[2]["_raw"].startswith("2013-13-01,") and ",twelve," in bad[2]["_raw"]
    assert outcome["rows_quarantined"] == 4
    assert outcome["rows_in"] == outcome["rows_out"] + 4
    recorded = last_run()
    assert (recorded["rows_in"], recorded["rows_quarantined"]) == (outcome["rows_in"], 4)
    written = ("bronze_next.flight_actuals", "quarantine.flight_actuals")
    assert dict(recorded["versions_out"]) == {stored: tables.head(stored) for stored in written}


def test_a_corrected_file_empties_the_quarantine_of_its_interval(altered: Callable[..., Path], drop: Path) -> None:
    day = Interval.parse("2013-01-09")
    original = (drop / "flight_actuals" / "flight_actuals_2013-01-09.csv").read_bytes()
    path = altered("flight_actuals", "2013-01-09", lambda lines: [lines[0], lines[1] + ",x", *lines[2:]])
    assert land("flight_actuals", day)["rows_quarantined"] == 1
    path.write_bytes(original)
    assert land("flight_actuals", day)["rows_quarantined"] == 0
    assert rows("select count(*) n from quarantine.flight_actuals where _interval = date'2013-01-09'") == [{"n": 0}]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda lines: [], "is empty"),
        (lambda lines: lines[:1], "has no rows"),
        (lambda lines: [lines[0].replace("carrier", "airline"), *lines[1:]], "line 1: column 'carrier' is missing"),
        (lambda lines: [lines[0] + ",carrier", *lines[1:]], "column 'carrier' is there 2 times"),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_changes_nothing(
    published: None, altered: Callable[..., Path], edit: Callable[[list[str]], list[str]], words: str
) -> None:
    before = tables.head("bronze_next.flight_actuals")
    path = altered("flight_actuals", "2013-01-05", edit)
    with pytest.raises(SourceError, match=words) as error:
        land("flight_actuals", DAY)
    assert path.name in str(error.value)
    assert tables.head("bronze_next.flight_actuals") == before
    recorded = last_run()
    assert recorded["status"] == "failed"
    assert words in recorded["error"]


def test_a_file_that_has_not_arrived_is_named(drop: Path) -> None:
    path = drop / "flight_actuals" / "flight_actuals_2013-01-10.csv"
    content = path.read_bytes()
    path.unlink()
    try:
        with pytest.raises(SourceError, match=r"flight_actuals_2013-01-10\.csv"):
            land("flight_actuals", Interval.parse("2013-01-10"))
    finally:
        path.write_bytes(content)


def test_columns_in_another_order_keep_their_values(altered: Callable[..., Path]) -> None:
    day = Interval.parse("2013-01-11")
    publish("flight_actuals", day)
    where = [("_interval", "=", day.start)]
    before = lakehouse.read("bronze.flight_actuals", where=where).sort_values("_source_row", ignore_index=True)
    altered("flight_actuals", "2013-01-11", lambda lines: [",".join(line.split(",")[::-1]) for line in lines if line])
    publish("flight_actuals", day)
    after = lakehouse.read("bronze.flight_actuals", where=where).sort_values("_source_row", ignore_index=True)
    pd.testing.assert_frame_equal(before, after)


def test_a_json_line_with_an_unknown_key_is_quarantined_with_all_that_is_wrong(altered: Callable[..., Path]) -> None:
    def edit(lines: list[str]) -> list[str]:
        lines[0] = json.dumps(json.loads(lines[0]) | {"colour": "blue", "humidity_percent": 900})
        return [lines[0], lines[1][:-5], "", *lines[2:]]

    altered("weather", "2013-01-12", edit)
    assert land("weather", Interval.parse("2013-01-12"))["rows_quarantined"] == 2
    bad = rows("select * from quarantine.weather where _interval = date'2013-01-12' order by _source_row")
    unknown, broken = bad[0]["_reasons"]
    assert unknown == "malformed record: not in the contract: colour"
    assert "humidity_percent" in broken
    assert bad[1]["_reasons"] == ["malformed record: it is not a JSON object"]
    assert [row["_codes"] for row in bad] == [["unknown_key", "rule"], ["not_json"]]


def test_a_record_with_a_key_too_many_counts_once_against_a_rule(new_source: Any) -> None:
    source = new_source("too_many_keys", "jsonl")
    source.rules(expect("column_values_to_not_be_null", column="person", mostly=0.5))
    good = {"id": 1, "person": "Ann", "amount": 1.0, "pieces": 1, "day": "2020-01-01"}
    bad = good | {"id": 2, "person": None, "extra": 1}
    source.put("2020-01-01", f"{json.dumps(good)}\n{json.dumps(bad)}\n")
    assert source.land("2020-01-01")["rows_quarantined"] == 1
    assert [row["_codes"] for row in source.bad()] == [["unknown_key", "rule"]]
    # One whose value is there is no row that keeps the rule, either.
    source.put(
        "2020-01-02",
        "\n".join(json.dumps(each | {"day": "2020-01-02"}) for each in (good, bad, good | {"id": 3, "extra": 1})),
    )
    with pytest.raises(RejectedBatchError, match=r"2 of 3 rows break .*, 1 of them because"):
        source.land("2020-01-02")


def test_a_delivery_without_rows_empties_its_day_where_the_contract_allows_it(new_source: Any) -> None:
    source = new_source("nothing_today")
    source.contract(empty=True)
    header = "id,person,amount,pieces,day\n"
    for day in ("2020-01-01", "2020-01-02"):
        source.put(day, f"{header}{day[-1]},Ann,1,1,{day}\n8,Ann,500,1,{day}\n")
    source.land("2020-01-01/2020-01-02")
    source.publish("2020-01-01/2020-01-02")
    source.put("2020-01-02", header)
    outcome = source.land("2020-01-02")
    assert (outcome["rows_in"], outcome["rows_out"], outcome["rows_quarantined"]) == (0, 0, 0)
    source.publish("2020-01-02")
    assert [row["id"] for row in source.rows("id", f"bronze.{source.name}")] == [1]
    assert [row["_source_row"] for row in source.bad()] == [2]
    source.contract(empty=False)
    with pytest.raises(SourceError, match=r"nothing_today_2020-01-02\.csv has no rows"):
        source.land("2020-01-02")


def test_an_invalid_suite_is_named_and_nothing_changes(new_source: Any) -> None:
    source = new_source("suite_spoilt")
    source.put("2020-01-01", "id,person,amount,pieces,day\n1,Ann,1,1,2020-01-01\n")
    source.rules({"type": "expect_column_values_to_be_betwen", "kwargs": {"column": "amount"}})
    with pytest.raises(InvalidSuiteError, match=r"suite_spoilt\.json.*expect_column_values_to_be_betwen"):
        source.land("2020-01-01")
    source.rules(BOUNDS | {"kwargs": {"column": "amuont", "min_value": 0}})
    with pytest.raises(InvalidSuiteError, match=r"the table has no column 'amuont'\. Did you mean amount"):
        source.land("2020-01-01")
    assert source.rows() == []
    source.rules(BOUNDS)
    source.land("2020-01-01")
    assert [row["id"] for row in source.rows()] == [1]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_files_of_one_name_in_a_folder_for_each_day_keep_their_days(
    new_source: Callable[..., Any], suffix: str
) -> None:
    source = new_source(f"by_folder_{suffix}", suffix)
    path = contracts.SOURCES_DIR / f"{source.name}.yaml"
    named = f"{source.name}_{{interval}}.{suffix}"
    path.write_text(path.read_text().replace(named, f"{{interval}}/part 1+2%.{suffix}"))
    contracts.load.cache_clear()
    for day, ids in {"2020-01-01": [1], "2020-01-02": [2, 3]}.items():
        file = source.folder / day / f"part 1+2%.{suffix}"
        file.parent.mkdir(parents=True)
        frame = pd.DataFrame(
            {"id": ids, "person": "a", "amount": 1.0, "pieces": None, "day": [dt.date.fromisoformat(day)] * len(ids)}
        )
        frame.to_parquet(file) if suffix == "parquet" else frame.to_csv(file, index=False)
    assert source.land("2020-01-01/2020-01-02")["rows_out"] == 3
    where = {(row["_interval"], row["day"], row["_source_file"], row["_source_row"]) for row in source.rows()}
    first, second = dt.date(2020, 1, 1), dt.date(2020, 1, 2)
    named = f"{source.name}/{{}}/part 1+2%.{suffix}"
    assert where == {
        (first, first, named.format(first), 1),
        (second, second, named.format(second), 1),
        (second, second, named.format(second), 2),
    }
