"""The replay of a year: the policy drives it, the platform decides, and a training is made once."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import code, weekly, year
from benchmarks.replay import Year, drive
from lakehouse import dbt_project
from lakehouse.interval import Interval
from lakehouse.ml import model_folders, training
from lakehouse.ml.metrics import metric
from lakehouse.ml.model_spec import Retrain
from lakehouse.monitoring import reports
from lakehouse.quality import gate
from lakehouse.quality.expectation import Expectation
from lakehouse.quality.gate import RuleResult
from tests import reference
from tests.made_up_flights import SPEC, WINDOW, flights

LAST = dt.date(2013, 3, 28)
WEEKS = [Interval(WINDOW.end + dt.timedelta(days=1 + n), WINDOW.end + dt.timedelta(days=7 + n)) for n in (0, 7, 14)]
FRAME = training.training_frame(*flights(Interval(WINDOW.start, LAST), per_day=15), SPEC)
MODEL = SPEC.model_copy(update={"retrain": Retrain(max_age_days=10, cooldown_days=14)})
NEWEST = Interval(WEEKS[1].end - (WINDOW.end - WINDOW.start), WEEKS[1].end)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of trainings that the tests share."""
    return tmp_path_factory.mktemp("year")


def replayed(home: Path) -> Year:
    return Year(MODEL, FRAME, weekly.Trainings(home, FRAME, MODEL).scores)


def test_the_policy_drives_the_weeks_and_what_was_trained_is_not_trained_again(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weeks = list(drive(replayed(trained), WINDOW, WEEKS))
    assert [week.decision.outcome for week in weeks] == ["kept", "retrain", "waiting"]
    assert [week.contest is not None for week in weeks] == [False, True, False]
    assert weeks[2].champion == (NEWEST if weeks[1].contest and weeks[1].contest.promote else WINDOW)
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("it was trained already"))
    assert [week.measures for week in drive(replayed(trained), WINDOW, WEEKS)] == [week.measures for week in weeks]


def test_a_defect_of_a_week_before_keeps_it_from_training(trained: Path) -> None:
    policy = MODEL.model_copy(update={"monitoring": SPEC.monitoring.model_copy(update={"null_share": 0.5})})
    holes = FRAME.copy()
    holes.loc[[WEEKS[0].contains(day) for day in holes["flight_date"]], "plane_seats"] = None
    scores = weekly.Trainings(trained, FRAME, MODEL).scores
    weeks = list(drive(Year(policy, holes, scores), WINDOW, WEEKS))
    assert [week.decision.outcome for week in weeks] == ["kept", "blocked", "blocked"]
    assert f"null_share of plane_seats is 1, usual is 0.1175 on {WEEKS[0]}" in weeks[2].decision.reason


