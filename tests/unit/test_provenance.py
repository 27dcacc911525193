"""Days are followed from table to table: which writes a version's rows come from, and what was made from a write."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from lakehouse import contracts, dbt_project
from lakehouse.interval import Interval, InvalidIntervalError
from lakehouse.lineage.sql_lineage import Edge
from lakehouse.ml.model_spec import InvalidModelError
from lakehouse.provenance import trees
from lakehouse.provenance.explain import RUN, Explainer, PredictionNotFoundError, find
from lakehouse.provenance.impact import Impact, UnknownOriginError, impact
from lakehouse.provenance.ledger import Ledger, Write, ranges
from lakehouse.registry.registry import ModelVersion
from lakehouse.table_days import Days, Shape, days_of, held, shape

SHAPES = {
    "bronze.readings": Shape((0, 0), reads={"bronze.readings": (0, 0)}),
    "bronze.names": Shape((0, 0)),
    "bronze.stations": Shape(),
    "bronze.weather": Shape((0, 0), reads={"bronze.weather": (0, 0)}),
    "gold.older": Shape((0, 0)),
    "gold.names": Shape(reads={"bronze.names": None}),
    "gold.features": Shape((0, 0), (1, 2), {"bronze.readings": (-2, -1), "gold.names": None}),
    "ml.scores": Shape((0, 0), reads={"gold.features": (0, 0)}),
}


def day(number: int) -> dt.date:
    return dt.date(2013, 3, number)


def days(first: int, last: int | None = None) -> frozenset[dt.date]:
    return days_of(day(first), day(last or first))


class Made:
    """A ledger that is written like the platform writes its own."""

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []
        self.releases: list[dict[str, Any]] = []
        self.verdicts: list[dict[str, Any]] = []
        self.commits: dict[str, list[dict[str, Any]]] = {}

    def write(self, table: str, interval: str, reads: dict[str, int] | None = None, **details: Any) -> int:
        step = {"bronze": "land", "gold": "build", "ml": "score", "ml_shadow": "shadow"}[table.partition(".")[0]]
        number = len(self.runs)
        version = self._commit(table, {"step": step, "interval": interval, "run_id": f"run{number}"})
        span = Interval.parse(interval)
        self.runs.append(
            {
                **dict.fromkeys((*RUN, "rows_out", "rows_quarantined", "error")),
                "run_id": f"run{number}", "step": step, "dataset": table, "status": "success",
                "interval_start": span.start, "interval_end": span.end,
                "ended_at": dt.datetime(2013, 4, 1, tzinfo=dt.UTC) + dt.timedelta(minutes=number),
                "versions_in": [(name.replace(".", "_next."), at) for name, at in (reads or {}).items()],
                "versions_out": [(table.replace(".", "_next."), version)],
                "details": json.dumps(details) if details else None,
            }
        )  # fmt: skip
        return version

    def reject(self, table: str, interval: str, **details: Any) -> str:
        """A landing that has written to quarantine alone; its run."""
        self.write(table, interval, **details)
        del self.commits[table][0]
        self.runs[-1] |= {
            "status": "failed", "error": "Rejected: whole",
            "versions_out": [(table.replace("bronze", "quarantine"), 1)],
        }  # fmt: skip
        return str(self.runs[-1]["run_id"])

    def replay(self, table: str, interval: str, batches: dict[str, str]) -> int:
        version = self.write(table, interval, {table: len(self.commits[table]) - 1})
        self.commits[table][0]["userMetadata"] |= {"step": "replay", "batches": batches}
        self.runs[-1]["step"] = "replay"
        return version

    def restore(self, table: str, version: int) -> int:
        return self._commit(table, {"step": "rollback", "restored": version})

    def release(self, table: str, version: int) -> None:
        told = dict.fromkeys(("released_at", "reason", "released_by", "override_of"))
        number = len(self.releases) + 1
        self.releases.append({**told, "release_id": number, "table_name": table, "version": version})

    def _commit(self, table: str, said: dict[str, Any]) -> int:
        log = self.commits.setdefault(table, [{"version": 0, "operation": "CREATE TABLE", "userMetadata": {}}])
        log.insert(0, {"version": len(log), "operation": "WRITE", "userMetadata": said})
        return len(log) - 1

    def ledger(self) -> Ledger:
        def commits(table: str) -> list[dict[str, Any]]:
            return self.commits.get(table, [])

        return Ledger(
            self.runs, self.releases, self.verdicts, commits, SHAPES.__getitem__, lambda *_: [Interval(day(1), day(31))]
        )


@pytest.fixture
def made() -> Made:
    return Made()


def owners(ledger: Ledger, table: str, version: int, wanted: Days) -> dict[int, str]:
    return {write.version: ranges(own) for write, own in ledger.owners(table, version, wanted)}


def affected(ledger: Ledger, table: str, version: int, wanted: Days) -> dict[str, str]:
    return {f"{w.table}@{w.version}": ranges(own) for w, own in ledger.affected({(table, version): wanted}).items()}


def test_a_day_comes_from_the_newest_write_that_was_not_taken_back(made: Made) -> None:
    made.write("bronze.readings", "2013-03-01/2013-03-05")
    made.write("bronze.readings", "2013-03-03")
    made.write("bronze.readings", "2013-03-04")
    made.restore("bronze.readings", 2)
    made.write("bronze.readings", "2013-03-05")
    ledger = made.ledger()
    assert owners(ledger, "bronze.readings", 5, days(1, 5)) == {
        5: "2013-03-05", 2: "2013-03-03", 1: "2013-03-01/2013-03-02, 2013-03-04",
    }  # fmt: skip
    assert owners(ledger, "bronze.readings", 3, days(4)) == {3: "2013-03-04"}
    assert owners(ledger, "bronze.readings", 5, days(9)) == {}


@pytest.mark.parametrize(
    ("declared", "reads"),
    [
        ({"readings": [0, 0], "stg_readings": [-28, -1]}, (-28, 0)),
        ({"stg_readings": [-28, -1], "readings": [-3, -2]}, (-28, -1)),
        ({"stg_readings": [-28, -1]}, None),
        ({}, None),
    ],
)
def test_a_table_that_is_read_by_several_names_is_read_for_all_of_their_days(
    monkeypatch: pytest.MonkeyPatch, declared: dict[str, list[int]], reads: tuple[int, int] | None
) -> None:
    monkeypatch.setattr(dbt_project, "meta", lambda _table: {"interval_column": "day", "reads_days": declared})
    monkeypatch.setattr(dbt_project, "named", lambda _table: ["readings", "stg_readings"])
    monkeypatch.setattr(dbt_project, "stored_inputs", lambda _name: ["bronze.readings"])
    assert shape("gold.features").reads == {"bronze.readings": reads}


def test_what_was_before_a_table_was_made_anew_is_not_in_it(made: Made) -> None:
    made.write("gold.features", "2013-03-01")
    made._commit("gold.features", {})
    made.commits["gold.features"][0]["operation"] = "CREATE OR REPLACE TABLE"
    made.write("gold.features", "2013-03-02")
    assert owners(made.ledger(), "gold.features", 3, None) == {3: "2013-03-02"}


def test_a_history_of_thousands_of_builds_is_followed(made: Made) -> None:
    first, builds = day(1), 3000
    for number in range(builds):
        made.write("gold.features", (first + dt.timedelta(number)).isoformat())
    again = made.write("gold.features", first.isoformat())
    next_day, newest = first + dt.timedelta(1), first + dt.timedelta(builds - 1)
    found = owners(made.ledger(), "gold.features", again, days_of(first, next_day) | {newest})
    assert found == {again: ranges(days_of(first, next_day)), builds: ranges(frozenset({newest}))}


def test_a_build_rewrites_later_days_only_where_they_were_there(made: Made) -> None:
    made.write("gold.features", "2013-03-01")
    made.write("gold.features", "2013-03-03")
    made.write("gold.features", "2013-03-02")
    ledger = made.ledger()
    assert owners(ledger, "gold.features", 3, None) == {3: "2013-03-02/2013-03-03", 1: "2013-03-01"}


def test_a_table_without_days_comes_from_its_newest_write(made: Made) -> None:
    made.write("gold.names", "2013-03-01")
    made.write("gold.names", "2013-03-02")
    assert owners(made.ledger(), "gold.names", 2, None) == {2: "all"}


def chain_of_a_day(made: Made) -> None:
    made.write("bronze.names", "2013-03-01")
    made.write("gold.names", "2013-03-01", {"bronze.names": 1})
    for number in range(1, 6):
        made.write("bronze.readings", str(day(number)))
    for number in range(3, 7):
        version = made.write("gold.features", str(day(number)), {"bronze.readings": number - 1, "gold.names": 1})
        made.write("ml.scores", str(day(number)), {"gold.features": version})


def test_backward_from_a_prediction_to_what_was_landed(made: Made) -> None:
    chain_of_a_day(made)
    ledger = made.ledger()
    [(scoring, _)] = ledger.owners("ml.scores", 4, days(6))
    [(table, version, own)] = ledger.inputs(scoring, days(6))
    assert (table, version, own) == ("gold.features", 4, days(6))
    [(build, own)] = ledger.owners(table, version, own)
    assert ledger.inputs(build, own) == [("bronze.readings", 5, days(4, 5)), ("gold.names", 1, None)]
    assert owners(ledger, "bronze.readings", 5, days(4, 5)) == {5: "2013-03-05", 4: "2013-03-04"}


def test_forward_from_a_landing_to_the_predictions(made: Made) -> None:
    chain_of_a_day(made)
    ledger = made.ledger()
    assert affected(ledger, "bronze.readings", 3, days(3)) == {
        "bronze.readings@3": "2013-03-03",
        "gold.features@2": "2013-03-04", "ml.scores@2": "2013-03-04",
        "gold.features@3": "2013-03-05", "ml.scores@3": "2013-03-05",
    }  # fmt: skip
    assert affected(ledger, "bronze.names", 1, None).keys() >= {"gold.names@1", "gold.features@1", "ml.scores@4"}


def test_what_was_read_once_counts_when_it_is_no_longer_declared(made: Made) -> None:
    made.write("bronze.readings", "2013-03-01/2013-03-02")
    made.write("bronze.stations", "2013-03-01")
    features = made.write("gold.features", "2013-03-03", {"bronze.readings": 1, "bronze.stations": 1})
    made.write("gold.older", "2013-03-03", {"bronze.readings": 1})
    made.write("ml.scores", "2013-03-03", {"gold.features": features, "gold.older": 1})
    ledger = made.ledger()
    [(scoring, _)] = ledger.owners("ml.scores", 1, days(3))
    assert ledger.inputs(scoring, days(3)) == [("gold.features", features, days(3)), ("gold.older", 1, None)]
    [(build, own)] = ledger.owners("gold.features", features, days(3))
    assert ledger.inputs(build, own) == [("bronze.readings", 1, days(1, 2)), ("bronze.stations", 1, None)]
    found = affected(ledger, "bronze.stations", 1, None)
    assert found == {"bronze.stations@1": "all", "gold.features@1": "2013-03-03", "ml.scores@1": "2013-03-03"}
    assert "ml.scores@1" in affected(ledger, "gold.older", 1, None)


def test_of_a_table_without_a_record_of_its_own_what_the_build_has_read_counts_as_far_as_it_reads_it(
    made: Made,
) -> None:
    made.write("bronze.readings", "2013-03-01/2013-03-02")
    made.write("gold.features", "2013-03-03", {"bronze.readings": 1, "bronze.names": 1})
    made.runs[-1]["dataset"] = "warehouse"
    ledger = made.ledger()
    [(build, own)] = ledger.owners("gold.features", 1, days(3))
    assert ledger.inputs(build, own) == [("bronze.readings", 1, days(1, 2))]


def test_forward_through_the_models_of_one_build(made: Made) -> None:
    made.write("bronze.names", "2013-03-01")
    made.write("gold.features", "2013-03-01", {"gold.names": 1})
    made.write("gold.names", "2013-03-01", {"bronze.names": 1})
    for run in made.runs:
        run["ended_at"] = made.runs[0]["ended_at"]
    assert affected(made.ledger(), "bronze.names", 1, None).keys() == {
        "bronze.names@1", "gold.names@1", "gold.features@1",
    }  # fmt: skip


def test_a_replay_carries_on_what_was_landed(made: Made) -> None:
    made.write("bronze.readings", "2013-03-01/2013-03-02", files={"a": {}})
    made.write("bronze.readings", "2013-03-01", {"bronze.readings": 1})
    made.runs[-1]["step"] = made.commits["bronze.readings"][0]["userMetadata"]["step"] = "replay"
    made.runs.append(made.runs[0] | {"run_id": "again", "step": "replay", "details": None})  # it has changed nothing
    ledger = made.ledger()
    assert affected(ledger, "bronze.readings", 1, days(1)) == {
        "bronze.readings@1": "2013-03-01", "bronze.readings@2": "2013-03-01",
    }  # fmt: skip
    assert [write.step for write in ledger.chain("bronze.readings", 2)] == ["replay", "land"]
    assert ledger.chain("bronze.readings", 1)[0].details == {"files": {"a": {}}}


def test_what_was_put_right_before_it_was_read_has_no_impact(made: Made) -> None:
    made.write("bronze.readings", "2013-03-01")
    made.write("bronze.readings", "2013-03-01")
    made.write("gold.features", "2013-03-02", {"bronze.readings": 2})
    ledger = made.ledger()
    assert affected(ledger, "bronze.readings", 1, days(1)) == {"bronze.readings@1": "2013-03-01"}
    assert affected(ledger, "bronze.readings", 2, days(1)).keys() == {"bronze.readings@2", "gold.features@1"}


def test_what_was_taken_back_is_no_longer_visible(made: Made) -> None:
    made.write("bronze.readings", "2013-03-01/2013-03-02")
    made.release("bronze.readings", 1)
    made.write("bronze.readings", "2013-03-02")
    made.release("bronze.readings", 2)
    made.release("bronze.readings", made.restore("bronze.readings", 1))
    ledger = made.ledger()
    first, second = ledger.writes()
    seen = ledger.released_version("bronze.readings")
    assert (seen, ledger.still(first, seen, days(1, 2)), ledger.still(second, seen, days(2))) == (
        3, days(1, 2), frozenset(),
    )  # fmt: skip
    assert (ledger.shown_by(first, days(2)), ledger.shown_by(second, days(2))) == ([1, 3], [2])


def test_a_write_without_a_record_is_followed_no_further(made: Made) -> None:
    made.write("bronze.readings", "2013-03-01")
    made.runs.clear()
    [(write, own)] = made.ledger().owners("bronze.readings", 1, days(1))
    assert write == Write("bronze.readings", 1, "land", Interval(day(1), day(1)), None)
    assert made.ledger().inputs(write, own) == []


def test_days_as_a_person_reads_them() -> None:
    assert ranges(days(1, 3) | days(5)) == "2013-03-01/2013-03-03, 2013-03-05"
    assert (ranges(None), ranges(frozenset())) == ("all", "")


def test_maintenance_leaves_the_past_of_the_rows_as_it_was(made: Made) -> None:
    made.write("bronze.readings", "2013-03-01/2013-03-02")
    made.write("bronze.readings", "2013-03-03")
    gated = {"table_name": "bronze.readings", "version": 2, "run_id": "g", "verdict": "passed", "checked_at": 0}
    made.verdicts = [{**gated, "page": None, "expectation": "e", "column_name": None, "severity": "critical",
                      "success": True}]  # fmt: skip
    made._commit("bronze.readings", {"step": "maintain", "compacted": 2})
    made.release("bronze.readings", 3)
    ledger = made.ledger()
    assert owners(ledger, "bronze.readings", 3, None) == owners(ledger, "bronze.readings", 2, None)
    assert ledger.verdict("bronze.readings", 3) == ledger.verdict("bronze.readings", 2) is not None
    assert affected(ledger, "bronze.readings", 2, days(3)) == {"bronze.readings@2": "2013-03-03"}
    assert ledger.verdict("bronze.readings", 1) is None


def test_a_rule_without_a_verdict_is_neither_broken_nor_said_to_hold(made: Made) -> None:
    made.write("bronze.readings", "2013-03-01")
    gated = {"table_name": "bronze.readings", "version": 1, "run_id": "g", "verdict": "passed", "checked_at": 0}
    made.verdicts = [
        {**gated, "page": None, "expectation": name, "column_name": "seats", "severity": "warning", "success": success}
        for name, success in (("holds", True), ("broken", False), ("too_young", None))
    ]
    verdict = made.ledger().verdict("bronze.readings", 1)
    assert verdict is not None and verdict["rules"] == 3
    assert verdict["broken"] == ["broken on seats (warning)"]
    assert verdict["not_judged"] == ["too_young on seats (warning)"]


def test_days_that_were_deleted_come_from_nowhere_until_they_are_written_again(made: Made) -> None:
    made.write("bronze.readings", "2013-03-01/2013-03-03")
    made._commit("bronze.readings", {"step": "maintain", "expired": 1, "interval": "2013-03-01/2013-03-02"})
    made.write("bronze.readings", "2013-03-02")
    ledger = made.ledger()
    assert owners(ledger, "bronze.readings", 1, None) == {1: "2013-03-01/2013-03-03"}
    assert owners(ledger, "bronze.readings", 2, None) == {1: "2013-03-03"}
    assert owners(ledger, "bronze.readings", 2, days(1, 2)) == {}
    assert owners(ledger, "bronze.readings", 3, days(1, 3)) == {3: "2013-03-02", 1: "2013-03-03"}
    [first, _] = ledger.writes()
    assert ledger.still(first, 2, days(1)) == frozenset()


def test_a_step_that_failed_after_its_commit_is_found_by_what_was_made_of_it(made: Made) -> None:
    """It has not come to saying what it has written; its commits name it."""
    made.write("bronze.readings", "2013-03-01", files={"a": {}})
    made.runs[-1] |= {"status": "failed", "versions_out": []}
    features = made.write("gold.features", "2013-03-02", {"bronze.readings": 1})
    made.write("ml.scores", "2013-03-02", {"gold.features": features})
    made.runs[-1] |= {"status": "failed", "versions_out": []}
    ledger = made.ledger()
    assert affected(ledger, "bronze.readings", 1, days(1)) == {
        "bronze.readings@1": "2013-03-01", "gold.features@1": "2013-03-02", "ml.scores@1": "2013-03-02",
    }  # fmt: skip
    [(scoring, own)] = ledger.owners("ml.scores", 1, days(2))
    assert ledger.inputs(scoring, own) == [("gold.features", features, days(2))]
    [(landing, _)] = ledger.owners("bronze.readings", 1, days(1))
    assert landing.details == {"files": {"a": {}}}


def test_what_a_failed_step_has_taken_back_is_no_write_of_it(made: Made) -> None:
    made.write("bronze.readings", "2013-03-01")
    made.write("bronze.readings", "2013-03-02")
    made._commit("bronze.readings", {"step": "land", "run_id": "late", "restored": 1})
    made.runs.append({**made.runs[-1], "run_id": "late", "status": "failed", "versions_out": []})
    assert [write.version for write in made.ledger().writes()] == [1, 2]


def test_all_commits_of_a_run_are_its_writes(made: Made) -> None:
    """In the shadow, each version that is tried writes for itself, and the run names the last."""
    made.write("ml.scores", "2013-03-01")
    made._commit("ml.scores", made.commits["ml.scores"][0]["userMetadata"])
    made.runs[-1] |= {"step": "shadow", "versions_out": [("ml_next.scores", 2)]}
    assert [(write.version, write.run is None) for write in made.ledger().writes()] == [(1, False), (2, False)]


def test_quarantine_leads_nowhere(made: Made) -> None:
    made.write("bronze.readings", "2013-03-01")
    made.runs[-1]["versions_out"].append(("quarantine.readings", 3))
    assert [(write.table, write.version) for write in made.ledger().writes()] == [("bronze.readings", 1)]


WEATHER = {f"weather/weather_2013-03-0{number}.jsonl": {"sha256": str(number), "rows": 1} for number in (1, 2)}
DATED = {name: {"day": name[-16:-6], **facts} for name, facts in WEATHER.items()}


def moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the deliveries of a source come under another name from now on."""
    contract = contracts.load("weather")
    server = dataclasses.replace(contract.server, location="{drop}/stations/{interval}.jsonl")
    monkeypatch.setattr(contracts, "load", lambda _name: dataclasses.replace(contract, server=server))


