"""Which version is champion on which day, decided on evidence or by a person's word: real MLflow, real Delta."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import shutil
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from lakehouse import cli, ops, tables
from lakehouse.interval import Interval
from lakehouse.ml import training
from lakehouse.ml.model_spec import ModelSpec, Promotion, Serving
from lakehouse.ml.scoring import ModelFailedError, score
from lakehouse.quality import suites
from lakehouse.registry import comparison, model_versions, plots, registry, roles, serving
from lakehouse.registry.pins import Pins
from lakehouse.registry.promotion import ComparisonError
from lakehouse.registry.registry import ModelVersion
from lakehouse.registry.serving import Crew
from lakehouse.steps import Run
from tests.made_up_flights import SPEC, flights, train

NAME, TABLE = SPEC.name, SPEC.features.table
STEP = Run("promote", NAME, None)
FIRST, LATER = Interval.parse("2013-01-01/2013-02-28"), Interval.parse("2013-01-01/2013-03-07")


@pytest.fixture(autouse=True)
def lake(mlflow_client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An MLflow and a lake with nothing in them, and nobody who looks at plots."""
    monkeypatch.setattr(tables, "location", lambda stored: str(tmp_path / "lake" / stored))
    monkeypatch.setattr(plots, "draw", lambda *_: [])


@pytest.fixture(scope="module")
def weak() -> training.Trained:
    """Learnt where outcomes depend on the features only a little."""
    return train(*flights(per_day=150, signal=0.8))


@pytest.fixture(scope="module")
def good() -> training.Trained:
    """Learnt from outcomes that depend on them, on days up to a week later."""
    return train(*flights(LATER, per_day=150), LATER)


def registered(trained: training.Trained, window: Interval, version: int) -> ModelVersion:
    pins = Pins.of(SPEC, window, {SPEC.features.table: version}, version, "0123abc", "4f0c")
    return registry.register(SPEC, trained, pins, f"run-{version}")


def contest(trained: training.Trained, window: Interval, version: int, spec: ModelSpec = SPEC) -> ModelVersion:
    challenger = registered(trained, window, version)
    comparison.contest(spec, challenger, trained.test, STEP, "ada")
    return registry.version(NAME, challenger.version)


def aliases() -> dict[int, tuple[str, ...]]:
    return {one.version: registry.version(NAME, one.version).aliases for one in registry.versions(NAME)}


def test_without_training_there_is_no_champion() -> None:
    with pytest.raises(roles.NoChampionError, match="lake train flight_delay"):
        roles.champion(NAME)


def test_the_first_version_has_to_beat_its_baseline(weak: training.Trained) -> None:
    version = contest(weak, FIRST, 1)
    assert version.aliases == ("champion",)
    assert version.tags["role_reason"].startswith("promoted: against the baseline on 2013-02-22/2013-02-28: log_loss")


def test_what_does_not_beat_its_baseline_does_not_score(weak: training.Trained) -> None:
    useless = dataclasses.replace(weak, pipeline=weak.baseline_pipeline)
    version = contest(useless, FIRST, 1)
    assert version.aliases == ("challenger",)
    assert "not lower beyond doubt" in version.tags["role_reason"]
    with pytest.raises(roles.NoChampionError):
        roles.champion(NAME)


def test_a_better_version_takes_over_and_an_equal_one_does_not(weak: training.Trained, good: training.Trained) -> None:
    contest(weak, FIRST, 1)
    better = contest(good, LATER, 2)
    assert better.aliases == ("champion",) and "against version 1" in better.tags["role_reason"]
    equal = contest(dataclasses.replace(good, predictions_sha256="other"), LATER, 3)
    assert equal.aliases == ("challenger",)
    assert aliases() == {1: (), 2: ("champion",), 3: ("challenger",)}
    assert [row["event"] for row in roles.events(NAME)] == ["promoted", "promoted", "kept out"]


