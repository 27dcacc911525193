"""Monitoring on the engine, against pandas, scipy and scikit-learn on the rows themselves; and what a policy says."""

from __future__ import annotations

import datetime as dt
import importlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

import lakehouse
from lakehouse import alerts, dbt_project, ops, release_log, tables
from lakehouse.engine import sql
from lakehouse.interval import Interval
from lakehouse.ml import model_folders, scoring
from lakehouse.ml.leaks import LeakError
from lakehouse.ml.metrics import metric
from lakehouse.ml.model_spec import ModelSpec, Retrain, Search
from lakehouse.monitoring import measuring
from lakehouse.monitoring.measuring import NothingToMonitorError
from lakehouse.registry import registry, roles
from lakehouse.release_log import released
from lakehouse.releases import shift
from lakehouse.releases.audit import GateFailedError, gate
from lakehouse.releases.release import release
from lakehouse.releases.unreleased import withdraw
from lakehouse.settings import settings
from lakehouse.steps import job, step
from tests.made_up_flights import SPEC, WINDOW, flights
from tests.openlineage_receiver import receiving, told, versions_of
from tests.spark.counters import appending, counting
from tests.spark.made_up import forget, give_suites, put

FEATURES, OUTCOMES, TABLE = "gold.watched_features", "gold.watched_outcomes", "ml.watched_predictions"
MODEL = SPEC.name
WEEK, NEXT = Interval.parse("2013-03-01/2013-03-07"), Interval.parse("2013-03-08/2013-03-14")
ALL = Interval(WINDOW.start, NEXT.end)
KNOWN_UNTIL = dt.date(2013, 3, 4)
LATE_REPORTS = [f"2013-03-03_{number}" for number in range(3)]
"""Flights of a day whose other outcomes are known."""
monitor, retrain, train, score = job("monitor"), job("retrain"), job("train"), job("score")


def publish(interval: Interval) -> None:
    version = score(MODEL, interval)["version"]
    verdict = {"table_name": TABLE, "version": version, "verdict": "passed", "checked_at": dt.datetime.now(dt.UTC)}
    ops.append("ops.gate_results", [verdict])
    release([TABLE], interval)


Measured = dict[tuple[str, str], dict[str, Any]]


def measured(interval: Interval) -> Measured:
    return {
        (row["metric"], row["segment"]): row
        for row in ops.read("ops.model_metrics").to_pylist()
        if (row["interval_start"], row["interval_end"]) == (interval.start, interval.end)
    }


