"""Alerts from real gates, through Airflow's own notifiers, to a mail server and a web server of this test."""

from __future__ import annotations

import datetime as dt
import html
import json
from collections.abc import Callable, Iterator
from email import message_from_bytes
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from aiosmtpd.controller import Controller
from airflow.sdk.exceptions import AirflowSensorTimeout
from airflow.sdk.execution_time.task_runner import _run_task_state_change_callbacks

from lakehouse import alerts, ops
from lakehouse.airflow.alerts import (
    after_gate,
    after_land,
    after_monitor,
    after_score,
    after_test,
    after_wait,
    deliver,
)
from lakehouse.interval import Interval
from lakehouse.landing.batches import RejectedBatchError
from lakehouse.releases import audit
from lakehouse.releases.unreleased import WithdrawnError
from lakehouse.settings import AlertRoute, settings
from tests.platforms import free_ports, http_connection, web_server
from tests.spark.orders import RULES, Orders
from tests.spark.sources import expect
from tests.spark.sources import new_source as new_source


class Mail:
    """What the mail server has received."""

    def __init__(self) -> None:
        self.received: list[tuple[list[str], str, str]] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        mail = message_from_bytes(envelope.content)
        [body] = [part.get_payload(decode=True).decode() for part in mail.walk() if not part.is_multipart()]
        self.received.append((envelope.rcpt_tos, str(mail["Subject"]), body))
        return "250 OK"


@pytest.fixture
def mail(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mail]:
    """A mail server, and the Airflow connection to it."""
    port = int(free_ports(("airflow",))["LAKE_PORTS__AIRFLOW"])
    handler = Mail()
    controller = Controller(handler, hostname="127.0.0.1", port=port)
    controller.start()
    extra = {"disable_ssl": True, "disable_tls": True, "from_email": "lake@example.com"}
    connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": port, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
    yield handler
    controller.stop()


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, Any]]]:
    """What a web server has received, and the Airflow connections to it."""
    with web_server() as (port, received):
        monkeypatch.setenv("AIRFLOW_CONN_HTTP_DEFAULT", http_connection(port))
        slack = {"conn_type": "slackwebhook", "password": f"http://127.0.0.1:{port}/services/T/B/X"}
        monkeypatch.setenv("AIRFLOW_CONN_SLACK_DEFAULT", json.dumps(slack))
        yield received


ROUTES = {
    "mail": AlertRoute(
        notifier="airflow.providers.smtp.notifications.smtp.SmtpNotifier",
        arguments={"to": "ada@example.com", "subject": "{{ alert.subject }}", "html_content": "{{ alert.html }}"},
        severities=("critical",),
    ),
    "chat": AlertRoute(
        notifier="airflow.providers.slack.notifications.slack_webhook.SlackWebhookNotifier",
        arguments={"slack_webhook_conn_id": "slack_default", "text": "{{ alert.text }}"},
    ),
    "pager": AlertRoute(
        notifier="airflow.providers.http.notifications.http.HttpNotifier",
        arguments={
            "endpoint": "/page",
            "json": {"text": "{{ alert.text }}"},
            "headers": {"Content-Type": "application/json"},
        },
        severities=("critical",),
        after_minutes=30,
    ),
}


@pytest.fixture(autouse=True)
def routes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "alerts", ROUTES)


def run_gate(
    orders: Orders,
    day: str,
    monkeypatch: pytest.MonkeyPatch,
    try_number: int = 1,
    callback: Callable[[Any], None] = after_gate,
    write: bool = True,
    **columns: str,
) -> None:
    """Write a day and gate it as Airflow does: with its variables, and its callback at the end."""
    run_id = f"{orders.table} {day}"
    names = {"DAG_ID": "ingest_orders", "DAG_RUN_ID": run_id, "TASK_ID": "gate", "TRY_NUMBER": str(try_number)}
    for name, value in names.items():
        monkeypatch.setenv(f"AIRFLOW_CTX_{name}", value)
    ti = SimpleNamespace(dag_id="ingest_orders", run_id=run_id, task_id="gate", try_number=try_number)
    context: Any = {"ti": ti, "dag_run": SimpleNamespace(partition_key=day)}
    interval = orders.write(day, **columns) if write else Interval.parse(day)
    try:
        audit.gate([orders.table], interval)
    except (audit.GateFailedError, WithdrawnError) as error:
        context["exception"] = error
    callback(context)


def of(orders: Orders) -> list[alerts.Alert]:
    return [alert for alert in alerts.read() if alert.cause.table == orders.table]


