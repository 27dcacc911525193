"""Every prediction of the demo explains itself, down to the files; and a file finds its predictions."""

from __future__ import annotations

import datetime as dt
import hashlib
import html
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.demo import main_job
from tests.platforms import PROJECT, Lake, Platform

FILE = "weather_2013-03-01.jsonl"
DAYS = [dt.date(2013, 3, day) for day in (1, 2, 3)]

WALK = """
import json
from lakehouse import release_log; from lakehouse.ml import model_folders
from lakehouse.provenance.explain import Explainer, sources
import lakehouse

explainer, found = Explainer(), []
state = release_log.released()
for spec in filter(lambda spec: spec.predictions_table in state, map(model_folders.load, model_folders.models())):
    table = spec.predictions_table
    version = state[table].version
    for row in lakehouse.read(table).to_dict("records"):
        each = explainer.explain({**row, "table": table, "version": version})
        total = each["reasons"]["base"] + sum(c["contribution"] for c in each["reasons"]["contributions"])
        verdicts = []
        def walk(inputs):
            for one in inputs:
                verdicts.append(one["gate"] and one["gate"]["verdict"])
                for write in one["writes"]:
                    verdicts.append(write["run"] is not None and (write["gate"] or {}).get("verdict"))
                    walk(write.get("inputs", []))
        walk(each["inputs"]); walk(each["model"]["training"]["inputs"])
        files = sources(each)
        found.append({
            "id": row["prediction_id"], "day": str(row["flight_date"]), "score": row["score"], "log_odds": total,
            "verdicts": sorted(set(map(str, verdicts))), "files": len(files),
            "hashed": sum("sha256" in file and file["rows"] > 0 for file in files.values()),
            "own_files": sorted({name.split()[1] for name in files if str(row["flight_date"]) in name}),
        })
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def walked(platform: Platform) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", WALK], env=platform.environment, cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def lake(platform: Platform) -> Iterator[Lake]:
    """One process for all commands, none of which changes anything."""
    with platform.one_process() as lake:
        yield lake


@pytest.fixture(scope="module")
def wanted(platform: Platform) -> str:
    """A prediction of 2 March."""
    [(wanted,)] = platform.sql(
        "select prediction_id from ml.predictions_flight_delay where flight_date = date'2013-03-02' order by 1 limit 1"
    )
    return str(wanted)


@pytest.fixture(scope="module")
def explanation(lake: Lake, wanted: str) -> dict[str, Any]:
    """What JSON says of the prediction."""
    return json.loads(lake("explain", wanted, "--json").stdout)


@pytest.fixture(scope="module")
def tree(lake: Lake, wanted: str) -> str:
    """What is printed of the prediction."""
    return lake("explain", wanted).stdout


@pytest.fixture(scope="module")
def of_file(lake: Lake) -> dict[str, Any]:
    """What JSON says of the file."""
    return impact(lake, FILE)


def impact(lake: Lake, what: str) -> dict[str, Any]:
    return json.loads(lake("impact", what, "--json").stdout)


def test_every_prediction_resolves_to_the_end(platform: Platform, walked: list[dict[str, Any]]) -> None:
    import math

    [(rows,)] = platform.sql("select count(distinct prediction_id) from ml.predictions_flight_delay")
    assert len({each["id"] for each in walked}) == len(walked) == rows > 2000
    for each in walked:
        assert each["verdicts"] == ["passed"], each
        assert each["files"] == each["hashed"] > 100, each
        assert math.isclose(1 / (1 + math.exp(-each["log_odds"])), each["score"], rel_tol=0, abs_tol=1e-9), each
        assert each["own_files"] == [f"flight_schedule/flight_schedule_{each['day']}.csv"], each


def test_the_demo_ends_with_a_late_flight_explained(platform: Platform) -> None:
    [(wanted, score)] = platform.sql(
        "select p.prediction_id, p.score from ml.predictions_flight_delay p join gold.fct_flights f "
        "on f.flight_id = p.flight_id where f.is_late order by p.score desc, p.prediction_id limit 1"
    )
    assert f"prediction {wanted}: score {score:.4f}" in platform.demo
    before, _, after = platform.demo.partition(wanted)
    assert main_job.QUERY in before and "weather_2013-" in after


def test_the_worked_example_of_the_documentation_is_what_the_demo_says(platform: Platform, lake: Lake) -> None:
    page = (PROJECT / "docs" / "explanation" / "lineage.md").read_text()
    example, affected, _ = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    for printed, said in ((example, platform.demo), (affected, lake("impact", FILE).stdout)):
        for line in printed.splitlines():
            wanted = re.compile(".*".join(re.escape(part) for part in line.split("…")))
            assert any(map(wanted.match, said.splitlines())), line


def test_an_explanation_names_the_files_as_they_were_delivered(
    platform: Platform, explanation: dict[str, Any], tree: str
) -> None:
    found = explanation
    by_table = {each["table"]: each for each in found["inputs"][0]["writes"][0]["inputs"]}
    [weather] = by_table["bronze.weather"]["writes"]
    [file] = weather["files"]
    delivered = platform.home / "drop" / file["file"]
    assert file["sha256"] == hashlib.sha256(delivered.read_bytes()).hexdigest()
    assert (file["day"], file["rows"]) == ("2013-03-01", len(delivered.read_text().splitlines()))
    actuals = [f["day"] for write in by_table["bronze.flight_actuals"]["writes"] for f in write["files"]]
    assert sorted(actuals) == [str(dt.date(2013, 2, 2) + dt.timedelta(day)) for day in range(28)]
    model = found["model"]
    assert model["roles_now"] == ["champion"] and "against the baseline" in model["reason"] and model["decided_by"]
    assert model["training"]["window"] == "2013-01-08/2013-02-28"
    assert {each["table"] for each in model["training"]["inputs"]} == {"gold.flight_delay_features", "gold.fct_flights"}
    assert "flight_delay" in model["card"] and model["metrics"]["test_auc"] > 0.6
    [(auc,)] = platform.sql("select metrics['test_auc'] from ops.models where model_name = 'flight_delay'")
    assert f"test_auc {auc:.4f}" in tree and f"card.md of run {model['mlflow_run_id']}" in tree


def test_the_tree_and_the_page_of_a_prediction_say_what_json_says(
    lake: Lake, wanted: str, explanation: dict[str, Any], tree: str, tmp_path: Path
) -> None:
    path = tmp_path / "explanation.html"
    lake("explain", wanted, "--html", str(path))
    page, found = " ".join(html.unescape(path.read_text()).split()), explanation
    row, model = found["prediction"], found["model"]
    training = model["training"]
    inputs = [each for part in (found, training) for each in below(part["inputs"])]
    files = [file for each in inputs for write in each["writes"] for file in write.get("files", [])]
    assert len(inputs) >= 9 and len(files) > 100
    for said in (page, tree):
        for words in (
            row["prediction_id"], f"{row['score']:.4f}", row["flight_id"], row["run_id"],
            *(f"{each['feature']}" for each in found["reasons"]["contributions"][:8]),
            *(f"{each['contribution']:+.3f}" for each in found["reasons"]["contributions"][:8]),
            f"{model['name']} version {model['version']}", model["candidate"],
            *(each[key] for each in model["decisions"] for key in ("decided_by", "reason")),
            *(f"{value:.4f}" for value in model["metrics"].values()),
            training["window"], str(training["rows"]), str(training["release_id"]), training["input_sha256"][:12],
            training["lock_sha256"][:12], training["code_version"][:12], training["environment"],
            model["mlflow_run_id"], *(each["table"] for each in inputs),
        ):  # fmt: skip
            assert words in said, words
    for each in inputs:
        assert each["gate"]["verdict"] == "passed"
        assert f"{each['table']} version {each['version']}, days {each['days']}, release" in tree
        rules, not_judged = each["gate"]["rules"], len(each["gate"]["not_judged"])
        told = f", {not_judged} not judged: too little history" if not_judged else ""
        assert f"; gate passed: {rules - not_judged} of {rules} rules hold{told}" in tree
        assert f"{each['gate']['rules']} rules</span>" in page
    assert page.count('<span class="passed">passed</span>') == 1 + len(inputs)
    for file in files:
        assert f"<td>{file['file']}</td>" in page and file["sha256"] in page, file
        assert f'<td class="number">{file["rows"]}</td>' in page, file
    shown = [file for each in inputs for write in each["writes"] if len(write.get("files", [])) <= 3
             for file in write.get("files", [])]  # fmt: skip
    assert shown and all(f"{file['file']}: {file['rows']} rows, " in tree and file["sha256"] in tree for file in shown)
    assert " ".join(model["card"].split()) in page


def below(inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tables and all that they were made from."""
    return [
        one
        for each in inputs
        for one in (each, *(deeper for write in each["writes"] for deeper in below(write.get("inputs", []))))
    ]


