"""Who gets in, and who may do what: by passwords, by roles in Airflow, and by the answer of a person."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from pyhive import hive
from thrift.transport.TTransport import TTransportException

from lakehouse.airflow_client import AirflowClient, AirflowError
from tests.platforms import PROJECT, Platform

PASSWORD = "known-to-the-tests"


@pytest.fixture(scope="module")
def users(airflow: AirflowClient) -> Iterator[dict[str, AirflowClient]]:
    """Somebody of each role, logged in."""
    airflow.login()
    token = airflow._http.headers["Authorization"]
    clients = {}
    for role in ("Viewer", "User", "Op"):
        name = f"the-{role.lower()}"
        body = {"username": name, "password": PASSWORD, "email": f"{name}@localhost", "roles": [{"name": role}]}
        body |= {"first_name": "The", "last_name": role}
        made = httpx.post(f"{airflow.url}/auth/fab/v1/users", json=body, headers={"Authorization": token})
        assert made.status_code in (200, 409), made.text
        clients[role] = AirflowClient(airflow.url, username=name, password=PASSWORD)
    yield clients
    for client in clients.values():
        client.close()


def test_nobody_gets_in_with_a_wrong_password(platform: Platform, airflow: AirflowClient) -> None:
    for login in ({"password": "wrong", "auth": "CUSTOM"}, {"auth": "NONE"}):
        with pytest.raises(TTransportException, match="Error validating the login"):
            hive.connect("127.0.0.1", platform.port("thrift"), username="lake", **login)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"postgresql://lake:wrong@127.0.0.1:{platform.port('postgres')}/postgres")
    with pytest.raises(AirflowError) as refused:
        AirflowClient(airflow.url, username="admin", password="wrong").login()
    assert refused.value.status == 401
    assert httpx.get(f"{airflow.url}/api/v2/dags").status_code == 401
    done = subprocess.run(
        [PROJECT / "lake", "sql", "select 1"],
        env=platform.environment | {"SPARK_REMOTE": f"sc://localhost:{platform.port('connect')}/;token=wrong"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    assert "UNAUTHENTICATED" in done.stderr


def test_who_may_only_view_sees_the_runs_and_starts_none(users: dict[str, AirflowClient]) -> None:
    assert users["Viewer"].runs("build_warehouse")
    with pytest.raises(AirflowError) as refused:
        users["Viewer"].trigger("ingest_airlines", "2013-03-02")
    assert refused.value.status == 403


GATE = """
import sys
from pathlib import Path
from lakehouse.quality import suites
from lakehouse.releases.audit import gate
from lakehouse.interval import Interval

suites.SUITES_DIR = Path(sys.argv[1])
gate(["bronze.airlines"], Interval.parse(sys.argv[2]))
"""


def turned_down(platform: Platform, day: str, suites: Path) -> str:
    """Land a day of airlines, and have a gate turn it down whose suite wants more of them; returns its run."""
    shutil.copytree(PROJECT / "expectations", suites)
    path = suites / "bronze" / "airlines.json"
    suite = json.loads(path.read_text())
    [count] = [each for each in suite["expectations"] if each["type"] == "expect_table_row_count_to_be_between"]
    count["kwargs"]["min_value"] = 1_000_000
    path.write_text(json.dumps(suite))
    platform.lake("land", "airlines", "--interval", day)
    done = subprocess.run(
        [sys.executable, "-c", GATE, suites, day],
        env=platform.environment, cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "The gate is shut" in done.stderr, done.stderr
    found = re.search(r"run_id = '([^']+)'", done.stderr)
    assert found
    return found[1]


def question(airflow: AirflowClient, run_id: str) -> str:
    """Where the question of a run is answered, once it is asked."""
    deadline = time.monotonic() + 120
    while states(airflow, run_id)["approve"] != "awaiting_input":
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return f"/dags/override_gate/dagRuns/{run_id}/taskInstances/approve/-1/hitlDetails"


def states(airflow: AirflowClient, run_id: str) -> dict[str, str]:
    return {task["task_id"]: task["state"] for task in airflow.tasks("override_gate", run_id)}


def answer(airflow: AirflowClient, run_id: str, by: AirflowClient, option: str) -> None:
    """Answer as one of those who may, and follow the run to its end.

    An answer that comes before the scheduler has seen the task go to wait is lost in Airflow, which then asks again.
    """
    deadline = time.monotonic() + 120
    while airflow.run("override_gate", run_id)["state"] in ("queued", "running"):
        assert time.monotonic() < deadline
        time.sleep(2)
        if states(airflow, run_id)["approve"] == "awaiting_input":
            by.request("PATCH", question(airflow, run_id), json={"chosen_options": [option], "params_input": {}})
    airflow.wait("override_gate", run_id, timeout=1)


def test_a_gate_is_overridden_by_nothing_but_the_approval_of_one_who_may(
    platform: Platform, airflow: AirflowClient, users: dict[str, AirflowClient], tmp_path: Path
) -> None:
    def airlines() -> list[Any]:
        return platform.sql("select count(*) from bronze.airlines where _interval = '2013-03-03'")

    gate_run = turned_down(platform, "2013-03-03", tmp_path / "expectations")
    reason = "there are 16 airlines, and not a million"
    conf = {"gate_run": gate_run, "reason": reason}
    rejected = airflow.trigger("override_gate", conf=conf)
    answer(airflow, rejected, users["Op"], "Reject")
    assert states(airflow, rejected)["override"] == "skipped"
    assert airlines() == [(0,)]

    run_id = users["User"].trigger("override_gate", conf=conf)
    assert reason in airflow.request("GET", question(airflow, run_id))["body"]
    for role in ("Viewer", "User"):
        with pytest.raises(AirflowError) as refused:
            answer(airflow, run_id, users[role], "Approve")
        assert refused.value.status == 403
    assert airlines() == [(0,)]
    answer(airflow, run_id, users["Op"], "Approve")
    assert airlines() == [(16,)]
    released = platform.sql(
        "select override_of, reason, released_by from ops.releases where table_name = 'bronze.airlines' "
        "order by release_id desc limit 1"
    )
    assert released == [(gate_run, reason, "the-op")]
    broken = "published in spite of: bronze.airlines: expect_table_row_count_to_be_between"
    assert broken in airflow.log("override_gate", run_id, "override")