def test_a_failed_gate_is_told_once_however_often_it_is_tried(
    orders: Orders, mail: Mail, hook: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for try_number in (1, 2):
        run_gate(orders, "2013-03-01", monkeypatch, try_number, carrier="if(id = 3, '<XX>', 'UA')")
    [alert] = of(orders)
    assert (alert.cause.severity, alert.cause.rule) == ("critical", "expect_column_values_to_be_in_set(carrier)")
    assert alert.sent == {"mail", "chat"}
    [(to, subject, body)] = mail.received
    assert to == ["ada@example.com"]
    assert subject == f"critical: {orders.table} 2013-03-01: expect_column_values_to_be_in_set(carrier)"
    assert "1 of 10 rows break it" in body and "&lt;XX&gt;" in body and f"lake alerts ack {alert.alert_id}" in body
    [(path, message)] = hook
    assert path == "/services/T/B/X" and "1 of 10 rows break it, such as <XX>" in message["text"]


def test_a_warning_goes_where_warnings_go(
    orders: Orders, mail: Mail, hook: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_gate(orders, "2013-03-01", monkeypatch, amount="if(id = 3, null, 1)")
    [alert] = of(orders)
    assert (alert.cause.severity, alert.sent, mail.received) == ("warning", {"chat"}, [])
    [(_, message)] = hook
    assert "expect_column_values_to_not_be_null(amount)" in message["text"]


def test_a_passing_gate_tells_nobody_and_ends_what_was_wrong_before(
    orders: Orders, mail: Mail, hook: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_gate(orders, "2013-03-01", monkeypatch, carrier="'XX'")
    run_gate(orders, "2013-03-01", monkeypatch, 2)
    [alert] = of(orders)
    assert alert.resolved_at is not None
    assert (len(mail.received), len(hook)) == (1, 1)
    run_gate(orders, "2013-03-01", monkeypatch, 3, carrier="'XX'")  # broken anew
    assert len(of(orders)) == len(mail.received) == 2


def test_a_failed_gate_that_is_cleared_has_put_nothing_right(
    orders: Orders, mail: Mail, hook: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_gate(orders, "2013-03-01", monkeypatch, carrier="'XX'")
    run_gate(orders, "2013-03-01", monkeypatch, 2, write=False)
    broken, cleared = of(orders)
    assert (broken.resolved_at, cleared.cause.rule) == (None, "gate") and "withdrawn" in cleared.cause.message
    run_gate(orders, "2013-03-01", monkeypatch, 3)
    assert all(alert.resolved_at for alert in of(orders))


def test_too_little_history_alarms_nobody(
    orders: Orders, mail: Mail, hook: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    orders.expect(RULES, [{"metric": "row_count", "per": "day"}])
    run_gate(orders, "2013-03-01", monkeypatch)
    assert (of(orders), hook) == ([], [])


def test_what_nobody_acknowledges_is_escalated(
    orders: Orders, mail: Mail, hook: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in ("2013-03-01", "2013-03-02"):
        run_gate(orders, day, monkeypatch, carrier="'XX'")
    first, second = of(orders)
    assert alerts.acknowledge(first.alert_id, "ada").acknowledged_by == "ada"
    hook.clear()
    deliver({})
    assert hook == []
    soon = ROUTES | {"pager": ROUTES["pager"].model_copy(update={"after_minutes": 0})}
    monkeypatch.setattr(settings(), "alerts", soon)
    for _ in range(2):
        deliver({})
    [(path, message)] = hook
    assert (
        path == "/page" and f"#{second.alert_id} " in message["text"] and f"#{first.alert_id} " not in message["text"]
    )
    with pytest.raises(alerts.NoSuchAlertError, match="999"):
        alerts.acknowledge(999)


def test_a_route_that_fails_keeps_the_others_from_nothing_and_is_tried_again(
    orders: Orders, mail: Mail, hook: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings(), "alerts", {"broken": AlertRoute(notifier="no.such.Notifier")} | ROUTES)
    with pytest.raises(ModuleNotFoundError, match="no"):
        run_gate(orders, "2013-03-01", monkeypatch, carrier="'XX'")
    [alert] = of(orders)
    assert alert.sent == {"mail", "chat"}
    repaired = {"broken": ROUTES["chat"]} | ROUTES
    monkeypatch.setattr(settings(), "alerts", repaired)
    deliver({})
    assert of(orders)[0].sent == {"mail", "chat", "broken"}


def test_a_server_that_cannot_be_reached_fails_no_step_and_is_told_when_it_is_back(
    orders: Orders, hook: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = int(free_ports(("airflow",))["LAKE_PORTS__AIRFLOW"])
    with monkeypatch.context() as patched:
        patched.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps({"conn_type": "smtp", "host": "127.0.0.1",
                       "port": nobody, "extra": {"disable_ssl": True, "from_email": "lake@example.com"}}))  # fmt: skip
        patched.setenv("AIRFLOW_CONN_HTTP_DEFAULT", http_connection(nobody))
        slack = {"conn_type": "slackwebhook", "password": f"http://127.0.0.1:{nobody}/services/T/B/X"}
        patched.setenv("AIRFLOW_CONN_SLACK_DEFAULT", json.dumps(slack))
        for name, route in ROUTES.items():
            patched.setattr(settings(), "alerts", {name: route.model_copy(update={"after_minutes": 0})})
            log = Mock()
            task = SimpleNamespace(on_failure_callback=[after_gate])
            callback = partial(_run_task_state_change_callbacks, task, "on_failure_callback", log=log)
            run_gate(orders, "2013-03-01", patched, carrier="'XX'", callback=callback)  # does not raise
            log.exception.assert_called_once()
            with pytest.raises(OSError, match="refused"):
                deliver({})  # what the DAG that escalates does: it fails
            assert of(orders)[0].sent == frozenset()
    monkeypatch.setattr(settings(), "alerts", {"chat": ROUTES["chat"]})
    deliver({})
    [(_, message)] = hook
    assert "10 of 10 rows break it" in message["text"] and of(orders)[0].sent == {"chat"}
    alerts.acknowledge(of(orders)[0].alert_id)


def test_a_late_source_is_told_and_over_when_it_has_been_gated(
    orders: Orders, mail: Mail, hook: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    late: Any = {
        "exception": AirflowSensorTimeout("weather 2013-03-01: waited 6:00:00 for weather_2013-03-01.jsonl."),
        "dag_run": SimpleNamespace(partition_key="2013-03-01"),
    }
    for _ in range(2):
        after_wait("weather", late)
    after_land("weather", late | {"exception": RejectedBatchError("it was broken, too", "all_rows_bad")})
    found = [alert for alert in alerts.read() if alert.cause.table == "bronze.weather"]
    assert [alert.cause.rule for alert in found] == ["late", "delivery"]
    [(_, subject, body), (_, other, _)] = mail.received
    assert subject == "critical: bronze.weather 2013-03-01: late"
    assert other.startswith("critical: bronze.weather 2013-03-01: delivery")
    assert "waited 6:00:00 for weather_2013-03-01.jsonl" in body
    alerts.report([], {("bronze.weather", found[0].cause.interval)})
    assert all(alerts.read()[alert.alert_id - 1].resolved_at for alert in found)


def test_a_delivery_that_is_rejected_is_told_without_personal_values_and_over_when_a_good_one_was_gated(
    new_source: Any, mail: Mail, hook: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = new_source("alerted")
    day = "2020-01-05"
    source.rules(expect("column_values_to_not_match_regex", column="person", regex="^Jo", mostly=0.9))
    source.put(day, "id,person,amount,pieces,day\n1,Joan,5,1,2020-01-05\n2,Bo,5,1,2020-01-05\n")
    context: Any = {"dag_run": SimpleNamespace(partition_key=day)}
    for _ in range(2):
        with pytest.raises(RejectedBatchError) as rejected:
            source.land(day)
        after_land(source.name, context | {"exception": rejected.value})
    [(_, subject, body)] = mail.received
    [(_, message)] = hook
    assert subject == "critical: bronze.alerted 2020-01-05: delivery"
    for text in (body, message["text"]):
        assert "1 of 2 rows break expect_column_values_to_not_match_regex(person, ^Jo)" in html.unescape(text)
        assert "Joan" not in text
    source.put(day, "id,person,amount,pieces,day\n1,Ann,5,1,2020-01-05\n2,Bo,5,1,2020-01-05\n")
    source.land(day)
    for name, value in {"DAG_ID": "i", "DAG_RUN_ID": "r", "TASK_ID": "gate", "TRY_NUMBER": "1"}.items():
        monkeypatch.setenv(f"AIRFLOW_CTX_{name}", value)
    audit.gate([f"bronze.{source.name}"], Interval.parse(day))
    after_gate(context | {"ti": SimpleNamespace(dag_id="i", run_id="r", task_id="gate", try_number=1)})
    [alert] = [alert for alert in alerts.read() if alert.cause.table == "bronze.alerted"]
    assert alert.resolved_at is not None


def test_a_gate_that_came_to_no_verdict_is_told(mail: Mail, hook: list[Any]) -> None:
    ti = SimpleNamespace(dag_id="build_warehouse", run_id="r", task_id="gate_warehouse", try_number=3)
    after_gate(
        {
            "ti": ti,
            "dag_run": SimpleNamespace(partition_key="2013-03-01"),
            "exception": ConnectionError("engine is gone"),
        }
    )
    [(_, subject, body)] = mail.received
    assert subject == "critical: build_warehouse.gate_warehouse 2013-03-01: gate" and "engine is gone" in body


def test_data_tests_that_fail_are_told_and_over_when_they_pass(mail: Mail, hook: list[Any]) -> None:
    ti = SimpleNamespace(dag_id="build_warehouse", run_id="r", task_id="test_warehouse", try_number=1)
    context: Any = {"ti": ti, "dag_run": SimpleNamespace(partition_key="2013-03-01")}
    after_test(context | {"exception": RuntimeError("outcomes_are_conserved: Got 1 result")})
    [(_, subject, body)] = mail.received
    assert subject == "critical: build_warehouse.test_warehouse 2013-03-01: test"
    assert "outcomes_are_conserved: Got 1 result" in body
    after_test(context)
    [alert] = [alert for alert in alerts.read() if alert.cause.rule == "test"]
    assert alert.resolved_at is not None


def task_of(dag_id: str, task_id: str, run_id: str = "r") -> Any:
    """What a callback is given about a task that has ended well."""
    ti = SimpleNamespace(dag_id=dag_id, run_id=run_id, task_id=task_id, try_number=1)
    return {"ti": ti, "dag_run": SimpleNamespace(partition_key="2013-03-01")}


def about(table: str) -> list[alerts.Alert]:
    return [alert for alert in alerts.read() if alert.cause.table == table]


def test_a_scoring_that_came_to_nothing_is_told_and_over_when_it_has_come_to_something(
    mail: Mail, hook: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = task_of("score_risk", "score")
    failed = context | {"exception": ConnectionError("engine is gone")}
    with monkeypatch.context() as patch:
        patch.setattr(settings(), "alerts", {})
        after_score(failed)
        assert about("score_risk.score") == []
    for _ in range(2):
        after_score(failed)
    [(_, subject, body)] = mail.received
    assert subject == "critical: score_risk.score 2013-03-01: score" and "engine is gone" in body
    after_score(context)
    [alert] = about("score_risk.score")
    assert alert.resolved_at is not None and len(mail.received) == len(hook) == 1
    # What the scoring itself has raised goes out with the end of its task.
    replaced = alerts.Cause("serving.risk", Interval.parse("2013-03-01"), "fallback", "critical", "version 2 failed")
    alerts.report([replaced])
    after_score(context)
    assert [subject for _, subject, _ in mail.received[1:]] == ["critical: serving.risk 2013-03-01: fallback"]
    assert "version 2 failed" in hook[1][1]["text"]
    alerts.report([], {replaced.scope})


def test_what_monitoring_finds_red_is_told_and_over_when_it_is_no_longer(
    mail: Mail, hook: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    day, now = dt.date(2013, 3, 1), dt.datetime.now(dt.UTC)

    def measure(run_id: str, value: float, verdict: str) -> Any:
        context = task_of("monitor_risk", "monitor", run_id)
        row = {"measured_at": now, "run_id": f"monitor {run_id}", "model_name": "risk", "model_version": 2,
               "role": "champion", "interval_start": day, "interval_end": day, "segment": "all"}  # fmt: skip
        ops.append(
            "ops.model_metrics",
            [row | {"metric": "skill", "value": value, "reference": 0.2, "verdict": verdict},
             row | {"metric": "psi", "segment": "feature=seats", "value": 0.9, "reference": 0.25, "verdict": "red"}],
        )  # fmt: skip
        run = {"run_id": f"monitor {run_id}", "step": "monitor", "status": "success", "started_at": now,
               "ended_at": now, "airflow_dag_id": "monitor_risk", "airflow_run_id": run_id,
               "airflow_task_id": "monitor"}  # fmt: skip
        ops.append("ops.runs", [run])
        return context

    first = measure("first", 0.1, "red")
    with monkeypatch.context() as patch:
        patch.setattr(settings(), "alerts", {})
        after_monitor(first)
        assert about("models.risk") == []
    for _ in range(2):
        after_monitor(first)
    [alert] = about("models.risk")
    assert (alert.cause.severity, alert.cause.rule, alert.sent) == ("warning", "skill", {"chat"})
    [(_, message)] = hook
    assert "models.risk 2013-03-01: champion version 2: skill is 0.1, to be compared with 0.2" in message["text"]
    after_monitor(measure("second", 0.19, "green"))
    [alert] = about("models.risk")
    assert alert.resolved_at is not None and (len(hook), mail.received) == (1, [])


def test_without_a_route_nothing_is_kept(orders: Orders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "alerts", {})
    run_gate(orders, "2013-03-01", monkeypatch, carrier="'XX'")
    assert of(orders) == []


def test_sql_can_read_the_events(orders: Orders, mail: Mail, hook: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    run_gate(orders, "2013-03-01", monkeypatch, carrier="'XX'")
    from lakehouse.engine import sql

    query = f"select alert_id from ops.alerts where table_name = '{orders.table}' and event = 'raised'"
    [alert] = of(orders)
    assert [row["alert_id"] for row in sql(query).collect()] == [alert.alert_id]
    assert alert.raised_at - dt.datetime.now(dt.UTC) < dt.timedelta(minutes=5)
    assert ops.read("ops.alerts").num_rows >= 3
