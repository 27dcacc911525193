"""R5, what Airflow takes: the part of a day's wall time that is not on the critical path of the work, and empty tasks.

The day is the demo's, by Airflow on a whole platform: three sources come in, the warehouse is built, the flights are
scored. The work of a task is what its steps have noted in ``ops.runs``; of the task that runs dbt, the time from the
first model's start to the last one's end. All else is Airflow's: between the tasks, and in them before and after.
"""

from __future__ import annotations

import datetime as dt
import json
import statistics
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.critical_path import Span, covered, longest
from benchmarks.harness import Goal, Result, Side, Usage, machine, measure
from benchmarks.platform import running

if TYPE_CHECKING:
    from lakehouse.airflow_client import AirflowClient

SIZE, QUICK_SIZE = "day", "day"
SHARE, SECONDS_A_TASK = Goal(0.05), Goal(0.5)
EMPTY_DAG, EMPTY_TASKS = "ten_empty_tasks", 10
DAGS = Path(__file__).parent / "dags"
BUNDLES = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"
LOCAL_BUNDLE = "airflow.dag_processing.bundles.local.LocalDagBundle"
DBT_EVENT = "_dbt_event"


@dataclass(frozen=True)
class Day:
    """How a day went.

    Attributes:
        wall: Seconds from the first run's start to the last one's end.
        work: Seconds of the work on its critical path.
        path: The tasks on it, each with its seconds of work and those from its start to its end.
        usage: Of all processes of the platform.
    """

    wall: float
    work: float
    path: list[tuple[str, float, float]]
    usage: Usage


def run(size: str, pairs: int) -> list[Result]:
    """Time some days and some runs of ten empty tasks, on a platform on which the demo's history is.

    Args:
        size: There is only ``day``.
        pairs: How many days, and how many runs of ten tasks.
    """
    if size != SIZE:
        raise ValueError(f"{size!r} is not a size of this benchmark: its days have the flights that there were.")
    with platform():
        prepare(pairs)
        return [empty(pairs), daily(pairs)]


@contextmanager
def platform() -> Iterator[Path]:
    """A whole platform, whose Airflow knows the DAG of empty tasks besides."""
    bundles = [
        {"name": "dags-folder", "classpath": LOCAL_BUNDLE, "kwargs": {}},
        {"name": "benchmarks", "classpath": LOCAL_BUNDLE, "kwargs": {"path": str(DAGS)}},
    ]
    with running(**{BUNDLES: json.dumps(bundles)}) as home:
        yield home


def prepare(days: int) -> None:
    """Run the demo, and have the files of the days after it delivered.

    Args:
        days: How many.
    """
    from infra.demo import main_job
    from infra.demo.upstream import deliver
    from lakehouse.airflow_client import AirflowClient
    from lakehouse.settings import settings

    deliver(settings().drop_url, until=main_job.DAYS.end + dt.timedelta(days=days))
    with AirflowClient() as client:
        main_job.wait_for_dags(client)
        main_job.main_job(client, lambda line: print(line, flush=True))


def empty(runs: int) -> Result:
    """Time the DAG of ten empty tasks.

    Args:
        runs: How often.
    """
    from lakehouse.airflow_client import AirflowClient

    result = Result(
        "R5-empty",
        "seconds a task of a DAG of ten empty tasks",
        SIZE,
        SECONDS_A_TASK,
        ("ten empty tasks",),
        machine=machine(),
        notes=("The tasks run one after the other, each in a process of its own, as all tasks of the platform do.",),
    )
    with AirflowClient() as client:
        _settle(client)
        for number in range(runs + 1):
            ended: dict[str, Any] = {}

            def once(ended: dict[str, Any] = ended) -> None:
                ended.update(client.wait(EMPTY_DAG, client.trigger(EMPTY_DAG), timeout=300))

            usage = measure(Side("ten empty tasks", once, lambda: None))
            seconds = _wall([ended])
            print(f"{result.name}: {seconds:.2f} s", flush=True)
            if number:  # the first one is not counted
                result.ours.append(replace(usage, seconds=seconds))
                result.measured.append(seconds / EMPTY_TASKS)
    return _ended(result)


