"""The pages in Airflow's web server: the gate links to them, and they are for those who may read logs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """The plugin's app, with Airflow's own authentication in front of it."""
    from airflow import settings
    from airflow.api_fastapi.app import create_auth_manager
    from airflow.models.base import Base
    from airflow.utils.db import import_all_models
    from fastapi.testclient import TestClient

    from lakehouse.airflow.plugin import LakehousePlugin

    import_all_models()
    Base.metadata.create_all(settings.engine)  # it looks up revoked tokens and the teams of DAGs
    manager = create_auth_manager()
    manager.init()
    [entry] = LakehousePlugin().fastapi_apps
    with TestClient(entry["app"]) as client:
        yield client


@pytest.fixture(scope="module")
def token() -> Any:
    def make(role: str | None) -> dict[str, str]:
        from airflow.api_fastapi.app import get_auth_manager
        from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

        jwt = get_auth_manager().generate_jwt(SimpleAuthManagerUser(username=f"a {role}", role=role))
        return {"Authorization": f"Bearer {jwt}"}

    return make


@pytest.fixture
def page(lake_home: Any) -> str:
    from lakehouse import pages
    from lakehouse.quality import data_docs

    pages.write(data_docs.folder() / "gold" / "x" / "1-a.html", "<p>found</p>")
    pages.write(lake_home / "profiles" / "secret.html", "secret")
    return "/data-docs/gold/x/1-a.html"


REPORTS = ["/monitoring/flight_delay", "/monitoring/flight_delay/2012-03-01/2012-03-07"]
PATHS = ["/data-docs/", "/data-docs/task/ingest_planes/manual__2013-03-01T00:00:00+00:00/gate"]


@pytest.mark.parametrize("role", [None, "nobody"])
def test_nobody_sees_a_page_without_the_right_to(client: Any, token: Any, page: str, role: str | None) -> None:
    headers = token(None) if role else {}
    for path in [*PATHS, *REPORTS, page]:
        assert client.get(path, headers=headers).status_code == (403 if role else 401), path
        assert client.get(f"{path}?dag_id=ingest_planes", headers=headers).status_code == (403 if role else 401)


def test_every_route_asks_who_it_is(client: Any) -> None:
    for route in client.app.routes:
        assert route.dependencies, route.path


def test_a_viewer_sees_the_pages_and_no_other_file(client: Any, token: Any, page: str) -> None:
    viewer = token("viewer")
    answer = client.get(page, headers=viewer)
    assert answer.text == "<p>found</p>"
    assert answer.headers["content-security-policy"] == "sandbox allow-scripts"  # it shows values of delivered files
    for path in PATHS:
        answer = client.get(path, headers=viewer)
        assert (answer.status_code, "No verdict yet" in answer.text) == (200, True)
    for other in (
        "/data-docs/..%2Fprofiles%2Fsecret.html",
        "/data-docs/gold/x/2.html",
        "/data-docs/%2e%2e/profiles/secret.html",
    ):
        assert client.get(other, headers=viewer).status_code == 404


def test_the_gates_link_to_the_list_of_their_run_and_monitoring_to_its_report(bag: Any, stored: dict[str, Any]) -> None:
    from airflow.sdk.types import TaskInstanceKey

    for dag_id, task_id in [
        ("ingest_planes", "gate"),
        ("build_warehouse", "gate_warehouse"),
        ("score_flight_delay", "gate"),
    ]:
        [link] = bag.dags[dag_id].get_task(task_id).operator_extra_links
        address = link.get_link(None, ti_key=TaskInstanceKey(dag_id, task_id, "manual__a+b"))
        assert address == f"/lakehouse/data-docs/task/{dag_id}/manual__a%2Bb/{task_id}"
        assert [known.name for known in stored[dag_id].get_task(task_id).operator_extra_links] == ["Data Docs"]
    assert not bag.dags["ingest_planes"].get_task("land").operator_extra_links
    [link] = bag.dags["monitor_flight_delay"].get_task("monitor").operator_extra_links
    address = link.get_link(None, ti_key=TaskInstanceKey("monitor_flight_delay", "monitor", "manual__a+b"))
    assert address == "/lakehouse/monitoring/task/monitor_flight_delay/manual__a%2Bb/monitor"
    assert [known.name for known in stored["monitor_flight_delay"].get_task("monitor").operator_extra_links] == [
        "Report"
    ]


def test_a_viewer_sees_the_report_of_a_model(client: Any, token: Any) -> None:
    import datetime as dt

    from lakehouse import ops

    days = {"interval_start": dt.date(2012, 3, 1), "interval_end": dt.date(2012, 3, 7)}
    whose = {"model_name": "flight_delay", "model_version": 4, "role": "champion", "run_id": "r1"}
    whose["measured_at"] = dt.datetime(2012, 3, 8, tzinfo=dt.UTC)
    measures = [
        {"metric": "log_loss", "segment": "all", "value": 0.4321, "reference": 0.4},
        {"metric": "psi", "segment": "feature=<b>", "value": 0.3, "reference": 0.25, "verdict": "red"},
        {"metric": "log_loss", "segment": "origin=JFK", "value": 0.5},
    ]
    ops.replace("ops.model_metrics", [{**days, **whose, **each} for each in measures], {**days, "model_version": 4})
    task = {"airflow_dag_id": "monitor_flight_delay", "airflow_run_id": "a", "airflow_task_id": "monitor"}
    # Long ago: other tests ask for the run that has ended last.
    ended = dt.datetime(2012, 3, 8, tzinfo=dt.UTC)
    ops.append("ops.runs", [{"run_id": "r1", "step": "monitor", "started_at": ended, "ended_at": ended, **task}])
    viewer = token("viewer")
    for path in [*REPORTS, "/monitoring/task/monitor_flight_delay/a/monitor"]:
        text = client.get(path, headers=viewer).text
        assert "champion, version 4" in text and "0.4321" in text and "origin=JFK" in text, path
        assert "&lt;b&gt;" in text and "<b>" not in text
    for path in (
        "/monitoring/task/monitor_flight_delay/b/monitor",
        "/monitoring/other",
        "/monitoring/flight_delay/may",
    ):
        assert client.get(path, headers=viewer).status_code == 404, path
