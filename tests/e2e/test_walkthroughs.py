"""The commands of the documentation, run as they stand against the platform that the demo has left."""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import reference
from tests.docs.blocks import runnable_blocks, script
from tests.e2e.test_platform import KILLED_DAY, KILLED_PARTS, SCORED
from tests.openlineage_schema import faults
from tests.platforms import PROJECT, Platform

# Their commands add files to the checkout, so they are run in a copy of it.
PAGES_OF_A_COPY = tuple(f"docs/how-to/add-a-{what}.md" for what in ("model", "source", "table"))
QUARTER_OF_AN_HOUR = 15 * 60
# Its answers are looked at.
QUERIES = "docs/how-to/query.md"
# What a page has to have said, where its commands end well without it, too.
ANSWERS = {"docs/how-to/trigger-by-rest.md": "wait: AirflowFailException: The conf of this run has wiat"}
EVERYWHERE = [
    str(page.relative_to(PROJECT)) for page in (PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md")))
]
PAGES = [page for page in EVERYWHERE if page not in (*PAGES_OF_A_COPY, QUERIES) and runnable_blocks(PROJECT / page)]


def test_every_way_to_query_answers_as_the_original_files_do(platform: Platform) -> None:
    def newest(table: str) -> dt.date:
        [(day,)] = platform.sql(f"select max(flight_date) from {table}")
        return dt.date.fromisoformat(day)

    planned, flown = newest("gold.fct_flights"), newest("gold.daily_delays_by_route")
    answered = run(QUERIES, PROJECT, platform.environment)
    lines = set(answered.splitlines())
    flights = reference.flights()
    late = flights[flights["arr_delay"].notna()].assign(late=flights["arr_delay"] > reference.LATE_MINUTES)

    day = late[late["date"] == dt.date(2013, 3, 1)].groupby("carrier")["late"].sum()
    assert len(day) > 10
    assert {f"{carrier},{count}" for carrier, count in day.items()} <= lines  # beeline
    scheduled = flights["date"].value_counts()
    assert {f"{each} {scheduled[each]}" for each in SCORED} <= lines  # PyHive
    february = late[[each.month == 2 for each in late["date"]]].groupby("origin")["late"].mean()
    for origin, rate in february.items():  # Spark Connect
        [said] = [line.split("|")[2] for line in lines if line.startswith(f"|   {origin}|")]
        assert float(said) == pytest.approx(rate, abs=1e-12)
    known = flights[flights["date"] <= planned]
    since_march = known[known["date"] >= dt.date(2013, 3, 1)]
    assert f"{(since_march['carrier'] == 'UA').sum()} flights" in lines  # pandas
    boxes = {tuple(re.findall(r"[\w.]+", line)) for line in lines if line.startswith("│")}
    late_by_route = late[late["date"] <= flown].groupby("dest")["late"].sum().nlargest(5)
    assert {(place, str(count)) for place, count in late_by_route.items()} <= boxes  # DuckDB
    assert {(origin, str(count)) for origin, count in known["origin"].value_counts().items()} <= boxes  # delta-rs


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_work(platform: Platform, page: str) -> None:
    assert ANSWERS.get(page, "") in run(page, PROJECT, platform.environment)


def test_all_trainings_and_scorings_of_the_history_are_made_again(platform: Platform) -> None:
    # Days that the second model has not scored yet, and one that the first scores again.
    minutes = [("flight_delay_minutes", day) for day in ("2013-03-02", "2013-03-03")]
    with platform.one_process() as lake:
        for model, day in (*minutes, ("flight_delay", "2013-03-01")):
            for step, what in (
                ("score", model),
                ("gate", f"ml.predictions_{model}"),
                ("release", f"ml.predictions_{model}"),
            ):
                lake(step, what, "--interval", day)
    outcomes = [json.loads(line) for line in python(platform, "-m", "tests.e2e.made_again").splitlines()]
    trainings = sum("training" in each for each in outcomes)
    print(f"\n{trainings} trainings and {len(outcomes) - trainings} scorings were made again")
    assert [each for each in outcomes if not each["equal"]] == []
    assert trainings >= 2 and len(outcomes) >= 20


def test_after_maintenance_with_the_shortest_retention_all_is_there_and_made_again(platform: Platform) -> None:
    """Follows the test before it: what has been replaced, and nobody needs, is gone afterwards."""

    def found() -> tuple[Any, Any]:
        """What readers see, and how it explains itself."""
        released = [name for (name,) in platform.sql("select distinct table_name from ops.releases")]
        silver = [f"silver.{name}" for (_, name, *_) in platform.sql("show views in silver")]
        assert len(released) >= 12 and len(silver) >= 5
        return platform.content([*released, *silver]), json.loads(platform.lake("explain", prediction, "--json").stdout)

    [[prediction]] = platform.sql("select min(prediction_id) from ml.predictions_flight_delay")
    before = found()
    models = [name for (name,) in platform.sql("select distinct model_name from ops.models")]
    shortest = "from lakehouse.maintenance.maintain import maintain; print(json.dumps(maintain(0, grace_hours=0)))"
    assert json.loads(python(platform, "-c", f"import json; {shortest}").splitlines()[-1])["files"] > 20
    assert found() == before
    with platform.one_process() as lake:
        lake("verify")
        for model in models:
            [[first, last]] = platform.sql(f"select min(flight_date), max(flight_date) from ml.predictions_{model}")
            trainings = lake("reproduce", model).stdout
            scorings = lake("reproduce", model, "--predictions", "--interval", f"{first}/{last}").stdout
            assert '"equal": true' in trainings + scorings and '"equal": false' not in trainings + scorings


def test_the_steps_of_the_history_have_sent_events_in_pairs_with_one_name_for_each_table(platform: Platform) -> None:
    steps: dict[str, list[str]] = {}
    begun: dict[str, dict[str, Any]] = {}
    names = set()
    for line in (platform.home / "openlineage" / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        assert faults(event) == [], event
        datasets = [*event.get("inputs", []), *event.get("outputs", [])]
        names |= {each["name"] for each in datasets if each["namespace"] == "lake"}
        assert {each["namespace"] for each in datasets} <= {"lake", "file"}, event
        if event["producer"].startswith("urn:lakehouse"):
            steps.setdefault(event["run"]["runId"], [event["job"]["name"].partition(".")[0]]).append(event["eventType"])
            begun.setdefault(event["run"]["runId"], event)
    released = {name for (name,) in platform.sql("select distinct table_name from ops.releases")}
    beside = {name.replace("ml.", layer) for name in released for layer in ("ml_shadow.", "ml_what_if.")}
    made = {f"{layer}.{name.partition('.')[2]}" for name in released for layer in ("source", "quarantine")}
    models = {f"models.{name}" for (name,) in platform.sql("select distinct model_name from ops.models")}
    views = {f"silver.{path.stem}" for path in (PROJECT / "dbt" / "models" / "staging").glob("*.sql")}
    assert released | views | {"ops.model_metrics"} <= names
    assert names <= released | views | beside | made | models | {"ops.model_metrics"}
    sent = {kind for kind, *_ in steps.values()}
    told = {step for (step,) in platform.sql("select distinct step from ops.runs where status = 'success'")}
    assert sent >= told >= {
        "land", "replay", "gate", "release", "rollback", "build", "train", "score", "shadow", "what_if", "monitor",
        "retrain", "reproduce", "verify", "maintain",
    }  # fmt: skip
    alone = {run for run, (_, *kinds) in steps.items() if kinds == ["START"]}
    assert {tuple(kinds) for run, (_, *kinds) in steps.items() if run not in alone} == {
        ("START", "COMPLETE"), ("START", "FAIL"),
    }  # fmt: skip
    # Whoever is killed sends nothing more, and leaves no row. That were landings of one day, by the tests that kill a
    # part of the platform; each of them is known by the task that it was a try of.
    recorded = {run for (run,) in platform.sql("select run_id from ops.runs")}
    of_views = {run for run, event in begun.items() if event["job"]["name"].startswith("build.silver.")}
    of_tests = {run for run, event in begun.items() if event["job"]["name"] == "test.warehouse"} - recorded
    for run in of_tests:  # `lake build` asks them itself; in Airflow they are a step with a row
        assert begun[run]["run"]["facets"]["parent"]["job"]["name"] == "build.warehouse", begun[run]
    assert of_views and of_tests and steps.keys() - recorded - of_views - of_tests == alone
    for run in alone:
        facets = begun[run]["run"]["facets"]
        assert begun[run]["job"]["name"].partition(".")[2] == "bronze.weather", begun[run]
        assert facets["nominalTime"]["nominalStartTime"].startswith(KILLED_DAY), begun[run]
        assert facets["parent"]["job"]["name"].startswith("ingest_weather."), begun[run]
    assert (
        len({begun[run]["run"]["facets"]["parent"]["run"]["runId"] for run in alone}) == len(alone) <= len(KILLED_PARTS)
    )
    # Whatever Airflow has run hangs below its task, and that below the run of its DAG; a model below its build.
    by_airflow = platform.sql(
        "select run_id, step, airflow_dag_id, airflow_task_id from ops.runs where airflow_dag_id is not null"
    )
    assert {step for _, step, *_ in by_airflow} >= {
        "land", "replay", "gate", "release", "rollback", "build", "train", "score", "monitor", "maintain",
    }  # fmt: skip
    for run, _, dag, task in by_airflow:
        parent = begun[run]["run"]["facets"]["parent"]
        if parent["job"]["name"] == "build.warehouse":
            parent = begun[parent["run"]["runId"]]["run"]["facets"]["parent"]
        assert (parent["job"]["name"], parent["root"]["job"]["name"]) == (f"{dag}.{task}", dag), begun[run]
    # Maintenance has run by its DAG, too.
    [(by_dag,)] = platform.sql(
        "select count(*) from ops.runs where step = 'maintain' and status = 'success' "
        "and airflow_dag_id = 'maintain_lake' and airflow_task_id = 'maintain'"
    )
    assert by_dag >= 1


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One checkout for all of them: what dbt has parsed is kept with the platform's state."""
    made = tmp_path_factory.mktemp("copy") / "checkout"
    ignored = shutil.ignore_patterns(".git", ".venv", ".lake", ".ci", "__pycache__", ".*_cache", "target", "logs")
    shutil.copytree(PROJECT, made, ignore=ignored)
    (made / ".venv").symlink_to(PROJECT / ".venv")
    return made


# Last, as the platform knows tables afterwards that its own checkout does not.
@pytest.mark.parametrize("page", PAGES_OF_A_COPY)
def test_the_commands_of_a_page_work_in_a_copy(platform: Platform, page: str, copy: Path) -> None:
    began = time.monotonic()
    run(page, copy, platform.environment | {"LAKE_PROJECT": str(copy)})
    assert time.monotonic() - began < QUARTER_OF_AN_HOUR
    originals = {path: PROJECT / path.relative_to(copy) for path in copy.rglob("*") if path.is_file()}
    added = [path for path, original in originals.items() if not original.is_file()]
    edited = [path for path, original in originals.items() if path not in added and is_another(path, original)]
    assert added and edited == [], "the page edits central files"


def python(platform: Platform, *arguments: str) -> str:
    """What a Python process of the platform prints."""
    return printed([sys.executable, *arguments], PROJECT, platform.environment)


def is_another(path: Path, original: Path) -> bool:
    generated = path.suffix == ".pyc" or path.name == "sources.yml"
    return not generated and original.read_bytes() != path.read_bytes()


def run(page: str, checkout: Path, environment: dict[str, str]) -> str:
    # Not by standard input: a program of the page that reads it would swallow the rest of the script.
    return printed(["bash", "-c", script(runnable_blocks(PROJECT / page))], checkout, environment)


def printed(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout
