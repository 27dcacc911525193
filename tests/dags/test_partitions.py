"""Partition keys: which are taken, which days a schedule and a backfill lead to, and what follows downstream."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pendulum
import pytest

UTC = dt.UTC
RANGE = "2013-03-01/2013-03-07"
KEYED = ["ingest_planes", "replay_planes", "build_warehouse", "score_flight_delay", "monitor_flight_delay"]


def midnight(day: str) -> dt.datetime:
    return dt.datetime.combine(dt.date.fromisoformat(day), dt.time(), UTC)


@pytest.mark.parametrize(
    ("lag_days", "key", "downstream"),
    [
        (0, "2013-03-01", "2013-03-01"),
        (0, "2013-01-01/2013-02-28", "2013-01-01/2013-02-28"),
        (-1, "2013-03-01", "2013-02-28"),
        (1, "2013-03-01", "2013-03-02"),
        (1, "2013-12-31", "2014-01-01"),
        (1, "2013-01-01/2013-02-28", ["2013-01-01/2013-02-28", "2013-03-01"]),
        (2, "2013-03-01", "2013-03-03"),
        (2, "2013-01-01/2013-02-28", ["2013-01-01/2013-02-28", "2013-03-01", "2013-03-02"]),
    ],
)
def test_a_new_interval_leads_to_these_downstream(lag_days: int, key: str, downstream: Any) -> None:
    from lakehouse.airflow.partitions import IntervalMapper

    assert IntervalMapper(lag_days).to_downstream(key) == downstream


@pytest.mark.parametrize("lag_days", [0, 1])
@pytest.mark.parametrize("limit", [None, 5])
def test_a_mapper_is_the_same_when_it_is_read_back(lag_days: int, limit: int | None) -> None:
    from airflow.serialization.decoders import decode_partition_mapper
    from airflow.serialization.encoders import encode_partition_mapper

    from lakehouse.airflow.partitions import IntervalMapper

    read_back = decode_partition_mapper(encode_partition_mapper(IntervalMapper(lag_days, max_downstream_keys=limit)))
    assert type(read_back) is IntervalMapper
    assert (read_back.lag_days, read_back.max_downstream_keys) == (lag_days, limit)


@pytest.mark.parametrize(
    "key",
    ["tomorrow", "2013-02-30", "2013-03-02/2013-03-01", "20130301", " 2013-03-01", "2013-03-01/2013-03-01", "2013-W09"],
)
@pytest.mark.parametrize("dag_id", KEYED)
def test_a_key_that_is_not_an_interval_in_its_one_form_is_refused(
    stored: dict[str, Any], dag_id: str, key: str
) -> None:
    from airflow.exceptions import InvalidPartitionKeyError

    with pytest.raises(InvalidPartitionKeyError, match="Wrong partition key"):
        stored[dag_id].timetable.resolve_partition_date(key)


@pytest.mark.parametrize("dag_id", KEYED)
def test_a_run_by_hand_without_a_key_is_refused(stored: dict[str, Any], dag_id: str) -> None:
    from airflow.exceptions import InvalidPartitionKeyError

    with pytest.raises(InvalidPartitionKeyError, match="needs a partition key"):
        stored[dag_id].timetable.resolve_partition_date(None)


@pytest.mark.parametrize("dag_id", KEYED)
def test_a_day_has_a_date_and_a_range_has_none(stored: dict[str, Any], dag_id: str) -> None:
    timetable = stored[dag_id].timetable
    assert timetable.resolve_partition_date("2013-03-01") == midnight("2013-03-01")
    assert timetable.resolve_partition_date("2013-03-01/2013-03-02") is None


def test_training_takes_no_key(stored: dict[str, Any]) -> None:
    from airflow.exceptions import DagNotPartitionedError

    with pytest.raises(DagNotPartitionedError):
        stored["train_flight_delay"].validate_partition_key("2013-03-01")


@pytest.mark.parametrize(
    ("source", "runs_on", "about"),
    [
        ("flight_schedule", "2013-02-28", "2013-03-01"),
        ("flight_actuals", "2013-03-02", "2013-03-01"),
        ("weather", "2013-03-02", "2013-03-01"),
        ("planes", "2013-03-01", "2013-03-01"),
    ],
)
def test_a_scheduled_run_is_about_what_arrives_on_its_day(
    stored: dict[str, Any], source: str, runs_on: str, about: str
) -> None:
    from airflow.timetables.base import TimeRestriction

    info = stored[f"ingest_{source}"].timetable.next_dagrun_info_v2(
        last_dagrun_info=None,
        restriction=TimeRestriction(pendulum.instance(midnight(runs_on)), None, catchup=True),
    )
    assert info.run_after.date() == dt.date.fromisoformat(runs_on)
    assert info.partition_key == about
    assert info.partition_date == midnight(about)


def test_nothing_is_scheduled_after_the_end_of_the_history(stored: dict[str, Any]) -> None:
    for dag_id, dag in stored.items():
        if dag_id.startswith("ingest_"):
            assert dag.next_dagrun_info(last_automated_run_info=None) is None, dag_id


@pytest.mark.parametrize("source", ["flight_schedule", "flight_actuals", "planes"])
def test_a_backfill_takes_both_ends_whatever_the_hour_of_the_schedule(stored: dict[str, Any], source: str) -> None:
    infos = list(stored[f"ingest_{source}"].iter_dagrun_infos_between(midnight("2013-02-27"), midnight("2013-03-01")))
    assert [info.partition_key for info in infos] == ["2013-02-27", "2013-02-28", "2013-03-01"]
    assert [info.partition_date for info in infos] == [midnight(info.partition_key) for info in infos]


def test_the_warehouse_of_a_day_waits_for_its_schedule_and_for_what_happened_the_day_before(
    stored: dict[str, Any],
) -> None:
    timetable = stored["build_warehouse"].timetable
    assets = {key.name for key, _ in timetable.asset_condition.iter_assets()}
    assert assets == {"bronze.flight_schedule", "bronze.flight_actuals", "bronze.weather"}
    lags = {name: timetable.get_partition_mapper(name=name).lag_days for name in assets}
    assert lags == {"bronze.flight_schedule": 0, "bronze.flight_actuals": 1, "bronze.weather": 1}


def test_scores_follow_the_warehouse_day_by_day(stored: dict[str, Any]) -> None:
    timetable = stored["score_flight_delay"].timetable
    assert [key.name for key, _ in timetable.asset_condition.iter_assets()] == ["gold"]
    assert timetable.get_partition_mapper(name="gold").to_downstream("2013-03-01") == "2013-03-01"


def test_monitoring_follows_the_scores_and_again_the_outcomes(stored: dict[str, Any]) -> None:
    from airflow.sdk import AssetAny
    from airflow.serialization.definitions.assets import SerializedAssetAny

    timetable = stored["monitor_flight_delay"].timetable
    assert isinstance(timetable.asset_condition, AssetAny | SerializedAssetAny)
    led_to = {
        key.name: [timetable.get_partition_mapper(name=key.name).to_downstream(days) for days in ("2013-03-02", RANGE)]
        for key, _ in timetable.asset_condition.iter_assets()
    }
    assert led_to == {"ml.predictions_flight_delay": ["2013-03-02", RANGE], "gold": ["2013-03-01", []]}


def test_outcomes_that_are_known_on_the_day_itself_start_no_monitoring_before_its_scores(
    bag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization

    from lakehouse.ml import model_folders
    from tests.dags.conftest import DAGS

    spec = model_folders.load("flight_delay")
    at_once = spec.model_copy(update={"label": spec.label.model_copy(update={"known_after_days": 0})})
    monkeypatch.setattr(model_folders, "readable", lambda: [at_once])
    [dag] = DagBag(DAGS / "monitor.py").dags.values()
    read_back = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    followed = [key.name for key, _ in read_back.timetable.asset_condition.iter_assets()]
    assert followed == ["ml.predictions_flight_delay"]
    assert "predictions of a day are released.\n" in (dag.doc_md or "")
    assert "released, and again 1 days later," in bag.dags["monitor_flight_delay"].doc_md
