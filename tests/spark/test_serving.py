"""Who scores which row on the engine: challengers in the shadow or on a share, fallbacks, past days, what if."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pandas as pd
import pytest
from rich.console import Console
from skops import io

import lakehouse
from lakehouse import alerts, ops, tables
from lakehouse.engine import sql
from lakehouse.interval import Interval
from lakehouse.ml import model_folders, routing, scoring, training
from lakehouse.ml.model_spec import ModelSpec, Promotion, Serving
from lakehouse.ml.scoring import ModelFailedError, ServedModel
from lakehouse.provenance import explain, graphs, trees
from lakehouse.provenance.impact import impact
from lakehouse.registry import registry, roles
from lakehouse.registry.pins import Pins
from lakehouse.registry.registry import ModelVersion
from lakehouse.release_log import released
from lakehouse.releases.audit import GateFailedError, gate
from lakehouse.releases.release import release
from lakehouse.settings import settings
from lakehouse.steps import Run, job, user
from tests.made_up_flights import SPEC, WINDOW, flights
from tests.spark.made_up import forget, give_suites, put
from tests.unit.test_regression import SPEC as MINUTES
from tests.unit.test_regression import minutes

train, score, what_if, decide = job("train"), job("score"), job("what_if"), job("decide")
MODEL = SPEC.name
FEATURES, OUTCOMES, TABLE = "gold.served_features", "gold.served_outcomes", "ml.served_predictions"
STORED, SHADOW, WHAT_IF = (
    "ml_next.served_predictions",
    f"ml_shadow.predictions_{MODEL}",
    f"ml_what_if.predictions_{MODEL}",
)
LATER = Interval.parse("2013-01-01/2013-03-03")
BEFORE, DAY, RANGE = map(Interval.parse, ("2013-03-02", "2013-03-05", "2013-03-02/2013-03-05"))
Serve = Callable[..., None]
asked: list[dict[str, Any]] = []


@pytest.fixture(scope="module")
def specs() -> dict[str, ModelSpec]:
    part = {
        "features": SPEC.features.model_copy(update={"table": FEATURES}),
        "label": SPEC.label.model_copy(update={"table": OUTCOMES}),
    }
    return {"now": SPEC.model_copy(update=part)}


@pytest.fixture(scope="module", autouse=True)
def model(engine: None, specs: dict[str, ModelSpec], tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Version 1 is champion from 1 March on; version 2 waits for a person and would serve from 4 March on."""
    folder = tmp_path_factory.mktemp("model")
    features, outcomes = flights(Interval(WINDOW.start, dt.date(2013, 3, 6)))
    put(FEATURES, features, folder)
    put(OUTCOMES, outcomes, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_folders, "load", lambda _name: specs["now"])
        patch.setattr(ModelSpec, "predictions_table", TABLE)
        give_suites(patch, folder, {TABLE: f"ml.predictions_{MODEL}"})
        patch.setattr(settings(), "mlflow_tracking_uri", f"sqlite:///{folder}/mlflow.sqlite")
        registry.connect.cache_clear()
        registry.connect().create_experiment(MODEL, artifact_location=(folder / "artifacts").as_uri())
        forget(MODEL)
        sql(f"drop table if exists {SHADOW}")
        specs["now"] = specs["now"].model_copy(update={"promotion": Promotion(policy="approve")})
        assert train(MODEL, WINDOW)["roles"] == ["challenger"]
        asked.append(job("propose")(MODEL))
        decide(MODEL, 1, None, True, "it looks right", "ada")
        assert train(MODEL, LATER)["roles"] == ["challenger"]
        yield
        forget(MODEL)
    registry.connect.cache_clear()


@pytest.fixture
def serve(specs: dict[str, ModelSpec]) -> Iterator[Serve]:
    """Sets the section ``serving`` of model.yaml."""
    before = specs["now"]

    def serve(**values: Any) -> None:
        specs["now"] = before.model_copy(update={"serving": Serving(**values)})

    yield serve
    specs["now"] = before


def rows(table: str, where: str = "true") -> pd.DataFrame:
    frame: pd.DataFrame = sql(f"select * from {table} where {where} order by flight_date, flight_id").toPandas()
    return frame


