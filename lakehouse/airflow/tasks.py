"""The tasks that the DAG files are made of.

A task runs the same function as the ``lake`` command of its name. The libraries of the steps are imported inside
the tasks, so that a DAG file is parsed in milliseconds.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from airflow.exceptions import InvalidPartitionKeyError
from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Asset, BaseSensorOperator, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout, AirflowSkipException
from airflow.sdk.execution_time.hitl import HITLUser

from lakehouse import contracts, readers
from lakehouse.airflow import alerts
from lakehouse.airflow.links import DataDocsLink, MonitoringLink
from lakehouse.airflow.partitions import parse_key
from lakehouse.errors import LakeError
from lakehouse.settings import settings

if TYPE_CHECKING:
    from airflow.sdk import Context

    from lakehouse.interval import Interval

log = logging.getLogger("lakehouse")

ENGINE_POOL = "engine"
"""Pool of the tasks that make the Spark engine work; one slot is one task."""

START = dt.datetime(2013, 1, 1, tzinfo=dt.UTC)

RETRIES = {
    "retries": 3,
    "retry_delay": dt.timedelta(seconds=10),
    "retry_exponential_backoff": True,
    "max_retry_delay": dt.timedelta(minutes=5),
    "execution_timeout": dt.timedelta(hours=1),
}
"""Arguments of every task: a part of the platform that fails is back within a minute or so."""

HOW_TO_RUN = """
**By hand:** *Trigger* with the *Partition Key* (under the advanced options) set to a day, `2013-03-01`, or to a
range, `2013-01-01/2013-02-28`, which is one run; by REST the same goes into the field `partition_key`. A key that is
neither is refused with status 400, and so is a run without one.
"""


def table_asset(table: str) -> Asset:
    """The asset that stands for the releases of a table.

    Args:
        table: Name that readers use, such as ``bronze.weather``.
    """
    return Asset(name=table, uri=f"lake://{table.replace('.', '/')}")


def end_date(contract: contracts.Contract) -> dt.datetime | None:
    """When the schedule of a source ends: its last data has arrived.

    Args:
        contract: The source's contract.
    """
    if contract.history_end is None:
        return None
    return dt.datetime.combine(contract.arrival(contract.history_end), dt.time(23, 59), dt.UTC)


def run_interval(context: Context) -> Interval:
    """The interval of a run, which is its partition key.

    Args:
        context: The task's context.

    Raises:
        AirflowFailException: The run has no such key, or its conf has a key that the DAG does not know.
    """
    check_conf(context)
    key = context.get("partition_key")
    if not key:
        raise AirflowFailException(
            "This run has no partition key, so it is not known which days it is about. Trigger the DAG again with "
            "the partition key set to a day (2013-03-01) or a range of days (2013-01-01/2013-02-28)."
        )
    try:
        return parse_key(key)
    except InvalidPartitionKeyError as error:
        raise AirflowFailException(str(error)) from error


def check_conf(context: Context) -> None:
    """Refuse keys of a run's conf that are not parameters of its DAG; Airflow itself lets them pass.

    Args:
        context: The task's context.

    Raises:
        AirflowFailException: There is such a key.
    """
    known = sorted(context["dag"].params)
    unknown = sorted(set(context["dag_run"].conf or {}) - set(known))
    if unknown:
        hint = " Days are given as the run's partition key." if "interval" in unknown else ""
        raise AirflowFailException(
            f"The conf of this run has {', '.join(unknown)}, which {context['dag'].dag_id} does not know; "
            f"it takes {', '.join(known) or 'no parameters'}.{hint}"
        )


@contextmanager
def no_retry() -> Iterator[None]:
    """Fail for good on an error that only a person can put right; anything else is retried."""
    from lakehouse.engine import EngineLostError
    from lakehouse.locks import StaleWriterError, TableLockedError
    from lakehouse.readers import UnfinishedError
    from lakehouse.unreleased import UnfinishedWriteError

    try:
        yield
    except (EngineLostError, StaleWriterError, TableLockedError, UnfinishedError, UnfinishedWriteError):
        raise
    except LakeError as error:
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error


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
            contract.check_day(interval.start)
            contract.check_day(interval.end)
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


def links_to_data_docs(make: Callable[..., Any]) -> Callable[..., Any]:
    """Give the tasks of a gate their link; it is there when the gate has failed, too.

    Args:
        make: What makes such a task.
    """

    @wraps(make)
    def linked(*arguments: Any) -> Any:
        made = make(*arguments)
        made.operator.operator_extra_links = (DataDocsLink(),)
        return made

    return linked


def tells_of(make: Callable[..., Any]) -> Callable[..., Any]:
    """Have somebody told when the task that lands or replays a source has failed for good.

    Args:
        make: What makes such a task, of the name of the source.
    """

    @wraps(make)
    def telling(source: str) -> Any:
        return make.override(on_failure_callback=partial(alerts.after_land, source))(source)  # type: ignore[attr-defined]

    return telling


def links_to_monitoring(make: Callable[..., Any]) -> Callable[..., Any]:
    """Give the tasks that monitor a model the link to its report.

    Args:
        make: What makes such a task.
    """

    @wraps(make)
    def linked(model: str) -> Any:
        made = make(model)
        made.operator.operator_extra_links = (MonitoringLink(),)
        return made

    return linked


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


@links_to_data_docs
@task(pool=ENGINE_POOL, on_success_callback=alerts.after_gate, on_failure_callback=alerts.after_gate)
def gate(tables: Sequence[str]) -> dict[str, int]:
    """Check the versions just written against their expectations; a set of tables passes whole or not at all.

    When it does not pass, the tables go back to their released versions, and readers see no difference.
    By hand: `lake gate TABLE --interval DAYS`.
    """
    interval = run_interval(get_current_context())
    from lakehouse.audit import gate as run

    with no_retry():
        passed: dict[str, int] = run(list(tables), interval)
    return passed


@task(pool=ENGINE_POOL)
def release(tables: Sequence[str]) -> int:
    """Make the audited versions visible to readers, as one set.

    By hand: `lake release TABLE --interval DAYS`.
    """
    context = get_current_context()
    interval = run_interval(context)
    from lakehouse.release import release as run

    with no_retry():
        release_id: int = run(list(tables), interval)
    for outlet in context["task"].outlets:
        context["outlet_events"][outlet].extra = {"release_id": release_id}
    return release_id


@task(pool=ENGINE_POOL)
def prepare() -> None:
    """Bring the gold tables back to their released versions, where a build before this one did not get that far."""
    interval = run_interval(get_current_context())
    from lakehouse import warehouse

    with no_retry():
        warehouse.prepare(interval)


_warehouse = ExitStack()


def hold_warehouse(context: Context) -> None:
    """Keep every other writer of the gold tables out while dbt writes them; the lock ends with the process, too.

    Commits then say which lock they were made under, and by which code.

    Args:
        context: The task's context.
    """
    from lakehouse import locks
    from lakehouse.steps import code_version

    lock = _warehouse.enter_context(locks.writer("gold_next"))
    dbt: Any = context["task"]
    commit = json.loads(dbt.env["DBT_COMMIT"]) | {"code_version": code_version(), "token": lock.token}
    dbt.env = dbt.env | {"DBT_COMMIT": json.dumps(commit)}


def hold_warehouse_at_first(context: Context) -> None:
    """Hold the warehouse on the first try alone: when the task that runs dbt is tried again, those of the models build.

    Args:
        context: The task's context.
    """
    if context["ti"].try_number == 1:
        hold_warehouse(context)


def free_warehouse(_context: Context, _result: Any = None) -> None:
    """Let other writers of the gold tables in again.

    Args:
        _context: The task's context.
        _result: What the task returns.
    """
    _warehouse.close()


@task(pool=ENGINE_POOL, on_success_callback=alerts.after_test, on_failure_callback=alerts.after_test)
def test_warehouse() -> dict[str, float]:
    """Run the data tests of the dbt project on what was built: rules between tables, which no suite can have.

    When one of them finds rows, the tables go back to their released versions, and nothing is released.
    By hand they are a part of `lake build --interval DAYS`.
    """
    interval = run_interval(get_current_context())
    from lakehouse import dbt_project, warehouse

    try:
        return warehouse.test(interval)
    except dbt_project.DataTestFailedError as error:
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error


@links_to_data_docs
@task(pool=ENGINE_POOL, on_success_callback=alerts.after_gate, on_failure_callback=alerts.after_gate)
def gate_warehouse() -> dict[str, int]:
    """Record what dbt has built, and check all of it as one set.

    dbt reads one state of the sources. When a model had failed and was built by itself, from another state than the
    rest, dbt is run once more for all of them.

    When a table does not pass, all go back to their released versions, and readers see no difference.
    By hand: `lake gate TABLE… --interval DAYS`.
    """
    interval = run_interval(get_current_context())
    from lakehouse import dbt_project, warehouse
    from lakehouse.audit import gate as run

    try:
        warehouse.record(interval)
    except dbt_project.DataTestFailedError as error:
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error
    # Above, all but a failed data test is tried again: a lost engine looks like any other error of dbt.
    with no_retry():
        return run(dbt_project.stored_models(), interval)


@task(pool=ENGINE_POOL)
def train(model: str) -> dict[str, Any]:
    """Train the candidates on the released features of the window, register the best, and compare it with the champion.

    By hand: `lake train MODEL --interval DAYS`.
    """
    from lakehouse.interval import Interval
    from lakehouse.steps import job

    context = get_current_context()
    check_conf(context)
    window = context["params"]["window"]
    with no_retry():
        by = context["dag_run"].triggering_user_name
        return job("train")(model, Interval.parse(window) if window else None, by, context["params"]["cause"])


@task.short_circuit(pool=ENGINE_POOL, on_success_callback=alerts.after_score, on_failure_callback=alerts.after_score)
def score(model: str) -> dict[str, Any] | None:
    """Score the interval's features, each day with its champion, which is resolved once for the whole run.

    A model that has no champion is skipped: it was never trained, or its first version waits for a person. With the
    parameter `what_if`, that version scores, apart from the predictions, and nothing is gated or released. By hand:
    `lake score MODEL --interval DAYS`.
    """
    context = get_current_context()
    interval = run_interval(context)
    from lakehouse import roles
    from lakehouse.steps import job

    expected, what_if = context["params"]["model_version"], context["params"]["what_if"]
    events = roles.events(model)
    if not events:
        raise AirflowSkipException(f"{model} has not been trained: trigger train_{model} first.")
    if what_if is None and roles.in_office(events) is None:
        raise AirflowSkipException(f"{model} has no champion yet: `lake models {model}` says why.")

    with no_retry():
        if what_if is not None:
            if expected is not None:
                raise AirflowFailException("what_if says which version scores: give no model_version beside it.")
            context["ti"].xcom_push("what_if", job("what_if")(model, interval, what_if))
            return None
        outcome: dict[str, Any] = job("score")(model, interval, expected)
    return outcome


@links_to_monitoring
@task(pool=ENGINE_POOL, on_success_callback=alerts.after_monitor)
def monitor(model: str) -> dict[str, Any]:
    """Measure drift, data and performance of the interval, as far as its outcomes are known.

    Of days that should have been scored and were not, that is what is told; where nothing was due, it is skipped.
    Repeated, it replaces what it has measured before. By hand: `lake monitor MODEL --interval DAYS`.
    """
    interval = run_interval(get_current_context())
    from lakehouse.monitoring import NothingToMonitorError
    from lakehouse.steps import job

    with no_retry():
        try:
            return job("monitor")(model, interval)
        except NothingToMonitorError as error:
            raise AirflowSkipException(str(error)) from error


@task(pool=ENGINE_POOL)
def decide(model: str) -> dict[str, Any]:
    """Ask the model's policy whether it is to be trained again, and keep the answer with its evidence.

    Without a cause, or with the parameter `retrain` off, what follows is skipped. By hand: `lake retrain MODEL`.
    """
    context = get_current_context()
    interval = run_interval(context)
    from lakehouse.model_folders import load
    from lakehouse.retraining import NotMonitoredError
    from lakehouse.steps import job

    if load(model).retrain is None:
        raise AirflowSkipException(f"models/{model}/model.yaml has no section retrain.")
    by = context["dag_run"].triggering_user_name
    with no_retry():
        try:
            decided: dict[str, Any] = job("retrain")(model, interval, by, check=not context["params"]["retrain"])
        except NotMonitoredError as error:  # another version has become champion since these days were scored
            raise AirflowSkipException(str(error)) from error
    if decided["decision"] != "retrain" or not context["params"]["retrain"]:
        raise AirflowSkipException(f"{decided['decision']}: {decided['reason']}")
    return decided


def train_again(model: str) -> TriggerDagRunOperator:
    """Start the training of a model with the window and the cause that were decided.

    Args:
        model: Name of a model folder.
    """
    decided = "ti.xcom_pull(task_ids='decide')"
    return TriggerDagRunOperator(
        task_id="train",
        trigger_dag_id=f"train_{model}",
        # The same decision, tried again, starts no second training.
        trigger_run_id=f"retrain__{{{{ {decided}['interval'] | replace('/', '_') }}}}",
        skip_when_already_exists=True,
        openlineage_inject_parent_info=False,  # it would be a key of the conf that the DAG does not know
        conf={"window": f"{{{{ {decided}['window'] }}}}", "cause": f"{{{{ {decided}['reason'] }}}}"},
        doc_md="Starts the training; the version that it makes still has to win against the champion.",
    )


@task
def plan_rollback() -> dict[str, Any]:
    """Find out which release is meant, once, so that the next task can be repeated without going back further."""
    context = get_current_context()
    check_conf(context)
    from lakehouse.release_log import history
    from lakehouse.rollback import plan

    what, to = context["params"]["what"], context["params"]["to"]
    with no_retry():
        targets = plan(history(), what, to)
    if to is None and what in targets:
        to = targets[what].release_id
    return {"what": what, "to": to}


@task(pool=ENGINE_POOL)
def rollback(planned: dict[str, Any]) -> dict[str, Any]:
    """Point the views at the earlier versions, and bring the tables that are written next back to them.

    By hand: `lake rollback RELEASE|TABLE`.
    """
    context = get_current_context()
    from lakehouse.rollback import rollback as run

    with no_retry():
        outcome: dict[str, Any] = run(planned["what"], planned["to"], context["dag_run"].triggering_user_name)
    return outcome


@task
def describe_override() -> str:
    """Say what the gate has turned down, for the person who is asked to approve."""
    context = get_current_context()
    check_conf(context)
    from lakehouse.override import judged

    with no_retry():
        verdict = judged(context["params"]["gate_run"])
    versions = ", ".join(f"`{table}` version {version}" for table, version in sorted(verdict.versions.items()))
    rules = "\n".join(f"- {rule}" for rule in verdict.broken)
    asked_by = context["dag_run"].triggering_user_name or "somebody"
    return (
        f"{asked_by} asks to publish {versions} ({verdict.interval or 'no interval'}), in spite of these broken rules:"
        f"\n\n{rules}\n\nThe reason given: {context['params']['reason']}"
    )


class AskedOnce(HITLOperator):
    """A question that is asked once: where nobody has answered in time, a retry does not ask again."""

    unanswered: str
    """What becomes of the matter then."""

    def process_trigger_event_error(self, event: dict[str, Any]) -> None:
        """Fail for good when the time is over.

        Args:
            event: What has ended the waiting.
        """
        if event["error_type"] == "timeout":
            raise AirflowFailException(f"Nobody has answered within {self.response_timeout}. {self.unanswered}")
        super().process_trigger_event_error(event)


class Approval(AskedOnce, ApprovalOperator):
    """The approval of an override."""

    unanswered = "Nothing is published: trigger this DAG again."


def approve_override() -> Approval:
    """Ask one of those who may decide it; without an approval nothing is published."""
    return Approval(
        task_id="approve",
        subject="Publish what the gate {{ params.gate_run }} has turned down?",
        body="{{ ti.xcom_pull(task_ids='describe_override') }}",
        assigned_users=[HITLUser(id=who, name=who.removeprefix("role:")) for who in settings().override_approvers],
        response_timeout=dt.timedelta(days=1),
        doc_md="Waits for a person, in the web UI under *Required Actions*; a rejection skips the rest.",
    )


@task(pool=ENGINE_POOL)
def override(approval: dict[str, Any]) -> int:
    """Release exactly the versions that the gate has turned down, marked with the reason and who approved it.

    By hand: `lake release --override RUN_ID --reason TEXT`.
    """
    context = get_current_context()
    from lakehouse.override import override as run

    by = approval["responded_by_user"]["name"]
    with no_retry():
        release_id: int = run(context["params"]["gate_run"], context["params"]["reason"], by)
    return release_id


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
    from lakehouse.maintain import maintain as run

    with no_retry():
        return run(context["params"]["keep_days"])


def _listed(paths: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(paths) - limit} more" if len(paths) > limit else ""
    return ", ".join(paths[:limit]) + more
