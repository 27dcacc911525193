"""Scoring on the engine: the workers' scores, what a row says of itself, and what a second run leaves."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import lakehouse
from lakehouse import cli, locks, ops, release_log, tables
from lakehouse.engine import sql
from lakehouse.interval import Interval
from lakehouse.ml import model_folders
from lakehouse.ml.model_spec import ModelSpec
from lakehouse.registry import comparison, labelled_rows, registry, roles, serving
from lakehouse.release_log import NotReleasedError, released
from lakehouse.releases.audit import GateFailedError, gate
from lakehouse.releases.release import release
from lakehouse.releases.rollback import rollback
from lakehouse.settings import settings
from lakehouse.steps import job
from tests.made_up_flights import SPEC, WINDOW, flights
from tests.spark.counters import appending
from tests.spark.made_up import forget, put
from tests.spark.test_exactly_once import content, killed, killed_from_the_gate_on

train, score = job("train"), job("score")
TABLE = "ml.predictions_flight_delay"
STORED = "ml_next.predictions_flight_delay"
FEATURES, OUTCOMES = "gold.made_up_features", "gold.made_up_outcomes"
DAY, NEXT_DAY = Interval.parse("2013-03-01"), Interval.parse("2013-03-02")


def made_up() -> ModelSpec:
    """flight_delay, as it reads made-up tables of the warehouse."""
    return SPEC.model_copy(
        update={
            "features": SPEC.features.model_copy(update={"table": FEATURES}),
            "label": SPEC.label.model_copy(update={"table": OUTCOMES}),
        }
    )


@pytest.fixture(scope="module", autouse=True)
def model(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelSpec]:
    """flight_delay, reading made-up tables of the warehouse, registered in an MLflow of its own."""
    folder = tmp_path_factory.mktemp("model")
    spec = made_up()
    features, outcomes = flights(Interval(WINDOW.start, dt.date(2013, 3, 3)))
    put(FEATURES, features, folder)
    put(OUTCOMES, outcomes, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_folders, "load", lambda _name: spec)
        patch.setattr(settings(), "mlflow_tracking_uri", f"sqlite:///{folder}/mlflow.sqlite")
        registry.connect.cache_clear()
        registry.connect().create_experiment(spec.name, artifact_location=(folder / "artifacts").as_uri())
        forget(spec.name)
        train(spec.name, WINDOW)
        yield spec
        forget(spec.name)
    registry.connect.cache_clear()


def rows(where: str = "true") -> pd.DataFrame:
    frame: pd.DataFrame = sql(f"select * from {STORED} where {where} order by flight_id").toPandas()
    return frame


def test_every_row_has_the_score_that_the_model_gives_here(model: ModelSpec) -> None:
    outcome = score("flight_delay", DAY)
    stored = rows(f"flight_date = date'{DAY}'")
    features = lakehouse.read(FEATURES, where=[("flight_date", "=", DAY.start)]).sort_values("flight_id")
    champion = roles.champion("flight_delay")
    from lakehouse.ml.scoring import score as score_here

    assert outcome["rows"] == len(stored) == len(features)
    assert stored["score"].to_numpy().tobytes() == score_here(features, registry.fetch(champion)).tobytes()
    assert (stored["decision"] == (stored["score"] >= model.decision_threshold)).all()
    stored["scheduled_departure"] = stored["scheduled_departure"].dt.tz_localize("UTC")
    for column in model.features.kept:
        assert list(stored[column].astype(str)) == list(features[column].astype(str)), column


def test_a_row_says_what_it_was_made_from() -> None:
    score("flight_delay", DAY)
    row = rows(f"flight_date = date'{DAY}'").iloc[0]
    key = f"flight_delay|{row['flight_id']}|2013-03-01"
    assert row["prediction_id"] == hashlib.sha256(key.encode()).hexdigest()[:32]
    assert (row["model_name"], row["model_version"], row["role"]) == ("flight_delay", 1, "champion")
    assert row["release_id"] == released()[FEATURES].release_id
    run = next(entry for entry in ops.read("ops.runs").to_pylist() if entry["run_id"] == row["run_id"])
    assert (run["step"], run["status"], run["rows_in"], run["rows_out"]) == ("score", "success", 60, 60)
    assert dict(run["versions_in"]) == {tables.next_table(FEATURES): released()[FEATURES].version}
    assert abs(row["scored_at"].to_pydatetime() - dt.datetime.now(row["scored_at"].tz)) < dt.timedelta(minutes=5)


def test_training_has_recorded_what_the_columns_are_made_from(model: ModelSpec) -> None:
    found = sql(
        "select source_table, source_column from ops.lineage_columns "
        "where table_name = 'models.flight_delay' and column_name != 'score' and transformation = 'IDENTITY' "
        "and recorded_at = (select max(recorded_at) from ops.lineage_columns)"
    ).collect()
    assert {tuple(row) for row in found} == {(FEATURES, name) for name in model.features.inputs}


def test_a_second_run_leaves_the_same_rows() -> None:
    score("flight_delay", DAY)
    first = rows()
    with appending() as added:
        score("flight_delay", DAY)
    assert added == {"ops.runs": 1}
    own = ["run_id", "scored_at"]
    pd.testing.assert_frame_equal(rows().drop(columns=own), first.drop(columns=own), check_exact=True)


def test_a_scoring_that_is_killed_at_each_of_its_phases_leaves_the_rows_of_a_clean_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings().mlflow_tracking_uri or "")
    score("flight_delay", DAY)
    gate([TABLE], DAY)
    base = release([TABLE], DAY)
    before = content(TABLE)
    score("flight_delay", NEXT_DAY)
    gate([TABLE], NEXT_DAY)
    release([TABLE], NEXT_DAY)
    wanted = content(TABLE)
    rollback(TABLE, base)
    assert content(TABLE) == before != wanted

    for phase in ("before the write", "after data files", "after the commit"):
        killed(phase, NEXT_DAY, "score", table=TABLE, model=__name__)
        assert content(TABLE) == before
    score("flight_delay", NEXT_DAY)
    killed_from_the_gate_on(TABLE, NEXT_DAY, before, wanted)


def test_only_its_own_interval_is_replaced() -> None:
    score("flight_delay", DAY)
    gate([TABLE], DAY)
    release([TABLE], DAY)
    before = lakehouse.read(TABLE)
    score("flight_delay", NEXT_DAY)
    gate([TABLE], NEXT_DAY)
    release([TABLE], NEXT_DAY)
    after = lakehouse.read(TABLE)
    kept, new = (after[after["flight_date"] == day.start] for day in (DAY, NEXT_DAY))
    assert len(kept) == len(new) == 60
    assert set(kept["run_id"]) == set(before[before["flight_date"] == DAY.start]["run_id"])
    assert set(new["run_id"]).isdisjoint(before["run_id"])


def test_a_range_has_the_scores_of_its_days() -> None:
    score("flight_delay", DAY)
    alone = rows(f"flight_date = date'{DAY}'").set_index("prediction_id")["score"]
    outcome = score("flight_delay", Interval(DAY.start, NEXT_DAY.end))
    together = rows().set_index("prediction_id")["score"]
    assert outcome["rows"] == 2 * 60 == together.index.nunique()
    assert np.array_equal(together[alone.index].to_numpy(), alone.to_numpy())


def test_an_interval_without_features_is_refused_and_nothing_is_replaced() -> None:
    from lakehouse.ml.predictions import NothingToScoreError

    score("flight_delay", DAY)
    gate([TABLE], DAY)
    release([TABLE], DAY)
    before = lakehouse.read(TABLE)
    with pytest.raises(NothingToScoreError, match=r"gold\.made_up_features has no rows for 2014-01-01"):
        score("flight_delay", Interval.parse("2014-01-01"))
    pd.testing.assert_frame_equal(lakehouse.read(TABLE), before)


def test_features_that_are_not_released_are_not_scored(tmp_path: Path) -> None:
    pinned = released()[FEATURES].version
    features, _ = flights(DAY, per_day=10)
    assert put(FEATURES, features, tmp_path, visible=False) > pinned
    assert score("flight_delay", DAY)["rows"] == 60


def test_the_champion_is_resolved_once_and_its_version_is_on_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    events = roles.events
    monkeypatch.setattr(roles, "events", lambda name: asked.append(name) or events(name))
    first = events("flight_delay")[0]["model_version"]
    assert score("flight_delay", DAY)["model_version"] == first
    assert asked == ["flight_delay"]
    assert set(rows(f"flight_date = date'{DAY}'")["model_version"]) == {first}


def test_workers_tell_versions_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that has one version loaded does not score with it when another is asked for."""
    score("flight_delay", DAY)
    first = rows(f"flight_date = date'{DAY}'")["score"]
    champion = roles.champion("flight_delay")
    served = registry.fetch(champion)
    from skops import io

    pipeline = io.loads(served.payload, trusted=["numpy.dtype"])
    pipeline[-1].intercept_ += 1.0
    other = dataclasses.replace(served, version=2, payload=io.dumps(pipeline), compiled=b"")
    shift = serving.Shift(DAY, dataclasses.replace(champion, version=2))
    monkeypatch.setattr(serving, "shifts", lambda *_: [shift])
    monkeypatch.setattr(registry, "fetch", lambda _version, *, baseline: other)
    score("flight_delay", DAY)
    second = rows(f"flight_date = date'{DAY}'")
    assert (second["score"] > first).all()
    assert set(second["model_version"]) == {2}


