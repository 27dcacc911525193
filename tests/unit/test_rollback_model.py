"""A model that is rolled back: what was cut off goes on, and what is another wish is not taken for it."""

from __future__ import annotations

import datetime as dt
import importlib
from contextlib import nullcontext
from typing import Any

import pandas as pd
import pytest

from lakehouse.registry import registry, roles
from lakehouse.registry.registry import ModelVersion

rollback_model = importlib.import_module("spark_jobs.rollback_model")
MODEL, TABLE = "flight_delay", "ml.predictions_flight_delay"
DAYS = [dt.date(2013, 3, day) for day in (4, 5, 6)]


class Lake:
    """Days that version 2 has scored, and what is done about them; scoring is cut off on the day ``killed_on``."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.scored = dict.fromkeys(DAYS, 2)
        self.events = [self.event(1, "promoted", None), self.event(2, "promoted", 1)]
        self.killed_on: dt.date | None = None
        patch.setattr(roles, "events", lambda _: self.events)
        patch.setattr(roles, "appoint", self.appoint)
        patch.setattr(registry, "version", lambda name, number: ModelVersion(name, number, "run"))
        patch.setattr(rollback_model, "step", lambda *_, **__: nullcontext(type("Run", (), {"details": {}})()))
        patch.setattr(rollback_model, "released", lambda: [TABLE])
        patch.setattr(rollback_model.release_log, "read", self.read)
        patch.setattr(rollback_model, "job", lambda _: self.score)
        patch.setattr(rollback_model, "gate", lambda *_: None)
        patch.setattr(rollback_model, "release", lambda *_: None)

    def event(self, version: int, what: str, before: int | None) -> dict[str, Any]:
        return {"model_version": version, "event": what, "champion_before": before, "serves_from": DAYS[0],
                "reason": "a test"}  # fmt: skip

    def appoint(self, _: Any, version: ModelVersion, what: str, *__: Any) -> dict[str, Any]:
        before = self.events[-1]["model_version"]
        if before == version.version:
            raise roles.RoleError(f"version {before} is the champion already.")
        self.events.append(self.event(version.version, what, before))
        return self.events[-1]

    def read(self, _: str, columns: list[str], where: list[Any]) -> pd.DataFrame:
        version = where[0][2]
        return pd.DataFrame({columns[0]: [day for day, by in self.scored.items() if by == version]})

    def score(self, _: str, interval: Any) -> None:
        if interval.start == self.killed_on:
            raise KeyboardInterrupt
        self.scored[interval.start] = self.events[-1]["model_version"]


@pytest.mark.parametrize("to", [None, 1])
def test_a_rollback_that_was_cut_off_while_it_scored_goes_on(to: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(monkeypatch)
    lake.killed_on = DAYS[1]
    with pytest.raises(KeyboardInterrupt):
        rollback_model.run(MODEL, "false alarms", to, rescore=True)
    lake.killed_on = None
    outcome = rollback_model.run(MODEL, "false alarms", to, rescore=True)
    assert (outcome["champion"], outcome["rescored"]) == (1, ["2013-03-05", "2013-03-06"])
    assert set(lake.scored.values()) == {1} and [row["event"] for row in lake.events].count("rolled back") == 1


def test_another_version_than_that_of_the_unfinished_rollback_is_another_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(monkeypatch)
    rollback_model.run(MODEL, "false alarms", 1)
    assert rollback_model.run(MODEL, "it was right", 2, rescore=True)["champion"] == 2
    assert [row["model_version"] for row in lake.events] == [1, 2, 1, 2]
    with pytest.raises(roles.RoleError, match="champion already"):
        rollback_model.run(MODEL, "it was right", 2, rescore=True)  # nothing is left to be scored


def test_there_is_no_way_back_to_a_version_that_was_never_champion(monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(monkeypatch)
    lake.events.insert(1, lake.event(3, "kept out", 1))
    with pytest.raises(roles.RoleError, match=r"version 3 was never champion.*lake promote flight_delay@3"):
        rollback_model.run(MODEL, "it looks better", 3)
    assert len(lake.events) == 3