def test_the_replay_decides_by_all_that_a_promotion_is_decided_by(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judged(baseline: float, gate_says: bool) -> Any:
        made = weekly.Trainings(trained, FRAME, MODEL).scores

        def scores(window: Interval) -> Any:
            said = made(window)
            outcome = said.merge(FRAME, on=["flight_id", "flight_date"])["label"].fillna(False).astype(float)
            # The newest knows all of it, the oldest half.
            known = outcome.to_numpy() * (0.8 if window == NEWEST else 0.2) + 0.1
            return said.assign(score=known, baseline=known if baseline else said["baseline"])

        rule = Expectation("expect_column_values_to_be_between", {"column": "score", "max_value": 1})
        monkeypatch.setattr(gate, "of_scores", lambda *_: [RuleResult(rule, gate_says, 9, 0 if gate_says else 3)])
        return Year(MODEL, FRAME, scores).contest(WINDOW, NEWEST)

    assert judged(baseline=0, gate_says=True).promote
    assert "not below that of the baseline beside it" in judged(baseline=1, gate_says=True).reasons[0]
    assert "gate of its predictions would be shut" in judged(baseline=0, gate_says=False).reasons[0]


def test_the_figures_are_those_of_the_rows(trained: Path) -> None:
    whole = replayed(trained)
    found = {(each.metric, each.segment): each.value for each in whole.measure(WINDOW, WEEKS[0])}
    rows = whole.rows(WEEKS[0], WINDOW)
    known = rows[rows["label"].notna()]
    y, p = known["label"].to_numpy("float64"), known["score"].to_numpy()
    assert found["log_loss", "all"] == pytest.approx(metric("log_loss").of(y, p, None))
    assert found["precision", "all"] == pytest.approx(metric("precision").of(y, p, MODEL.decision_threshold))
    assert found["rows", "all"] == len(rows) == 7 * 15
    assert found["null_share", "feature=destination"] == pytest.approx(rows["destination"].isna().mean())


def test_another_code_another_model_and_other_rows_are_trained_again(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = weekly.Trainings(trained, FRAME, MODEL).sha256
    assert weekly.Trainings(tmp_path, FRAME.copy(), MODEL).sha256 == same
    assert weekly.Trainings(trained, FRAME.head(100), MODEL).sha256 != same
    assert weekly.Trainings(trained, FRAME, SPEC).sha256 != same
    (tmp_path / "lib").mkdir()
    (tmp_path / "model" / "__pycache__").mkdir(parents=True)
    for path in ("uv.lock", "lib/a.py", "lib/b.py", "lib/c.py", "model/model.yaml", "model/__pycache__/x.pyc"):
        typed = "from typing import TYPE_CHECKING\nfrom lib import b\nif TYPE_CHECKING:\n    from lib import c\n"
        (tmp_path / path).write_text(typed if path == "lib/a.py" else "x = 1\n")
    before = code.sha256("lib.a", folders=("model",), root=tmp_path)
    changes: dict[str, bool] = {
        "lib/b.py": True, "uv.lock": True, "model/model.yaml": True, "lib/c.py": False, "model/__pycache__/x.pyc": False
    }  # fmt: skip
    for path, matters in changes.items():
        text = (tmp_path / path).read_text()
        (tmp_path / path).write_text(text + "y = 2\n")
        assert (code.sha256("lib.a", folders=("model",), root=tmp_path) != before) == matters, path
        (tmp_path / path).write_text(text)


def test_what_came_of_it_is_kept_and_told(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(year, "training_windows", lambda: [WINDOW, NEWEST, NEWEST])
    monkeypatch.setattr(year, "FIRST", WINDOW)
    monkeypatch.setattr(year, "weeks", lambda: WEEKS)
    monkeypatch.setattr(weekly, "read", lambda _: FRAME)
    monkeypatch.setattr(model_folders, "load", lambda _: MODEL)
    path = year.keep(year.replay(trained, None), tmp_path / "results" / "year.json")
    kept = json.loads(path.read_text())
    page = (trained / "year.html").read_text()
    assert "flight_delay, 2013-03-15/2013-03-21" in page and "carrier_late_rate_28d" in page
    assert kept["trainings"].keys() == {str(WINDOW), str(NEWEST)}
    assert kept["sha256"]["trainings"] == weekly.Trainings(trained, FRAME, MODEL).sha256
    whole, never = replayed(trained), kept["plans"][0]
    rows = whole.rows(Interval(WEEKS[0].start, WEEKS[-1].end), WINDOW)
    known = rows[rows["label"].notna()]
    y, p = known["label"].to_numpy("float64"), known["score"].to_numpy()
    assert never["metrics"]["auc"] == pytest.approx(metric("auc").of(y, p, None))
    assert never["months"]["2013-03"]["rows"] == len(known)
    assert [week["decision"] for week in kept["weeks"]] == ["kept", "retrain", "waiting"]
    assert kept["weeks"][1]["contest"]["gate"] and not kept["first"]["guards"]
    text = "\n".join(year.report(kept))
    assert f"| never again | 1 | 1 | {never['metrics']['log_loss']:.4f} |" in text
    assert f"| {WEEKS[1].end} | age: 14 days" in text and "Of 3 weeks: 1 kept, 1 retrain, 1 waiting." in text
    page = f"before\n{year.PART}old\n{year.END}after\n"
    assert year.fill(page, kept) == f"before\n{year.PART}\n{text}\n\n{year.END}after\n"
    with pytest.raises(ValueError, match="has no part"):
        year.fill("a page", kept)


def test_the_lake_of_the_year_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every source is landed, gated and released, then the warehouse; of what is released already, nothing."""
    done: list[tuple[str, str]] = []
    there: dict[str, object] = {}

    def step(name: str) -> Callable[..., None]:
        return lambda what, *_: done.append((name, what if isinstance(what, str) else ", ".join(what)))

    from infra.demo import upstream
    from lakehouse import release_log, steps, warehouse
    from lakehouse.releases import audit, release

    monkeypatch.setattr(upstream, "deliver", step("deliver"))
    monkeypatch.setattr(steps, "job", step)
    monkeypatch.setattr(audit, "gate", step("gate"))
    monkeypatch.setattr(release, "release", lambda tables, _: there.update(dict.fromkeys(tables)))
    monkeypatch.setattr(release_log, "released", lambda: there)
    monkeypatch.setattr(warehouse, "build", lambda _: done.append(("build", "gold")))
    monkeypatch.setattr(dbt_project, "stored_models", lambda: ["gold.fct_flights"])
    year.load()
    assert [what for name, what in done if name == "land"] == list(year.SOURCES)
    assert done[-2:] == [("build", "gold"), ("gate", "gold.fct_flights")]
    assert {f"bronze.{source}" for source in year.SOURCES} < there.keys()
    done.clear()
    year.load()
    assert [name for name, _ in done] == ["deliver"]


def test_the_kept_weeks_and_their_report_show_the_seasons_of_the_real_flights() -> None:
    """Storms of summer, a quiet autumn, and the holidays and storms of December."""
    kept = [
        (Interval.parse(week["days"]), [{"model_name": year.MODEL, "role": "champion", "model_version": 1, **measure}
                                        for measure in week["measures"]])
        for week in json.loads(year.RESULT.read_text("utf-8"))["weeks"]
    ]  # fmt: skip
    late = {
        days.end: next(row["value"] for row in rows if (row["metric"], row["segment"]) == ("mean_outcome", "all"))
        for days, rows in kept
    }
    minutes = reference.flights().dropna(subset="arr_delay").groupby("date")["arr_delay"]
    daily = minutes.agg(rows="size", late=lambda delays: (delays > reference.LATE_MINUTES).sum())
    for end, share in late.items():
        week = daily.loc[end - dt.timedelta(days=6) : end].sum()  # a shorter one is measured with days before it
        assert share == pytest.approx(week["late"] / week["rows"])
    summer, december = (max(late[end] for end in late if end.month in months) for months in ((6, 7, 8), (12,)))
    assert 0.39 < summer < 0.41 and 0.42 < december < 0.43
    quiet = min(late, key=lambda end: late[end])
    assert quiet == dt.date(2013, 10, 3) and late[quiet] == pytest.approx(0.088, abs=0.0005)

    rows = [row | {"interval_start": days.start, "interval_end": days.end} for days, of in kept for row in of]
    page = reports.page(year.MODEL, kept[-1][0], rows)
    [line] = re.findall(r'aria-label="mean_outcome over time">(.*?)</svg>', page, re.DOTALL)
    assert re.findall(r"<title>(\S+): (\S+) ", line) == [(str(end), f"{share:.4g}") for end, share in late.items()]
    drawn = pd.Series([float(y) for y in re.findall(r'cy="(\S+)"', line)], index=list(late))
    assert np.corrcoef(drawn, list(late.values()))[0, 1] < -0.9999  # the top of a picture is 0
    assert drawn.idxmax() == quiet
