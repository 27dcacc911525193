"""Alerts from Airflow's tasks: callbacks that raise them, and Airflow's own notifiers that send them.

Airflow calls back when a task has ended for good, not at each try, and after it has said so: what follows the task
does not wait for an alert.
"""

from __future__ import annotations

import html
import pkgutil
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSensorTimeout

from lakehouse.interval import Interval
from lakehouse.settings import AlertRoute, settings

if TYPE_CHECKING:
    from airflow.sdk import Context

    from lakehouse.alerts import Alert


def after_gate(context: Context) -> None:
    """Raise what a gate has found, and send it.

    Args:
        context: Of the gate's task, which has succeeded or failed.
    """
    if not settings().alerts:
        return
    import pyarrow.compute as pc

    from lakehouse import alerts, ops

    ti = context["ti"]
    log = ops.read("ops.runs")
    for column, value in {
        "airflow_dag_id": ti.dag_id,
        "airflow_run_id": ti.run_id,
        "airflow_task_id": ti.task_id,
        "airflow_try_number": ti.try_number,
        "step": "gate",
    }.items():
        log = log.filter(pc.equal(log[column], value))
    causes, judged = alerts.of_gates(log.to_pylist())
    task, interval = f"{ti.dag_id}.{ti.task_id}", _interval(context)
    error = context.get("exception")
    if error and not causes:  # it did not get as far as to leave a row
        causes = [alerts.Cause(task, interval, "gate", "critical", str(error))]
    alerts.report(causes, {*judged, (task, interval)})
    deliver(context)


def after_score(context: Context) -> None:
    """Send what a scoring has raised; one that has come to nothing is raised here.

    Args:
        context: Of the scoring's task, which has succeeded or failed.
    """
    _after("score", context)


def after_test(context: Context) -> None:
    """Raise that the data tests of the warehouse have failed, and send it.

    Args:
        context: Of the task that runs them, which has succeeded or failed.
    """
    _after("test", context)


def _after(rule: str, context: Context) -> None:
    """Raise that a task has failed, and send what is due; it is over when the task has succeeded."""
    if not settings().alerts:
        return
    from lakehouse import alerts

    ti, error = context["ti"], context.get("exception")
    task, interval = f"{ti.dag_id}.{ti.task_id}", _interval(context)
    causes = [alerts.Cause(task, interval, rule, "critical", str(error))] if error else []
    alerts.report(causes, {(task, interval)})
    deliver(context)


def after_monitor(context: Context) -> None:
    """Raise what monitoring has found red, and send it.

    Args:
        context: Of the task, which has succeeded.
    """
    if not settings().alerts:
        return
    from lakehouse import alerts
    from lakehouse.monitoring import reports

    ti, interval = context["ti"], _interval(context)
    causes, judged = alerts.of_measures(reports.of_task(ti.dag_id, ti.run_id, ti.task_id), interval)
    alerts.report(causes, judged)
    deliver(context)


def after_wait(source: str, context: Context) -> None:
    """Raise that a source is late, and send it; it is over when a delivery has passed its gate.

    Args:
        source: Name of its contract.
        context: Of the sensor, which has failed.
    """
    error = context.get("exception")
    if settings().alerts and isinstance(error, AirflowSensorTimeout):
        from lakehouse import alerts

        alerts.report([alerts.Cause(f"bronze.{source}", _interval(context), "late", "critical", str(error))])
        deliver(context)


def after_land(source: str, context: Context) -> None:
    """Raise that a delivery was not taken, and send it; it is over when a later one has passed its gate.

    Args:
        source: Name of its contract.
        context: Of the task that lands or replays, which has failed; a dry run tells nobody.
    """
    if settings().alerts and not context.get("params", {}).get("dry_run"):
        from lakehouse import alerts

        message = str(context.get("exception"))
        alerts.report([alerts.Cause(f"bronze.{source}", _interval(context), "delivery", "critical", message)])
        deliver(context)


def deliver(context: Context) -> None:
    """Send what is due, by the notifiers that the setting ``alerts`` names.

    Args:
        context: Of a task.
    """
    from lakehouse import alerts

    def send(route: AlertRoute, chosen: list[Alert]) -> None:
        notifier = pkgutil.resolve_name(route.notifier)(**route.arguments)
        about = {**context, "alert": message(chosen)}
        # Called as a function, a notifier only logs that nobody could be reached, and the alert would count as sent.
        notifier.render_template_fields(about)
        notifier.notify(about)

    alerts.deliver(send)


def message(chosen: list[Alert]) -> dict[str, Any]:
    """What the templates in a route's arguments know as ``alert``.

    Args:
        chosen: The alerts of one message.
    """
    worst = min(chosen, key=lambda alert: ("critical", "warning", "info").index(alert.cause.severity))
    days = f" {worst.cause.interval}" if worst.cause.interval else ""
    more = f" and {len(chosen) - 1} more" if len(chosen) > 1 else ""
    seen = "Say that you have seen it: " + ", ".join(f"lake alerts ack {alert.alert_id}" for alert in chosen)
    text = "\n\n".join([*map(str, chosen), seen])
    return {
        "subject": f"{worst.cause.severity}: {worst.cause.table}{days}: {worst.cause.rule}{more}",
        "text": text,
        "html": f"<pre>{html.escape(text)}</pre>",
    }


def _interval(context: Context) -> Interval | None:
    key = context["dag_run"].partition_key
    return Interval.parse(key) if key else None