def test_a_prediction_is_found_by_what_it_is_about(platform: Platform, lake: Lake) -> None:
    [(found, key)] = platform.sql(
        "select prediction_id, flight_id from ml.predictions_flight_delay where flight_date = date'2013-03-03' limit 1"
    )
    about = ("--model", "flight_delay", "--key", key, "--date", "2013-03-03")
    assert json.loads(lake("explain", *about, "--json").stdout)["prediction"]["prediction_id"] == found
    refused = lake("explain", "0" * 32, check=False)
    assert refused.returncode == 1 and "ml.predictions_flight_delay" in refused.stderr


def test_a_file_finds_what_was_made_from_it(platform: Platform, of_file: dict[str, Any]) -> None:
    found = of_file
    assert {each["table"]: each["days"] for each in found["tables"]} == {
        "bronze.weather": "2013-03-01", "gold.fct_flights": "2013-03-01", "gold.flight_delay_features": "2013-03-02",
        "gold.daily_delays_by_airport": "2013-03-01", "gold.daily_delays_by_carrier": "2013-03-01",
        "gold.daily_delays_by_route": "2013-03-01", "gold.on_time_league": "all",
    }  # fmt: skip
    assert found["models"] == [] and found["visible"]
    [scoring] = found["predictions"]
    [(rows,)] = platform.sql("select count(*) from ml.predictions_flight_delay where flight_date = date'2013-03-02'")
    assert (scoring["days"], scoring["rows_written"], scoring["rows_visible"]) == ("2013-03-02", rows, rows)
    assert len(platform.sql(scoring["query"])) == rows


