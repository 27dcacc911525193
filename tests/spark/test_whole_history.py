"""All trainings and scorings of a history of two models come out equal, before and after maintenance."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lakehouse import ops, release_log, tables
from lakehouse.engine import sql
from lakehouse.interval import Interval
from lakehouse.maintenance import compaction, maintain
from lakehouse.ml import model_folders
from lakehouse.ml.model_spec import ModelSpec
from lakehouse.registry import registry, roles
from lakehouse.release_log import released
from lakehouse.releases.release import release
from lakehouse.settings import settings
from lakehouse.steps import job
from tests.made_up_flights import flights
from tests.openlineage_schema import faults
from tests.spark.made_up import forget, give_suites, put

train, score = job("train"), job("score")
train_again, score_again = job("reproduce_training"), job("reproduce_predictions")
FEATURES, OUTCOMES = "gold.history_features", "gold.history_outcomes"
MODELS = ["flight_delay", "flight_delay_minutes"]
DAYS = Interval.parse("2013-01-01/2013-02-08")
# The last day that the first version scored is scored again by the second.
EPOCHS = [
    ("2013-01-01/2013-01-24", ["2013-01-26", "2013-01-27", "2013-01-28", "2013-02-02"]),
    ("2013-01-05/2013-01-31", ["2013-02-02", "2013-02-03", "2013-02-04/2013-02-05", "2013-02-06"]),
]


@dataclass
class History:
    """What was made, and since when: model and version of each training; model, days and release of each scoring."""

    began: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    trainings: list[tuple[str, int]] = field(default_factory=list)
    scorings: list[tuple[str, Interval, int]] = field(default_factory=list)


def predictions(model: str) -> str:
    return f"ml.history_{model}"


def made_up(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Features, and outcomes with the labels of both models."""
    features, outcomes = flights(DAYS, per_day=40, seed=seed)
    late = outcomes["is_late"].fillna(False).astype(float)
    delay = pd.Series(30 * late + np.random.default_rng(seed).gumbel(0, 12, len(outcomes)), dtype="Float64")
    return features, outcomes.assign(arrival_delay_minutes=delay.mask(outcomes["is_late"].isna()))


@pytest.fixture(scope="module")
def history(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    folder, made = tmp_path_factory.mktemp("history"), History()
    specs = {name: model_folders.load(name) for name in model_folders.models()}
    for name in MODELS:
        spec = specs[name]
        specs[name] = spec.model_copy(
            update={
                "features": spec.features.model_copy(update={"table": FEATURES}),
                "label": spec.label.model_copy(update={"table": OUTCOMES}),
                "promotion": spec.promotion.model_copy(update={"policy": "auto"}),
                "training": spec.training.model_copy(update={"folds": 2, "fold_days": 4, "test_days": 4}),
            }
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_folders, "load", specs.__getitem__)
        patch.setattr(ModelSpec, "predictions_table", property(lambda spec: predictions(spec.name)))
        give_suites(patch, folder, {predictions(name): f"ml.predictions_{name}" for name in MODELS})
        patch.setattr(settings(), "mlflow_tracking_uri", f"sqlite:///{folder}/mlflow.sqlite")
        registry.connect.cache_clear()
        for name in MODELS:
            forget(name)
            registry.connect().create_experiment(name, artifact_location=(folder / name).as_uri())
        for seed, (window, scored) in enumerate(EPOCHS):
            features, outcomes = made_up(seed)
            put(FEATURES, features, folder)
            put(OUTCOMES, outcomes, folder)
            for name in MODELS:
                version = train(name, Interval.parse(window))["model_version"]
                made.trainings.append((name, version))
                if roles.champion(name).version != version:
                    job("promote")(name, version, "it is the newest")
                for interval in map(Interval.parse, scored):
                    made.scorings.append((name, interval, publish(predictions(name), score(name, interval), interval)))
        yield made
        for name in MODELS:
            forget(name)
    registry.connect.cache_clear()


def publish(table: str, scored: dict[str, int], interval: Interval) -> int:
    now = dt.datetime.now(dt.UTC)
    verdict = {"table_name": table, "version": scored["version"], "verdict": "passed", "checked_at": now}
    ops.append("ops.gate_results", [verdict])
    return release([table], interval)


def trained_again(history: History) -> int:
    """How many trainings come out equal."""
    return sum(train_again(model, version)["equal"] for model, version in history.trainings)


def test_twenty_of_twenty_come_out_equal(history: History) -> None:
    batches = [score_again(model, interval, at)["batches"] for model, interval, at in history.scorings]
    assert [len(each) for each in batches] == [1] * len(history.scorings)
    assert len({each["run_id"] for [each] in batches}) == len(history.scorings) == 16
    assert {each["model_version"] for [each] in batches} == {1, 2}
    assert trained_again(history) == len(history.trainings) == 4


def test_maintenance_with_the_shortest_retention_keeps_all_that_it_takes(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = {FEATURES, OUTCOMES, *map(predictions, MODELS)}
    everything = release_log.history
    # Of these tables alone: those that other tests have left may have been damaged or removed by them.
    monkeypatch.setattr(release_log, "history", lambda: [row for row in everything() if row["table_name"] in ours])
    monkeypatch.setattr(compaction, "FEW_FILES", 4)
    views = {table: sql(f"select * from {table}").toPandas() for table in sorted(ours)}
    before = {table: released()[table].version for table in ours}

    outcome = maintain.maintain(0, grace_hours=0)

    assert outcome["files"] > 0
    assert set(outcome["compacted"]) == set(map(predictions, MODELS))
    for model in MODELS:  # the many small files went, and the rows are read from few
        with pytest.raises(tables.VersionGoneError):
            tables.check_kept(tables.next_table(predictions(model)), before[predictions(model)])
    for table, rows in views.items():
        key = ["flight_id"]
        shown = sql(f"select * from {table}").toPandas()
        pd.testing.assert_frame_equal(*(each.sort_values(key, ignore_index=True) for each in (shown, rows)))
    # Of each model, the scoring of a day that was scored again is no longer kept.
    kept = [score_again(model, Interval.parse("2013-01-26/2013-02-06"))["batches"] for model in MODELS]
    assert [len(batches) for batches in kept] == [7, 7]
    assert trained_again(history) == 4


def test_each_of_them_has_sent_its_events(history: History, lake_home: Path) -> None:
    found: dict[str, list[dict[str, Any]]] = {}
    for line in (lake_home / "openlineage" / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if (
            dt.datetime.fromisoformat(event["eventTime"]) < history.began
        ):  # of another test, whose steps may have failed
            continue
        if any(name in event["job"]["name"] for name in (*MODELS, *map(predictions, MODELS))):
            found.setdefault(event["run"]["runId"], []).append(event)
    steps: Counter[str] = Counter()
    for events in found.values():
        assert [faults(event) for event in events] == [[], []]
        assert [event["eventType"] for event in events] == ["START", "COMPLETE"], events
        step = events[0]["job"]["name"].partition(".")[0]
        steps[step] += 1
        if step in ("train", "score"):
            assert all(each["facets"]["version"] for each in events[1]["inputs"])
            [out] = events[1]["outputs"]
            assert out["facets"]["version"]
    assert steps >= Counter(train=4, score=16, promote=2, reproduce=20)