@pytest.fixture(scope="module", autouse=True)
def folder(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model that has scored a week, of which four days have outcomes."""
    path = tmp_path_factory.mktemp("model")
    spec = SPEC.model_copy(
        update={
            "features": SPEC.features.model_copy(update={"table": FEATURES}),
            "label": SPEC.label.model_copy(update={"table": OUTCOMES}),
            "monitoring": SPEC.monitoring.model_copy(update={"segments": ["origin"], "segment_rows": 20}),
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_folders, "load", lambda _name: spec)
        patch.setattr(ModelSpec, "predictions_table", TABLE)
        give_suites(patch, path, {TABLE: f"ml.predictions_{MODEL}"})
        patch.setattr(settings(), "mlflow_tracking_uri", f"sqlite:///{path}/mlflow.sqlite")
        registry.connect.cache_clear()
        forget(MODEL)
        registry.connect().create_experiment(spec.name, artifact_location=(path / "artifacts").as_uri())
        features, outcomes = flights(ALL)
        put(FEATURES, features, path)
        put(OUTCOMES, known(outcomes, KNOWN_UNTIL), path)
        train(MODEL, WINDOW)
        publish(WEEK)
        yield path
        forget(MODEL)
    registry.connect.cache_clear()


@pytest.fixture(scope="module")
def of_week(folder: Path) -> Measured:
    """What is measured of the week while it is as ``folder`` has made it."""
    monitor(MODEL, WEEK)
    return measured(WEEK)


def known(outcomes: pd.DataFrame, until: dt.date) -> pd.DataFrame:
    reported = (outcomes["flight_date"] <= until) & ~outcomes["flight_id"].isin(LATE_REPORTS)
    return outcomes.assign(is_late=outcomes["is_late"].where(reported), is_reported=reported)


def scored(interval: Interval) -> pd.DataFrame:
    rows = lakehouse.read(TABLE).merge(lakehouse.read(OUTCOMES), on=["flight_id", "flight_date"])
    return rows[[interval.contains(day) for day in rows["flight_date"]]]


def test_a_week_is_measured_as_pandas_and_scikit_learn_measure_it() -> None:
    with receiving() as backend, appending() as added:
        outcome = monitor(MODEL, WEEK)
    assert added == {"ops.runs": 1, "ops.model_metrics": 1}
    event = told(backend.events, f"monitor.{MODEL}")
    assert backend.faults == []
    read = {table: str(released()[table].version) for table in (FEATURES, OUTCOMES, TABLE)}
    [recorded] = ops.read("ops.runs", where=pc.field("run_id") == event["run"]["runId"]).to_pylist()
    [(log, version)] = recorded["versions_out"]
    assert log == measuring.LOG and (tables.head(log) or 0) - version in (0, 1)  # its files may be put together then
    assert (versions_of(event["inputs"]), versions_of(event["outputs"])) == (read, {log: str(version)})
    output = event["outputs"][0]
    assert {field["name"] for field in output["facets"]["schema"]["fields"]} == set(ops.SCHEMAS[measuring.LOG].names)
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == len(measured(WEEK))
    found = measured(WEEK)
    rows = scored(WEEK)
    labelled = rows[rows["is_late"].notna()].assign(is_late=lambda r: r["is_late"].astype(float))

    def value(name: str, segment: str = "all") -> float:
        return float(found[name, segment]["value"])

    assert value("labels_known") == len(labelled)
    assert value("labels_due") == outcome["champion 1"]["labels_due"] == 180 + 3
    assert (rows["is_late"].isna() & rows["is_reported"]).any()  # cancelled: nothing more is to come
    assert (found["unscored_rows", "all"]["value"], found["unscored_rows", "all"]["verdict"]) == (0, "green")
    y, p = labelled["is_late"], labelled["score"]
    assert value("log_loss") == pytest.approx(sklearn_metrics.log_loss(y, p), rel=1e-9)
    assert value("brier") == pytest.approx(sklearn_metrics.brier_score_loss(y, p), rel=1e-9)
    assert value("auc") == pytest.approx(sklearn_metrics.roc_auc_score(y, p), abs=0.01)
    calibration = metric("calibration_error").of(y.to_numpy(), p.to_numpy(), None)
    assert value("calibration_error") == pytest.approx(calibration, abs=0.02) and calibration > 0.04
    called = p >= SPEC.decision_threshold
    assert value("precision") == pytest.approx(sklearn_metrics.precision_score(y, called))
    assert value("recall") == pytest.approx(sklearn_metrics.recall_score(y, called))
    for origin, part in labelled.groupby("origin"):
        segment, of, said = f"origin={origin}", part["is_late"], part["score"]
        late = said >= SPEC.decision_threshold
        assert value("log_loss", segment) == pytest.approx(sklearn_metrics.log_loss(of, said), rel=1e-9)
        assert value("brier", segment) == pytest.approx(sklearn_metrics.brier_score_loss(of, said), rel=1e-9)
        assert value("auc", segment) == pytest.approx(sklearn_metrics.roc_auc_score(of, said), abs=0.02)
        assert value("precision", segment) == pytest.approx(sklearn_metrics.precision_score(of, late))
        assert value("recall", segment) == pytest.approx(sklearn_metrics.recall_score(of, late))
        assert 0 <= value("calibration_error", segment) < 0.3
    trained = lakehouse.read(OUTCOMES, where=[("flight_date", "<=", WINDOW.end)])["is_late"].astype(float).mean()
    base = sklearn_metrics.log_loss(y, np.full(len(y), trained))
    assert value("baseline") == pytest.approx(base, rel=1e-9)
    assert value("skill") == pytest.approx(1 - value("log_loss") / base)
    assert value("scored_rows") == len(rows)


def test_of_many_segments_the_greatest_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = model_folders.load(MODEL)
    watch = spec.monitoring.model_copy(update={"segments": ["flight_id", "origin"], "segment_rows": 1})
    many = spec.model_copy(update={"monitoring": watch})
    monkeypatch.setattr(model_folders, "load", lambda _name: many)
    monkeypatch.setattr(measuring, "SEGMENTS", 5)
    monitor(MODEL, WEEK)
    found = measured(WEEK)
    segments = {segment for metric, segment in found if metric == "labelled_rows"}
    origins = {f"origin={name}" for name in ("EWR", "JFK", "LGA")}
    assert segments > {"all", *origins} and len(segments) == 1 + 5
    alone = sorted(segments - {"all", *origins})
    assert all(found["labelled_rows", segment]["value"] == 1 for segment in alone)
    # Of one row there is no area under a curve.
    assert [metric for metric, segment in found if segment == alone[0] and metric in ("auc", "brier")] == ["brier"]


def test_of_a_label_without_reports_a_day_is_due_until_a_later_one_has_outcomes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = model_folders.load(MODEL)
    silent = spec.model_copy(update={"label": spec.label.model_copy(update={"reported": None})})
    monkeypatch.setattr(model_folders, "load", lambda _name: silent)
    newest, lost = (Interval(day, day) for day in (KNOWN_UNTIL, KNOWN_UNTIL - dt.timedelta(days=1)))
    outcomes = known(flights(ALL)[1], KNOWN_UNTIL)
    here = (outcomes["flight_date"] != KNOWN_UNTIL) | (np.arange(len(outcomes)) % 2 == 0)
    outcomes["is_late"] = outcomes["is_late"].where(here & (outcomes["flight_date"] != lost.start))
    put(OUTCOMES, outcomes, folder)
    for interval in (newest, lost, WEEK):
        monitor(MODEL, interval)
    half = int(outcomes[outcomes["flight_date"] == KNOWN_UNTIL]["is_late"].isna().sum())
    assert 30 <= half < 40  # the other half of the newest day is there, and cancelled flights have none
    due = [measured(interval)["labels_due", "all"]["value"] for interval in (newest, lost, WEEK)]
    # Of the day before nothing has come, and outcomes of a later one are known: it is given up.
    assert due == [half, 0, half + 3 * 60]
    put(OUTCOMES, known(flights(ALL)[1], KNOWN_UNTIL), folder)


def test_what_a_longer_history_holds_is_neither_read_nor_brought_here(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Monitoring a week costs the same after four months of flights more."""
    brought: list[int] = []
    frame = type(sql("select 1"))
    for name in ("collect", "toPandas"):
        taken = getattr(frame, name)

        def spied(self: Any, taken: Any = taken) -> Any:
            rows = taken(self)
            brought.append(len(rows))
            return rows

        monkeypatch.setattr(frame, name, spied)
    monkeypatch.setattr(release_log, "read", lambda *_, **__: pytest.fail("rows of a table are brought here"))

    def cost() -> tuple[int, int]:
        brought.clear()
        with counting() as count:
            monitor(MODEL, WEEK)
        return count.rows_read, sum(brought)

    features, outcomes = flights(Interval.parse("2012-09-01/2012-12-31"), seed=2)
    before = cost()
    put(FEATURES, features, folder, mode="append")
    put(OUTCOMES, outcomes, folder, mode="append")
    after = cost()
    assert len(features) > 7000 and before[0] > 1000
    assert after[0] - before[0] < 300  # nothing of them but what Delta writes of its log
    assert abs(after[1] - before[1]) <= 2 and after[1] < 1000
    put(FEATURES, flights(ALL)[0], folder)
    put(OUTCOMES, known(flights(ALL)[1], KNOWN_UNTIL), folder)


def test_drift_is_that_of_the_rows_themselves(of_week: Measured) -> None:
    features = lakehouse.read(FEATURES)
    before = features[features["flight_date"] <= WINDOW.end]
    now = features[[WEEK.contains(day) for day in features["flight_date"]]]
    counts = pd.DataFrame({"before": before["carrier"].value_counts(), "now": now["carrier"].value_counts()})
    assert of_week["chi_squared", "feature=carrier"]["value"] == pytest.approx(
        stats.chi2_contingency(counts.T, correction=False).statistic
    )
    name = "carrier_late_rate_28d"
    exact = stats.ks_2samp(before[name].dropna(), now[name].dropna()).statistic
    assert 0.3 * exact <= of_week["ks", f"feature={name}"]["value"] <= exact + 1e-12
    assert of_week["null_share", f"feature={name}"]["value"] == pytest.approx(now[name].isna().mean())
    assert of_week["null_share", f"feature={name}"]["reference"] == pytest.approx(before[name].isna().mean())
    assert of_week["drifted_share", "all"]["value"] == 0
    assert of_week["rows", "all"]["value"] == len(now) == of_week["rows", "all"]["reference"]


def test_drift_of_the_predictions_is_that_of_the_scores_themselves(of_week: Measured) -> None:
    trained_on = lakehouse.read(FEATURES, where=[("flight_date", "<=", WINDOW.end)])
    before = pd.Series(scoring.score(trained_on, registry.fetch(roles.champion(MODEL)))).sort_values()
    now = scored(WEEK)["score"]
    tenths = [-np.inf, *before.iloc[[len(before) * n // 10 - 1 for n in range(1, 10)]], np.inf]
    counts = pd.DataFrame({when: pd.cut(of, tenths).value_counts(sort=False) for when, of in
                           {"before": before, "now": now}.items()})  # fmt: skip
    assert counts["now"].sum() == len(now) == 420
    # No score is null, which has a bin, too; half a row is added to each.
    share = pd.concat([counts, pd.DataFrame({"before": [0], "now": [0]})]) + 0.5
    share /= share.sum()
    index = ((share["now"] - share["before"]) * np.log(share["now"] / share["before"])).sum()
    assert of_week["psi", "score"]["value"] == pytest.approx(index, rel=1e-9)
    assert (of_week["psi", "score"]["reference"], of_week["psi", "score"]["verdict"]) == (SPEC.monitoring.psi, "green")
    distance = (counts["now"].cumsum() / len(now) - counts["before"].cumsum() / len(before)).abs().max()
    assert of_week["ks", "score"]["value"] == pytest.approx(distance, rel=1e-9)
    assert 0 < distance <= stats.ks_2samp(before, now).statistic


def test_scorings_that_have_failed_are_counted_and_the_last_good_one_is_timed(of_week: Measured) -> None:
    before = of_week["scoring_errors", "all"]
    assert (before["value"], before["verdict"]) == (0, "green")
    last = Interval(WEEK.end, WEEK.end)
    with pytest.raises(roles.NoChampionError, match="Version 99 of flight_delay is not the champion"):
        score(MODEL, last, 99)
    monitor(MODEL, WEEK)
    found = measured(WEEK)
    errors, seconds = found["scoring_errors", "all"], found["scoring_seconds", "all"]
    assert (errors["value"], errors["verdict"]) == (1, "yellow")
    runs = ops.read("ops.runs").to_pandas()
    good = runs[(runs["step"] == "score") & (runs["dataset"] == TABLE) & (runs["status"] == "success")]
    [took] = good[good["interval_end"] == WEEK.end]["seconds"]
    assert seconds["value"] == took > 0


def test_measured_again_it_is_replaced_and_outcomes_that_have_arrived_are_no_longer_due(
    folder: Path, of_week: Measured
) -> None:
    before = measured(WEEK)
    others = len(ops.read("ops.model_metrics")) - len(before)
    put(OUTCOMES, flights(ALL)[1], folder)
    monitor(MODEL, WEEK)
    after = measured(WEEK)
    assert len(ops.read("ops.model_metrics")) - len(after) == others
    assert after.keys() == before.keys()
    assert (before["labels_due", "all"]["value"], after["labels_due", "all"]["value"]) == (183, 0)
    assert after["labels_known", "all"]["value"] > before["labels_known", "all"]["value"]
    put(OUTCOMES, known(flights(ALL)[1], KNOWN_UNTIL), folder)


def test_of_a_model_that_nobody_has_trained_nothing_is_measured_and_no_step_has_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without = {name: each for name, each in released().items() if name != TABLE}
    monkeypatch.setattr("spark_jobs.monitor.released", lambda: without)
    monkeypatch.setattr(roles, "events", lambda _name: [])
    with appending() as added, pytest.raises(NothingToMonitorError, match="none were due"):
        monitor(MODEL, WEEK)
    assert added == {}


def test_days_that_should_have_been_scored_are_told_and_others_are_refused(folder: Path) -> None:
    with pytest.raises(NothingToMonitorError, match="has no predictions for 2013-06-01, and none were due"):
        monitor(MODEL, Interval.parse("2013-06-01"))
    with pytest.raises(NothingToMonitorError, match="none were due"):
        monitor(MODEL, WINDOW)  # no version may score what it has seen
    assert monitor(MODEL, NEXT)["champion 1"]["red"] == ["unscored_rows all"]
    found = measured(NEXT)
    row = found["unscored_rows", "all"]
    assert (row["value"], row["verdict"], row["model_version"], row["role"]) == (420, "red", 1, "champion")
    # Their data is measured all the same; there are no scores, and no outcomes of them.
    assert (found["rows", "all"]["value"], found["rows", "all"]["verdict"]) == (420, "green")
    assert found["drifted_share", "all"]["value"] == 0 and found["psi", "feature=carrier"]["value"] < 0.1
    assert not [key for key in found if key[1] == "score" or key[0].startswith(("labels_", "scor"))]
    [cause], _ = alerts.of_measures([row], NEXT)
    assert (cause.rule, cause.table) == ("unscored_rows", f"models.{MODEL}")
    assert retrain(MODEL, NEXT, check=True)["decision"] == "kept"
    features = flights(ALL)[0]
    put(FEATURES, features.drop(columns="plane_seats"), folder)
    assert monitor(MODEL, NEXT)["champion 1"]["red"] == ["unscored_rows all", "changed_columns all"]
    put(FEATURES, features, folder)


def test_sources_that_were_late_for_the_features_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dbt_project, "upstream", lambda tables: [*tables, "bronze.flight_actuals"])
    late = {"table_name": "bronze.flight_actuals", "release_id": 1, "rollback_to": None}
    monkeypatch.setattr(importlib.import_module("spark_jobs.monitor"), "history", lambda: [
        late | {"interval_end": WEEK.end - dt.timedelta(days=3)}
    ])  # fmt: skip
    monitor(MODEL, WEEK)
    stale = measured(WEEK)["stale_days", "all"]
    # Outcomes arrive on the next day: those of two days were missing.
    assert (stale["value"], stale["verdict"]) == (2, "red")
    assert retrain(MODEL, WEEK, check=True)["decision"] == "kept"


def test_scores_that_are_spread_otherwise_do_not_pass_the_gate() -> None:
    day, stored = Interval(NEXT.start, NEXT.start), tables.next_table(TABLE)
    score(MODEL, day)
    seen, made = released()[TABLE].version, tables.head(stored)
    assert made is not None
    [(when, moved)] = sql(shift.query(stored, made, seen, "flight_date", day, 0)).collect()
    scores = lakehouse.read(TABLE)["score"]
    today = sql(f"select score from {stored} where flight_date = date'{day}'").toPandas()["score"]
    edges = np.quantile(scores, np.arange(1, 10) / 10)
    old, new = (np.bincount(np.searchsorted(edges, part, side="left"), minlength=10) for part in (scores, today))
    expected = np.abs(old / old.sum() - new / new.sum()).sum() / 2
    assert when == day.start and moved == pytest.approx(expected) and 0 < moved < 0.5
    # With six days before it a day is not judged.
    assert sql(shift.query(stored, seen, seen, "flight_date", Interval.parse("2013-03-07"), 0)).collect() == []
    commit = tables.last_commit(stored)["userMetadata"]
    sql(f"update {stored} set score = 0.97 + score / 100 where flight_date = date'{day}'", commit).collect()
    with pytest.raises(GateFailedError, match=r"distribution: on no day of 2013-03-08 do 85% of the scores"):
        gate([TABLE], day)
    sql(f"update {stored} set role = 'fallback_baseline' where flight_date = date'{day}'").collect()
    assert sql(shift.query(stored, tables.head(stored) or 0, seen, "flight_date", day, 0)).collect() == []
    with step("withdraw", TABLE, day, writes=stored) as this:
        withdraw(TABLE, this)


def test_the_report_is_kept_with_the_version() -> None:
    page = Path(monitor(MODEL, WEEK)["page"])
    version = roles.champion(MODEL)
    assert registry.kept_text(version, f"monitoring/{page.name}") == page.read_text()
    assert "carrier_late_rate_28d" in page.read_text() and "origin=JFK" in page.read_text()


def spec_with(**policy: Any) -> ModelSpec:
    return model_folders.load(MODEL).model_copy(update={"retrain": Retrain(**policy)})


def test_shifted_features_are_a_cause_and_missing_ones_are_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features, outcomes = flights(ALL)
    numeric = [name for name in SPEC.features.numeric if features[name].dtype == "float64"]
    late = features["flight_date"] >= NEXT.start
    shifted = features.copy()
    shifted.loc[late, numeric] += 1.5 * features[numeric].std()
    put(OUTCOMES, known(outcomes, NEXT.end), folder)
    put(FEATURES, shifted, folder)
    publish(NEXT)
    monitor(MODEL, NEXT)
    assert measured(NEXT)["drifted_share", "all"]["verdict"] == "red"
    checked = retrain(MODEL, NEXT, check=True)
    assert checked["decision"] == "retrain" and "drift" in checked["causes"]
    assert not [row for row in ops.read("ops.retrain_decisions").to_pylist() if row["model_name"] == MODEL]

    day, last = (Interval(each, each) for each in (NEXT.start, NEXT.end))
    holes = shifted.copy()
    holes.loc[holes["flight_date"] == day.start, "plane_seats"] = np.nan
    put(FEATURES, holes, folder)
    monitor(MODEL, day)
    monitor(MODEL, last)
    outcome = retrain(MODEL, last, check=True)
    assert outcome["decision"] == "blocked" and "null_share of plane_seats is 1" in outcome["reason"]
    assert outcome["reason"].endswith(f" on {day}")
    put(FEATURES, shifted, folder)
    monitor(MODEL, day)
    assert retrain(MODEL, last, check=True)["decision"] == "retrain"
    every = spec_with(drift_share=0.5, performance=True, max_age_days=5, new_rows=10)
    with monkeypatch.context() as patch:
        patch.setattr(model_folders, "load", lambda _name: every)
        assert retrain(MODEL, NEXT, check=True)["causes"] == ["drift", "performance", "age", "new data"]

    holes = shifted.copy()
    holes.loc[late & (np.arange(len(holes)) % 3 > 0), "plane_seats"] = np.nan
    put(FEATURES, holes, folder)
    monitor(MODEL, NEXT)
    outcome = retrain(MODEL, NEXT)
    assert outcome["decision"] == "blocked" and "null_share of plane_seats" in outcome["reason"]

    # A third of the flights, and seats that are told in words.
    words = shifted[~late | (np.arange(len(shifted)) % 3 == 0)].assign(plane_seats="many")
    put(FEATURES, words, folder)
    monitor(MODEL, NEXT)
    outcome = retrain(MODEL, NEXT, check=True)
    assert outcome["decision"] == "blocked" and "drift" in outcome["causes"]
    assert "rows is 140, usual is 420" in outcome["reason"] and "changed_columns is 1, usual is 0" in outcome["reason"]

    put(FEATURES, shifted, folder)
    monitor(MODEL, NEXT)
    verdict = {"table_name": FEATURES, "verdict": "failed", "checked_at": dt.datetime.now(dt.UTC)}
    ops.append("ops.gate_results", [verdict])
    outcome = retrain(MODEL, NEXT)
    assert outcome["decision"] == "blocked" and f"the gate of {FEATURES} is red" in outcome["reason"]
    ops.append("ops.gate_results", [verdict | {"verdict": "passed", "checked_at": dt.datetime.now(dt.UTC)}])
    first, again = retrain(MODEL, NEXT), retrain(MODEL, NEXT)
    assert first == again and first["decision"] == "retrain"
    assert first["window"] == str(Interval(NEXT.end - dt.timedelta(days=51), NEXT.end))
    soon = retrain(MODEL, last, check=True)  # other days with the same cause
    assert soon["decision"] == "waiting" and soon["reason"].endswith("but the last training was 0 of 14 days ago")
    log = ops.read("ops.retrain_decisions").sort_by("at").to_pylist()
    decisions = [row for row in log if row["model_name"] == MODEL]
    assert [row["decision"] for row in decisions] == ["blocked", "blocked", "retrain"]

    version = train(MODEL, Interval.parse(first["window"]), "a test", first["reason"])["model_version"]
    assert registry.version(MODEL, version).tags["cause"] == first["reason"]


def test_an_input_that_tells_the_outcome_is_refused_and_nothing_is_registered(folder: Path) -> None:
    features, outcomes = flights(ALL)
    leaky = features.assign(plane_seats=outcomes["is_late"].astype("float64"))
    put(FEATURES, leaky, folder)
    put(OUTCOMES, outcomes, folder)
    versions, events = registry.versions(MODEL), roles.events(MODEL)
    with pytest.raises(LeakError, match="flight_delay: plane_seats tells the outcome by its values"):
        train(MODEL, WINDOW)
    assert registry.versions(MODEL) == versions and roles.events(MODEL) == events
    last = max(ops.read("ops.runs").to_pylist(), key=lambda run: run["ended_at"])
    assert (last["step"], last["status"]) == ("train", "failed") and "plane_seats" in last["error"]
    put(FEATURES, features, folder)


def test_a_search_ends_with_its_time_and_its_trials_are_tracked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two candidates have spaces, and share it; for fifty trials of each there is no time."""
    spec = model_folders.load(MODEL)
    searched = spec.training.model_copy(update={"search": Search(trials=50, seconds=0.4), "folds": 2})
    monkeypatch.setattr(model_folders, "load", lambda _name: spec.model_copy(update={"training": searched}))
    names = ("logistic_regression", "logistic_regression_with_weather")
    chosen = {name: each for name, each in model_folders.candidates(spec).items() if name in ("base_rate", *names)}
    monkeypatch.setattr(model_folders, "candidates", lambda _: chosen)

    def strength(trial: Any) -> dict[str, float]:
        return {"logisticregression__C": trial.suggest_float("C", 1e-3, 1.0, log=True)}

    monkeypatch.setattr(model_folders, "search_spaces", lambda _: dict.fromkeys(names, strength))
    version = registry.version(MODEL, train(MODEL, WINDOW)["model_version"])
    kept = registry.logged(version).parameters
    tried = {name: int(kept[f"search_trials.{name}"]) for name in names}
    assert all(1 <= number < 50 for number in tried.values())
    client = registry.connect()
    experiment = client.get_run(version.run_id).info.experiment_id
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{version.run_id}'")
    assert Counter(run.data.params["candidate"] for run in children) == tried