def files_behind(monkeypatch: pytest.MonkeyPatch, ledger: Ledger, version: int, wanted: Days) -> dict[str, str]:
    """The source files of some days, as an explanation has them, each with its day."""
    monkeypatch.setattr(Ledger, "read", lambda: ledger)
    each = Explainer()._input("bronze.weather", version, wanted)
    return {file["file"]: file["day"] for write in each["writes"] for file in write["files"]}


@pytest.mark.parametrize("files", [WEATHER, DATED], ids=["as recorded before", "with days"])
def test_a_landing_has_the_files_of_the_days_that_are_asked_for(
    made: Made, monkeypatch: pytest.MonkeyPatch, files: dict[str, Any]
) -> None:
    made.write("bronze.weather", "2013-03-01/2013-03-02", files=files)
    found = files_behind(monkeypatch, made.ledger(), 1, days(2))
    assert found == {"weather/weather_2013-03-02.jsonl": "2013-03-02"}


def test_files_of_the_past_are_those_that_were_recorded_whatever_the_contract_says_now(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.write("bronze.weather", "2013-03-01/2013-03-02", files=DATED)
    made.write("bronze.weather", "2013-03-03", files={"stations/2013-03-03.jsonl": {"sha256": "3", "rows": 1}})
    moved(monkeypatch)
    assert files_behind(monkeypatch, made.ledger(), 2, days(2, 3)) == {
        "weather/weather_2013-03-02.jsonl": "2013-03-02", "stations/2013-03-03.jsonl": "2013-03-03",
    }  # fmt: skip
    found = impact("weather_2013-03-02.jsonl")
    assert [(each["table"], each["version"], each["days"]) for each in found.tables] == [
        ("bronze.weather", 1, "2013-03-02")
    ]


def test_of_the_releases_that_have_shown_something_those_against_a_gate_are_named(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ledger, "read", made.ledger)
    for day_, override_of in (("2013-03-01", None), ("2013-03-02", "5d0c")):
        made.release("bronze.weather", made.write("bronze.weather", day_))
        made.releases[-1] |= {"override_of": override_of, "released_by": "ada", "reason": "counted by hand"}
    assert impact("2013-03-02").overrides == [
        {"table": "bronze.weather", "release_id": 2, "released_by": "ada", "reason": "counted by hand"}
    ]
    made.releases[-1]["override_of"] = None
    assert impact("2013-03-02").overrides == []


def test_a_file_whose_day_is_not_known_can_be_that_of_each_day_of_its_landing(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.write("bronze.weather", "2013-03-01/2013-03-02", files=WEATHER)
    moved(monkeypatch)
    found = files_behind(monkeypatch, made.ledger(), 1, days(2))
    assert found == dict.fromkeys(WEATHER, "2013-03-01/2013-03-02")


def test_a_replay_has_the_files_that_its_days_were_landed_from_last(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.write("bronze.weather", "2013-03-01/2013-03-02", files=DATED)
    made.write("bronze.weather", "2013-03-02", files={"again.jsonl": {"day": "2013-03-02", "sha256": "3", "rows": 1}})
    made.write("bronze.weather", "2013-03-01/2013-03-02")
    made.runs[-1]["step"] = made.commits["bronze.weather"][0]["userMetadata"]["step"] = "replay"
    found = files_behind(monkeypatch, made.ledger(), 3, days(1, 2))
    assert found == {"weather/weather_2013-03-01.jsonl": "2013-03-01", "again.jsonl": "2013-03-02"}


AGAIN = {"again.jsonl": {"day": "2013-03-02", "sha256": "3", "rows": 1}}


@pytest.mark.parametrize("earlier", [True, False], ids=["after another delivery", "alone"])
def test_a_replay_has_the_files_of_a_delivery_that_was_rejected_whole_before(
    made: Made, monkeypatch: pytest.MonkeyPatch, earlier: bool
) -> None:
    if earlier:
        made.write("bronze.weather", "2013-03-01/2013-03-02", files=DATED)
        made.release("bronze.weather", 1)
    else:
        made._commit("bronze.weather", {})
    rejected = made.reject("bronze.weather", "2013-03-02", files=AGAIN)
    version = made.replay("bronze.weather", "2013-03-01/2013-03-02", {"2013-03-02": rejected})
    made.release("bronze.weather", version)
    of_both_days = {"again.jsonl": "2013-03-02"}
    if earlier:
        of_both_days["weather/weather_2013-03-01.jsonl"] = "2013-03-01"
    assert files_behind(monkeypatch, made.ledger(), version, days(1, 2)) == of_both_days

    found = impact("again.jsonl")
    assert [each["error"] for each in found.landings] == ["Rejected: whole"]
    assert [(each["version"], each["step"], each["visible_days"]) for each in found.tables] == [
        (version, "replay", "2013-03-02")
    ]
    assert ("again.jsonl", f"bronze.weather@{version}") in found.edges
    if earlier:  # whose rows of the day are no longer there, and those of the other day are
        for name, visible in (("2013-03-02", [(1, "")]), ("2013-03-01", [(1, ""), (version, "2013-03-01")])):
            found = impact(f"weather_{name}.jsonl")
            assert [(each["version"], each["visible_days"]) for each in found.tables] == visible

    # What is still in quarantine of the day has come with the same delivery, which is in the table now.
    again = made.replay("bronze.weather", "2013-03-02", {"2013-03-02": rejected})
    third = made.replay("bronze.weather", "2013-03-01/2013-03-02", {})
    assert files_behind(monkeypatch, made.ledger(), third, days(1, 2)) == of_both_days
    assert affected(made.ledger(), "bronze.weather", version, days(2)) == {
        f"bronze.weather@{each}": "2013-03-02" for each in (version, again, third)
    }


def test_the_files_of_a_delivery_that_has_left_no_record_are_not_those_of_an_earlier_one(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.write("bronze.weather", "2013-03-01/2013-03-02", files=DATED)
    version = made.replay("bronze.weather", "2013-03-02", {"2013-03-02": "killed before it could"})
    assert files_behind(monkeypatch, made.ledger(), version, days(2)) == {}


def test_a_landing_that_failed_after_its_commit_has_the_impact_of_its_file(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.write("bronze.weather", "2013-03-01", files={"weather/weather_2013-03-01.jsonl": WEATHER[next(iter(WEATHER))]})
    made.runs[-1] |= {
        "status": "failed", "versions_out": [("quarantine.weather", 9)], "error": "RuntimeError: late",
    }  # fmt: skip
    monkeypatch.setattr(Ledger, "read", made.ledger)
    found = impact("weather_2013-03-01.jsonl")
    assert [each["error"] for each in found.landings] == ["RuntimeError: late"]
    assert [(each["table"], each["version"], each["days"]) for each in found.tables] == [
        ("bronze.weather", 1, "2013-03-01")
    ]


@pytest.mark.parametrize("what", ["flight_delay@1", "models.flight_delay@1"])
def test_a_model_version_is_known_by_both_of_its_names(made: Made, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(Ledger, "read", made.ledger)
    monkeypatch.setattr(
        "lakehouse.registry.registry.version", lambda name, number: SimpleNamespace(aliases=[f"{name} {number}"])
    )
    found = impact(what)
    assert (found.kind, [each["roles_now"] for each in found.models]) == ("model", [["flight_delay 1"]])


def test_what_a_model_has_scored_that_has_no_folder_any_more_is_found(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SHAPES, "ml.predictions_retired", Shape())
    monkeypatch.setattr("lakehouse.registry.registry.version", lambda name, number: ModelVersion(name, number, "run"))
    made.write("bronze.readings", "2013-03-01")
    features = made.write("gold.features", "2013-03-02", {"bronze.readings": 1})
    made.write("ml.predictions_retired", "2013-03-02", {"gold.features": features}, model_version=2)
    monkeypatch.setattr(Ledger, "read", made.ledger)
    query = "select * from ml.predictions_retired where run_id = 'run2' and model_version = 2"
    for what in ("retired@2", "2013-03-01"):
        [scoring] = impact(what).predictions
        assert (scoring["model_version"], scoring["days"], scoring["query"]) == (2, "all", query)


@pytest.mark.parametrize(
    ("column", "versions"), [("score", [1, 2]), ("weather_temperature_f", [1, 2]), ("plane_seats", [2])]
)
def test_a_column_of_a_model_finds_the_versions_that_have_it(
    made: Made, monkeypatch: pytest.MonkeyPatch, column: str, versions: list[int]
) -> None:
    rows = [
        {
            "model_name": "flight_delay",
            "model_version": number,
            "versions": [("gold.flight_delay_features", 1)],
            "mlflow_run_id": "run",
        }
        for number in (1, 2)
    ]
    inputs = {1: ["weather_temperature_f"], 2: ["weather_temperature_f", "plane_seats"]}
    monkeypatch.setattr(Ledger, "read", made.ledger)
    monkeypatch.setattr("lakehouse.ops.read", lambda _table, **_: SimpleNamespace(to_pylist=lambda: rows))
    monkeypatch.setattr("lakehouse.registry.registry.version", lambda name, number: ModelVersion(name, number, "run"))
    monkeypatch.setattr(
        "lakehouse.registry.registry.fetch", lambda found, **_: SimpleNamespace(inputs=inputs[found.version])
    )
    predicted = Edge("ml.predictions_flight_delay", "score", "models.flight_delay", column, "direct", "IDENTITY")
    monkeypatch.setattr("lakehouse.lineage.column_lineage.downstream", lambda _name, **_: [predicted])
    found = impact(f"models.flight_delay.{column}")
    told = None if column == "score" else [column]
    assert [(each["version"], each.get("inputs")) for each in found.models] == [(number, told) for number in versions]
    assert found.columns == ["ml.predictions_flight_delay.score"]
    assert {(f"models.flight_delay.{column}", f"flight_delay@{number}") for number in versions} < set(found.edges)
    monkeypatch.setattr(
        "lakehouse.registry.registry.fetch", Mock(side_effect=OSError("gone"))
    )  # it may have had any column
    assert [each["version"] for each in impact(f"models.flight_delay.{column}").models] == [1, 2]


@pytest.mark.parametrize(
    ("column", "because", "in_the_shadow"),
    [
        ("gold.flight_delay_features.flight_number", "its column flight_number", True),
        ("gold.flight_delay_features.flight_id", "its columns flight_id, prediction_id", True),
        ("gold.flight_delay_features.carried_once", "its column carried_once", True),
        ("gold.flight_delay_features.never_carried", None, False),
        ("ml.predictions_flight_delay.carrier", "its column carrier", False),
        ("ml.predictions_flight_delay.score", "its column score", False),
        ("models.flight_delay.score", None, False),
    ],
)
def test_a_column_that_no_model_has_seen_finds_the_predictions_that_it_stands_in(
    made: Made, monkeypatch: pytest.MonkeyPatch, column: str, because: str | None, in_the_shadow: bool
) -> None:
    table, features, shadow = (
        "ml.predictions_flight_delay",
        "gold.flight_delay_features",
        "ml_shadow.predictions_flight_delay",
    )
    for name in (table, shadow):
        monkeypatch.setitem(SHAPES, name, Shape((0, 0)))
    made.write(table, "2013-03-02", {features: 1}, model_version=1)
    made.write(shadow, "2013-03-02", {features: 1}, model_version=2)
    monkeypatch.setattr(Ledger, "read", made.ledger)
    has = frozenset({"prediction_id", "flight_id", "flight_number", "carrier", "carried_once", "score", "decision"})
    monkeypatch.setattr("lakehouse.tables.columns", lambda _stored: has)
    monkeypatch.setattr("lakehouse.ops.read", lambda _table, **_: SimpleNamespace(to_pylist=list))
    identity = "direct", "IDENTITY"
    edges = [
        Edge(table, "flight_number", features, "flight_number", *identity),
        Edge(table, "flight_id", features, "flight_id", *identity),
        Edge(table, "prediction_id", features, "flight_id", *identity),
        Edge(table, "score", "models.flight_delay", "score", *identity),
        Edge(table, "decision", table, "score", *identity),
    ]
    monkeypatch.setattr(
        "lakehouse.lineage.column_lineage.downstream",
        lambda name, **_: [each for each in edges if name == f"{each.source_table}.{each.source_column}"],
    )
    found = impact(column)
    scorings = [(each["model_version"], each["days"], each["because"]) for each in found.predictions]
    assert scorings == ([(1, "2013-03-02", because)] if because else [])
    assert [each["table"] for each in found.tables] == ([shadow] if in_the_shadow else [])
    assert {to for _, to in found.edges} == {*found.columns, *([f"{table}@1"] if because else [])}


def test_columns_made_from_one_are_told_from_those_of_whose_rows_it_decides(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ledger, "read", made.ledger)
    monkeypatch.setattr("lakehouse.ops.read", lambda _table, **_: SimpleNamespace(to_pylist=list))
    found = impact("gold.fct_flights.flight_date")
    table = "gold.daily_delays_by_carrier"
    assert f"{table}.flight_date" in found.columns and f"{table}.late_rate" in found.columns_by_condition
    assert not {*found.columns} & {*found.columns_by_condition}
    assert {to for _, to in found.edges} == {*found.columns, *found.columns_by_condition}
    said = [str(branch.label) for branch in trees.of_impact(found).children]
    assert f"{len(found.columns)} columns made from it" in said
    assert f"{len(found.columns_by_condition)} columns of which it only decides the rows" in said


def test_days_without_rows_are_not_visible(made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A build is about days that no row may be of, such as the one before the first."""
    monkeypatch.setattr("lakehouse.tables.location", lambda stored: str(tmp_path / stored))
    monkeypatch.setattr("lakehouse.table_days.interval_column", {"gold.features": "day"}.get)
    for number in (2, 3, 5):
        rows = pa.table({"day": pa.array([day(number)] * 2, pa.date32())})
        write_deltalake(str(tmp_path / "gold_next.features"), rows, mode="append")
    version = made.write("gold.features", "2013-03-01/2013-03-06")
    made.write("gold.features", "2013-03-09")
    made.release("gold.features", version)
    ledger = dataclasses.replace(made.ledger(), held=held)
    monkeypatch.setattr(Ledger, "read", lambda: ledger)
    [features] = impact("gold.features@1").tables
    assert (features["days"], features["visible_days"]) == ("2013-03-01/2013-03-06", "2013-03-02/2013-03-03")
    assert held("gold.names", 1) is None


def test_where_no_statistics_say_which_days_have_rows_it_is_up_to_them(made: Made, tmp_path: Path) -> None:
    version = made.write("gold.features", "2013-03-01/2013-03-06")
    made.release("gold.features", version)
    ledger = dataclasses.replace(made.ledger(), held=lambda *_: None)
    assert ledger.with_rows("gold.features", version, days(1, 6)) == "up to 2013-03-01/2013-03-06"
    assert ledger.with_rows("gold.features", None, frozenset()) == ""
    assert ledger.with_rows("gold.names", version, None) == "all"


def of_column(
    made: Made, monkeypatch: pytest.MonkeyPatch, column: str, read: list[str], known: list[str] | None = None
) -> Impact:
    """The impact of a column, where version 1 of a model without a folder was trained on some tables."""
    monkeypatch.setitem(SHAPES, "ml.predictions_retired", Shape())
    versions = [(table, 1) for table in read]
    trained = {"model_name": "retired", "model_version": 1, "versions": versions, "mlflow_run_id": "run"}
    monkeypatch.setattr(Ledger, "read", made.ledger)
    monkeypatch.setattr("lakehouse.ops.read", lambda _table, **_: SimpleNamespace(to_pylist=lambda: [trained]))
    monkeypatch.setattr("lakehouse.registry.registry.version", lambda name, number: ModelVersion(name, number, "run"))
    monkeypatch.setattr("lakehouse.registry.registry.fetch", lambda *_, **__: SimpleNamespace(inputs=["wind"]))
    table, _, name = column.rpartition(".")
    edge = Edge(table, name, "bronze.readings", name, "direct", "IDENTITY")
    monkeypatch.setattr("lakehouse.lineage.column_lineage.downstream", lambda _name, **_: [edge])
    monkeypatch.setattr("lakehouse.lineage.column_lineage.columns", lambda: dict.fromkeys(known or read, ()))
    return impact(f"bronze.readings.{name}")


@pytest.mark.parametrize(
    ("column", "because", "scored"),
    [
        ("gold.features.wind", "an input of its model", True),
        ("gold.features.wind", "an input of its model", False),
        ("gold.older.late", "what may be the label of its model, whose folder is gone", True),
    ],
)
def test_a_column_finds_the_versions_of_a_model_without_a_folder(
    made: Made, monkeypatch: pytest.MonkeyPatch, column: str, because: str, scored: bool
) -> None:
    if scored:
        made.write("ml.predictions_retired", "2013-03-02", {"gold.features": 1}, model_version=1)
    found = of_column(made, monkeypatch, column, ["gold.features", "gold.older"])
    told = "label" if "label" in because else "inputs"
    assert [(each["name"], each[told]) for each in found.models] == [("retired", [column.rpartition(".")[2]])]
    assert [each["because"] for each in found.predictions] == [because] * scored
    assert (column, "retired@1") in found.edges and not found.unknown


def test_of_a_model_without_a_folder_that_has_never_scored_the_label_is_not_known(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = of_column(made, monkeypatch, "gold.features.seats", ["gold.features", "gold.older"])
    assert not found.models and not found.predictions
    [unknown] = found.unknown
    assert unknown.startswith("Whether bronze.readings.seats is the label of retired@1: models/retired is gone")


def test_a_column_that_a_model_without_a_folder_does_not_have_does_not_find_it(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.write("ml.predictions_retired", "2013-03-02", {"gold.features": 1}, model_version=1)
    found = of_column(made, monkeypatch, "gold.features.seats", ["gold.features", "gold.older"])
    assert not found.models and not found.predictions and not found.unknown


def test_where_what_a_model_was_trained_on_is_gone_too_it_is_said_that_it_is_not_known(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = of_column(made, monkeypatch, "gold.names.wind", ["gold.features", "gold.older"], ["gold.older"])
    assert not found.models and found.unknown == [
        "Whether retired@1 was made from bronze.readings.wind: models/retired is gone, and so is gold.features, which "
        "it was trained on."
    ]


def test_of_a_model_whose_file_is_wrong_it_is_said_that_it_is_not_known(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = {"retired": InvalidModelError("models/retired/model.yaml: line 3: it is wrong.")}
    monkeypatch.setattr("lakehouse.ml.model_folders.problems", lambda: problems)
    monkeypatch.setattr("lakehouse.provenance.explain.released", lambda _release_id=None: {})
    said = "models/retired/model.yaml: line 3: it is wrong."
    found = of_column(made, monkeypatch, "gold.features.wind", ["gold.features"])
    assert not found.models and found.unknown == [f"Whether retired@1 was made from bronze.readings.wind: {said}"]
    with pytest.raises(PredictionNotFoundError, match=f"Not looked through: those of retired, as {said}"):
        find("no id")
    monkeypatch.setattr("lakehouse.provenance.explain.released", lambda _release_id=None: {"ml.predictions_gone": None})
    with pytest.raises(
        PredictionNotFoundError,
        match=r"Looked through nothing\. Not .* "
        r"Not looked through: ml\.predictions_gone, as models/gone is gone\.",
    ):
        find("no id", release_id=3)
    monkeypatch.setattr("lakehouse.ml.model_folders.problems", dict)
    monkeypatch.setattr("lakehouse.provenance.explain.released", lambda _release_id=None: {})
    with pytest.raises(PredictionNotFoundError, match="nothing: no predictions had been released by release 3"):
        find("no id", release_id=3)


def test_of_tables_that_are_gone_it_is_known_what_they_have_read(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made.write("gold.names", "2013-03-01", {"bronze.names": 1})
    made.write("gold.features", "2013-03-02", {"gold.names": 1})
    asked = made, monkeypatch, "gold.older.wind", ["gold.features"], ["gold.older"]
    assert of_column(*asked).unknown == []
    made.write("gold.names", "2013-03-03", {"gold.older": 1})
    [unknown] = of_column(*asked).unknown
    assert "and so is gold.features" in unknown


def test_days_of_a_source_without_a_contract_are_days() -> None:
    assert shape("bronze.nobody_knows_it_any_more").writes == (0, 0)


def test_what_cannot_be_asked_says_how_it_is_written(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "read", made.ledger)
    with pytest.raises(
        UnknownOriginError, match=r"A model version is written flight_delay@1, .* silver, gold, models, ml"
    ):
        impact("mlflow.flight_delay.1")
    with pytest.raises(UnknownOriginError, match=f"the id of a prediction: `lake explain {'0a' * 16}`"):
        impact("0a" * 16)
    with pytest.raises(UnknownOriginError, match=r"^ops.model_metrics is a record of the platform's own\. Ask for"):
        impact("ops.model_metrics@3")
    made.write("bronze.readings", "2013-03-01")
    made.write("bronze.readings", "2013-03-02")
    with pytest.raises(UnknownOriginError, match=r"^No step has written a .* bronze.reading. Did you mean bronze.rea"):
        impact("bronze.reading@1")
    with pytest.raises(UnknownOriginError, match=r"^flight_delay is a model: .* such as flight_delay@1"):
        impact("models.flight_delay")
    with pytest.raises(UnknownOriginError, match=r"^bronze.readings is a table: .* such as bronze.readings@1"):
        impact("bronze.readings")
    with pytest.raises(UnknownOriginError, match=r"^'x' is no version of bronze.readings"):
        impact("bronze.readings@x")
    with pytest.raises(UnknownOriginError, match=r"^silver.stg_weather is a view and has no versions"):
        impact("silver.stg_weather@1")
    with pytest.raises(UnknownOriginError, match=r"^bronze.readings has had no version 9"):
        impact("bronze.readings@9")
    with pytest.raises(UnknownOriginError, match=r"for 2014-01-01. Days that have been: 2013-03-01/2013-03-02\.$"):
        impact("2014-01-01")
    for days in ("2013-02-30", "2013-03-05/2013-03-01"):
        with pytest.raises(InvalidIntervalError, match=days):
            impact(days)
