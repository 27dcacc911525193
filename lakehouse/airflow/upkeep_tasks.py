"""Tasks of the DAGs that keep the platform: alerts are sent, and what is old is removed."""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException

from lakehouse.airflow import alerts
from lakehouse.airflow.runs import ENGINE_POOL, check_conf, no_retry

log = logging.getLogger("lakehouse")


@task
def send_alerts() -> None:
    """Send the alerts that are due by now."""
    context = get_current_context()
    check_conf(context)
    from lakehouse import cost

    if context["params"]["dry_run"]:
        from lakehouse.alerts import outstanding

        for route, chosen in outstanding().items():
            for alert in chosen:
                log.info("would go to %s: %s", route, alert)
        raise AirflowSkipException("This was a dry run: nothing was sent.")
    cost.alert()
    alerts.deliver(context)


@task(pool=ENGINE_POOL)
def maintain() -> dict[str, Any]:
    """Delete rows that contracts no longer keep, put small files together, and remove files that nothing needs.

    By hand: `lake maintain`.
    """
    context = get_current_context()
    check_conf(context)
    from lakehouse.maintenance.maintain import maintain as run

    with no_retry():
        return run(context["params"]["keep_days"])