def daily(days: int) -> Result:
    """Time days that follow the demo's.

    Args:
        days: How many.
    """
    from infra.demo import main_job
    from lakehouse.airflow_client import AirflowClient

    with AirflowClient() as client:
        about = machine()
        found = []
        for number in range(1, days + 1):
            _settle(client)
            found.append(one_day(client, main_job.DAYS.end + dt.timedelta(days=number)))
            print(f"R5 day {number}: {found[-1].wall:.1f} s, {found[-1].work:.1f} s of work", flush=True)
    typical = sorted(found, key=lambda day: (day.wall - day.work) / day.wall)[len(found) // 2]
    way = ", ".join(f"{name} {work:.1f} of {whole:.1f}" for name, work, whole in typical.path)
    result = Result(
        "R5",
        "(wall time of a day's DAGs - critical path of the work) ÷ wall time",
        SIZE,
        SHARE,
        ("a day, by Airflow",),
        ours=[day.usage for day in found],
        measured=[(day.wall - day.work) / day.wall for day in found],
        outputs=_scored(days),
        machine=about,
        notes=(
            "From the first of three ingestions, which begin together, to the end of the scoring: five DAG runs. What "
            "a step does is work; so is the time from the start of the first dbt model to the end of the last. All "
            "else counts as Airflow's: scheduling, starting and ending of tasks, connecting to the engine, the start "
            "of dbt. Waiting for the lock of another step counts as work, so the share is rather too small. That all "
            "flights of the days were scored is compared. Memory is added up over all processes: what they share by "
            "fork counts once for each.",
        ),
        facts={
            "Seconds of work on the critical path (median)": f"{statistics.median(day.work for day in found):.1f}",
            "The critical path of the day in the middle, in seconds of work of those of the task": way,
        },
    )
    return _ended(result)


def one_day(client: AirflowClient, day: dt.date) -> Day:
    """Have Airflow do a day, and find out how much of it was work.

    Args:
        client: A client of its API.
        day: The day that is scored.
    """
    from infra.demo import main_job

    runs: dict[str, dict[str, Any]] = {}

    def whole_day() -> None:
        triggered = {dag_id: client.trigger(dag_id, key) for dag_id, key in main_job.arrivals(day).items()}
        for run in client.wait_all(triggered, timeout=600):
            runs[run["dag_id"]] = run
        for dag_id in ("build_warehouse", f"score_{main_job.MODEL}"):
            led_to = client.find_run(dag_id, day.isoformat(), timeout=60)
            if led_to is None:
                raise RuntimeError(f"{day}: nothing has led to a run of {dag_id}.")
            runs[dag_id] = client.wait(dag_id, led_to["dag_run_id"], timeout=600)

    usage = measure(Side("a day, by Airflow", whole_day, lambda: None))
    after, spans, whole = graph(client, {dag_id: run["dag_run_id"] for dag_id, run in runs.items()})
    seconds = {task: covered(each) for task, each in spans.items()}
    way, work = longest(after, seconds)
    wall = _wall(list(runs.values()))
    path = [(task, seconds[task], whole[task]) for task in way]
    return Day(wall, work, path, replace(usage, seconds=wall))


def graph(
    client: AirflowClient, runs: dict[str, str]
) -> tuple[dict[str, list[str]], dict[str, list[Span]], dict[str, float]]:
    """The tasks of a day's runs: what comes before each, when it worked, and its seconds from start to end.

    Args:
        client: A client of Airflow's API.
        runs: DAG to run: the ingestions, then what they lead to, one after the other.
    """
    after: dict[str, list[str]] = defaultdict(list)
    spans = worked(set(runs.values()))
    whole: dict[str, float] = {}
    *ingestions, build, score = runs
    inside: dict[str, list[str]] = {}
    for dag_id, run_id in runs.items():
        for task in client.request("GET", f"/dags/{dag_id}/tasks")["tasks"]:
            name = f"{dag_id}.{task['task_id']}"
            inside.setdefault(dag_id, []).append(name)
            after[name] += []
            for follower in task["downstream_task_ids"]:
                after[f"{dag_id}.{follower}"].append(name)
        for instance in client.tasks(dag_id, run_id):
            name = f"{dag_id}.{instance['task_id']}"
            whole[name] = (_moment(instance["end_date"]) - _moment(instance["start_date"])).total_seconds()
            if told := models(client, dag_id, run_id, instance):
                spans[name] = [*spans.get(name, []), *told]
    for causes, dag_id in ((ingestions, build), ([build], score)):
        firsts = [name for name in inside[dag_id] if not after[name]]
        for first in firsts:
            after[first] += [name for cause in causes for name in inside[cause]]
    return dict(after), spans, whole


def worked(run_ids: set[str]) -> dict[str, list[Span]]:
    """When the steps of some runs of Airflow worked, by DAG and task, as ``ops.runs`` has it.

    Args:
        run_ids: The runs.
    """
    from lakehouse import ops

    found: dict[str, list[Span]] = defaultdict(list)
    for row in ops.read("ops.runs").to_pylist():
        if row["airflow_run_id"] in run_ids and "build_run_id" not in json.loads(row["details"] or "{}"):
            found[f"{row['airflow_dag_id']}.{row['airflow_task_id']}"].append((row["started_at"], row["ended_at"]))
    return found


def models(client: AirflowClient, dag_id: str, run_id: str, instance: dict[str, Any]) -> list[Span]:
    """The time in which dbt worked on its models, of the task that runs it; to the second, as dbt's events tell.

    Args:
        client: A client of Airflow's API.
        dag_id: The DAG.
        run_id: The run.
        instance: The task; another one than that has told of no models.
    """
    path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{instance['task_id']}/xcomEntries"
    entries = client.request("GET", path, params={"limit": 1000})["xcom_entries"]
    keys = [entry["key"] for entry in entries if entry["key"].endswith(DBT_EVENT)]
    if not keys or instance["operator"] != "DbtProducerWatcherOperator":
        return []
    events = [client.request("GET", f"{path}/{key}")["value"] for key in keys]
    began = _moment(instance["start_date"])
    starts, ends = (
        [clock(began, event[name]) for event in events if event[name]] for name in ("start_time", "finish_time")
    )
    return [(min(starts), max(ends))]


def clock(began: dt.datetime, time: str) -> dt.datetime:
    """The moment that a time of the day stands for.

    Args:
        began: It is not before the second of this moment, and less than a day after it.
        time: Such as ``23:59:01``.
    """
    moment = dt.datetime.combine(began.date(), dt.time.fromisoformat(time), began.tzinfo)
    return moment if moment >= began.replace(microsecond=0) else moment + dt.timedelta(days=1)


def _settle(client: AirflowClient) -> None:
    """Wait until nothing runs any more, such as the monitoring of the day before."""
    from lakehouse.airflow_client import AirflowError

    for state in ("queued", "running"):
        for run in client.runs(state=state):
            try:
                client.wait(run["dag_id"], run["dag_run_id"], timeout=600)
            except AirflowError as error:
                raise RuntimeError(f"Not a platform to measure on: {error}") from error


def _scored(days: int) -> tuple[dict[str, int], dict[str, int]]:
    """The predictions and the flights of each day."""
    import lakehouse
    from infra.demo import main_job

    first = main_job.DAYS.end + dt.timedelta(days=1)
    where = [("flight_date", ">=", first), ("flight_date", "<", first + dt.timedelta(days=days))]
    counts = []
    for table in (f"ml.predictions_{main_job.MODEL}", "gold.flight_delay_features"):
        rows = lakehouse.read(table, columns=["flight_date"], where=where)
        counts.append({str(day): int(count) for day, count in rows.groupby("flight_date").size().items()})
    return counts[0], counts[1]


def _wall(runs: list[dict[str, Any]]) -> float:
    return (
        max(_moment(run["end_date"]) for run in runs) - min(_moment(run["queued_at"]) for run in runs)
    ).total_seconds()


def _moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text.replace("Z", "+00:00"))


def _ended(result: Result) -> Result:
    import os

    result.machine["load_after"] = os.getloadavg()[0]
    return result
