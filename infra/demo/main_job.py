"""The demo's main job: two months of history in one go, a model, and three days scored one after the other.

Everything goes through Airflow's REST API. What Airflow has done already is not done again, so a demo that was
interrupted goes on where it stopped.
"""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from infra.demo.upstream import deliver
from lakehouse.airflow_client import AirflowClient, RunFailedError
from lakehouse.interval import Interval
from lakehouse.settings import MLFLOW_USER, settings

HISTORY = Interval.parse("2013-01-01/2013-02-28")
WINDOW = Interval.parse("2013-01-08/2013-02-28")  # the features of the first week look back on nothing
DAYS = Interval.parse("2013-03-01/2013-03-03")
SOURCES = ("flight_schedule", "flight_actuals", "weather", "planes", "airlines", "airports")
OUTCOMES = ("flight_actuals", "weather")
BROKEN_DAY = dt.date(2013, 3, 2)
BROKEN_DAG = "ingest_weather"
MODEL = "flight_delay"
ROW_IN_A_REASON = re.compile(r" For example |; (?=\S+ row \d+: )| (?=All \d+ rows )")

QUERY = """\
select
    p.flight_date,
    count(*) as flights,
    count_if(p.decision) as called_late,
    round(avg(p.score), 3) as mean_score,
    round(avg(cast(f.is_late as int)), 3) as late_rate,
    max(p.model_version) as model_version
from ml.predictions_flight_delay p
left join gold.fct_flights f on f.flight_id = p.flight_id
group by p.flight_date
order by p.flight_date"""

EXPLAINED = """\
select p.prediction_id
from ml.predictions_flight_delay p
join gold.fct_flights f on f.flight_id = p.flight_id
where f.is_late
order by p.score desc, p.prediction_id
limit 1"""
"""The prediction of the late flight that was given the highest probability."""

Say = Callable[[str], None]


class Runs:
    """The runs of the demo: finds, starts and follows them.

    Args:
        client: A client of Airflow's API.
        say: Prints a line of progress.
    """

    def __init__(self, client: AirflowClient, say: Say) -> None:
        self._client = client
        self._say = say

    def start(self, dag_id: str, key: str | None, conf: dict[str, Any] | None = None) -> str | None:
        """Start a run unless there is one that has succeeded or is under way.

        Args:
            dag_id: The DAG.
            key: The days that it is about; None for a DAG without partitions, which runs once.
            conf: Values of the DAG's parameters.

        Returns:
            The run's id; None when it has succeeded already.
        """
        before = self._client.find_run(dag_id, key) if key else next(iter(self._client.runs(dag_id)), None)
        if before and before["state"] == "success":
            return None
        if before and before["state"] in ("queued", "running"):
            return str(before["dag_run_id"])
        return self._client.trigger(dag_id, key, conf)

    def follow(self, run_ids: dict[str, str]) -> None:
        """Wait for runs that go on side by side, and say what their tasks do.

        Args:
            run_ids: DAG to run.

        Raises:
            lakehouse.airflow_client.RunFailedError: One failed; the message is the failed task's.
        """

        def progress(task: dict[str, Any]) -> None:
            if task["state"] in ("success", "failed", "up_for_retry"):
                self._say(f"    {task['dag_id']}: {task['task_id']} {task['state']}")

        self._client.wait_all(run_ids, timeout=1800, on_task=progress)

    def begin(self, keys: dict[str, str | None], conf: dict[str, Any] | None = None) -> dict[str, str]:
        """Start runs of some DAGs, and do not wait for them.

        Args:
            keys: DAG to the days of its run; None for a DAG without partitions.
            conf: Values of their parameters.

        Returns:
            DAG to the run, of those that have not succeeded already.
        """
        started = {dag_id: self.start(dag_id, key, conf) for dag_id, key in keys.items()}
        return {dag_id: run_id for dag_id, run_id in started.items() if run_id}

    def all_of(self, keys: dict[str, str | None], conf: dict[str, Any] | None = None) -> None:
        """Run some DAGs at the same time.

        Args:
            keys: DAG to the days of its run; None for a DAG without partitions.
            conf: Values of their parameters.
        """
        self.follow(self.begin(keys, conf))

    def led_to(self, dag_id: str, key: str) -> None:
        """Wait for the run that the releases before it lead to.

        Args:
            dag_id: The DAG.
            key: The days.
        """
        run = self._client.find_run(dag_id, key, timeout=60)
        # Its cause is long past when an earlier demo stopped here, or the run has failed: it is started by hand then.
        if run is None or run["state"] == "failed":
            self.follow({dag_id: self._client.trigger(dag_id, key)})
            return
        run_id = str(run["dag_run_id"])
        if run["state"] != "success":
            self.follow({dag_id: run_id})
        states = {task["task_id"]: task["state"] for task in self._client.tasks(dag_id, run_id)}
        if states.get("release") == "skipped":  # a scoring that the training beside it was too slow for
            self.follow({dag_id: self._client.trigger(dag_id, key)})


