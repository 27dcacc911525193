"""From source files to predictions, by Airflow, SQL and REST, against computations that share no code with it."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import math
import os
import pty
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from infra.demo import main_job
from lakehouse.airflow_client import AirflowClient, AirflowError, RunFailedError
from tests import reference
from tests.platforms import PROJECT, Platform

HISTORY_START, KNOWN_UNTIL = dt.date(2013, 1, 1), dt.date(2013, 3, 2)
SCORED = [dt.date(2013, 3, 1), dt.date(2013, 3, 2), dt.date(2013, 3, 3)]
RELEASED = (
    "gold.fct_flights",
    "gold.flight_delay_features",
    "gold.daily_delays_by_carrier",
    "ml.predictions_flight_delay",
)


def same(expected: Any, actual: Any) -> bool:
    """Equal to the last digit; a day or a time comes as text by Thrift."""
    if expected is None or (isinstance(expected, float) and math.isnan(expected)):
        return actual is None or (isinstance(actual, float) and math.isnan(actual))
    return bool(expected == actual or str(expected) == str(actual))


def content(platform: Platform) -> dict[str, tuple[int, str]]:
    """The rows of each released table; run ids and times, which differ by nature, are left out."""
    return platform.content(RELEASED, without={"run_id", "release_id", "scored_at"})


def test_the_demo_ends_with_a_result_and_says_how_to_go_on(platform: Platform) -> None:
    assert "2013-03-03" in platform.demo
    [caught] = [line for line in platform.demo.splitlines() if " caught: " in line]
    assert "weather 2013-03-02" in caught and "pressure_millibars" in caught
    assert f"http://127.0.0.1:{platform.port('airflow')}" in platform.demo
    assert platform.secret("airflow_admin_password") in platform.demo
    assert f"http://127.0.0.1:{platform.port('mlflow')}" in platform.demo
    assert "user lake, password: see sql_password" in platform.demo
    assert "./lake down" in platform.demo and "./lake reset" in platform.demo


def test_all_parts_are_said_to_work(platform: Platform) -> None:
    status, doctor = platform.lake("status").stdout, platform.lake("doctor").stdout
    for part in platform.pids().keys() - {"health"}:
        assert f"│ {part} " in status and f"ok    {part}: works" in doctor


def test_the_history_is_one_run_over_its_days(airflow: AirflowClient) -> None:
    for source in main_job.SOURCES:
        keys = [run["partition_key"] for run in airflow.runs(f"ingest_{source}")]
        assert keys.count(str(main_job.HISTORY)) == 1 and "2013-01-31" not in keys


def test_the_log_of_a_task_says_what_happened_in_a_line(airflow: AirflowClient) -> None:
    day = str(SCORED[0])
    for dag_id, key, task, said in (
        ("ingest_flight_schedule", day, "land", f"flight_schedule {day}: 958 rows in from 1 file, 958 landed, 0 quar"),
        (
            "ingest_flight_schedule",
            day,
            "gate",
            r"bronze\.flight_schedule version \d+: passed (with .* of )?\d+ rules in \d",
        ),
        ("ingest_flight_schedule", day, "release", r"release \d+: bronze\.flight_schedule at version \d+"),
        ("train_flight_delay", None, "train", r"flight_delay version 1 \(logistic_regression\) is champion; promoted"),
        ("score_flight_delay", day, "score", rf"{day}: 958 rows scored with version 1, on release \d+ of gold\.fl"),
    ):
        runs = [run["dag_run_id"] for run in airflow.runs(dag_id) if key in (None, run["partition_key"])]
        logs = ["\n".join(airflow.log(dag_id, run_id, task)) for run_id in runs]
        assert any(re.search(said, log) for log in logs), logs


def test_tasks_are_forked_from_a_scheduler_that_has_the_libraries_in_memory(platform: Platform) -> None:
    log = (platform.home / "logs" / "scheduler.log").read_text()
    assert "Libraries in memory after" in log and "Threads that tasks will not have" not in log


def test_the_run_of_the_broken_file_shows_what_the_documentation_says(airflow: AirflowClient) -> None:
    failed = airflow.runs("ingest_weather", state="failed")
    run_id = next(run["dag_run_id"] for run in failed if run["partition_key"] == "2013-03-02")
    tasks = {task["task_id"]: task for task in airflow.tasks("ingest_weather", run_id)}
    assert {name: task["state"] for name, task in tasks.items()} == {
        "wait": "success", "land": "failed", "gate": "upstream_failed", "release": "upstream_failed",
    }  # fmt: skip
    assert tasks["land"]["try_number"] == 1
    log = "\n".join(airflow.log("ingest_weather", run_id, "land"))
    assert "[below_mostly] weather 2013-03-02: 70 of 70 rows break" in log


@pytest.mark.parametrize("by", ["carrier", "route", "airport"])
def test_daily_delays_are_those_of_the_original_files(platform: Platform, by: str) -> None:
    expected = reference.daily_delays(HISTORY_START, KNOWN_UNTIL, by)
    names = list(expected.columns)
    keys = ["flight_date", *reference.DAILY_DELAY_KEYS[by]]
    order = ", ".join(str(position) for position in range(1, len(keys) + 1))
    actual = platform.sql(f"select {', '.join(names)} from gold.daily_delays_by_{by} order by {order}")
    assert len(actual) == len(expected)
    for want, got in zip(expected.itertuples(index=False), actual, strict=True):
        for name, one, other in zip(names, want, got, strict=True):
            assert same(one, other), (want, name, one, other)


def test_features_of_sampled_flights_are_those_of_a_hand_written_computation(platform: Platform) -> None:
    ids = reference.sample_flights(HISTORY_START, SCORED[-1], 200, seed=7)
    expected = reference.features_for(ids)
    names = list(expected.columns)
    listed = ", ".join(f"'{each}'" for each in ids)
    actual = platform.sql(
        f"select {', '.join(names)} from gold.flight_delay_features where flight_id in ({listed}) order by flight_id"
    )
    assert len(actual) == 200
    for want, got in zip(expected.itertuples(index=False), actual, strict=True):
        for name, one, other in zip(names, want, got, strict=True):
            assert same(one, other), (want.flight_id, name, one, other)


def test_every_scheduled_flight_of_the_scored_days_has_one_prediction(platform: Platform) -> None:
    flights = reference.flights()
    for day in SCORED:
        scheduled = set(flights[flights["date"] == day]["flight_id"])
        rows = platform.sql(
            "select flight_id, score, model_name, model_version, release_id, run_id, prediction_id "
            f"from ml.predictions_flight_delay where flight_date = date'{day}'"
        )
        assert {row[0] for row in rows} == scheduled
        assert len(rows) == len(scheduled)
        assert all(0 < row[1] < 1 and row[2] == "flight_delay" and row[5] for row in rows)
        assert len({row[3] for row in rows}) == 1
        assert len({row[6] for row in rows}) == len(rows)


def test_a_day_is_monitored_by_itself_when_it_is_scored_and_again_when_its_outcomes_have_come(
    platform: Platform,
) -> None:
    day = SCORED[0]
    query = (
        "select airflow_run_id, details from ops.runs where step = 'monitor' and dataset = 'flight_delay' "
        f"and interval_start = date'{day}' and interval_end = date'{day}' and status = 'success' order by started_at"
    )
    deadline = time.monotonic() + 120
    while len(runs := platform.sql(query)) < 2 and time.monotonic() < deadline:
        time.sleep(2)
    first, second = runs[:2]  # later ones are of the tests that score the day again
    assert first[0] != second[0] and all(run.startswith("asset_triggered__") for run, _ in (first, second))
    flights = reference.flights()
    scored = len(flights[flights["date"] == day])
    assert [json.loads(details)["champion 1"]["labels_due"] for _, details in (first, second)] == [scored, 0]
    [(known, skill)] = platform.sql(
        "select max(if(metric = 'labels_known', value, null)), max(if(metric = 'skill', value, null)) "
        f"from ops.model_metrics where model_name = 'flight_delay' and segment = 'all' and interval_start = date'{day}'"
        f" and interval_end = date'{day}'"
    )
    assert 0.9 * scored < known <= scored and skill is not None


def test_each_dbt_model_is_a_task_that_says_in_its_own_log_when_it_was_built(airflow: AirflowClient) -> None:
    run = airflow.runs("build_warehouse", state="success")[0]["dag_run_id"]
    tasks = [task for task in airflow.tasks("build_warehouse", run) if task["task_id"].endswith("_run")]
    assert len(tasks) == 13
    for task in tasks:
        model = task["task_id"].removeprefix("dbt.").removesuffix("_run")
        log = airflow.log("build_warehouse", run, task["task_id"], task["try_number"])
        assert task["state"] == "success", task
        assert [line for line in log if f"model.lakehouse.{model}: built from " in line], (task["task_id"], log)


def test_the_figures_of_the_model_are_those_of_its_readme(platform: Platform) -> None:
    version = platform.mlflow("model-versions/get", name="flight_delay", version="1")
    run = platform.mlflow("runs/get", run_id=version["model_version"]["run_id"])
    metrics = {each["key"]: each["value"] for each in run["run"]["data"]["metrics"]}
    assert metrics["test_auc"] > 0.6 and metrics["test_log_loss"] < metrics["test_log_loss_baseline"]

    columns = ["validation_log_loss", *(f"test_{name}" for name in ("log_loss", "auc", "brier", "calibration_error"))]
    columns += ["test_precision", "test_recall"]
    readme = (PROJECT / "models" / "flight_delay" / "README.md").read_text()
    rows = re.findall(r"^\| \**(\w+)\** ((?:\| [\d.]+ ){7})\|$", readme, re.MULTILINE)
    assert len(rows) == 4
    for candidate, cells in rows:
        for column, cell in zip(columns, cells.strip("| ").split(" | "), strict=True):
            digits = len(cell.partition(".")[2])
            assert f"{metrics[f'{candidate}/{column}']:.{digits}f}" == cell, (candidate, column)


def test_what_came_in_is_what_was_released_and_quarantined(platform: Platform) -> None:
    rows = platform.sql(
        "select dataset, rows_in, rows_out, rows_quarantined from ops.runs where step = 'land' and status = 'success'"
    )
    assert rows
    assert all(row[1] == row[2] + row[3] for row in rows)
    [wind] = platform.sql("select _source_file, _reasons from quarantine.weather")
    assert wind[0] == "weather/weather_2013-02-12.jsonl"
    assert "wind_speed_mph" in wind[1]


def test_a_table_is_not_made_again_from_what_has_not_changed(platform: Platform) -> None:
    made = dict(platform.sql("select table_name, count(*) from ops.releases group by table_name"))
    assert made["gold.dim_planes"] == 1  # no planes have come since the history
    assert made["gold.on_time_league"] == 4


def test_a_second_demo_changes_nothing(platform: Platform) -> None:
    before = content(platform), platform.sql("select count(*) from ops.releases")
    started = time.monotonic()
    again = platform.lake("demo")
    assert "2013-03-03" in again.stdout
    assert (content(platform), platform.sql("select count(*) from ops.releases")) == before
    print(f"the second demo took {time.monotonic() - started:.0f} s")


def test_a_day_that_is_built_again_by_hand_leaves_the_same_rows(platform: Platform) -> None:
    before = content(platform)
    gold = [
        name for (name,) in platform.sql("select distinct table_name from ops.releases") if name.startswith("gold.")
    ]
    day = "2013-03-02"
    platform.lake("build", "--interval", day)
    with platform.one_process() as lake:
        for step in ("gate", "release"):
            lake(step, *gold, "--interval", day)
    assert content(platform) == before


def test_what_is_asked_for_again_by_rest_is_done_once(platform: Platform, airflow: AirflowClient) -> None:
    hashed = "select sha2(concat_ws('|', sort_array(collect_list(to_json(struct(*))))), 256) from "
    # The delivery is known by the run that has landed it, which is another one each time.
    tables = ("bronze.weather", "(select _interval, _source_file, _source_row, _raw, _reasons from quarantine.weather)")

    def weather() -> list[Any]:
        return [platform.sql(hashed + table) for table in tables]

    def newest() -> int:
        [[number]] = platform.sql("select max(release_id) from ops.releases where table_name = 'bronze.weather'")
        return int(number)

    before = weather()
    dag_id, day = "ingest_weather", "2013-02-12"  # of which one row is in quarantine
    airflow.wait(dag_id, airflow.trigger(dag_id, day, run_id="asked-twice"), timeout=300)
    with pytest.raises(AirflowError) as refused:
        airflow.trigger(dag_id, day, run_id="asked-twice")
    assert refused.value.status == 409
    assert weather() == before

    cleared = {"dry_run": False, "dag_run_id": "asked-twice", "only_failed": False, "reset_dag_runs": True}
    airflow.request("POST", f"/dags/{dag_id}/clearTaskInstances", json=cleared)
    airflow.wait(dag_id, "asked-twice", timeout=300)
    assert weather() == before

    the_day = dt.date.fromisoformat(day)
    backfill = airflow.backfill(dag_id, the_day, the_day, reprocess="completed")
    deadline = time.monotonic() + 300
    while not next(each for each in airflow.backfills(dag_id) if each["id"] == backfill)["completed_at"]:
        assert time.monotonic() < deadline
        time.sleep(1)
    assert weather() == before

    airflow.wait("replay_weather", airflow.trigger("replay_weather", day), timeout=300)
    assert weather() == before

    released = newest()
    airflow.wait("rollback", airflow.trigger("rollback", conf={"what": "bronze.weather"}), timeout=300)
    assert newest() > released
    airflow.wait("rollback", airflow.trigger("rollback", conf={"what": str(newest())}), timeout=300)
    assert weather() == before


def test_tomorrow_does_not_change_the_features_of_today_and_days_that_are_run_again_leave_the_same_rows(
    platform: Platform, airflow: AirflowClient
) -> None:
    query = (
        "select sha2(concat_ws('|', collect_list(row_text)), 256) from (select to_json(struct(*)) as row_text "
        "from gold.flight_delay_features where flight_date = date'2013-03-02' order by flight_id)"
    )
    before, whole = platform.sql(query), content(platform)
    path = platform.home / "drop" / "flight_actuals" / "flight_actuals_2013-03-02.csv"
    original = path.read_text()
    header, *lines = original.splitlines()
    delay = header.split(",").index("arrival_delay_minutes")

    def late(line: str) -> str:
        cells = line.split(",")
        cells[delay] = cells[delay] and "240"
        return ",".join(cells)

    try:
        path.write_text("\n".join([header, *map(late, lines)]) + "\n")
        # The features of that day are computed anew, too: they are those of the first day of the build.
        for dag_id, key in (("ingest_flight_actuals", "2013-03-02"), ("build_warehouse", "2013-03-02/2013-03-03")):
            airflow.wait(dag_id, airflow.trigger(dag_id, key), timeout=600)
        [[late_rate]] = platform.sql(
            "select sum(late_flights) / sum(arrived_flights) from gold.daily_delays_by_carrier "
            "where flight_date = date'2013-03-02'"
        )
        assert late_rate == 1  # the altered day has arrived in the marts ...
        assert platform.sql(query) == before  # ... and the features of that day do not know of it
    finally:
        path.write_text(original)
        arrived = ("ingest_flight_actuals", "ingest_flight_schedule")
        airflow.wait_all({dag_id: airflow.trigger(dag_id, "2013-03-02") for dag_id in arrived}, timeout=600)
        for dag_id, key in (("build_warehouse", "2013-03-02/2013-03-03"), ("score_flight_delay", "2013-03-02")):
            airflow.wait(dag_id, airflow.trigger(dag_id, key), timeout=600)
    assert content(platform) == whole


def test_a_file_with_a_wrong_header_is_refused_and_the_next_good_one_is_not_disturbed(
    platform: Platform, airflow: AirflowClient
) -> None:
    before = platform.sql("select count(*) from bronze.flight_actuals")
    path = platform.home / "drop" / "flight_actuals" / "flight_actuals_2013-02-20.csv"
    original = path.read_text()
    path.write_text(original.replace("carrier", "airline", 1))
    try:
        run_id = airflow.trigger("ingest_flight_actuals", "2013-02-20")
        with pytest.raises(
            RunFailedError, match=r"flight_actuals_2013-02-20\.csv, line 1: column 'carrier' is missing"
        ):
            airflow.wait("ingest_flight_actuals", run_id, timeout=300)
        assert platform.sql("select count(*) from bronze.flight_actuals") == before
    finally:
        path.write_text(original)
    airflow.wait("ingest_flight_actuals", airflow.trigger("ingest_flight_actuals", "2013-02-20"), timeout=300)
    assert platform.sql("select count(*) from bronze.flight_actuals") == before


@pytest.mark.parametrize(
    ("dag_id", "key", "conf"),
    [
        ("ingest_weather", "yesterday", {}),
        ("ingest_weather", None, {}),
        ("build_warehouse", None, {"full_refresh": True}),
        ("ingest_weather", "2013-02-30", {}),
        ("ingest_weather", "2013-02-01", {"wait": "long"}),
        ("train_flight_delay", None, {"window": "january"}),
        ("score_flight_delay", "2013-03-01", {"model_version": "champion"}),
        ("replay_weather", "2013-03-01", {"dry_run": "yes"}),
    ],
)
def test_a_wrong_request_is_refused_by_the_api(
    airflow: AirflowClient, dag_id: str, key: str | None, conf: dict[str, Any]
) -> None:
    with pytest.raises(AirflowError) as refused:
        airflow.trigger(dag_id, key, conf)
    assert refused.value.status is not None
    assert 400 <= refused.value.status < 500


def test_an_unknown_conf_key_is_refused_by_the_first_task(airflow: AirflowClient) -> None:
    run_id = airflow.trigger("ingest_weather", "2013-02-01", {"intervall": "2013-02-01"})
    with pytest.raises(RunFailedError, match="intervall"):
        airflow.wait("ingest_weather", run_id, timeout=300)


def works_again(platform: Platform, killed: dict[str, int], seconds: int = 180) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pids = platform.pids()
        # The parts are other processes than those that were killed, and everything works.
        again = all(pids.get(part) not in (None, pid) for part, pid in killed.items())
        if again and platform.lake("status", check=False).returncode == 0:
            return True
        time.sleep(1)
    return False


KILLED_DAY = "2013-02-10"
KILLED_PARTS = (("engine",), ("postgres",), ("scheduler",), ("api-server",), ("dag-processor", "triggerer", "mlflow"))


@pytest.mark.parametrize("parts", KILLED_PARTS, ids=", ".join)
def test_parts_that_are_killed_come_back_and_the_work_in_progress_ends_well(
    platform: Platform, airflow: AirflowClient, parts: tuple[str, ...]
) -> None:
    weather = "select sha2(concat_ws('|', sort_array(collect_list(to_json(struct(*))))), 256) from bronze.weather"
    before = platform.sql(weather)
    run_id = airflow.trigger("ingest_weather", KILLED_DAY)
    deadline = time.monotonic() + 60
    while not any(t["task_id"] == "land" and t["state"] == "running" for t in airflow.tasks("ingest_weather", run_id)):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    pids = platform.pids()
    for part in parts:
        os.kill(pids[part], signal.SIGKILL)
    airflow.wait("ingest_weather", run_id, timeout=600)
    assert works_again(platform, {part: pids[part] for part in parts})
    assert platform.sql(weather) == before


def test_sql_prints_tables_csv_and_json(platform: Platform) -> None:
    query = (
        "select carrier, sum(flights) as flights from gold.daily_delays_by_carrier group by carrier order by carrier"
    )
    with platform.one_process() as lake:
        as_json = json.loads(lake("sql", "--json", query).stdout)
        as_csv = lake("sql", "--csv", query).stdout.splitlines()
        as_table = lake("sql", query).stdout
    flights = reference.flights()
    expected = flights[flights["date"] <= KNOWN_UNTIL].groupby("carrier").size()
    assert {row["carrier"]: row["flights"] for row in as_json} == expected.to_dict()
    assert as_csv[0] == "carrier,flights"
    assert len(as_csv) == len(expected) + 1
    assert "UA" in as_table
    wrong = platform.lake("sql", "select nonsense from nowhere", check=False)
    assert wrong.returncode == 1
    assert "nowhere" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_the_prompt_answers_statement_by_statement_as_of_a_release(platform: Platform) -> None:
    [(first,)] = platform.sql("select min(release_id) from ops.releases where table_name = 'gold.fct_flights'")
    typed = "select max(flight_date) as newest\nfrom gold.fct_flights;\nselect nonsense;\nselect ';' as mark;\nquit\n"
    keyboard, terminal = pty.openpty()
    os.write(keyboard, typed.encode())
    done = subprocess.run(
        [PROJECT / "lake", "sql", "--release", str(first)],
        stdin=terminal, env=platform.environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    os.close(keyboard)
    os.close(terminal)
    assert f"lake@{first}>" in done.stdout
    assert "2013-02-28" in done.stdout and "│ ;    │" in done.stdout
    assert "nonsense" in done.stderr and "Traceback" not in done.stderr


def test_the_documentation_of_the_warehouse_has_the_columns_of_the_engine(platform: Platform) -> None:
    page = Path(platform.lake("docs").stdout.splitlines()[-1])
    assert "model.lakehouse.fct_flights" in page.read_text()
    catalog = json.loads(page.with_name("catalog.json").read_text())["nodes"]
    assert catalog["model.lakehouse.fct_flights"]["columns"]["is_late"]["type"] == "boolean"
    assert catalog["model.lakehouse.stg_weather"]["metadata"]["type"] == "view"


@pytest.mark.parametrize("login", [None, ("lake", "wrong"), ("admin", "password"), ("lake", "")])
@pytest.mark.parametrize("path", ["/", "/health", "/api/2.0/mlflow/experiments/search", "/api/3.0/mlflow/server-info"])
def test_mlflow_answers_nobody_without_the_password(
    platform: Platform, login: tuple[str, str] | None, path: str
) -> None:
    answer = httpx.get(f"http://127.0.0.1:{platform.port('mlflow')}{path}", auth=login)
    assert answer.status_code == 401 and answer.headers["WWW-Authenticate"].startswith("Basic ")
    assert "mlflow_password in secrets.json" in answer.text


def test_nothing_listens_beyond_loopback(platform: Platform) -> None:
    ours = set()
    for process in psutil.process_iter():
        # Threads of the kernel and processes that have just ended have no environment.
        with contextlib.suppress(psutil.Error):
            if process.environ().get("LAKE_HOME") == str(platform.home):
                ours.add(process.pid)
    beyond = [
        (connection.laddr, connection.pid)
        for connection in psutil.net_connections("inet")
        if connection.pid in ours
        and connection.status == psutil.CONN_LISTEN
        and connection.laddr.ip not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")
    ]
    assert ours
    assert beyond == []


def test_a_running_airflow_tells_of_a_cause_once_and_looks_for_more_by_itself(
    platform: Platform, airflow: AirflowClient
) -> None:
    told = [body["text"] for path, body in platform.told if path == "/alerts"]
    [caught] = [text for text in told if "bronze.weather 2013-03-02" in text]  # the broken file of the demo
    assert caught.startswith("critical: bronze.weather 2013-03-02: delivery") and "[below_mostly]" in caught
    [refused] = [text for text in told if "bronze.flight_actuals 2013-02-20" in text]
    assert "column 'carrier' is missing" in refused
    runs = airflow.runs("escalate_alerts", state="success")
    assert [run for run in runs if run["run_type"] == "scheduled"]


def test_a_dag_can_be_triggered_when_airflow_has_it(airflow: AirflowClient) -> None:
    assert airflow.runnable("ingest_weather")
    assert not airflow.runnable("ingest_nothing")