def test_a_version_that_is_better_than_the_champion_has_to_beat_its_baseline_as_well(
    weak: training.Trained, good: training.Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    contest(weak, FIRST, 1)
    fetch = registry.fetch
    # A baseline that is as good as the version itself.
    monkeypatch.setattr(registry, "fetch", lambda version, baseline=False: fetch(version))
    second = contest(good, LATER, 2)
    assert second.aliases == ("challenger",)
    assert "its loss is not below that of the baseline beside it" in roles.events(NAME)[-1]["reason"]


def test_the_evidence_is_kept(weak: training.Trained, good: training.Trained) -> None:
    contest(weak, FIRST, 1)
    contest(good, LATER, 2)
    row = roles.events(NAME)[-1]
    assert (row["champion_before"], row["decided_by"], row["release_id"]) == (1, "ada", 2)
    # The last seven days of the second; the first was fitted up to 21 February.
    assert (row["evaluation_start"], row["evaluation_end"]) == (dt.date(2013, 3, 1), dt.date(2013, 3, 7))
    assert row["evaluation_rows"] == len(good.test) and len(row["evaluation_sha256"]) == 64
    evidence = json.loads(row["evidence"])
    assert evidence["difference"]["rows"] == len(good.test)
    assert evidence["difference"]["high"] < 0 and set(evidence["guards"]) == {"calibration_error"}


def test_days_that_the_champion_was_fitted_on_do_not_count(weak: training.Trained, good: training.Trained) -> None:
    contest(good, LATER, 1)  # fitted up to 28 February
    with pytest.raises(ComparisonError, match=r"fitted on \(up to 2013-02-28\)"):
        contest(weak, FIRST, 2)
    assert roles.champion(NAME).version == 1


def test_a_day_is_scored_by_who_could_have_scored_it(weak: training.Trained, good: training.Trained) -> None:
    contest(weak, FIRST, 1)
    contest(good, LATER, 2)
    served = {day: roles.champion(NAME, dt.date(2013, 3, day)).version for day in (1, 7, 8, 20)}
    assert served == {1: 1, 7: 1, 8: 2, 20: 2}
    assert roles.champion(NAME, dt.date(2013, 3, 7), expected=1).version == 1
    with pytest.raises(roles.NoChampionError, match=r"Version 2 of .* not the champion of 2013-03-07.* version 1"):
        roles.champion(NAME, dt.date(2013, 3, 7), expected=2)
    with pytest.raises(roles.NoChampionError, match=r"may score 2013-02-28.*before 2013-03-01"):
        roles.champion(NAME, dt.date(2013, 2, 28))


def test_a_rollback_gives_all_days_to_the_earlier_one(weak: training.Trained, good: training.Trained) -> None:
    contest(weak, FIRST, 1)
    contest(good, LATER, 2)
    roles.appoint(SPEC, roles.previous(NAME), roles.ROLLED_BACK, "wrong at JFK", "eve", STEP)
    assert aliases() == {1: ("champion",), 2: ()}
    assert {roles.champion(NAME, dt.date(2013, 3, day)).version for day in (1, 8, 20)} == {1}
    with pytest.raises(roles.RoleError, match="rolled back already, from version 2 to 1"):
        roles.previous(NAME)


def test_a_rollback_can_leave_the_past_as_it_was(weak: training.Trained, good: training.Trained) -> None:
    contest(weak, FIRST, 1)
    contest(good, LATER, 2)
    since = dt.date(2013, 3, 15)
    roles.appoint(SPEC, roles.previous(NAME), roles.ROLLED_BACK, "wrong at JFK", "eve", STEP, since)
    assert [roles.champion(NAME, dt.date(2013, 3, day)).version for day in (7, 14, 15)] == [1, 2, 1]


def test_a_person_appoints_only_with_a_reason_and_for_days_the_version_has_not_seen(weak: training.Trained) -> None:
    version = contest(weak, FIRST, 1)
    with pytest.raises(roles.RoleError, match="needs a reason"):
        roles.appoint(SPEC, version, roles.PROMOTED, " ", "eve", STEP)
    with pytest.raises(roles.RoleError, match="champion already"):
        roles.appoint(SPEC, version, roles.PROMOTED, "because", "eve", STEP)
    with pytest.raises(roles.RoleError, match="has seen data of 2013-02-20: it serves from 2013-03-01"):
        roles.appoint(SPEC, version, roles.PROMOTED, "because", "eve", STEP, dt.date(2013, 2, 20))
    assert len(roles.events(NAME)) == 1


def test_what_was_left_behind_in_the_registry_is_put_right(weak: training.Trained) -> None:
    version = contest(weak, FIRST, 1)
    registry.set_reason(NAME, version.version, "of before")
    registry.set_alias(NAME, registry.CHAMPION, None)
    registry.set_alias(NAME, registry.CHALLENGER, version.version)
    roles.show(NAME)
    assert aliases() == {1: ("champion",)}
    assert registry.version(NAME, 1).tags["role_reason"] == version.tags["role_reason"]


def test_the_policy_of_the_model_decides(weak: training.Trained, good: training.Trained) -> None:
    contest(weak, FIRST, 1)
    strict = SPEC.model_copy(update={"promotion": Promotion(min_effect=10.0)})
    kept = contest(good, LATER, 2, strict)
    assert kept.aliases == ("challenger",) and "lower by less than 10.0" in kept.tags["role_reason"]
    assert ops.read("ops.model_events").num_rows == 2


def test_a_challenger_has_to_say_what_its_gate_lets_pass(
    weak: training.Trained, good: training.Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contest(weak, FIRST, 1)
    table = f"ml.predictions_{NAME}"
    suite = json.loads(suites.suite_path(table).read_text())
    [bounds] = [e for e in suite["expectations"] if e["kwargs"].get("column") == "score" and "max_value" in e["kwargs"]
                and e["severity"] == "critical"]  # fmt: skip
    bounds["kwargs"]["max_value"] = float(np.quantile(good.scores, 0.9))
    monkeypatch.setattr(suites, "SUITES_DIR", tmp_path)
    suites.suite_path(table).parent.mkdir()
    suites.suite_path(table).write_text(json.dumps(suite))
    second = contest(good, LATER, 2)
    row = roles.events(NAME)[-1]
    assert second.aliases == ("challenger",) and row["event"] == "kept out"
    above = int((good.scores > bounds["kwargs"]["max_value"]).sum())
    assert f"{above} of {len(good.test)} rows break it" in row["reason"]
    assert json.loads(row["evidence"])["guards"].keys() == SPEC.promotion.guards.keys() == {"calibration_error"}
    found = json.loads(row["evidence"])["gate"]
    assert found["expect_column_values_to_not_be_null(score)"] and list(found.values()).count(False) == 1
    suites.suite_path(table).unlink()
    with pytest.raises(
        ComparisonError, match=r"not be released: ml\.predictions_flight_delay has no expectation suite"
    ):
        contest(dataclasses.replace(good, predictions_sha256="other"), LATER, 3)


@pytest.mark.parametrize(("approved", "event"), [(True, "promoted"), (False, "rejected")])
def test_a_person_confirms_what_was_won_or_turns_it_down(
    weak: training.Trained, good: training.Trained, approved: bool, event: str
) -> None:
    contest(weak, FIRST, 1)
    better = registered(good, LATER, 2)
    roles.register(SPEC, better, "eve", STEP)
    assert registry.version(NAME, 2).tags["role_reason"].startswith("registered: waits for an approval, in the DAG ")
    assert aliases() == {1: ("champion",), 2: ("challenger",)}
    compared = comparison.compare(SPEC, better, good.test)
    assert compared.champion == 1 and compared.decision.promote
    roles.decide(SPEC, better, compared, STEP, "ada", approved, "seen with the airline")
    row = roles.events(NAME)[-1]
    assert (row["event"], row["decided_by"], row["evaluation_rows"]) == (event, "ada", len(good.test))
    answer = "approved" if approved else "turned down"
    assert row["reason"].startswith(f"{answer} by ada, seen with the airline; against version 1 on 2013-03-01/2013-03-")
    assert json.loads(row["evidence"])["difference"]["high"] < 0
    assert aliases() == ({1: (), 2: ("champion",)} if approved else {1: ("champion",), 2: ()})


def test_a_version_that_did_not_win_is_not_promoted_by_an_approval(weak: training.Trained) -> None:
    contest(weak, FIRST, 1)
    equal = registered(dataclasses.replace(weak, predictions_sha256="other"), FIRST, 2)
    compared = comparison.compare(SPEC, equal, weak.test)
    assert roles.decide(SPEC, equal, compared, STEP, "ada", True)["event"] == "rejected"
    assert roles.champion(NAME).version == 1


def test_rows_without_a_column_that_the_champion_needs_are_no_fair_comparison(
    weak: training.Trained, good: training.Trained
) -> None:
    contest(weak, FIRST, 1)
    narrow = good.test.drop(columns=SPEC.features.numeric[0])
    with pytest.raises(ComparisonError, match=rf"have no {SPEC.features.numeric[0]}, which the champion, version 1"):
        comparison.compare(SPEC, registered(good, LATER, 2), narrow)


def lose(number: int, how: str, client: MlflowClient) -> None:
    """Have a version be no more: its stored model, or its entry in the registry."""
    if how == "entry":
        client.delete_model_version(NAME, str(number))
        return
    source = client.get_model_version(NAME, str(number)).source
    shutil.rmtree(urlparse(client.get_logged_model(source.removeprefix("models:/")).artifact_location).path)


def known(version: ModelVersion) -> ModelVersion:
    """A version that the lake knows, as one that was trained is."""
    row = {"model_name": NAME, "model_version": version.version, "mlflow_run_id": version.run_id}
    ops.append("ops.models", [row])
    return version


def test_a_version_that_was_deleted_is_kept_with_its_pins_and_scores_no_more(
    good: training.Trained, mlflow_client: MlflowClient
) -> None:
    version = registered(good, LATER, 1)
    stored = registry.fetch(version)
    pins = {"release_id": 1, "code_version": "0123abc", "seed": SPEC.training.seed, "versions": [(TABLE, 1)]}
    window = {"window_start": LATER.start, "window_end": LATER.end}
    row = {"model_name": NAME, "model_version": 1, "mlflow_run_id": version.run_id}
    ops.append("ops.models", [row | pins | window])
    lose(1, "entry", mlflow_client)
    found = model_versions.find(NAME, 1)
    assert (found.deleted, found.run_id, found.aliases) == (True, version.run_id, ())
    assert found.tags.keys() == {"release_id", "code_version", "seed", "training_window", f"version.{TABLE}"}
    assert found.tags.items() <= version.tags.items()
    assert model_versions.fetch(found) == dataclasses.replace(stored, compiled=b"")
    printed = CliRunner().invoke(cli.command_line(), ["models", f"{NAME}@1", "--card"], catch_exceptions=False)
    assert printed.stdout.strip() == registry.card(version).strip() != ""
    with pytest.raises(ModelFailedError, match="version 1 cannot be loaded: it was deleted from the registry"):
        model_versions.fetch_to_score(found)
    with pytest.raises(registry.UnknownVersionError, match="no version 7"):
        model_versions.find(NAME, 7)


def test_the_version_of_another_platform_is_not_taken_for_ours(good: training.Trained) -> None:
    version = registered(good, LATER, 1)
    ops.append("ops.models", [{"model_name": NAME, "model_version": 1, "mlflow_run_id": "ours"}])
    for find in (model_versions.find, model_versions.find_or_unknown):
        with pytest.raises(registry.AnotherVersionError, match=f"by the MLflow run ours, .* {version.run_id}: is"):
            find(NAME, 1)


def crew(columns: list[str], **policy: str) -> tuple[list[serving.Part], Crew]:
    """Who scores 8 March, on which both versions may serve."""
    found = Crew(SPEC.model_copy(update={"serving": Serving(**policy)}), set(columns))
    return found.parts(serving.shifts(NAME, Interval.parse("2013-03-08"))), found


@pytest.mark.parametrize("how", ["files", "entry"])
def test_a_champion_that_is_gone_is_replaced_as_declared(
    weak: training.Trained, good: training.Trained, mlflow_client: MlflowClient, how: str
) -> None:
    for number, (trained, window) in enumerate([(weak, FIRST), (good, LATER)], 1):
        known(contest(trained, window, number))
    lose(2, how, mlflow_client)
    columns = list(good.test.columns)
    [part], found = crew(columns, fallback="baseline")
    assert (part.role, part.served.version, part.served.threshold) == ("fallback_baseline", 2, SPEC.decision_threshold)
    assert set(score(good.test, part.served)) == {good.mean_outcome}
    assert "champion version 2 failed (flight_delay version 2 cannot be loaded: " in str(found.failures[0])
    assert model_versions.that_scored(NAME, {"model_version": 2, "role": part.role}) == part.served
    [part], _ = crew(columns, fallback="previous_version")
    assert (part.role, part.served.version) == ("fallback", 1)
    assert (
        score(good.test, part.served).tobytes() == training.scored(good.test, weak, SPEC)["score"].to_numpy().tobytes()
    )
    with pytest.raises(ModelFailedError, match=r"version 2, failed: .*cannot be loaded.*`serving\.fallback`"):
        crew(columns)


@pytest.mark.parametrize("how", ["files", "entry"])
def test_a_challenger_or_a_version_before_that_is_gone_is_in_nobodys_way(
    weak: training.Trained, good: training.Trained, mlflow_client: MlflowClient, how: str
) -> None:
    contest(weak, FIRST, 1)
    contest(good, LATER, 2)
    roles.register(SPEC, registered(dataclasses.replace(good, predictions_sha256="other"), LATER, 3), "eve", STEP)
    for number in (1, 3):
        lose(number, how, mlflow_client)
    columns = list(good.test.columns)
    parts, found = crew(columns)
    assert [(part.role, part.served.version) for part in parts] == [("champion", 2)] and found.failures == []
    parts, found = crew(columns, canary="10%")
    assert [(part.role, part.served.version) for part in parts] == [("champion", 2), ("fallback", 2)]
    assert str(found.failures[0]).startswith("challenger version 3 failed (flight_delay version 3 cannot be loaded: ")


@pytest.mark.parametrize("how", ["files", "entry", "rows"])
def test_a_champion_that_has_failed_cannot_be_compared_with_and_a_person_replaces_it(
    weak: training.Trained,
    good: training.Trained,
    mlflow_client: MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    known(contest(weak, FIRST, 1))
    second = registered(good, LATER, 2)
    if how == "rows":  # it is there, and does not take them
        monkeypatch.setattr(comparison, "score", lambda rows, by: 1 / 0 if by.version == 1 else score(rows, by))
    else:
        lose(1, how, mlflow_client)
    with pytest.raises(
        ComparisonError, match=r"cannot (be loaded|score): .* lake promote flight_delay@2 --reason WHY"
    ) as e:
        comparison.compare(SPEC, second, good.test)
    roles.keep_out(SPEC, second, str(e.value), "eve", STEP)
    assert registry.version(NAME, 2).aliases == ("challenger",)
    roles.appoint(SPEC, second, roles.PROMOTED, "the other is gone", "ada", STEP)
    assert registry.version(NAME, 2).aliases == ("champion",)
    assert roles.champion(NAME).version == 2
