"""A version waits in Airflow, a person who may approves it by REST, and the next one scores a tenth of the flights."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from typing import Any

import httpx
import pytest

from lakehouse.airflow_client import AirflowClient, AirflowError
from lakehouse.ml import routing
from tests.platforms import PROJECT, Platform

MODEL = "flight_delay_minutes"
"""Whose ``model.yaml`` has the policy ``approve``, and a canary of 10 %."""
DAY = "2013-03-03"
FIRST, NEXT = "2013-01-08/2013-02-28", "2013-01-12/2013-03-02"
PATIENCE = 120


def person(airflow: AirflowClient, platform: Platform, name: str, role: str) -> AirflowClient:
    """Somebody who has a role in Airflow, made and logged in by REST."""
    admin = {"username": "admin", "password": platform.secret("airflow_admin_password")}
    token = httpx.post(f"{airflow.url}/auth/token", json=admin).raise_for_status().json()["access_token"]
    user = {"username": name, "email": f"{name}@example.com", "first_name": name, "last_name": role, "password": name}
    httpx.post(
        f"{airflow.url}/auth/fab/v1/users",
        json={**user, "roles": [{"name": role}]},
        headers={"Authorization": f"Bearer {token}"},
    ).raise_for_status()
    return AirflowClient(airflow.url, name, name)


def train(airflow: AirflowClient, window: str) -> str:
    """Train, and return the run of the DAG that promotes, which starts by itself."""
    known = proposals(airflow)
    airflow.wait(f"train_{MODEL}", airflow.trigger(f"train_{MODEL}", conf={"window": window}), timeout=300)
    return proposed(airflow, known)


def proposals(airflow: AirflowClient) -> set[str]:
    return {run["dag_run_id"] for run in airflow.runs(f"promote_{MODEL}")}


def proposed(airflow: AirflowClient, known: set[str]) -> str:
    """The run of the DAG that promotes which a training has started."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for run in airflow.runs(f"promote_{MODEL}"):
            if run["dag_run_id"] not in known:
                assert run["run_type"] == "asset_triggered"
                return str(run["dag_run_id"])
        time.sleep(0.5)
    raise TimeoutError(f"No run of promote_{MODEL} has followed the training.")