def main_job(client: AirflowClient, say: Say) -> None:
    """Load the history, build, train, and score three days.

    Args:
        client: A client of Airflow's API.
        say: Prints a line of progress.

    Raises:
        lakehouse.airflow_client.RunFailedError: A run failed.
    """
    runs = Runs(client, say)
    history = str(HISTORY)
    with stage(f"History {history}: land, gate and release {len(SOURCES)} sources", say):
        runs.all_of({f"ingest_{source}": history for source in SOURCES})
    with stage(f"History {history}: build, gate and release the warehouse", say):
        runs.led_to("build_warehouse", history)
    with stage(f"Train and register {MODEL}, while the schedule of {DAYS.start} comes in", say):
        # Nothing of the first day needs the model before its warehouse is built.
        runs.begin(arrivals(DAYS.start))
        runs.all_of({f"train_{MODEL}": None}, {"window": str(WINDOW)})
    for day in DAYS.days():
        with stage(f"{day}: what happened the day before, the warehouse, the scores", say):
            arrived = arrivals(day)
            if day == BROKEN_DAY + dt.timedelta(days=1):
                runs.begin({dag_id: key for dag_id, key in arrived.items() if dag_id != BROKEN_DAG})
                one_broken_file(client, say)
            runs.all_of(arrived)
            runs.led_to("build_warehouse", day.isoformat())
            if (tomorrow := day + dt.timedelta(days=1)) <= DAYS.end:
                # It is known the day before. Released earlier, it would have the warehouse built once more.
                say(f"    meanwhile the schedule of {tomorrow} comes in")
                runs.begin({"ingest_flight_schedule": tomorrow.isoformat()})
            runs.led_to(f"score_{MODEL}", day.isoformat())


def arrivals(day: dt.date) -> dict[str, str | None]:
    """What comes in on the morning of a day: its schedule, and what happened on the day before.

    Args:
        day: The day.

    Returns:
        DAG to the days of its run.
    """
    arrived: dict[str, str | None] = {"ingest_flight_schedule": day.isoformat()}
    yesterday = day - dt.timedelta(days=1)
    if yesterday > HISTORY.end:
        arrived |= {f"ingest_{source}": yesterday.isoformat() for source in OUTCOMES}
    return arrived


def one_broken_file(client: AirflowClient, say: Say) -> None:
    """Have a broken file delivered and caught, and then the right one delivered; once.

    Args:
        client: A client of Airflow's API.
        say: Prints a line of progress.

    Raises:
        RuntimeError: It was not caught.
    """
    dag_id, key = BROKEN_DAG, BROKEN_DAY.isoformat()
    if client.find_run(dag_id, key):
        return
    say(f"    {BROKEN_DAY}: the weather arrives with its pressure in another unit")
    arrival = BROKEN_DAY + dt.timedelta(days=1)
    deliver(settings().drop_url, since=BROKEN_DAY, until=arrival, sources=["weather"], broken=True)
    try:
        client.wait(dag_id, client.trigger(dag_id, key), timeout=600)
    except RunFailedError as error:
        *_, reason, page = str(error).splitlines()
        what, *examples = ROW_IN_A_REASON.split(reason.strip())
        say(f"    caught: {what}")
        for example in examples:
            say(f"        {example}")
        say(f"    {page}")
    else:
        raise RuntimeError(f"{dag_id} {key} has let a broken file pass.")
    finally:
        deliver(settings().drop_url, since=BROKEN_DAY, until=arrival, sources=["weather"])
    say("    the upstream delivers it again, put right")


@contextmanager
def stage(title: str, say: Say) -> Iterator[None]:
    """Announce a stage, and say how long it took.

    Args:
        title: What is done.
        say: Prints a line of progress.
    """
    say(f"==> {title}")
    started = time.monotonic()
    yield
    say(f"    done in {time.monotonic() - started:.0f} s")


def wait_for_dags(client: AirflowClient, timeout: float = 120) -> None:
    """Wait until Airflow has read the DAGs that the demo triggers.

    Args:
        client: A client of Airflow's API.
        timeout: Seconds after which to give up.

    Raises:
        TimeoutError: They are not there by then; the message holds Airflow's import errors.
    """
    missing = {f"ingest_{source}" for source in SOURCES} | {"build_warehouse", f"train_{MODEL}", f"score_{MODEL}"}
    deadline = time.monotonic() + timeout
    while missing := {dag_id for dag_id in missing if not client.runnable(dag_id)}:
        if time.monotonic() > deadline:
            errors = client.import_errors() or "none; see `lake logs dag-processor`"
            raise TimeoutError(f"Airflow does not know {', '.join(sorted(missing))}. Import errors: {errors}")
        time.sleep(0.5)


def farewell(say: Say) -> None:
    """Say where everything is, how to log in, and how to stop.

    Args:
        say: Prints a line.
    """
    lake = settings()
    secrets = lake.home / "secrets.json"
    say(f"Airflow   {lake.airflow_base_url}   user admin, password {lake.secret('airflow_admin_password')}")
    say(f"MLflow    {lake.mlflow_uri}   user {MLFLOW_USER}, password: see mlflow_password in {secrets}")
    say("Why?      ./lake explain PREDICTION_ID   ./lake impact weather_2013-03-01.jsonl   (--html FILE draws a graph)")
    say(f'SQL       ./lake sql "select * from gold.on_time_league"   or jdbc:hive2://127.0.0.1:{lake.ports.thrift}')
    say(f"          user lake, password: see sql_password in {secrets}")
    say("Stop      ./lake down        Start again   ./lake up        Delete everything   ./lake reset")