def says(version: int, days: Interval = DAY) -> bytes:
    """What a version says of some days, found without the engine."""
    frame = lakehouse.read(FEATURES, where=[("flight_date", ">=", days.start), ("flight_date", "<=", days.end)])
    frame = frame.sort_values(["flight_date", "flight_id"])
    scores: bytes = scoring.score(frame, registry.fetch(registry.version(MODEL, version))).tobytes()
    return scores


def scores(frame: pd.DataFrame) -> bytes:
    return frame["score"].to_numpy().tobytes()


def publish(interval: Interval) -> int:
    gate([TABLE], interval)
    return release([TABLE], interval)


def breaks(monkeypatch: pytest.MonkeyPatch, *versions: int, load: bool = False, silent: bool = False) -> None:
    """Make versions fail: their stored model is damaged, which workers find out, or loading does; or says nothing."""
    fetch = registry.fetch

    def damaged(version: ModelVersion, *, baseline: bool = False) -> ServedModel:
        served = fetch(version, baseline=baseline)
        if version.version not in versions or baseline:
            return served
        if load:
            raise scoring.UntrustedModelError("it holds types that are not trusted")
        payload = served.payload[:-100]
        if silent:
            fitted = io.loads(served.payload, trusted=scoring.TRUSTED)
            fitted[-1].intercept_ *= float("nan")
            payload = io.dumps(fitted)
        return dataclasses.replace(served, payload=payload, compiled=b"")

    monkeypatch.setattr(registry, "fetch", damaged)


def printed(told: dict[str, Any]) -> str:
    """An explanation as a terminal shows it."""
    console = Console(width=1000)
    with console.capture() as capture:
        console.print(trees.of_explanation(told))
    return capture.get()


def open_alerts(about: str = f"serving.{MODEL}") -> list[str]:
    found = [alert for alert in alerts.read() if alert.resolved_at is None]
    return [f"{a.cause.severity} {a.cause.rule}: {a.cause.message}" for a in found if a.cause.table == about]


def test_a_person_who_was_shown_the_comparison_has_decided() -> None:
    [question] = asked
    assert (question["model_version"], question["champion"]) == (1, None)
    assert question["text"].startswith("Version 1 of `flight_delay` against the baseline on 2013-02-22/2013-02-28: log")
    assert "\nOf 5 rules of the gate about its scores, 5 hold.\n" in question["text"]
    waited, decided = roles.events(MODEL)[:2]
    assert (waited["event"], decided["event"], decided["decided_by"]) == ("registered", "promoted", "ada")
    assert decided["reason"].startswith("approved by ada, it looks right; against the baseline on 2013-02-22/2013-02-2")
    assert decided["evaluation_rows"] > 300 and '"promote": true' in decided["evidence"]
    with pytest.raises(roles.RoleError, match="proposed against version None, but version 1 has become champion since"):
        decide(MODEL, 2, None, True)
    assert len(roles.events(MODEL)) == 3  # version 2 still waits


def test_a_challenger_scores_the_same_rows_where_readers_do_not_look() -> None:
    outcome = score(MODEL, RANGE)
    seen, unseen = rows(STORED), rows(SHADOW)
    assert (outcome["model_versions"], outcome["roles"]) == ({1: 240}, {"champion": 240})
    assert scores(seen) == says(1, RANGE)
    # It may not score the days before 4 March, which are in its training window.
    days = Interval.parse("2013-03-04/2013-03-05")
    assert scores(unseen) == says(2, days) != says(1, days)
    assert set(zip(unseen["model_version"], unseen["role"], strict=True)) == {(2, "shadow")}
    run = next(row for row in ops.read("ops.runs").to_pylist() if row["run_id"] == unseen["run_id"][0])
    assert (run["step"], run["status"], run["rows_out"]) == ("shadow", "success", 120)
    assert set(unseen["release_id"]) == set(seen["release_id"]) == {released()[FEATURES].release_id}
    assert TABLE not in released() and open_alerts() == []


