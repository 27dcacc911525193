"""Tasks of the DAGs ``ingest_<source>`` and ``replay_<source>``: a delivery is waited for, landed, or landed again."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout, AirflowSkipException

from lakehouse import contracts, readers
from lakehouse.airflow import alerts
from lakehouse.airflow.runs import ENGINE_POOL, no_retry, run_interval

if TYPE_CHECKING:
    from airflow.sdk import Context


def end_date(contract: contracts.Contract) -> dt.datetime | None:
    """When the schedule of a source ends: its last data has arrived.

    Args:
        contract: The source's contract.
    """
    if contract.history_end is None:
        return None
    return dt.datetime.combine(contract.arrival(contract.history_end), dt.time(23, 59), dt.UTC)


class DeliverySensor(BaseSensorOperator):
    """Waits until everything that a source delivers for the run's interval is there.

    Args:
        source: Name of a contract, which also says how long to wait.
    """

    def __init__(self, *, source: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.source = source

    def execute(self, context: Context) -> Any:
        """Look for the files; without the parameter ``wait``, once.

        Args:
            context: The task's context.
        """
        interval = run_interval(context)
        contract = contracts.load(self.source)
        with no_retry():
            contract.check_days(interval)
        if not context["params"]["wait"]:
            if missing := readers.missing(contract, interval):
                raise AirflowFailException(f"{self.source} {interval} is not there: {_listed(missing)}.")
            return None
        try:
            return super().execute(context)
        except AirflowSensorTimeout as error:
            missing = readers.missing(contract, interval)
            raise AirflowSensorTimeout(
                f"{self.source} {interval}: waited {contract.wait} for {_listed(missing)}. "
                "Clear this task when the source has delivered."
            ) from error

    def poke(self, context: Context) -> bool:
        """Whether everything is there.

        Args:
            context: The task's context.
        """
        interval = run_interval(context)
        missing = readers.missing(contracts.load(self.source), interval)
        if missing:
            self.log.info("%s %s: waiting for %s", self.source, interval, _listed(missing))
        else:
            self.log.info("%s %s: everything is there", self.source, interval)
        return not missing


def wait(source: str) -> DeliverySensor:
    """Wait for a delivery as its contract says, without a worker in between.

    Args:
        source: Name of a contract.
    """
    contract = contracts.load(source)
    return DeliverySensor(
        task_id="wait",
        source=source,
        mode="reschedule",
        poke_interval=max(contract.poke.total_seconds(), 10),
        timeout=contract.wait.total_seconds(),
        on_failure_callback=partial(alerts.after_wait, source),
        doc_md=f"Waits up to {contract.wait} for what `{source}` delivers for the interval; goes on when it is there.",
    )


def tells_of(make: Callable[..., Any]) -> Callable[..., Any]:
    """Have somebody told when the task that lands or replays a source has failed for good.

    Args:
        make: What makes such a task, of the name of the source.
    """

    @wraps(make)
    def telling(source: str) -> Any:
        return make.override(on_failure_callback=partial(alerts.after_land, source))(source)  # type: ignore[attr-defined]

    return telling


@tells_of
@task(pool=ENGINE_POOL)
def land(source: str) -> dict[str, Any]:
    """Read the interval of the source into its bronze table; rows that break the contract go to quarantine.

    Replaces exactly the interval, so it can be repeated. By hand: `lake land SOURCE --interval DAYS`.
    """
    interval = run_interval(get_current_context())
    from lakehouse.steps import job

    with no_retry():
        return job("land")(source, interval)


@tells_of
@task(pool=ENGINE_POOL)
def replay(source: str) -> dict[str, Any]:
    """Take the quarantined rows of the interval through the contract and suite as they are now.

    Those that pass join the landed rows of the interval, the others stay, with their new reasons. Repeated, it changes
    nothing. By hand: `lake replay SOURCE --interval DAYS`, which gates and releases, too.
    """
    context = get_current_context()
    interval = run_interval(context)
    from lakehouse.steps import job

    dry_run = context["params"]["dry_run"]
    with no_retry():
        outcome: dict[str, Any] = job("replay")(source, interval, dry_run)
    if dry_run:
        raise AirflowSkipException("This was a dry run: nothing was written, and there is nothing to release.")
    if not outcome["unreleased"]:
        raise AirflowSkipException("No quarantined row passes now, so there is nothing to release.")
    return outcome


def _listed(paths: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(paths) - limit} more" if len(paths) > limit else ""
    return ", ".join(paths[:limit]) + more
