"""The replay of a year: the policy drives it, a training is made once, and its figures are those of the rows."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from benchmarks import weekly
from benchmarks.replay import Year, drive
from lakehouse import training
from lakehouse.interval import Interval
from lakehouse.metrics import metric
from lakehouse.model_spec import Retrain
from tests.made_up_flights import SPEC, WINDOW, flights

LAST = dt.date(2013, 3, 28)
WEEKS = [Interval(WINDOW.end + dt.timedelta(days=1 + n), WINDOW.end + dt.timedelta(days=7 + n)) for n in (0, 7, 14)]
FRAME = training.training_frame(*flights(Interval(WINDOW.start, LAST), per_day=15), SPEC)
MODEL = SPEC.model_copy(update={"retrain": Retrain(max_age_days=10, cooldown_days=14)})


def test_the_policy_drives_the_weeks_and_what_was_trained_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    year = Year(MODEL, FRAME, lambda window: weekly.train(tmp_path, FRAME, MODEL, window))
    weeks = list(drive(year, WINDOW, WEEKS))
    assert [week.decision.outcome for week in weeks] == ["kept", "retrain", "waiting"]
    assert [week.contest is not None for week in weeks] == [False, True, False]
    newest = Interval(WEEKS[1].end - (WINDOW.end - WINDOW.start), WEEKS[1].end)
    assert weeks[2].champion == (newest if weeks[1].contest and weeks[1].contest.promote else WINDOW)
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("it was trained already"))
    again = Year(MODEL, FRAME, lambda window: weekly.train(tmp_path, FRAME, MODEL, window))
    assert [week.measures for week in drive(again, WINDOW, WEEKS)] == [week.measures for week in weeks]


def test_the_figures_are_those_of_the_rows(tmp_path: Path) -> None:
    year = Year(MODEL, FRAME, lambda window: weekly.train(tmp_path, FRAME, MODEL, window))
    found = {(each.metric, each.segment): each.value for each in year.measure(WINDOW, WEEKS[0])}
    rows = year.rows(WEEKS[0], WINDOW)
    known = rows[rows["label"].notna()]
    y, p = known["label"].to_numpy("float64"), known["score"].to_numpy()
    assert found["log_loss", "all"] == pytest.approx(metric("log_loss").of(y, p, None))
    assert found["precision", "all"] == pytest.approx(metric("precision").of(y, p, MODEL.decision_threshold))
    assert found["rows", "all"] == len(rows) == 7 * 15
    assert found["null_share", "feature=destination"] == pytest.approx(rows["destination"].isna().mean())
