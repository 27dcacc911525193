"""When a model is trained again, and when not."""

from __future__ import annotations

import datetime as dt
import importlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from lakehouse import ops, tables
from lakehouse.interval import Interval
from lakehouse.ml import model_folders
from lakehouse.ml.model_spec import ModelSpec, Retrain
from lakehouse.monitoring.retraining import Evidence, NoPolicyError, NotMonitoredError, decide, standing_defects
from lakehouse.registry import roles

DAY = dt.date(2013, 6, 30)


def spec(**policy: Any) -> ModelSpec:
    return model_folders.load("flight_delay").model_copy(update={"retrain": Retrain(**policy)})


def row(
    metric: str, value: float, segment: str = "all", reference: float = 0, verdict: str = "green"
) -> dict[str, Any]:
    return {"metric": metric, "segment": segment, "value": value, "reference": reference, "verdict": verdict}


DRIFTED = row("drifted_share", 0.7)


def test_without_a_cause_nothing_happens() -> None:
    policy = spec(drift_share=0.8, performance=True, max_age_days=90, new_rows=1000)
    calm = [DRIFTED, row("skill", 0.1), row("age_days", 90), row("new_rows", 999)]
    decision = decide(policy, Evidence(DAY, calm, red_gates=["gold.x"]))
    assert (decision.outcome, decision.causes) == ("kept", {})


@pytest.mark.parametrize(
    ("policy", "found", "cause"),
    [
        ({"drift_share": 0.7}, DRIFTED, "drift"),
        ({"performance": True}, row("skill", -0.1, reference=0.1, verdict="red"), "performance"),
        ({"max_age_days": 30}, row("age_days", 31), "age"),
        ({"new_rows": 1000}, row("new_rows", 1000), "new data"),
    ],
)
def test_each_cause_is_named(policy: dict[str, Any], found: dict[str, Any], cause: str) -> None:
    decision = decide(spec(**policy), Evidence(DAY, [found]))
    assert decision.outcome == "retrain" and list(decision.causes) == [cause]
    assert decision.reason.startswith(cause)


def test_all_causes_are_told() -> None:
    decision = decide(spec(drift_share=0.5, max_age_days=1), Evidence(DAY, [DRIFTED, row("age_days", 40)]))
    assert (
        decision.reason
        == "drift: 70% of the features have drifted; age: 40 days since the last day that it was " + ("trained on")
    )


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (row("null_share", 0.6, "feature=plane_seats", 0.1, "red"), "null_share of plane_seats is 0.6, usual is 0.1"),
        (row("rows", 10, reference=900, verdict="red"), "rows is 10, usual is 900"),
        (row("changed_columns", 1, verdict="red"), "changed_columns is 1"),
        (row("stale_days", 3, verdict="red"), "stale_days is 3"),
    ],
)
def test_drift_that_a_defect_explains_is_no_reason_to_train(broken: dict[str, Any], why: str) -> None:
    decision = decide(spec(drift_share=0.5), Evidence(DAY, [DRIFTED, broken]))
    assert decision.outcome == "blocked" and why in decision.reason


def test_a_red_gate_blocks() -> None:
    decision = decide(spec(drift_share=0.5), Evidence(DAY, [DRIFTED], red_gates=["bronze.weather"]))
    assert decision.outcome == "blocked" and "the gate of bronze.weather is red" in decision.reason


def measured(
    days: str, hour: int, verdict: str = "red", metric: str = "null_share", segment: str = "feature=plane_seats"
) -> dict[str, Any]:
    interval, at = Interval.parse(days), dt.datetime(2013, 7, 1, hour)
    where = {"interval_start": interval.start, "interval_end": interval.end, "measured_at": at}
    return row(metric, 0.6, segment, 0.1, verdict) | where


@pytest.mark.parametrize(
    ("rows", "standing"),
    [
        ([measured("2013-06-03", 1)], ["2013-06-03"]),
        ([measured("2013-05-31", 1), measured("2013-07-01", 1)], []),
        ([measured("2013-06-03", 1), measured("2013-06-03", 2, "green")], []),
        ([measured("2013-06-03", 2), measured("2013-06-03", 1, "green")], ["2013-06-03"]),
        # In a week, a bad day is not to be seen; each day of a bad week has to be good.
        ([measured("2013-06-03", 1), measured("2013-06-03/2013-06-09", 2, "green")], ["2013-06-03"]),
        ([measured("2013-06-03/2013-06-04", 1), measured("2013-06-03", 2, "green")], ["2013-06-03/2013-06-04"]),
        ([measured("2013-06-03/2013-06-04", 1), *(measured(f"2013-06-0{n}", n, "green") for n in (3, 4))], []),
        ([measured("2013-06-03", 1, metric="stale_days", segment="all")], []),
        ([measured("2013-06-03", 1, metric="rows", segment="all")], ["2013-06-03"]),
        ([measured("2013-06-03", 1, metric="changed_columns", segment="all")], ["2013-06-03"]),
        ([measured("2013-06-03", 1, metric="psi")], []),
    ],
)
def test_a_defect_stands_until_its_days_are_measured_again(rows: list[dict[str, Any]], standing: list[str]) -> None:
    found = standing_defects(rows, Interval.parse("2013-06-01/2013-06-30"))
    assert [str(Interval(each["interval_start"], each["interval_end"])) for each in found] == standing


def test_a_defect_of_other_days_blocks_and_is_named_with_them() -> None:
    evidence = Evidence(DAY, [DRIFTED], defects=[measured("2013-06-03", 1)])
    decision = decide(spec(drift_share=0.5), evidence)
    assert decision.outcome == "blocked"
    assert decision.reason.endswith("null_share of plane_seats is 0.6, usual is 0.1 on 2013-06-03")
    assert decide(spec(drift_share=0.8), evidence).outcome == "kept"


def test_a_feature_that_has_drifted_is_no_defect() -> None:
    drifted = row("psi", 0.9, "feature=plane_seats", 0.25, "red")
    assert decide(spec(drift_share=0.5), Evidence(DAY, [DRIFTED, drifted])).outcome == "retrain"


@pytest.mark.parametrize(("days", "outcome"), [(13, "waiting"), (14, "retrain")])
def test_the_cooldown_is_waited_for(days: int, outcome: str) -> None:
    evidence = Evidence(DAY, [DRIFTED], last_training=DAY - dt.timedelta(days=days))
    assert decide(spec(drift_share=0.5, cooldown_days=14), evidence).outcome == outcome


def test_days_that_are_monitored_again_are_no_way_around_the_cooldown() -> None:
    decision = decide(spec(drift_share=0.5), Evidence(DAY, [DRIFTED], last_training=DAY + dt.timedelta(days=40)))
    assert decision.outcome == "waiting"
    assert decision.reason.endswith("but the last training knew more days than these, up to 2013-08-09")


def test_trainings_of_later_days_are_known_and_a_decision_about_the_same_days_is_not_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    retrain = importlib.import_module("spark_jobs.retrain")
    decided = {"model_name": "m", "decision": "retrain", "interval_start": DAY, "interval_end": DAY}
    logs = {
        "ops.models": [{"model_name": "m", "window_end": dt.date(2013, 6, 10)}],
        "ops.retrain_decisions": [decided, decided | {"decision": "waiting", "interval_end": dt.date(2013, 8, 1)}],
    }
    monkeypatch.setattr(
        retrain.ops, "read", lambda table, _=None, *, where: pa.Table.from_pylist(logs[table]).filter(where)
    )

    def last(day: dt.date) -> dt.date:
        return retrain._last_training("m", Interval(day, day))

    assert last(DAY) == dt.date(2013, 6, 10)
    assert last(DAY + dt.timedelta(days=1)) == DAY
    assert last(dt.date(2013, 3, 1)) == DAY  # monitored again, long after
    logs["ops.models"].append({"model_name": "m", "window_end": dt.date(2013, 7, 7)})
    assert last(dt.date(2013, 3, 1)) == last(DAY) == dt.date(2013, 7, 7)


def test_without_a_policy_it_is_not_asked() -> None:
    bare = model_folders.load("flight_delay").model_copy(update={"retrain": None})
    with pytest.raises(NoPolicyError, match=r"models/flight_delay/model\.yaml has no section retrain"):
        decide(bare, Evidence(DAY, [DRIFTED]))