def test_days_and_a_version_find_what_was_made_from_them(lake: Lake, of_file: dict[str, Any]) -> None:
    of_days = impact(lake, "2013-03-01")
    landed = {each["table"] for each in of_days["tables"] if each["step"] == "land"}
    assert landed >= {"bronze.weather", "bronze.flight_schedule", "bronze.flight_actuals"}
    assert {each["days"] for each in of_days["tables"] if each["table"] in landed} == {"2013-03-01"}
    assert {each["days"] for each in of_days["predictions"]} == {
        "2013-03-01",  # by its schedule
        "2013-03-02", "2013-03-03",  # by its outcomes
    }  # fmt: skip
    [weather] = [each for each in of_file["tables"] if each["table"] == "bronze.weather"]
    of_version = impact(lake, f"bronze.weather@{weather['version']}")
    parts = ("tables", "models", "predictions", "visible")
    assert [of_version[part] for part in parts] == [of_file[part] for part in parts]


def test_a_file_of_the_training_days_finds_the_model_and_all_of_its_predictions(lake: Lake) -> None:
    found = impact(lake, "flight_actuals_2013-01-20.csv")
    assert [(each["name"], each["version"]) for each in found["models"]] == [("flight_delay", 1)]
    assert {each["days"] for each in found["predictions"]} == {str(day) for day in DAYS}
    assert all("its model flight_delay@1" in each["because"] for each in found["predictions"])


def test_a_column_finds_the_days_that_readers_see_of_it(lake: Lake) -> None:
    found = impact(lake, "bronze.weather.temperature_f")
    seen = {each["table"]: each["visible_days"] for each in found["tables"]}
    assert seen.keys() == {"bronze.weather", "gold.fct_flights", "gold.flight_delay_features"}
    assert (seen["bronze.weather"], found["visible"]) == ("2013-01-01/2013-03-02", True)
    assert all(each["visible_days"] and each["releases"] for each in found["tables"])
    [model] = found["models"]
    assert (model["name"], model["version"], model["inputs"]) == ("flight_delay", 1, ["weather_temperature_f"])
    assert {each["days"] for each in found["predictions"]} == {str(day) for day in DAYS}
    assert all(each["rows_visible"] == each["rows_written"] for each in found["predictions"])


def test_the_file_that_was_caught_has_had_no_impact(lake: Lake) -> None:
    found = impact(lake, "weather/weather_2013-03-02.jsonl")
    caught, landed = found["landings"]
    assert caught["status"] == "failed" and "pressure" in caught["error"]
    assert caught["sha256"] != landed["sha256"] and landed["status"] == "success"
    assert {each["run_id"] for each in found["tables"] if each["table"] == "bronze.weather"} == {landed["run_id"]}


