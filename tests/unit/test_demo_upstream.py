"""The simulated upstream: what it drops, when, and that it agrees with the contracts and the suites."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from infra.demo import upstream
from infra.demo.upstream import FEEDS, Count, Delivery, UnknownSourceError, deliver, demo_source, plan
from lakehouse import contracts
from lakehouse.settings import PROJECT_DIR

CLOCK = dt.date(2013, 1, 3)


@pytest.fixture(scope="module")
def drop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drop")
    deliver(folder, until=CLOCK)
    return folder


def names(drop: Path) -> list[str]:
    return sorted(str(path.relative_to(drop)) for path in drop.rglob("*") if path.is_file())


def read(drop: Path, source: str, day: str) -> pd.DataFrame:
    path = drop / source / f"{source}_{day}.{FEEDS[source].suffix}"
    match path.suffix:
        case ".csv":
            return pd.read_csv(path, keep_default_na=False, na_values=[""])
        case ".jsonl":
            return pd.read_json(path, lines=True, convert_dates=False)
        case _:
            return pd.read_parquet(path)


def test_a_file_arrives_on_its_day(drop: Path) -> None:
    last = {"flight_schedule": 4, "flight_actuals": 2, "weather": 2, "planes": 3, "airlines": 3, "airports": 3}
    assert names(drop) == sorted(
        f"{source}/{source}_2013-01-0{day}.{FEEDS[source].suffix}"
        for source, days in last.items()
        for day in range(1, days + 1)
    )


def test_the_year_is_complete() -> None:
    counts: dict[str, int] = {}
    for delivery in plan():
        counts[delivery.source] = counts.get(delivery.source, 0) + 1
    assert counts == {source: 364 if source == "weather" else 365 for source in FEEDS}


def test_since_is_about_the_days_of_the_data() -> None:
    assert plan(since=dt.date(2013, 12, 31), until=dt.date(2013, 12, 31), sources=["flight_actuals"]) == []
    assert plan(since=dt.date(2013, 12, 31), sources=["flight_actuals", "weather"]) == [
        Delivery("flight_actuals", dt.date(2013, 12, 31))
    ]


def test_moving_the_clock_on_writes_only_what_is_new(tmp_path: Path) -> None:
    sources = ["airlines", "airports"]
    assert deliver(tmp_path, until=dt.date(2013, 1, 1), sources=sources) == {s: Count(1, 0) for s in sources}
    first = tmp_path / "airlines" / "airlines_2013-01-01.csv"
    before = first.stat()
    assert deliver(tmp_path, until=dt.date(2013, 1, 2), sources=sources) == {s: Count(1, 1) for s in sources}
    after = first.stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    first.write_text("spoiled")
    assert deliver(tmp_path, until=dt.date(2013, 1, 2), sources=["airlines"]) == {"airlines": Count(1, 1)}
    assert first.read_text().startswith("carrier,name\n9E,Endeavor Air Inc.\n")
    assert not [name for name in names(tmp_path) if ".part" in name]


def test_a_file_is_never_there_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(self: Path, target: str) -> None:
        raise OSError("killed")

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(OSError, match="killed"):
        deliver(tmp_path, until=dt.date(2013, 1, 1), sources=["airlines"])
    assert not [name for name in names(tmp_path) if name.endswith(".csv")]


def test_an_object_store_can_be_the_drop_folder() -> None:
    import fsspec

    deliver("memory://upstream/drop", until=dt.date(2013, 1, 1), sources=["airlines"])
    assert fsspec.filesystem("memory").cat("/upstream/drop/airlines/airlines_2013-01-01.csv").startswith(b"carrier,")


def test_flights_have_the_values_of_the_original(drop: Path) -> None:
    schedule, actuals = read(drop, "flight_schedule", "2013-01-01"), read(drop, "flight_actuals", "2013-01-01")
    assert len(schedule) == len(actuals) == 842
    flight = schedule[schedule["flight_number"].eq(1545) & schedule["carrier"].eq("UA")].iloc[0]
    assert flight.to_dict() == {
        "flight_date": "2013-01-01",
        "carrier": "UA",
        "flight_number": 1545,
        "tail_number": "N14228",
        "origin": "EWR",
        "destination": "IAH",
        "scheduled_departure": "2013-01-01T10:15:00Z",
        "scheduled_departure_time": 515,
        "scheduled_arrival_time": 819,
        "distance_miles": 1400,
    }
    outcome = actuals[actuals["flight_number"].eq(1545) & actuals["carrier"].eq("UA")].iloc[0]
    assert outcome[actuals.columns[-5:]].to_list() == [517, 2, 830, 11, 227]
    cancelled = actuals[actuals["departure_time"].isna()]
    assert len(cancelled) == 4
    assert cancelled["departure_delay_minutes"].isna().all()


def test_a_schedule_does_not_give_the_outcome_away_by_its_order(drop: Path) -> None:
    schedule = read(drop, "flight_schedule", "2013-01-01")
    assert schedule["scheduled_departure"].is_monotonic_increasing


def test_weather_leaves_missing_values_out(drop: Path) -> None:
    lines = (drop / "weather" / "weather_2013-01-01.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    assert (first["origin"], first["observed_at"], first["temperature_f"]) == ("EWR", "2013-01-01T06:00:00Z", 39.02)
    assert "wind_gust_mph" not in first
    assert all(value is not None for line in lines for value in json.loads(line).values())


def test_the_register_of_planes_grows(drop: Path) -> None:
    fleet = [set(read(drop, "planes", f"2013-01-0{day}")["tail_number"]) for day in (1, 2, 3)]
    assert fleet[0] < fleet[1] < fleet[2]
    assert fleet[0] <= set(read(drop, "flight_schedule", "2013-01-01")["tail_number"])


def test_the_hour_that_comes_twice_keeps_its_instants(tmp_path: Path) -> None:
    deliver(tmp_path, since=dt.date(2013, 11, 3), until=dt.date(2013, 11, 4), sources=["weather"])
    weather = read(tmp_path, "weather", "2013-11-03")
    assert not weather.duplicated(["origin", "observed_at"]).any()
    assert {"2013-11-03T05:00:00Z", "2013-11-03T06:00:00Z"} <= set(weather["observed_at"])


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(UnknownSourceError, match=r"no source 'trains'\. It has: flight_schedule"):
        plan(sources=["trains"])


@pytest.mark.parametrize("source", FEEDS)
def test_the_upstream_keeps_the_contract(source: str, drop: Path) -> None:
    contract = contracts.load(source)
    feed = FEEDS[source]
    assert (contract.lag_days, contract.history_start) == (feed.lag_days, upstream.FIRST_DAY)
    assert contract.history_end == feed.last_day
    delivery = Delivery(source, dt.date(2013, 1, 2))
    assert contract.location(delivery.day, str(drop)) == str(drop / delivery.path)
    rows = read(drop, source, "2013-01-02")
    declared = [column.name for column in contract.columns]
    assert set(rows.columns) <= set(declared) if contract.format == "jsonl" else list(rows.columns) == declared
    assert not rows.duplicated(list(contract.keys)).any()
    assert rows[[column.name for column in contract.columns if column.required]].notna().all(axis=None)


@pytest.mark.parametrize("source", FEEDS)
def test_a_suite_is_about_the_columns_of_the_contract(source: str) -> None:
    suite = json.loads((PROJECT_DIR / "expectations" / "bronze" / f"{source}.json").read_text())
    assert suite["name"] == f"bronze.{source}"
    [columns] = [e for e in suite["expectations"] if e["type"] == "expect_table_columns_to_match_set"]
    contract = contracts.load(source)
    declared = {column.name for column in contract.columns} | set(contracts.TECHNICAL_COLUMNS)
    assert set(columns["kwargs"]["column_set"]) == declared
    [unique] = [e for e in suite["expectations"] if e["type"] == "expect_compound_columns_to_be_unique"]
    assert set(unique["kwargs"]["column_list"]) - {"_interval"} == set(contract.keys)
    assert ("_interval" in unique["kwargs"]["column_list"]) == (contract.delivery == "snapshot")


def test_the_command(tmp_path: Path) -> None:
    import typer

    app = typer.Typer()
    app.command()(demo_source)
    runner = CliRunner()
    arguments = ["--until", "2013-01-02", "--source", "airlines", "--drop", str(tmp_path)]
    assert runner.invoke(app, arguments).stdout == "airlines: 2 files written, 0 unchanged\n"
    assert runner.invoke(app, arguments).stdout == "airlines: 0 files written, 2 unchanged\n"
    refused = runner.invoke(app, ["--source", "trains", "--drop", str(tmp_path)])
    assert refused.exit_code == 2
    early = runner.invoke(app, ["--until", "2012-01-01", "--drop", str(tmp_path)])
    assert early.stdout == "No file has arrived by that day.\n"


def test_a_broken_delivery_differs_in_the_unit_of_pressure_alone_and_is_put_right(tmp_path: Path) -> None:
    day = {"since": dt.date(2013, 1, 2), "until": CLOCK, "sources": ["weather"]}
    deliver(tmp_path, **day)
    path = tmp_path / "weather" / "weather_2013-01-02.jsonl"
    good = path.read_bytes()
    deliver(tmp_path, **day, broken=True)
    before = [json.loads(line) for line in good.splitlines()]
    after = [json.loads(line) for line in path.read_bytes().splitlines()]
    pressures = (
        [row.pop("pressure_millibars", None) for row in after],
        [row.pop("pressure_millibars", None) for row in before],
    )
    assert after == before
    assert all((inches is None) == (millibars is None) for inches, millibars in zip(*pressures, strict=True))
    assert all(28 < inches < 32 for inches in pressures[0] if inches is not None)
    assert deliver(tmp_path, **day) == {"weather": Count(written=1)}
    assert path.read_bytes() == good