def test_without_champion_or_release_it_says_what_to_do(model: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    other = model.model_copy(update={"features": model.features.model_copy(update={"table": "gold.never_built"})})
    monkeypatch.setattr(model_folders, "load", lambda _name: other)
    with pytest.raises(NotReleasedError, match=r"gold\.never_built has no released version"):
        score("flight_delay", DAY)
    with pytest.raises(NotReleasedError, match=r"gold\.never_built not released"):
        train("flight_delay", WINDOW)
    monkeypatch.setattr(model_folders, "load", lambda _name: model.model_copy(update={"name": "untrained"}))
    with pytest.raises(roles.NoChampionError, match="lake train untrained"):
        score("untrained", DAY)


def test_days_that_the_champion_has_seen_are_not_scored() -> None:
    score("flight_delay", DAY)
    before = rows()
    with pytest.raises(roles.NoChampionError, match=r"may score 2013-02-28.*before 2013-03-01"):
        score("flight_delay", Interval(WINDOW.end, DAY.end))
    pd.testing.assert_frame_equal(rows(), before)


def test_the_comparison_is_made_again_on_the_same_frozen_rows() -> None:
    """What is compared when a version is trained, and when a person asks for it later, are the same rows."""
    first = roles.events("flight_delay")[0]
    assert first["event"] == "promoted" and first["evaluation_rows"] > 300
    spec = model_folders.load("flight_delay")
    version = registry.version("flight_delay", 1)
    days = Interval.parse(registry.logged(version).parameters["test_days"])
    release_id = int(version.tags["release_id"])
    frozen = labelled_rows.read(spec, release_id, days)
    assert comparison.evaluation_set(frozen, spec, None)[1] == first["evaluation_sha256"]


def test_training_again_on_the_same_release_is_the_same_version() -> None:
    again = train("flight_delay", WINDOW)
    assert (again["model_version"], again["roles"]) == (1, ["champion"])
    assert len(registry.versions("flight_delay")) == 1


def reading(monkeypatch: pytest.MonkeyPatch) -> list[pd.DataFrame]:
    """The rows that steps take out of the lake from now on."""
    taken: list[pd.DataFrame] = []
    read = release_log.read

    def spy(*arguments: Any, **more: Any) -> pd.DataFrame:
        taken.append(read(*arguments, **more))
        return taken[-1]

    monkeypatch.setattr(release_log, "read", spy)
    return taken


def test_training_without_a_window_ends_on_the_last_labelled_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """And takes no row of other days, be it of the outcomes."""
    taken = reading(monkeypatch)
    with appending() as added:
        outcome = train("flight_delay")
    assert {"ops.runs", "ops.models"} <= added.keys() and {*added.values()} == {1}
    assert outcome["window"] == "2013-01-11/2013-03-03"
    assert outcome["model_version"] == 2
    days = [(min(rows["flight_date"]), max(rows["flight_date"])) for rows in taken]
    assert len(days) >= 2 and set(days) == {(dt.date(2013, 1, 11), dt.date(2013, 3, 3))}


def test_one_decision_about_a_model_is_made_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    before = roles.events("flight_delay")
    impatient = partial(locks.writer, timeout_seconds=1)
    with locks.writer("models.flight_delay"), monkeypatch.context() as patch:
        patch.setattr(locks, "writer", impatient)
        steps: dict[str, tuple[Any, ...]] = {
            "promote": (2, "at once"), "propose": (2,), "decide": (2, 1, True), "rollback_model": ("at once", 2),
            "train": (WINDOW,),
        }  # fmt: skip
        for name, arguments in steps.items():
            with pytest.raises(locks.TableLockedError, match=r"models\.flight_delay has been locked"):
                job(name)("flight_delay", *arguments)
    assert roles.events("flight_delay") == before


def test_a_person_promotes_and_takes_it_back_and_the_day_is_scored_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Follows the training before it: version 2 is there, and serves from the day after its window."""
    day = Interval.parse("2013-03-04")
    features, outcomes = flights(Interval(WINDOW.start, day.end))
    folder = Path(settings().home)
    put(FEATURES, features, folder)
    put(OUTCOMES, outcomes, folder)
    in_office = roles.champion("flight_delay").version
    if in_office == 1:
        assert job("promote")("flight_delay", 2, "the airline asked for it", "ada")["champion"] == 2
    for each, version in ((DAY, 1), (day, 2)):
        assert score("flight_delay", each)["model_version"] == version
        gate([TABLE], each)
        release([TABLE], each)
    take_back = partial(job("rollback_model"), "flight_delay", "too many false alarms", rescore=True, by="eve")

    def shut(names: list[str], interval: Interval) -> None:
        raise GateFailedError("The gate is shut.")

    with monkeypatch.context() as patch:
        patch.setattr("spark_jobs.rollback_model.gate", shut)
        with pytest.raises(GateFailedError):
            take_back()
    taken = reading(monkeypatch)
    outcome = take_back()  # goes on where it was cut off, and looks at no day that the other has scored
    assert taken and all(set(rows["flight_date"]) <= {day.start} for rows in taken)
    assert (outcome["champion"], outcome["rescored"]) == (1, ["2013-03-04"])
    with pytest.raises(roles.RoleError, match="rolled back already"):
        take_back()
    seen = lakehouse.read(TABLE, where=[("flight_date", "=", day.start)])
    assert set(seen["model_version"]) == {1} and len(seen) == 60
    assert [row["decided_by"] for row in roles.events("flight_delay")][-1] == "eve"
    # The command does the same, to the version that it is told.
    command = ["rollback-model", "flight_delay", "--to", "2", "--reason", "it was right", "--since", "2013-03-05"]
    done = CliRunner().invoke(cli.command_line(), command, catch_exceptions=False)
    assert done.exit_code == 0 and "it was right" in done.output, done.output
    last = roles.events("flight_delay")[-1]
    assert (last["event"], last["model_version"], last["serves_from"]) == ("rolled back", 2, dt.date(2013, 3, 5))