def test_days_of_a_champion_that_has_failed_are_judged_by_what_has_scored_in_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    retrain = importlib.import_module("spark_jobs.retrain")
    policy = spec(drift_share=0.5)

    def of(day: str, role: str, version: int) -> dict[str, Any]:
        about = {"model_name": policy.name, "role": role, "model_version": version}
        return measured(day, 1, metric="drifted_share", segment="all") | about

    log = [
        of("2013-06-02", "fallback_baseline", 1),
        of("2013-06-03", "fallback", 2),  # the share of a challenger that has failed
        of("2013-06-03", "champion", 2),
        of("2013-06-04", "fallback", 1),
        of("2013-06-05", "challenger", 3),
        of("2013-06-05", "fallback_baseline", 2),
        of("2013-06-06", "fallback", 2),
    ]
    events = [
        {"event": "promoted", "model_version": number, "serves_from": dt.date(2013, 6, day)}
        for number, day in ((1, 1), (2, 3), (3, 6))
    ]
    monkeypatch.setattr(retrain.ops, "read", lambda *_, where: pa.Table.from_pylist(log).filter(where))
    monkeypatch.setattr(roles, "events", lambda _: events)
    monkeypatch.setattr(retrain, "window_of", lambda *_: Interval.parse("2013-05-01/2013-06-01"))
    monkeypatch.setattr(retrain, "red_gates", lambda _: [])
    monkeypatch.setattr(retrain, "_last_training", lambda *_: None)

    def judged(version: int, day: str | None) -> list[tuple[str, str, int]]:
        interval = None if day is None else Interval.parse(day)
        found = retrain.gather(policy, version, interval)[0].measures
        return [(str(row["interval_end"]), row["role"], row["model_version"]) for row in found]

    assert judged(2, None) == [("2013-06-05", "fallback_baseline", 2)]
    assert judged(2, "2013-06-04") == [("2013-06-04", "fallback", 1)]
    assert judged(2, "2013-06-03") == [("2013-06-03", "champion", 2)]
    assert judged(3, None) == [("2013-06-06", "fallback", 2)]
    for day in ("2013-06-02", "2013-06-06"):  # another was champion of them
        with pytest.raises(NotMonitoredError):
            judged(2, day)


def test_a_decision_reads_no_more_of_the_log_when_it_is_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    retrain = importlib.import_module("spark_jobs.retrain")
    monkeypatch.setattr(tables, "location", lambda stored: str(tmp_path / stored))
    ops.create()
    policy = spec(drift_share=0.5)
    promoted = {"event": "promoted", "model_version": 1, "serves_from": dt.date(2013, 1, 1)}
    monkeypatch.setattr(roles, "events", lambda _: [promoted])
    monkeypatch.setattr(retrain, "window_of", lambda *_: Interval.parse("2013-05-01/2013-06-10"))
    monkeypatch.setattr(retrain, "red_gates", lambda _: [])
    read, brought = ops.read, []

    def spy(*arguments: Any, **more: Any) -> pa.Table:
        found = read(*arguments, **more)
        brought.append(found.num_rows)
        return found

    monkeypatch.setattr(ops, "read", spy)

    def keep(days: str, **more: Any) -> None:
        whose = {"model_name": policy.name, "model_version": 1, "role": "champion"} | more
        ops.append("ops.model_metrics", [
            measured(str(day), 1, metric=metric, segment="all") | whose
            for day in Interval.parse(days).days() for metric in ("drifted_share", "rows")
        ])  # fmt: skip

    def decided() -> tuple[Evidence, int]:
        brought.clear()
        return retrain.gather(policy, 1, Interval.parse("2013-06-10"))[0], sum(brought)

    keep("2013-05-01/2013-06-10")
    before = decided()
    assert [row["metric"] for row in before[0].measures] == ["drifted_share", "rows"]
    assert len(before[0].defects) == 40 and before[1] < 100
    keep("2012-01-01/2013-04-30")
    keep("2013-06-11/2013-06-30")
    keep("2013-05-01/2013-06-10", model_name="another")
    keep("2013-05-01/2013-06-10", role="challenger", model_version=2)
    assert decided() == before
    assert str(retrain.gather(policy, 1, None)[1]) == "2013-06-30"
