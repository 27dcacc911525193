"""Builds on the engine, in a sandbox of schemas: the same rows in whatever order the days are built.

The expected values come from the original files by other means (``tests/reference.py``).
"""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from deltalake import DeltaTable, write_deltalake

from lakehouse import contracts, dbt_project, locks, ops, table_days, tables, warehouse
from lakehouse.interval import Interval
from lakehouse.ml import model_folders, training
from lakehouse.settings import settings
from tests import reference
from tests.openlineage_schema import faults
from tests.projects import project_of_its_own

PREFIX = "dbt_test_"
FIRST, LAST = dt.date(2013, 1, 1), dt.date(2013, 1, 7)
TODAY = dt.date(2013, 1, 6)
BULK, DAYS = Interval(FIRST, dt.date(2013, 1, 3)), Interval(dt.date(2013, 1, 4), TODAY)
TABLES = {
    "dim_planes": ["tail_number", "valid_from"],
    "fct_flights": ["flight_id"],
    "daily_delays_by_carrier": ["flight_date", "carrier"],
    "daily_delays_by_route": ["flight_date", "origin", "destination"],
    "daily_delays_by_airport": ["flight_date", "airport_code"],
    "on_time_league": ["month", "carrier"],
    "flight_delay_features": ["flight_id"],
}
DAILY = [name for name in TABLES if name not in ("dim_planes", "on_time_league")]


def folder(table: str) -> str:
    schema, _, name = table.partition(".")
    return f"{settings().warehouse_url}/{PREFIX}{schema}.db/{name}"


def stored(name: str) -> pd.DataFrame:
    """The rows of a gold table, in the order of its key."""
    frame = DeltaTable(folder(f"gold_next.{name}")).to_pandas()
    return frame.sort_values(TABLES[name], ignore_index=True)


@contextmanager
def put_back() -> Iterator[None]:
    """Give the sources and the gold tables back the rows that they had before the block, whatever it does to them."""
    kept = [*(f"bronze.{source}" for source in contracts.sources()), *(f"gold_next.{name}" for name in TABLES)]
    before = {table: DeltaTable(folder(table)).version() for table in kept}
    try:
        yield
    finally:
        for table, version in before.items():
            log = DeltaTable(folder(table))
            if log.version() != version:
                log.restore(version)


def assert_same(left: pd.DataFrame, right: pd.DataFrame) -> None:
    """Equal to the last digit, whatever types the two use."""
    assert list(left.columns) == list(right.columns)
    assert len(left) == len(right)
    for column in left.columns:
        for row, (a, b) in enumerate(zip(left[column], right[column], strict=True)):
            assert (pd.isna(a) and pd.isna(b)) or a == b, f"row {row}: {column} is {a!r}, expected {b!r}"


class Bronze:
    """The released sources of the sandbox, as plain Delta tables whose rows a test can change."""

    def __init__(self, drop: Path) -> None:
        self.original = {source: self._read(drop / source, source) for source in contracts.sources()}

    def _read(self, drop: Path, source: str) -> pd.DataFrame:
        frames = []
        for path in sorted(drop.iterdir()):
            day = dt.date.fromisoformat(path.stem[-10:])
            if path.suffix == ".csv":
                frame = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
            elif path.suffix == ".jsonl":
                frame = pd.read_json(path, lines=True, dtype=False, convert_dates=False, precise_float=True)
            else:
                frame = pd.read_parquet(path)
            frames.append(frame.assign(_interval=day, _source_file=path.name, _source_row=range(1, len(frame) + 1)))
        frame = pd.concat(frames, ignore_index=True)
        for column in contracts.load(source).columns:
            if column.name not in frame:
                frame[column.name] = None
            kind = column.spark_type.lower()
            if kind == "date":
                frame[column.name] = pd.to_datetime(frame[column.name]).dt.date
            elif kind == "timestamp":
                frame[column.name] = pd.to_datetime(frame[column.name], utc=True)
            elif kind == "int":
                frame[column.name] = frame[column.name].astype("Int32")
            elif kind == "double":
                frame[column.name] = frame[column.name].astype("float64")
        return frame

    def put(self, source: str, frame: pd.DataFrame) -> None:
        """Make these the rows of a source."""
        write_deltalake(folder(f"bronze.{source}"), frame.reset_index(drop=True), mode="overwrite")

    def versions(self) -> dict[str, int]:
        """The sources as they are now."""
        return {f"bronze.{source}": DeltaTable(folder(f"bronze.{source}")).version() for source in self.original}