def test_a_page_draws_the_graph(lake: Lake, tmp_path: Path) -> None:
    page = tmp_path / "impact.html"
    lake("impact", "flight_delay@1", "--html", str(page))
    assert page.read_text().count("<rect") == 1 + len(DAYS)


def test_the_page_of_an_impact_says_what_is_visible(lake: Lake, of_file: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "impact.html"
    lake("impact", FILE, "--html", str(path))
    found, page = of_file, html.unescape(path.read_text())
    assert "Readers still see something that was made from it." in page and found["tables"] and found["predictions"]
    for each in found["tables"]:
        days = each["visible_days"]
        visible = f'<span class="failed">{days}</span>' if days else '<span class="passed">no</span>'
        row = f"{each['run_id']}</span></td>\n<td>{visible}</td>\n<td>{', '.join(map(str, each['releases']))}</td>"
        assert each["releases"] and row in page, each
    assert {bool(each["visible_days"]) for each in found["tables"]} == {True, False}
    for each in found["predictions"]:
        assert f'<td class="number">{each["rows_visible"]}</td>\n<td><code>{each["query"]}</code></td>' in page


def test_the_events_of_airflow_and_of_the_steps_are_one_tree(platform: Platform) -> None:
    from tests.openlineage_schema import faults

    jobs, parents, kinds = {}, {}, {}
    for line in (platform.home / "openlineage" / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        assert faults(event) == [], event
        run = event["run"]["runId"]
        jobs[run] = event["job"]["name"]
        kinds.setdefault(run, []).append(event["eventType"])
        if parent := event["run"]["facets"].get("parent"):
            parents[run] = parent["run"]["runId"]
    steps = [run for run in jobs if jobs[run].startswith(("land.", "gate.", "release.", "build.", "train.", "score."))]
    tied = [run for run in steps if run in parents]
    assert len(tied) >= 60
    for run in tied:
        above = parents[run]
        assert kinds[run][0] == "START" and kinds[run][-1] in ("COMPLETE", "FAIL"), jobs[run]
        if jobs[above] == "build.warehouse":
            above = parents[above]
        dag, _, task = jobs[above].partition(".")
        assert dag.startswith(("ingest_", "build_", "train_", "score_")) and task, (jobs[run], jobs[above])
        assert jobs[parents[above]] == dag


def test_the_lineage_of_tables_joins_with_the_releases(platform: Platform) -> None:
    rows = platform.sql(
        "select distinct l.source_table from ops.lineage_tables l join ops.releases r "
        "on l.table_name = r.table_name and l.version = r.version where l.table_name = 'gold.flight_delay_features'"
    )
    assert {row[0] for row in rows} == {
        "bronze.flight_actuals", "bronze.flight_schedule", "bronze.weather", "gold.dim_planes",
    }  # fmt: skip
    [(edges,)] = platform.sql(
        "select count(*) from ops.lineage_columns where table_name = 'gold.flight_delay_features'"
    )
    assert edges > 60
    scored = platform.sql(
        "select distinct p.prediction_id, l.version, m.release_id from ml.predictions_flight_delay p "
        "join ops.lineage_tables l on l.run_id = p.run_id and l.table_name = 'ml.predictions_flight_delay' "
        "join ops.lineage_tables t on t.table_name = l.source_table and t.version = l.source_version "
        "join ops.models m on l.source_table = concat('models.', m.model_name) and l.source_version = m.model_version "
        "where t.source_table = 'gold.flight_delay_features'"
    )
    [(predictions,)] = platform.sql("select count(*) from ml.predictions_flight_delay")
    assert len(scored) == predictions > 2000


def test_damages_to_the_tables_of_the_demo_are_each_found_and_named(platform: Platform, tmp_path: Path) -> None:
    copy = shutil.copytree(platform.home / "warehouse", tmp_path / "warehouse")
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.damaged"],
        env=platform.environment | {"LAKE_WAREHOUSE": str(copy)},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) >= 200
    for each in outcomes:
        [(table, file, what)] = each["found"]
        assert [table, file] == each["damaged"][:2] and each["damaged"][2] in what
    assert len({each["damaged"][0] for each in outcomes}) >= 12  # of sources, warehouse and predictions
    there = {re.sub(r"\d{20}", "N", file.name) for file in copy.glob("*_next.db/*/_delta_log/*") if file.is_file()}
    assert {each["kind"] for each in outcomes} == {"data", *there} >= {"N.checkpoint.parquet", "_last_checkpoint"}