def question(airflow: AirflowClient, run_id: str) -> dict[str, Any]:
    """What a person is asked, once the task waits for an answer."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        [ask] = [task for task in airflow.tasks(f"promote_{MODEL}", run_id) if task["task_id"] == "ask"]
        if ask["state"] in ("awaiting_input", "deferred"):
            # Airflow loses an answer that it gets before it has noticed that the process which asked has ended.
            time.sleep(2)
            found: dict[str, Any] = airflow.request("GET", path(run_id))
            return found
        assert ask["state"] not in ("failed", "skipped", "upstream_failed"), ask
        time.sleep(0.5)
    raise TimeoutError(f"The run {run_id} of promote_{MODEL} has not come to its question.")


def path(run_id: str) -> str:
    return f"/dags/promote_{MODEL}/dagRuns/{run_id}/taskInstances/ask/-1/hitlDetails"


def answer(who: AirflowClient, run_id: str, chosen: str = "Approve", note: str = "seen with the airline") -> Any:
    given = {"chosen_options": [chosen], "params_input": {"note": note}}
    found: dict[str, Any] = who.request("PATCH", path(run_id), json=given)
    return found


def events(platform: Platform) -> list[tuple[Any, ...]]:
    return platform.sql(
        f"select model_version, event, decided_by, reason, evidence from ops.model_events where model_name = '{MODEL}' "
        "order by at"
    )


def aliases(platform: Platform) -> dict[str, int]:
    """The roles that MLflow shows."""
    found = platform.mlflow("registered-models/get", name=MODEL)["registered_model"]
    return {each["alias"]: int(each["version"]) for each in found.get("aliases", [])}


def states(airflow: AirflowClient, dag_id: str, run_id: str) -> dict[str, str]:
    return {task["task_id"]: task["state"] for task in airflow.tasks(dag_id, run_id)}


def test_a_version_waits_until_somebody_who_may_has_turned_it_down_and_then_approved_it(
    platform: Platform, airflow: AirflowClient
) -> None:
    run_id = train(airflow, FIRST)
    asked = question(airflow, run_id)
    assert asked["subject"] == f"Make version 1 of {MODEL} champion?"
    assert asked["body"].startswith(
        f"Version 1 of `{MODEL}` against the baseline on 2013-02-22/2013-02-28: mean_squared"
    )
    assert "| mean loss (6239 rows) |" in asked["body"] and "Of 4 rules of the gate" in asked["body"]
    assert asked["options"] == ["Approve", "Reject"] and not asked["response_received"]
    assert [user["id"] for user in asked["assigned_users"]] == ["role:Admin", "role:Op"]
    assert [event[:2] for event in events(platform)] == [(1, "registered")]
    assert aliases(platform) == {"challenger": 1}

    # Meanwhile there is nobody who may score; the day is left out, and is no failure.
    scoring = airflow.trigger(f"score_{MODEL}", DAY)
    airflow.wait(f"score_{MODEL}", scoring, timeout=PATIENCE)
    assert set(states(airflow, f"score_{MODEL}", scoring).values()) == {"skipped"}

    with person(airflow, platform, "eve", "User") as eve, pytest.raises(AirflowError, match="not a respondent") as no:
        answer(eve, run_id)
    assert no.value.status == 403
    assert not airflow.request("GET", path(run_id))["response_received"] and len(events(platform)) == 1

    with person(airflow, platform, "ada", "Op") as ada:
        answer(ada, run_id, "Reject", "not before the summer")
        airflow.wait(f"promote_{MODEL}", run_id, timeout=PATIENCE)
        assert states(airflow, f"promote_{MODEL}", run_id)["decide"] == "success"
        _, (version, event, by, reason, evidence) = events(platform)
        assert (version, event, by) == (1, "rejected", "ada") and json.loads(evidence)["promote"]
        assert reason.startswith("turned down by ada, not before the summer; against the baseline on 2013-02-22/")
        assert aliases(platform) == {}  # it is not even a challenger

        # Another time, by its number.
        run_id = airflow.trigger(f"promote_{MODEL}", conf={"version": 1})
        assert question(airflow, run_id)["subject"] == f"Make version 1 of {MODEL} champion?"
        assert answer(ada, run_id)["responded_by"]["name"] == "ada"
        airflow.wait(f"promote_{MODEL}", run_id, timeout=PATIENCE)
        with pytest.raises(AirflowError) as again:
            answer(ada, run_id)
        assert again.value.status == 409
    _, _, (version, event, by, reason, evidence) = events(platform)
    assert (version, event, by) == (1, "promoted", "ada")
    assert reason.startswith("approved by ada, seen with the airline; against the baseline on 2013-02-22/2013-02-28: ")
    assert json.loads(evidence)["difference"]["high"] < 0 and all(json.loads(evidence)["gate"].values())
    assert aliases(platform) == {"champion": 1}


def test_the_figures_of_the_model_are_those_of_its_readme(platform: Platform) -> None:
    """Follows the test before it, which has trained on the window of the README."""
    version = platform.mlflow("model-versions/get", name=MODEL, version="1")["model_version"]
    run = platform.mlflow("runs/get", run_id=version["run_id"])
    metrics = {each["key"]: each["value"] for each in run["run"]["data"]["metrics"]}
    readme = (PROJECT / "models" / MODEL / "README.md").read_text()
    rows = re.findall(r"^\| \**(\w+)\** ((?:\| [\d.]+ ){4})\|$", readme, re.MULTILINE)
    assert len(rows) == 3
    columns = ("validation_mean_squared_error", "test_mean_squared_error", "test_mean_absolute_error", "test_bias")
    for candidate, cells in rows:
        for column, cell in zip(columns, cells.strip("| ").split(" | "), strict=True):
            digits = len(cell.partition(".")[2])
            assert f"{metrics[f'{candidate}/{column}']:.{digits}f}" == cell, (candidate, column)
    [told] = re.findall(r"lower by (\d+) \(95 % interval by days: (\d+) to (\d+)\)", readme)
    found = json.loads(events(platform)[-1][-1])["difference"]
    better = found["champion"] - found["challenger"], -found["high"], -found["low"]
    assert told == tuple(f"{each:.0f}" for each in better)


def test_a_tenth_of_the_flights_that_are_released_is_the_challengers(
    platform: Platform, airflow: AirflowClient
) -> None:
    """Follows the test before it."""
    run_id = train(airflow, NEXT)
    airflow.wait(f"promote_{MODEL}", run_id, timeout=PATIENCE)
    # It is hardly better than a version of nearly the same days, so that nobody is asked.
    assert states(airflow, f"promote_{MODEL}", run_id) == {"propose": "success", "ask": "skipped", "decide": "skipped"}
    assert [event[:2] for event in events(platform)[3:]] == [(2, "registered"), (2, "kept out")]
    assert aliases(platform) == {"champion": 1, "challenger": 2}

    airflow.wait(f"score_{MODEL}", airflow.trigger(f"score_{MODEL}", DAY), timeout=300)
    rows = platform.sql(
        f"select flight_id, role, model_version from ml.predictions_{MODEL} where flight_date = date'{DAY}'"
    )
    roles = {("champion", 1), ("challenger", 2)}
    assert {(role, version) for _, role, version in rows} == roles
    for key, role, _ in rows:
        assert (role == "challenger") == (routing.place("canary", MODEL, [key]) < 0.1), key
    drawn = sum(role == "challenger" for _, role, _ in rows)
    assert len(rows) > 700 and 0.05 < drawn / len(rows) < 0.15
    [(unseen, version)] = platform.sql(
        f"select count(*), max(model_version) from ml_shadow.predictions_{MODEL} where flight_date = date'{DAY}'"
    )
    assert (unseen, version) == (len(rows), 2)


def test_a_decision_to_train_again_starts_the_training_with_its_cause(
    platform: Platform, airflow: AirflowClient
) -> None:
    """Follows the test before it; the decision stands already, since these days give the policy no cause."""
    window, cause = "2013-01-10/2013-03-01", "age: 99 days since the last day that it was trained on"
    decision = {
        "model_name": MODEL, "model_version": 1, "decision": "retrain", "causes": ["age"], "reason": cause,
        "interval_start": DAY, "interval_end": DAY, "window_start": window[:10], "window_end": window[11:],
    }  # fmt: skip
    known = proposals(airflow)
    keep = (
        "import datetime as dt, json, sys; from lakehouse import ops; row = json.loads(sys.argv[1]); "
        "days = {k: dt.date.fromisoformat(v) for k, v in row.items() if k.endswith(('_start', '_end'))}; "
        "ops.append('ops.retrain_decisions', [row | days | {'at': dt.datetime.now(dt.UTC)}])"
    )
    subprocess.run(
        [sys.executable, "-c", keep, json.dumps(decision)], env=platform.environment, cwd=PROJECT, check=True
    )
    monitoring = airflow.trigger(f"monitor_{MODEL}", DAY)
    airflow.wait(f"monitor_{MODEL}", monitoring, timeout=PATIENCE)
    done = states(airflow, f"monitor_{MODEL}", monitoring)
    assert (done["monitor"], done["decide"]) == ("success", "success")
    # The test before has released the day, which may have been monitored by itself meanwhile: one training is enough.
    assert done["train"] in ("success", "skipped")
    airflow.wait(f"train_{MODEL}", f"retrain__{DAY}", timeout=300)
    airflow.wait(f"promote_{MODEL}", proposed(airflow, known), timeout=PATIENCE)
    [(version, start, end)] = platform.sql(
        f"select model_version, window_start, window_end from ops.models where model_name = '{MODEL}' "
        "order by model_version desc limit 1"
    )
    assert (version, f"{start}/{end}") == (3, window)
    found = platform.mlflow("model-versions/get", name=MODEL, version="3")["model_version"]
    assert {"key": "cause", "value": cause} in found["tags"]