@pytest.fixture(scope="module")
def sql(engine: None) -> Iterator[Any]:
    from pyhive import hive

    connection = hive.connect(
        "127.0.0.1", settings().ports.thrift, username="lake", password=settings().secret("sql_password"), auth="CUSTOM"
    )
    yield connection.cursor()
    connection.close()


@pytest.fixture(scope="module")
def bronze(sql: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bronze]:
    from infra.demo.upstream import deliver

    drop = tmp_path_factory.mktemp("drop")
    deliver(str(drop), until=LAST)
    bronze = Bronze(drop)
    for schema in ("bronze", "bronze_next"):
        sql.execute(f"create schema if not exists {PREFIX}{schema}")
    for source, frame in bronze.original.items():
        bronze.put(source, frame)
        for schema in ("bronze", "bronze_next"):
            sql.execute(f"create table {PREFIX}{schema}.{source} using delta location '{folder(f'bronze.{source}')}'")
    # The manifest that everybody uses is the one without the prefix.
    dbt_project.ensure_manifest()
    os.environ["DBT_SCHEMA_PREFIX"] = PREFIX
    yield bronze
    del os.environ["DBT_SCHEMA_PREFIX"]
    for schema in ("silver_next", "gold_next", "bronze", "bronze_next"):
        sql.execute(f"drop schema {PREFIX}{schema} cascade")


@pytest.fixture(scope="module")
def built(bronze: Bronze) -> dict[str, pd.DataFrame]:
    """All tables after a bulk build, and one of the days after it."""
    warehouse.run_dbt(BULK)
    warehouse.run_dbt(DAYS, commit={"run_id": "the run", "step": "build"})
    return {name: stored(name) for name in TABLES}


@pytest.mark.parametrize("by", reference.DAILY_DELAY_KEYS)
def test_daily_delays_are_those_of_the_original_files(built: dict[str, pd.DataFrame], by: str) -> None:
    table = built[f"daily_delays_by_{by}"]
    assert_same(table, reference.daily_delays(FIRST, TODAY, by))


def test_features_are_those_of_the_original_files(built: dict[str, pd.DataFrame]) -> None:
    ids = reference.sample_flights(FIRST, TODAY, 200)
    table = built["flight_delay_features"]
    table = table[table["flight_id"].isin(ids)].reset_index(drop=True)
    table["scheduled_departure"] = table["scheduled_departure"].dt.tz_convert("UTC").dt.tz_localize(None)
    assert_same(table, reference.features_for(ids))


def test_flights(built: dict[str, pd.DataFrame]) -> None:
    flights = built["fct_flights"]
    assert len(flights) == (reference.flights()["date"] <= TODAY).sum()
    assert flights["flight_id"].is_unique
    assert flights["is_reported"].all()
    original = reference.flights()
    hours = reference.weather().drop_duplicates(["origin", "time_hour"])
    seen = original[original["date"] <= TODAY].merge(hours, "left", ["origin", "time_hour"], suffixes=("", "_weather"))
    seen = seen.sort_values("flight_id", ignore_index=True)
    of_hour = {"temperature_f": "temp", "wind_gust_mph": "wind_gust", "precipitation_inches": "precip"}
    for column, name in of_hour.items():
        known = flights["is_reported"] & flights[column].notna()
        assert known.mean() > 0.1
        assert_same(flights.loc[known, [column]], seen.loc[known, [name]].set_axis([column], axis=1))
        assert seen.loc[~known, name].isna().mean() > 0.99  # of an hour that is there twice, or in quarantine
    league = built["on_time_league"]
    flown = original[original["date"] <= TODAY].groupby("carrier")
    arrived = flown["arr_delay"].agg(on_time=lambda delays: (delays <= reference.LATE_MINUTES).sum(), total="size")
    by_carrier = league.set_index("carrier")
    assert by_carrier["on_time_rate"].to_dict() == (arrived["on_time"] / arrived["total"]).to_dict()
    cancelled = flown["dep_time"].agg(lambda times: times.isna().sum())
    assert by_carrier["cancellation_rate"].to_dict() == (cancelled / arrived["total"]).to_dict()
    assert (league["league_rank"] == league["on_time_rate"].rank(method="min", ascending=False)).all()