def test_the_features_are_read_once_for_all_that_score(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken away after they were counted, they are scored all the same."""
    from spark_jobs import score as module

    plans = []
    write = tables.replace_interval

    def replace_interval(df: Any, *arguments: Any, **more: Any) -> int:
        plans.append(df._explain_string())
        return write(df, *arguments, **more)

    monkeypatch.setattr(module.tables, "replace_interval", replace_interval)
    score(MODEL, DAY)
    assert len(plans) == 2 and all("InMemoryTableScan" in plan for plan in plans)


def test_a_share_of_the_entities_is_the_challengers_and_every_row_says_so(serve: Serve) -> None:
    serve(canary="30%")
    outcome = score(MODEL, RANGE)
    found = rows(STORED)
    drawn = found["flight_id"].map(lambda key: routing.place("canary", MODEL, [key]) < 0.3)
    late = found["flight_date"] > dt.date(2013, 3, 3)
    assert 10 < (drawn & late).sum() < 60
    assert list(found["role"]) == ["challenger" if each else "champion" for each in drawn & late]
    assert list(found["model_version"]) == [2 if each else 1 for each in drawn & late]
    assert outcome["model_versions"] == {1: int((~(drawn & late)).sum()), 2: int((drawn & late).sum())}
    both = {number: struct.unpack("240d", says(number, RANGE)) for number in (1, 2)}
    assert list(found["score"]) == [both[2 if each else 1][at] for at, each in enumerate(drawn & late)]


def test_rows_of_either_version_are_gated_explained_followed_and_made_again(serve: Serve) -> None:
    serve(ab={"experiment": "spring", "share": "50%"})
    counts = score(MODEL, DAY)["model_versions"]
    assert min(counts.values()) > 10
    publish(DAY)
    serve()  # what was drawn then is on the rows
    again = job("reproduce_predictions")(MODEL, DAY)
    assert again["equal"]
    assert {(batch["model_version"], batch["role"], batch["rows"]) for batch in again["batches"]} == {
        (1, "champion", counts[1]), (2, "challenger", counts[2]),
    }  # fmt: skip
    shown = rows(TABLE)
    for role, version in (("champion", 1), ("challenger", 2)):
        wanted = shown[shown["role"] == role].iloc[0]["prediction_id"]
        told = explain.explain(explain.find(wanted, MODEL, DAY.start))
        assert told["model"]["version"] == version == told["prediction"]["model_version"]
        decided = [(each["event"], each["decided_by"]) for each in told["model"]["decisions"]]
        assert decided == ([("registered", user()), ("promoted", "ada")] if version == 1 else [("registered", user())])
        shown_to_a_person = printed(told), graphs.page_of_explanation(told)
        assert all(("it looks right" in each) == (version == 1) for each in shown_to_a_person)
        assert [
            (each["model_version"], each["rows_written"], each["rows_visible"])
            for each in impact(f"{MODEL}@{version}").predictions
            if each["table"] == TABLE and each["rows_visible"]
        ] == [(version, counts[version], counts[version])]
    unseen = impact(f"{MODEL}@2").tables
    assert {(each["table"], each["step"], each["visible_days"], len(each["releases"])) for each in unseen} == {
        (SHADOW, "shadow", "", 0)
    }


def test_a_challenger_that_fails_stops_nobody_and_is_told(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(monkeypatch, 2)
    outcome = score(MODEL, DAY)
    assert outcome["roles"] == {"champion": 60} and outcome["failures"] == []
    last = ops.read("ops.runs").sort_by("ended_at").to_pylist()
    failed = [row for row in last if row["step"] == "shadow"][-1]
    assert failed["status"] == "failed" and "flight_delay version 2 cannot score" in failed["error"]
    [alert] = open_alerts()
    assert alert.startswith("warning shadow: The challenger has not scored 2013-03-05 in the shadow: version 2: Bad")
    skill = {"model_name": MODEL, "model_version": 1, "role": "champion", "run_id": "r", "reference": 0.2,
             "metric": "skill", "segment": "all", "value": 0.1}  # fmt: skip
    alerts.report(*alerts.of_measures([skill | {"verdict": "green"}], DAY))
    assert open_alerts() == [alert]  # monitoring the same days says nothing about who has scored them
    alerts.report(*alerts.of_measures([skill | {"verdict": "red"}], DAY))
    serve(canary="30%", shadow=False)
    outcome = score(MODEL, DAY)
    assert scores(rows(STORED, f"flight_date = date'{DAY}'")) == says(1)
    assert set(outcome["roles"]) == {"champion", "fallback"} and outcome["model_versions"] == {1: 60}
    [alert] = open_alerts()
    assert alert.startswith("critical fallback: challenger version 2 failed (") and "version 1 has scored" in alert
    monkeypatch.undo()
    score(MODEL, DAY)
    assert open_alerts() == []
    [low] = open_alerts(f"models.{MODEL}")  # which a good scoring does not end either
    assert low.startswith("warning skill: champion version 1: skill is 0.1")
    alerts.report(*alerts.of_measures([skill | {"verdict": "green"}], DAY))
    assert open_alerts(f"models.{MODEL}") == []


@pytest.mark.parametrize("load", [False, True], ids=["scoring", "loading"])
def test_without_a_fallback_a_champion_that_fails_stops_the_run(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, load: bool
) -> None:
    score(MODEL, BEFORE)
    publish(BEFORE)
    before = rows(TABLE)
    breaks(monkeypatch, 1, load=load)
    with pytest.raises(ModelFailedError, match=r"(?s)champion of 2013-03-02, version 1, failed: .*serving\.fallback"):
        score(MODEL, BEFORE)
    serve(fallback="previous_version")
    with pytest.raises(ModelFailedError, match="no champion before it to fall back to"):
        score(MODEL, BEFORE)
    pd.testing.assert_frame_equal(rows(TABLE), before)


@pytest.mark.parametrize("silent", [False, True], ids=["damaged", "no numbers"])
def test_the_baseline_scores_in_place_of_a_champion_that_fails_and_can_be_explained(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    serve(fallback="baseline")
    breaks(monkeypatch, 1, silent=silent)
    outcome = score(MODEL, BEFORE)
    assert (outcome["model_versions"], outcome["roles"]) == ({1: 60}, {"fallback_baseline": 60})
    [alert] = open_alerts()
    assert "its baseline has scored in its place" in alert and ("scores are no numbers" in alert) == silent
    publish(BEFORE)
    found = rows(TABLE, f"flight_date = date'{BEFORE}'")
    assert found["score"].nunique() == 1
    assert job("reproduce_predictions")(MODEL, BEFORE)["equal"]
    told = explain.explain(explain.find(found.iloc[0]["prediction_id"], MODEL, BEFORE.start))
    assert told["reasons"]["method"] == "constant"
    assert 0 < found["score"][0] == pytest.approx(1 / (1 + 2.718281828459045 ** -told["reasons"]["base"]))
    monkeypatch.undo()
    assert score(MODEL, BEFORE)["roles"] == {"champion": 60}
    assert open_alerts() == []


def test_predictions_that_are_not_complete_do_not_pass_the_gate() -> None:
    score(MODEL, DAY)
    publish(DAY)
    before = rows(TABLE)
    score(MODEL, DAY)
    commit = tables.last_commit(STORED)["userMetadata"]
    sql(f"delete from {STORED} where flight_id = '2013-03-05_7'", commit).collect()
    with pytest.raises(GateFailedError, match=r"complete: the entities of gold.served_features .*: found 1\b"):
        gate([TABLE], DAY)
    score(MODEL, DAY)
    sql(f"update {STORED} set flight_id = 'another' where flight_id = '2013-03-05_7'", commit).collect()
    with pytest.raises(GateFailedError, match=r"complete: the entities of gold.served_features .*: found 2\b"):
        gate([TABLE], DAY)
    score(MODEL, DAY)
    wrong = "case flight_id when '2013-03-05_7' then null when '2013-03-05_8' then 1.5 else score end"
    sql(f"update {STORED} set score = {wrong} where flight_date = date'{DAY}'", commit).collect()
    with pytest.raises(GateFailedError) as shut:
        gate([TABLE], DAY)
    for rule in (r"to_not_be_null\(score\)", r"to_be_between\(score, 0.0..1.0\)"):
        assert re.search(rf"\[critical\] expect_column_values_{rule}: 1 of \d+ rows break it", str(shut.value)), rule
    pd.testing.assert_frame_equal(rows(TABLE), before)


def test_a_version_that_has_seen_the_outcomes_is_refused_but_for_what_if() -> None:
    past = Interval.parse("2013-02-28/2013-03-01")
    before = rows(STORED)
    with pytest.raises(roles.NoChampionError, match=r"may score 2013-02-28.*--what-if VERSION"):
        score(MODEL, past)
    outcome = what_if(MODEL, past, 1)
    assert (outcome["rows"], outcome["table"], outcome["hindsight"]) == (120, WHAT_IF, True)
    assert not what_if(MODEL, DAY, 2)["hindsight"]
    what_if(MODEL, past, 2)
    what_if(MODEL, past, 1)
    found = rows(WHAT_IF)
    counted = found.groupby(["model_version", "flight_date"])["hindsight"].agg(["size", "sum"])
    assert counted.to_dict("index") == {
        (1, dt.date(2013, 2, 28)): {"size": 60, "sum": 60},
        (1, dt.date(2013, 3, 1)): {"size": 60, "sum": 0},
        (2, dt.date(2013, 2, 28)): {"size": 60, "sum": 60},
        (2, dt.date(2013, 3, 1)): {"size": 60, "sum": 60},
        (2, DAY.start): {"size": 60, "sum": 0},
    }
    assert set(found["role"]) == {"what_if"} and scores(found[found["model_version"] == 1]) == says(1, past)
    pd.testing.assert_frame_equal(rows(STORED), before)


def test_a_range_across_an_appointment_is_scored_by_the_champion_of_each_day(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 2 becomes champion when 5 March has been served by version 1, so of 6 March and later days.

    It could have scored 4 March, too: that is no reason to have another champion of that day afterwards.
    """
    across, served = Interval.parse("2013-03-04/2013-03-06"), Interval.parse("2013-03-04/2013-03-05")
    assert job("promote")(MODEL, 2, "it has seen more", "ada")["champion"] == 2
    asked = []
    events = roles.events
    monkeypatch.setattr(roles, "events", lambda name: asked.append(name) or events(name))
    outcome = score(MODEL, across)
    assert asked == [MODEL]  # a promotion meanwhile would change nothing
    found = rows(STORED, across.sql("flight_date"))
    by_day = found.groupby("flight_date")["model_version"].agg(set).to_dict()
    assert by_day == {dt.date(2013, 3, day): {1 if day < 6 else 2} for day in (4, 5, 6)}
    assert (outcome["model_version"], outcome["model_versions"]) == (2, {1: 120, 2: 60})
    assert scores(found[:120]) == says(1, served)
    publish(across)
    assert job("reproduce_predictions")(MODEL, across)["equal"]
    # And version 1 is there to fall back to, for the days that version 2 may score.
    serve(fallback="previous_version")
    breaks(monkeypatch, 2)
    assert score(MODEL, across)["roles"] == {"champion": 120, "fallback": 60}
    assert scores(rows(STORED, across.sql("flight_date"))) == says(1, across)


def test_a_version_that_cannot_be_compared_fairly_is_kept_out_and_its_training_does_not_fail(
    specs: dict[str, ModelSpec],
) -> None:
    """The last of the story: the champion was fitted on all test days of a version that is trained late."""
    specs["now"] = specs["now"].model_copy(update={"promotion": Promotion()})
    outcome = train(MODEL, Interval.parse("2013-01-01/2013-02-24"))
    assert (outcome["model_version"], outcome["roles"]) == (3, ["challenger"])
    last = roles.events(MODEL)[-1]
    assert (last["event"], last["champion_before"]) == ("kept out", 2)
    assert last["reason"].startswith("not compared: The test days of flight_delay version 3 have no outcomes")
    assert roles.champion(MODEL).version == 2


def test_a_champion_that_mlflow_has_lost_is_replaced_watched_and_succeeded(serve: Serve) -> None:
    """First its files, then its entry in the registry: its training run is still there."""
    day, client = Interval.parse("2013-03-06"), registry.connect()
    source = client.get_model_version(MODEL, "2").source.removeprefix("models:/")
    shutil.rmtree(urlparse(client.get_logged_model(source).artifact_location).path)
    with pytest.raises(ModelFailedError, match="version 2 cannot be loaded"):
        score(MODEL, day)
    serve(fallback="baseline")
    outcome = score(MODEL, day)
    assert (outcome["model_versions"], outcome["roles"]) == ({2: 60}, {"fallback_baseline": 60})
    assert set(rows(STORED, day.sql("flight_date"))["score"]) == {
        float(scoring.score(lakehouse.read(FEATURES), registry.fetch(registry.version(MODEL, 2), baseline=True))[0])
    }
    publish(day)
    assert "fallback_baseline 2" in job("monitor")(MODEL, day)
    decided = job("retrain")(MODEL, day, check=True)
    assert (decided["interval"], decided["decision"], decided["causes"]) == (str(day), "waiting", ["performance"])

    number = train(MODEL, Interval.parse("2013-01-01/2013-03-05"))["model_version"]
    assert job("propose")(MODEL, number) is None
    for event in roles.events(MODEL)[-2:]:
        assert (event["model_version"], event["event"]) == (number, "kept out")
        assert event["reason"].startswith("not compared: The champion has failed: flight_delay version 2 cannot be loa")
        assert event["reason"].endswith(f"lake promote {MODEL}@{number} --reason WHY.")
    client.delete_model_version(MODEL, "2")
    for policy, roles_, versions in (
        ("baseline", {"fallback_baseline": 60}, {2: 60}),
        ("previous_version", {"fallback": 60}, {1: 60}),
    ):
        serve(fallback=policy)
        outcome = score(MODEL, day)
        assert (outcome["roles"], outcome["model_versions"]) == (roles_, versions)
    publish(day)
    assert job("retrain")(MODEL, day, check=True)["decision"] == "waiting"  # of what was measured
    assert job("promote")(MODEL, number, "the other is gone", "ada")["champion"] == number
    assert registry.version(MODEL, number).aliases == ("champion",)


def test_a_regression_is_served_the_same_way(
    specs: dict[str, ModelSpec], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The mean of the training days challenges, so it is plain who has scored a row."""
    serving = Serving(canary="50%", fallback="previous_version")
    spec = MINUTES.model_copy(
        update={"features": MINUTES.features.model_copy(update={"table": FEATURES}), "serving": serving}
    )
    specs["now"] = spec
    monkeypatch.setattr(ModelSpec, "predictions_table", "ml.served_minutes")
    registry.connect().create_experiment(spec.name, artifact_location=(tmp_path / "artifacts").as_uri())
    forget(spec.name)
    trained = training.train(training.training_frame(*minutes(), spec), model_folders.candidates(spec), spec, WINDOW)
    mean = dataclasses.replace(trained, pipeline=trained.baseline_pipeline, compiled=b"", predictions_sha256="mean")
    pins = Pins.of(spec, WINDOW, {FEATURES: 1}, released()[FEATURES].release_id, "0123abc", "4f0c")
    best, other, third = (
        registry.register(spec, each, pins, "run")
        for each in (trained, mean, dataclasses.replace(mean, predictions_sha256="mean again"))
    )
    step = Run("promote", spec.name, None)
    roles.appoint(spec, other, roles.PROMOTED, "the first", "ada", step)
    roles.appoint(spec, best, roles.PROMOTED, "it is better", "ada", step)
    roles.register(spec, third, "ada", step)
    plots = {each.path for each in registry.connect().list_artifacts(best.run_id, "plots")}
    assert plots == {f"plots/{name}.png" for name in ("calibration", "importances", "residuals")}
    outcome = score(spec.name, DAY)
    found = rows("ml_next.served_minutes")
    assert outcome["roles"] == {
        "challenger": 60 - outcome["roles"]["champion"],
        "champion": outcome["roles"]["champion"],
    }
    assert "decision" not in found.columns
    assert (found["score"] == trained.mean_outcome).tolist() == (found["role"] == "challenger").tolist()
    assert len(rows(spec.shadow_table)) == 60
    breaks(monkeypatch, best.version)
    outcome = score(spec.name, DAY)
    assert outcome["model_versions"].keys() == {other.version, third.version}
    assert set(outcome["roles"]) == {"fallback", "challenger"}
