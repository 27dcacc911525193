"""The example and the scaffolds: what they consist of is valid; models train, and beat the baseline."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from lakehouse import contracts, scaffold
from lakehouse.interval import Interval
from lakehouse.ml import model_folders, training
from lakehouse.quality import suites
from lakehouse.settings import PROJECT_DIR
from tests.made_up_flights import WINDOW, flights

EXAMPLE = PROJECT_DIR / "examples" / "rain"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that has the example alone."""
    project = EXAMPLE / "project"
    monkeypatch.setattr(model_folders, "MODELS_DIR", project / "models")
    monkeypatch.setattr(contracts, "SUITES_DIR", project / "expectations" / "bronze")
    monkeypatch.setattr(suites, "SUITES_DIR", project / "expectations")
    return project


@pytest.fixture(scope="module")
def weather(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """What the example's upstream delivers."""
    folder = tmp_path_factory.mktemp("drop")
    subprocess.run(
        [sys.executable, str(EXAMPLE / "deliver.py"), str(folder), "2012-01-01", "2014-12-31"], check=True, cwd=folder
    )
    files = sorted((folder / "seattle_weather").iterdir())
    assert [files[0].name, files[-1].name] == [f"seattle_weather_{day}.csv" for day in ("2012-01-01", "2014-12-31")]
    return pd.concat([pd.read_csv(file, parse_dates=["observation_date"]) for file in files], ignore_index=True)


def test_its_contract_has_the_columns_that_are_delivered(example: Path, weather: pd.DataFrame) -> None:
    contract = contracts.read(example / "spark_jobs" / "sources" / "seattle_weather.yaml")
    assert [column.name for column in contract.columns] == list(weather.columns)
    assert len(weather) == 3 * 365 + 1
    assert set(suites.names()) == {
        "bronze.seattle_weather", "gold.rain_features", "gold.rain_outcomes", "ml.predictions_rain"
    }  # fmt: skip
    for name in suites.names():
        assert len(suites.load(name).expectations) >= 3


def test_its_model_beats_the_baseline(example: Path, weather: pd.DataFrame) -> None:
    """The features as the warehouse makes them, by pandas."""
    spec = model_folders.load("rain")
    rained = weather["precipitation_mm"] > 0
    day = weather["observation_date"] + pd.Timedelta(days=1)
    features = weather.drop(columns="observation_date").add_suffix("_1d").rename(columns={"station_1d": "station"})
    features = features.assign(
        day=day.dt.date, rain_rate_7d=rained.rolling(7, min_periods=1).mean(),
        season=np.cos(2 * np.pi * day.dt.dayofyear / 366),
    )  # fmt: skip
    labels = pd.DataFrame({"station": "seattle", "day": weather["observation_date"].dt.date, "rained": rained})
    frame = training.training_frame(features, labels, spec)
    window = Interval.parse("2012-01-08/2014-12-31")
    candidates = model_folders.candidates(spec)
    assert list(candidates) == ["base_rate", "histogram_gradient_boosting", "linear"]
    trained = training.train(frame, candidates, spec, window, model_folders.search_spaces(spec))
    assert len(trained.trials) == 8
    assert trained.candidates[trained.selected].high < trained.candidates["base_rate"].test["log_loss"]
    assert trained.compiled_reason.startswith("equal on")


def test_a_model_that_was_just_made_trains(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scaffold, "PROJECT_DIR", tmp_path)
    monkeypatch.setattr(model_folders, "MODELS_DIR", tmp_path / "models")
    scaffold.new_model("long_delay")
    spec = model_folders.load("long_delay")
    frame = training.training_frame(*flights(), spec)
    trained = training.train(frame, model_folders.candidates(spec), spec, WINDOW, model_folders.search_spaces(spec))
    assert trained.selected == "logistic_regression"
    assert trained.compiled_reason.startswith("equal on")


def test_the_history_of_a_source_that_was_just_made_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scaffold, "PROJECT_DIR", tmp_path)
    monkeypatch.setattr(contracts, "SUITES_DIR", tmp_path / "expectations" / "bronze")
    start = dt.date(2013, 3, 1)
    made, _ = scaffold.new_source("old_orders", history_start=start)
    contract = contracts.read(made)
    assert (dt.date.today() - start).days + 2 * 365 < contract.retention_days < (dt.date.today() - start).days + 4 * 366


def test_a_table_that_was_just_made_declares_its_days_like_one_of_the_same_kind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(scaffold, "PROJECT_DIR", tmp_path)
    _, properties, _ = scaffold.new_table("flights_per_day")

    def declared(path: Path, name: str) -> dict[str, object]:
        tables = yaml.safe_load(path.read_text("utf-8"))["models"]
        meta = next(table["config"]["meta"] for table in tables if table["name"] == name)
        return {key: meta[key] for key in ("replaces", "interval_column", "writes_days", "reads_days")}

    proven = declared(PROJECT_DIR / "dbt" / "models" / "marts" / "marts.yml", "daily_delays_by_carrier")
    assert declared(properties, "flights_per_day") == proven