def test_a_commit_says_who_made_it(built: dict[str, pd.DataFrame]) -> None:
    log = DeltaTable(folder("gold_next.fct_flights"))
    assert log.history(1)[0]["userMetadata"] == '{"run_id": "the run", "step": "build", "reads": {}}'
    assert DeltaTable(folder("gold_next.fct_flights"), version=0).to_pandas().empty


def test_a_build_whose_lock_has_passed_on_writes_nothing(built: dict[str, pd.DataFrame]) -> None:
    version = DeltaTable(folder("gold_next.fct_flights")).version()
    with locks.writer("gold_next") as lock:
        warehouse.run_dbt(DAYS, ["fct_flights"])
        assert DeltaTable(folder("gold_next.fct_flights")).version() == version + 1
        # What another writer does that takes over.
        lock.connection.execute("update writer_tokens set token = token + 1 where table_name = 'gold_next'")
        with pytest.raises(locks.StaleWriterError, match="Another writer has taken over gold_next"):
            warehouse.run_dbt(DAYS, ["fct_flights"])
    assert DeltaTable(folder("gold_next.fct_flights")).version() == version + 1
    warehouse.run_dbt(DAYS, ["fct_flights"])


def test_a_table_that_would_be_made_again_as_it_is_is_left_alone(
    built: dict[str, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    same: list[str] = []
    monkeypatch.setattr(warehouse, "repeatable", lambda _reads: {"dim_planes": "these"})
    monkeypatch.setattr(warehouse, "unchanged", lambda *_: same)
    warehouse.run_dbt(DAYS, ["dim_planes"], commit={"run_id": "the run"})
    log = DeltaTable(folder("gold_next.dim_planes"))
    assert log.history(1)[0]["userMetadata"] == '{"run_id": "the run", "reads": {}, "made_from": "these"}'
    same.append("dim_planes")
    assert warehouse.run_dbt(DAYS, ["dim_planes"]).models.keys() == {"dim_planes"}
    assert DeltaTable(folder("gold_next.dim_planes")).version() == log.version()


def test_building_again_and_out_of_order_leaves_the_same_rows(built: dict[str, pd.DataFrame]) -> None:
    warehouse.run_dbt(Interval(dt.date(2013, 1, 2), dt.date(2013, 1, 4)))
    for name, rows in built.items():
        assert_same(stored(name), rows)


def test_a_table_of_other_columns_is_refused_until_it_is_refreshed_in_full(
    sql: Any, built: dict[str, pd.DataFrame]
) -> None:
    sql.execute(f"alter table {PREFIX}gold_next.fct_flights add column of_yesterday int")
    with pytest.raises(warehouse.BuildFailedError, match="fct_flights"):
        warehouse.run_dbt(DAYS, ["fct_flights"])
    warehouse.run_dbt(Interval(FIRST, TODAY), ["fct_flights"], full_refresh=True)
    assert_same(stored("fct_flights"), built["fct_flights"])


def test_a_build_reads_the_versions_that_it_is_told_whatever_is_released_meanwhile(
    bronze: Bronze, built: dict[str, pd.DataFrame]
) -> None:
    reads, whole = bronze.versions(), Interval(FIRST, TODAY)
    with put_back():
        for source, frame in bronze.original.items():
            bronze.put(source, frame.sample(frac=0.5, random_state=1))
        warehouse.run_dbt(whole, reads=reads, commit={"run_id": "the run"})
        for name, rows in built.items():
            assert_same(stored(name), rows)
            said = json.loads(DeltaTable(folder(f"gold_next.{name}")).history(1)[0]["userMetadata"])
            assert said["run_id"] == "the run" and said["reads"] == reads
        warehouse.run_dbt(whole, reads=bronze.versions())
        assert not any(stored(name).equals(rows) for name, rows in built.items())


WEATHER_SEEN = """
with stg_weather as (select stg_weather.* from {{ ref('stg_weather') }}),

counted as (
    select 'view' as way, count(*) as observations from stg_weather
    union all
    select 'view of a view', count(*) from {{ ref('stg_observations') }} as observations
    union all
    select 'ephemeral model', count(*) from {{ ref('observations') }}
    union all
    select 'source', count(weather.origin) from {{ source('bronze', 'weather') }} as weather
    union all
    select 'source by its full name', count({{ source('bronze', 'weather') }}.origin)
    from {{ source('bronze', 'weather') }}
)

select way, cast(observations as int) as observations from counted
"""


def test_a_build_reads_the_versions_that_it_is_told_in_whatever_way_a_model_names_them(
    bronze: Bronze, built: dict[str, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = project_of_its_own(tmp_path, monkeypatch) / "models"
    (models / "staging" / "stg_observations.sql").write_text("select origin from {{ ref('stg_weather') }}")
    (models / "marts" / "observations.sql").write_text(
        "{{ config(materialized='ephemeral') }} select origin from {{ ref('stg_observations') }}"
    )
    (models / "marts" / "weather_seen.sql").write_text(WEATHER_SEEN)
    model = {
        "name": "weather_seen",
        "description": "Observations.",
        "config": {"meta": {"statistics": ["way"]}},
        "columns": [
            {"name": "way", "data_type": "string", "description": "How the weather is named."},
            {"name": "observations", "data_type": "int", "description": "Observations."},
        ],
    }
    (models / "marts" / "weather_seen.yml").write_text(yaml.safe_dump({"version": 2, "models": [model]}))
    reads, weather = bronze.versions(), bronze.original["weather"]
    with put_back():
        bronze.put("weather", weather.head(len(weather) // 2))
        warehouse.run_dbt(DAYS, ["+weather_seen"], reads=reads)
        seen = DeltaTable(folder("gold_next.weather_seen")).to_pandas()
        assert len(seen) == 5 and set(seen["observations"]) == {len(weather)}, seen


def test_a_source_that_the_build_is_not_told_of_stops_it(bronze: Bronze, built: dict[str, pd.DataFrame]) -> None:
    reads = bronze.versions()
    del reads["bronze.planes"]
    with pytest.raises(
        dbt_project.BuildFailedError, match=r"bronze\.planes had not been released when the build began"
    ):
        warehouse.run_dbt(DAYS, ["dim_planes"], reads=reads)


def test_features_do_not_know_their_own_day_or_the_future(bronze: Bronze, built: dict[str, pd.DataFrame]) -> None:
    actuals, weather, planes = (bronze.original[name].copy() for name in ("flight_actuals", "weather", "planes"))
    actuals.loc[actuals["flight_date"] >= TODAY, "arrival_delay_minutes"] = 500
    weather.loc[weather["observation_date"] >= TODAY, "temperature_f"] = -30.0
    planes.loc[planes["_interval"] >= TODAY, "seats"] = 1
    with put_back():
        for name, frame in (("flight_actuals", actuals), ("weather", weather), ("planes", planes)):
            bronze.put(name, frame)
        warehouse.run_dbt(DAYS, ["dim_planes", "flight_delay_features"])
        assert_same(stored("flight_delay_features"), built["flight_delay_features"])
        assert len(stored("dim_planes")) > len(built["dim_planes"])


def test_outcomes_that_arrive_late_reach_the_features_of_later_days(
    bronze: Bronze, built: dict[str, pd.DataFrame]
) -> None:
    late = dt.date(2013, 1, 3)
    actuals = bronze.original["flight_actuals"]
    try:
        bronze.put("flight_actuals", actuals[actuals["flight_date"] != late])
        warehouse.run_dbt(DAYS, ["flight_delay_features"])
        without = stored("flight_delay_features")
        assert not without["carrier_flights_7d"].equals(built["flight_delay_features"]["carrier_flights_7d"])
    finally:
        bronze.put("flight_actuals", actuals)
    # What happened on a day belongs to the build of the next.
    warehouse.run_dbt(Interval(DAYS.start, DAYS.start), ["flight_delay_features"])
    assert_same(stored("flight_delay_features"), built["flight_delay_features"])


def test_data_tests_stop_what_does_not_add_up(built: dict[str, pd.DataFrame]) -> None:
    outcome = warehouse.run_data_tests(DAYS)
    assert outcome.tests.keys() == {
        "every_scheduled_flight_has_features",
        "outcomes_are_conserved",
        "periods_of_a_plane_do_not_overlap",
    }
    assert said_of(outcome, "gold.fct_flights") == {
        ("outcomes_are_conserved", True),
        ("every_scheduled_flight_has_features", True),
    }
    with put_back():
        DeltaTable(folder("gold_next.daily_delays_by_route")).delete("flight_date = '2013-01-05' and origin = 'JFK'")
        with pytest.raises(dbt_project.DataTestFailedError, match="outcomes_are_conserved: Got 1 result") as failure:
            warehouse.run_data_tests(DAYS)
    assert said_of(failure.value.outcome, "gold.daily_delays_by_route") == {("outcomes_are_conserved", False)}
    assert said_of(failure.value.outcome, "gold.dim_planes") == {("periods_of_a_plane_do_not_overlap", True)}


def said_of(outcome: dbt_project.Outcome, table: str) -> set[tuple[str, bool]]:
    return {(each["expectation"], each["success"]) for each in outcome.assertions[table]}


def test_the_days_of_a_model_are_in_the_column_that_it_names(
    built: dict[str, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_of_its_own(tmp_path, monkeypatch)
    (project / "models" / "marts" / "days_seen.sql").write_text(
        "select seen_on, flights from (select flight_date as seen_on, cast(count(*) as int) as flights"
        " from {{ ref('fct_flights') }} group by flight_date) where {{ feature_days('seen_on') }}"
    )
    model = {
        "name": "days_seen",
        "description": "Flights of a day.",
        "config": {"meta": {"replaces": "feature_days", "interval_column": "seen_on", "statistics": ["seen_on"]}},
        "columns": [
            {"name": "seen_on", "data_type": "date", "description": "Day."},
            {"name": "flights", "data_type": "int", "description": "Flights."},
        ],
    }
    (project / "models" / "marts" / "days_seen.yml").write_text(yaml.safe_dump({"version": 2, "models": [model]}))
    for days in (BULK, DAYS, BULK):
        warehouse.run_dbt(days, ["days_seen"])
    expected = built["fct_flights"].groupby("flight_date").size()
    found = DeltaTable(folder("gold_next.days_seen")).to_pandas().set_index("seen_on")["flights"].sort_index()
    assert found.to_dict() == expected.to_dict()


def test_unit_tests_of_the_models(built: dict[str, pd.DataFrame]) -> None:
    results = dbt_project.invoke(["--no-write-json", "test", "--select", "test_type:unit"])
    assert len(list(results)) >= 4
    assert {str(result.status) for result in results} == {"pass"}


def test_a_model_that_fails_is_named_with_the_reason_alone_and_recorded_like_those_that_do_not(
    built: dict[str, pd.DataFrame], sql: Any, lake_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = DeltaTable(folder("gold_next.fct_flights")).version()
    elsewhere = tables.location
    monkeypatch.setattr(
        tables, "location", lambda stored: folder(stored) if stored.startswith("gold_next.") else elsewhere(stored)
    )
    monkeypatch.setattr(warehouse, "prepare", lambda _interval: [])
    monkeypatch.setattr(warehouse, "check_columns", lambda *_, **__: None)  # what is released is not the sandbox's
    monkeypatch.setattr(warehouse, "sources", dict)
    before = {row["run_id"] for row in ops.read("ops.runs", ["run_id"]).to_pylist()}
    sql.execute(f"drop table {PREFIX}bronze.weather")
    sql.execute(f"create view {PREFIX}bronze.weather as select current_date() as observation_date, 'EWR' as origin")
    try:
        with pytest.raises(dbt_project.BuildFailedError) as failure:
            warehouse.build(DAYS, "fct_flights dim_planes")
        # In Airflow no step is around dbt: one that listens to it leaves the record.
        monkeypatch.setattr(dbt_project, "_say", warehouse.record_failure)
        with pytest.raises(dbt_project.BuildFailedError):
            warehouse.run_dbt(DAYS, ["fct_flights"])
    finally:
        sql.execute(f"drop view {PREFIX}bronze.weather")
        sql.execute(f"create table {PREFIX}bronze.weather using delta location '{folder('bronze.weather')}'")
    message = str(failure.value)
    assert "model fct_flights" in message and "observed_at" in message
    assert len(message) < 1000 and "org.apache.spark.sql.execution" not in message
    assert DeltaTable(folder("gold_next.fct_flights")).version() == version

    rows = [row for row in ops.read("ops.runs").to_pylist() if row["run_id"] not in before]
    parts = [row for row in rows if "build_run_id" in (row["details"] or "")]
    whole, alone = sorted((row for row in rows if row not in parts), key=lambda row: row["ended_at"])
    assert (whole["step"], whole["dataset"], whole["status"]) == ("build", "warehouse", "failed")
    assert {row["dataset"]: row["status"] for row in parts} == {
        "gold.dim_planes": "success",
        "gold.fct_flights": "failed",
    }
    assert all(row["seconds"] > 0 for row in rows)
    [planes] = [row for row in parts if row["dataset"] == "gold.dim_planes"]
    assert (planes["error"], planes["versions_out"]) == (
        None, [("gold_next.dim_planes", DeltaTable(folder("gold_next.dim_planes")).version())],
    )  # fmt: skip
    assert (alone["step"], alone["dataset"], alone["status"]) == ("build", "gold.fct_flights", "failed")
    assert (alone["interval_start"], alone["interval_end"]) == (DAYS.start, DAYS.end)
    found: dict[str, list[dict[str, Any]]] = {}
    for line in (lake_home / "openlineage" / "events.jsonl").read_text().splitlines():
        found.setdefault(json.loads(line)["run"]["runId"], []).append(json.loads(line))
    for row in rows:
        start, end = found[row["run_id"]]
        assert faults(start) == faults(end) == []
        expected = ("START", "COMPLETE" if row["status"] == "success" else "FAIL")
        assert (start["eventType"], end["eventType"]) == expected
        assert end["job"]["name"] == f"build.{row['dataset']}"
        assert ("parent" in end["run"]["facets"]) == (row in parts)
        if row["dataset"] == "gold.fct_flights":
            assert row["error"] == end["run"]["facets"]["errorMessage"]["message"]
            assert "observed_at" in row["error"] and len(row["error"]) < 1000
    # The versions that they name are the sandbox's: those of the lake's own tables are others.
    log = tables.delta("ops.runs")
    assert log is not None
    log.delete(f"run_id in ({', '.join(repr(row['run_id']) for row in rows)})")


def test_a_selection_of_nothing_is_an_error(bronze: Bronze) -> None:
    with pytest.raises(dbt_project.BuildFailedError, match="no_such_model"):
        warehouse.run_dbt(DAYS, ["no_such_model"])


def test_a_training_set_is_the_same_whatever_arrives_after_its_last_day(
    bronze: Bronze, built: dict[str, pd.DataFrame]
) -> None:
    """From the day after on every source is another: values change places among rows, and a third of them is gone."""
    last = dt.date(2013, 1, 4)
    random = np.random.default_rng(1)

    def training_sets() -> dict[str, str]:
        features, flights = stored("flight_delay_features"), stored("fct_flights")
        found = {}
        for name in model_folders.models():
            spec = model_folders.load(name)
            frame = training.training_frame(features, flights, spec)
            found[name] = training.content_sha256(frame[frame[spec.features.interval_column] <= last])
        return found

    before = training_sets()
    with put_back():
        for source, frame in bronze.original.items():
            later = frame["_interval"] > last
            other = frame[later].copy()
            keys = {column.name for column in contracts.load(source).columns if column.key_position}
            for column in set(frame.columns) - keys - {"_interval", "_source_file", "_source_row"}:
                if frame[column].dtype != object or not isinstance(frame[column].iloc[0], dt.date):
                    other[column] = other[column].to_numpy()[random.permutation(len(other))]
            bronze.put(source, pd.concat([frame[~later], other[random.random(len(other)) > 1 / 3]]))
        warehouse.run_dbt(Interval(FIRST, TODAY))
        assert training_sets() == before
        changed = stored("flight_delay_features")
        assert not changed[changed["flight_date"] > last].equals(
            built["flight_delay_features"][built["flight_delay_features"]["flight_date"] > last]
        )


def reached(table: str, source: str, day: dt.date) -> set[dt.date]:
    """The days of a table whose rows are made from a day of a source, as its properties declare it."""
    found = set()
    for read, span in table_days.shape(f"gold.{table}").reads.items():
        hit = {day} if read == source else set()
        if read in map("gold.{}".format, DAILY):
            hit = reached(read.partition(".")[2], source, day)
        if span is not None:
            found |= {one - dt.timedelta(by) for one in hit for by in range(span[0], span[1] + 1)}
    return found


def altered(bronze: Bronze, source: str, day: dt.date) -> pd.DataFrame:
    """The rows of a source, those of a day with other numbers and planes, as far as they are not its key."""
    frame = bronze.original[source].copy()
    of_day = frame["_interval"] == day
    for column in contracts.load(source).columns:
        if column.key_position is None and column.spark_type in ("INT", "DOUBLE"):
            frame.loc[of_day, column.name] += 1000
    if "tail_number" in frame:
        frame.loc[of_day, "tail_number"] = np.roll(frame.loc[of_day, "tail_number"], 1)
    assert not frame.equals(bronze.original[source])
    return frame


def changed(before: pd.DataFrame, after: pd.DataFrame) -> set[dt.date]:
    """The days of which two states of a table have other rows."""
    rows = [{day: part.to_csv(index=False) for day, part in each.groupby("flight_date")} for each in (before, after)]
    return {day for day in rows[0].keys() | rows[1].keys() if rows[0].get(day) != rows[1].get(day)}


def test_the_declared_days_are_those_that_the_rows_are_made_from(
    bronze: Bronze, built: dict[str, pd.DataFrame]
) -> None:
    """Days of three sources are changed, so far apart that their consequences do not meet."""
    whole = Interval(FIRST, TODAY)
    weather, schedule, actuals, long_ago = (FIRST + dt.timedelta(by) for by in (0, 2, 3, -24))
    origin = {"bronze.weather": weather, "bronze.flight_schedule": schedule, "bronze.flight_actuals": actuals}
    frames = {table.partition(".")[2]: altered(bronze, table.partition(".")[2], day) for table, day in origin.items()}
    with put_back():
        for name, frame in frames.items():
            bronze.put(name, frame)
        warehouse.run_dbt(whole, [*DAILY])
        for name in DAILY:
            found = changed(built[name], stored(name))
            each = {source: reached(name, source, day) & set(whole.days()) for source, day in origin.items()}
            if name.startswith("daily_"):  # they count outcomes, and nothing else of the flights
                each = {"bronze.flight_actuals": each["bronze.flight_actuals"]}
            assert found == set().union(*each.values()), name
        # The far edge of the longest window: outcomes that are 28 days old count, older ones do not.
        old = bronze.original["flight_actuals"]
        old = old[old["flight_date"] == FIRST].assign(flight_date=long_ago, _interval=long_ago)
        for name in frames:
            bronze.put(name, bronze.original[name])
        bronze.put("flight_actuals", pd.concat([bronze.original["flight_actuals"], old]))
        warehouse.run_dbt(whole, ["fct_flights", "flight_delay_features"])
        declared = reached("flight_delay_features", "bronze.flight_actuals", long_ago) & set(whole.days())
        assert changed(built["flight_delay_features"], stored("flight_delay_features")) == declared
        assert set() < declared < set(whole.days())


def test_the_declared_days_are_those_that_a_build_writes(bronze: Bronze, built: dict[str, pd.DataFrame]) -> None:
    """Every row of the sources is changed, and one day is built: what is new is what the build has written."""
    day = TODAY - dt.timedelta(1)
    schedule, actuals = (bronze.original[name] for name in ("flight_schedule", "flight_actuals"))
    with put_back():
        bronze.put("flight_schedule", schedule.assign(distance_miles=schedule["distance_miles"] + 1000))
        bronze.put("flight_actuals", actuals.assign(arrival_delay_minutes=actuals["arrival_delay_minutes"] + 500))
        warehouse.run_dbt(Interval(day, day), [*DAILY])
        for name in DAILY:
            shape = table_days.shape(f"gold.{name}")
            spans = [span for span in (shape.writes, shape.rewrites) if span]
            declared = {day + dt.timedelta(by) for span in spans for by in range(span[0], span[1] + 1)}
            there = set(built[name]["flight_date"])
            assert changed(built[name], stored(name)) == declared & there, name
