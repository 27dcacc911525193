"""A prediction that is asked for: found by what it is about, and where there is none, what there is."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from deltalake import write_deltalake
from typer.testing import CliRunner

from lakehouse import cli, release_log, tables
from lakehouse.ml import model_folders
from lakehouse.ml.prediction_id import prediction_id
from lakehouse.provenance import explain
from lakehouse.provenance.explain import PredictionNotFoundError

MODEL = model_folders.load("flight_delay")
TABLE = MODEL.predictions_table
DAYS = [dt.date(2013, 3, number) for number in (1, 2, 4)]


@pytest.fixture
def predictions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Released predictions for flight 7 of three days."""
    monkeypatch.setattr(tables, "location", lambda stored: str(tmp_path / stored))
    rows = [
        {"prediction_id": prediction_id(MODEL.name, ["7"], day), "flight_date": day, "flight_id": 7, "score": 0.5}
        for day in DAYS
    ]
    write_deltalake(str(tmp_path / tables.next_table(TABLE)), pd.DataFrame(rows))
    state = {TABLE: SimpleNamespace(table=TABLE, version=0)}
    for module in (release_log, explain):
        monkeypatch.setattr(module, "released", lambda _release=None: state)


@pytest.mark.usefixtures("predictions")
def test_a_prediction_is_found_by_what_it_is_about() -> None:
    found = explain.find_about(MODEL.name, ["7"], DAYS[1])
    assert (found["flight_date"], found["table"], found["version"]) == (DAYS[1], TABLE, 0)


@pytest.mark.usefixtures("predictions")
def test_of_a_key_that_has_no_prediction_it_is_said_what_was_asked_and_what_there_is() -> None:
    outcome = CliRunner().invoke(
        cli.command_line(), ["explain", "--model", MODEL.name, "--key", "8", "--date", "2013-03-02"]
    )
    assert isinstance(outcome.exception, PredictionNotFoundError)
    assert str(outcome.exception) == (
        "flight_delay has no prediction for flight_id 8 on 2013-03-02. Days with predictions: "
        "2013-03-01/2013-03-02, 2013-03-04. The key is flight_id, as ml.predictions_flight_delay has it."
    )


@pytest.mark.usefixtures("predictions")
def test_a_key_of_the_wrong_length_is_told_its_columns() -> None:
    with pytest.raises(PredictionNotFoundError, match=r"key of flight_delay is flight_id: .*, and\s+not 2 times\."):
        explain.find_about(MODEL.name, ["UA", "8"], DAYS[0])


def test_without_released_predictions_no_days_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "released", lambda _release=None: {})
    with pytest.raises(PredictionNotFoundError, match=r"Nothing has been released of ml\.predictions_flight_delay"):
        explain.find_about(MODEL.name, ["8"], DAYS[0])


def test_the_decisions_about_a_version_have_that_it_was_taken_back() -> None:
    def event(version: int, kind: str, before: int | None = None, model: str = "late") -> dict[str, object]:
        about = {"model_name": model, "model_version": version, "event": kind, "champion_before": before}
        return {**about, "at": DAYS[0], "serves_from": DAYS[0], "reason": f"{kind} {version}", "decided_by": "ada"}

    events = [
        event(1, "promoted"), event(2, "kept out", 1), event(2, "promoted", 1), event(2, "promoted", 1, "other"),
        event(1, "rolled back", 2), event(3, "promoted", 1), event(1, "rolled back", 3),
    ]  # fmt: skip

    def told(version: int) -> list[tuple[object, object]]:
        return [(each["event"], each["reason"]) for each in explain.decisions(events, "late", version)]

    back = "rolled back", "rolled back 1"
    assert told(2) == [("kept out", "kept out 2"), ("promoted", "promoted 2"), ("taken back", "rolled back 1")]
    assert told(1) == [("promoted", "promoted 1"), back, back]
