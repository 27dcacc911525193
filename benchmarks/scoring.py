"""R2, scoring a day from Delta to predictions in Delta, against bare ``predict_proba`` on rows that are in memory."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.harness import Goal, Result, Side, compare
from benchmarks.platform import engine
from benchmarks.sizes import rows_of

if TYPE_CHECKING:
    from lakehouse.interval import Interval
    from lakehouse.ml.model_spec import ModelSpec
    from lakehouse.ml.scoring import ServedModel

SIZE, QUICK_SIZE = "10M", "1k"
GOALS = {"pipeline": Goal(0.9, speed=True), "compiled": Goal(1.3, speed=True)}
FORMS = {"pipeline": "as it was trained", "compiled": "compiled as served"}
FEATURES, OUTCOMES = "gold.benchmark_features", "gold.benchmark_outcomes"
SERVED = dt.date(2013, 3, 1)


@dataclass(frozen=True)
class Day:
    """A model, and the rows of a day that it is to score.

    Attributes:
        spec: Of the model.
        days: The day.
        served: The version that scores it.
    """

    spec: ModelSpec
    days: Interval
    served: ServedModel

    def score(self) -> None:
        """Score the day, from Delta to Delta."""
        from lakehouse.steps import job

        job("score")(self.spec.name, self.days)

    def stored(self) -> dict[str, Any]:
        """What has been written."""
        from lakehouse import tables

        log = tables.delta(tables.next_table(self.spec.predictions_table))
        assert log is not None
        rows = log.to_pyarrow_table(columns=["flight_id", "score"], filesystem=tables.filesystem(log)).to_pandas()
        return _digest(rows["flight_id"], rows["score"].to_numpy())


def run(size: str, pairs: int) -> list[Result]:
    """Time both sides in turn.

    Args:
        size: Rows to score, such as ``10M``.
        pairs: How often each side is timed.
    """
    with engine() as home:
        return measure(size, pairs, home)


def prepared(size: str, home: Path) -> tuple[Day, pd.DataFrame]:
    """Train the model on made-up flights, and write those of a day, on the engine that is there.

    Args:
        size: Rows to score, such as ``10M``.
        home: A folder for the model registry.

    Returns:
        The day, and its rows as they are in the table.
    """
    from lakehouse.interval import Interval
    from lakehouse.ml import model_folders
    from lakehouse.registry import registry, roles
    from lakehouse.settings import settings
    from lakehouse.steps import job
    from tests.made_up_flights import SPEC, WINDOW, flights
    from tests.spark.made_up import put

    day = Interval(SERVED, SERVED)
    spec = SPEC.model_copy(
        update={
            "features": SPEC.features.model_copy(update={"table": FEATURES}),
            "label": SPEC.label.model_copy(update={"table": OUTCOMES}),
        }
    )
    model_folders.load = lambda _name: spec
    settings().mlflow_tracking_uri = f"sqlite:///{home}/mlflow.sqlite"
    registry.connect().create_experiment(spec.name, artifact_location=(home / "artifacts").as_uri())
    history, outcomes = flights(WINDOW, per_day=600)
    put(FEATURES, history, home)
    put(OUTCOMES, outcomes, home)
    job("train")(spec.name, WINDOW)
    features, _ = flights(day, per_day=rows_of(size))
    put(FEATURES, features, home)
    return Day(spec, day, registry.fetch(roles.champion(spec.name, SERVED))), features


def measure(size: str, pairs: int, home: Path) -> list[Result]:
    """Time both sides in turn, on the engine that is there; ours as the pipeline that was trained, and compiled.

    Args:
        size: Rows to score, such as ``10M``.
        pairs: How often each side is timed.
        home: A folder for the model registry.
    """
    from lakehouse.ml import scoring
    from lakehouse.registry import registry

    day, features = prepared(size, home)
    spec, served, names = day.spec, day.served, features["flight_id"]
    inputs = scoring.model_input(features, list(served.numeric), list(served.categorical))
    del features
    fitted = scoring.pipeline(served)
    kept: dict[str, Any] = {}

    def predict() -> None:
        kept["scores"] = scoring.predict(fitted, inputs, served.task)

    found = []
    for form, goal in GOALS.items():
        one = replace(served, compiled=served.compiled if form == "compiled" else b"")
        if one.compiled == b"" and form == "compiled":
            raise RuntimeError(f"{spec.name} has no compiled form: there is nothing to measure.")
        registry.fetch = lambda _version, *, baseline=False, one=one: one
        result = Result(
            f"R2-{form}",
            f"rows/s of scoring from Delta to Delta, {FORMS[form]}, ÷ bare prediction on rows in memory",
            size,
            goal,
            ("score", "predict_proba"),
            notes=(
                f"The model flight_delay: {' and '.join(type(step).__name__ for _, step in fitted.steps)} of "
                f"scikit-learn, {len(inputs.columns)} inputs. The other side is one call of `predict_proba`: it has "
                "its rows in a pandas frame, and keeps the scores in an array. Scores are compared bit by bit.",
            ),
        )
        ours = Side("score", day.score, day.stored)
        theirs = Side("predict_proba", predict, lambda: _digest(names, kept["scores"]))
        found.append(compare(result, ours, theirs, pairs))
    return found


def _digest(names: pd.Series, scores: np.ndarray) -> dict[str, Any]:
    order = np.argsort(names.to_numpy(dtype=str), kind="stable")
    return {"rows": len(scores), "sha256": hashlib.sha256(scores[order].tobytes()).hexdigest()}
