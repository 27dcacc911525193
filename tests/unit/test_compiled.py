"""Compiled forms: the pipeline's own scores to the last bit, or no form at all."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler
from skops import io

from lakehouse.ml import compiled, model_folders, scoring, training
from lakehouse.ml.compilation import NotCompiledError, attempt, compile_, prove
from lakehouse.ml.model_spec import ModelSpec
from lakehouse.ml.scoring import ServedModel, model_input, predict
from tests.made_up_flights import flights, train

MODELS = [(name, candidate) for name in ("flight_delay", "flight_delay_minutes")
          for candidate in list(model_folders.candidates(model_folders.load(name)))[1:]]  # fmt: skip


def frame_of(spec: ModelSpec) -> pd.DataFrame:
    features, labels = flights(per_day=30)
    outcomes = labels["is_late"].astype("float64")
    if spec.task == "regression":
        outcomes = outcomes * 30 + features["carrier_late_rate_28d"].fillna(0)
    return features.assign(label=outcomes).dropna(subset="label").reset_index(drop=True)


def fit(candidate: Pipeline, spec: ModelSpec) -> tuple[Pipeline, pd.DataFrame]:
    frame = frame_of(spec)
    label = frame["label"].astype("int8" if spec.task == "classification" else "float64")
    return candidate.fit(inputs(frame, spec), label), frame


def inputs(frame: pd.DataFrame, spec: ModelSpec) -> pd.DataFrame:
    return model_input(frame, spec.features.numeric, spec.features.categorical)


def columns(spec: ModelSpec) -> tuple[list[str], list[str]]:
    return list(spec.features.numeric), list(spec.features.categorical)


@pytest.fixture(scope="module")
def made() -> dict[tuple[str, str], tuple[ModelSpec, Pipeline, pd.DataFrame, bytes]]:
    found = {}
    for name, candidate in MODELS:
        spec = model_folders.load(name)
        fitted, frame = fit(model_folders.candidates(spec)[candidate], spec)
        found[name, candidate] = spec, fitted, frame, prove(fitted, frame, *columns(spec), spec.task)
    return found


@pytest.mark.parametrize("model", MODELS, ids="-".join)
@settings(max_examples=8, deadline=None)
@given(rows=st.lists(st.integers(0, 1500), min_size=1, max_size=50), seed=st.integers(0, 1000))
def test_any_rows_have_the_pipelines_scores(made: Any, model: tuple[str, str], rows: list[int], seed: int) -> None:
    spec, fitted, frame, payload = made[model]
    random = np.random.default_rng(seed)
    some = frame.iloc[rows].reset_index(drop=True)
    for name in spec.features.numeric:
        some[name] = some[name].astype("float64").where(random.random(len(some)) > 0.2, np.nan)
        some[name] *= random.choice([1, -1, 1e6, 1e-9], len(some))
    for name in spec.features.categorical:
        some[name] = some[name].where(random.random(len(some)) > 0.2, random.choice(np.array([None, "?"], object)))
    found = compiled.score(compiled.load(payload), pa.RecordBatch.from_pandas(some[spec.features.inputs]))
    assert found.tobytes() == predict(fitted, inputs(some, spec), spec.task).tobytes()


@pytest.mark.parametrize("model", MODELS[2:3] + MODELS[-1:], ids="-".join)
def test_a_number_on_a_threshold_goes_the_same_way(made: Any, model: tuple[str, str]) -> None:
    spec, fitted, frame, payload = made[model]
    some = frame.head(60).copy()
    for name in spec.features.numeric:
        # The bins of the trees lie half-way between two numbers, or on one.
        values = np.unique(frame[name].dropna())
        some[name] = np.resize((values[1:] + values[:-1]) / 2, len(some))
    found = compiled.score(compiled.load(payload), pa.RecordBatch.from_pandas(some[spec.features.inputs]))
    assert found.tobytes() == predict(fitted, inputs(some, spec), spec.task).tobytes()


@pytest.mark.parametrize("leaves", [2, 9, 20, 33, 64])
def test_trees_of_any_size(leaves: int) -> None:
    random = np.random.default_rng(1)
    frame = pd.DataFrame(
        {"a": random.normal(size=2000), "b": random.normal(size=2000).round(1), "c": ["x", "y"] * 1000}
    )
    frame.loc[random.random(2000) < 0.2, "a"] = np.nan
    encoder = make_column_transformer((OneHotEncoder(sparse_output=False), ["c"]), ("passthrough", ["b", "a"]))
    trees = HistGradientBoostingClassifier(max_leaf_nodes=leaves, min_samples_leaf=2, max_iter=5)
    label = (frame["a"].fillna(0.5) * frame["b"] + random.normal(size=2000)) > 0
    fitted = make_pipeline(encoder, trees).fit(frame, label)
    assert prove(fitted, frame, ["a", "b"], ["c"], "classification")


def test_what_is_not_known_has_no_form() -> None:
    spec = model_folders.load("flight_delay")
    number, name = ["distance_miles"], ["carrier"]
    scaled = make_column_transformer((StandardScaler(), number), (OneHotEncoder(), name), sparse_threshold=1.0)
    dense = make_column_transformer((StandardScaler(), number))
    polynomial = make_column_transformer((PolynomialFeatures(), number), (OneHotEncoder(), name), sparse_threshold=1.0)
    for candidate, why in (
        (make_pipeline(scaled, RandomForestClassifier(n_estimators=2)), "RandomForestClassifier is not known"),
        (make_pipeline(polynomial, LogisticRegression()), "PolynomialFeatures is not known"),
        (make_pipeline(dense, LogisticRegression()), "dense matrix"),
        (model_folders.candidates(spec)["base_rate"], "not a ColumnTransformer"),
    ):
        fitted, frame = fit(candidate, spec)
        payload, reason = attempt(fitted, frame, spec)
        assert payload == b"" and why in reason
        with pytest.raises(NotCompiledError, match=why):
            compile_(fitted, *columns(spec), spec.task)


def test_a_form_that_differs_in_one_bit_is_not_used(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, fitted, frame, _ = made[MODELS[0]]
    right = compiled.Form.dump

    def wrong(form: compiled.Form) -> bytes:
        document = json.loads(right(form))
        document["final"]["intercept"] = float(np.nextafter(document["final"]["intercept"], 1))
        return json.dumps(document).encode()

    monkeypatch.setattr(compiled.Form, "dump", wrong)
    payload, reason = attempt(fitted, frame, spec)
    assert payload == b"" and "scores differ" in reason


def test_what_the_form_cannot_judge_is_left_to_the_pipeline(made: Any) -> None:
    spec, fitted, frame, payload = made[MODELS[0]]
    model = ServedModel("m", 1, *map(tuple, columns(spec)), None, io.dumps(fitted), spec.task, payload)
    infinite = frame.head(3).copy()
    infinite.loc[1, "distance_miles"] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        scoring.score_batch(pa.RecordBatch.from_pandas(infinite[spec.features.inputs]), model)


@pytest.mark.parametrize("model", MODELS, ids="-".join)
def test_batches_are_scored_by_the_form_and_without_the_pipeline(
    made: Any, model: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, fitted, frame, payload = made[model]
    served = ServedModel("m", 1, *map(tuple, columns(spec)), None, b"no pipeline", spec.task, payload)
    batch = pa.RecordBatch.from_pandas(frame[list(dict.fromkeys([*spec.features.kept, *spec.features.inputs]))])
    (whole,) = scoring.score_batches(iter([batch]), served, ["flight_id"])
    parts = list(scoring.score_batches((batch.slice(at, 7) for at in range(0, 70, 7)), served, ["flight_id"]))
    expected = predict(fitted, inputs(frame, spec), spec.task)
    assert whole["score"].to_numpy().tobytes() == expected.tobytes()
    assert np.concatenate([part["score"].to_numpy() for part in parts]).tobytes() == expected[:70].tobytes()


@pytest.mark.parametrize("form", [True, False])
def test_a_version_is_loaded_once_for_all_batches_of_a_worker(
    made: Any, form: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, fitted, frame, payload = made[MODELS[0]]
    served = ServedModel(
        "m", 7, *map(tuple, columns(spec)), None, io.dumps(fitted), spec.task, payload if form else b""
    )
    module, loader = (compiled, "_prepared") if form else (io, "loads")
    load = Mock(wraps=getattr(module, loader))
    monkeypatch.setattr(module, loader, load)
    for holder in (compiled, scoring):
        monkeypatch.setattr(holder, "_loaded", {})
    batch = pa.RecordBatch.from_pandas(frame[list(dict.fromkeys([*spec.features.kept, *spec.features.inputs]))])
    list(scoring.score_batches(iter([batch]), served, ["flight_id"]))
    once = load.call_count
    assert once > 0
    for _ in range(2):
        list(scoring.score_batches((batch.slice(at, 7) for at in range(0, 70, 7)), served, ["flight_id"]))
    assert load.call_count == once


def test_integers_and_booleans_are_numbers() -> None:
    random = np.random.default_rng(2)
    frame = pd.DataFrame({
        "count": pd.array([1, 2, None, 4] * 50, "Int64"), "flag": pd.array([True, None, False, True] * 50, "boolean"),
        "month": random.integers(1, 13, 200),
    })  # fmt: skip
    encoder = make_column_transformer(
        ("passthrough", ["count", "flag"]), (OneHotEncoder(sparse_output=False), ["month"])
    )
    trees = HistGradientBoostingClassifier(min_samples_leaf=2, max_iter=5)
    given_ = model_input(frame, ["count", "flag"], ["month"])
    fitted = make_pipeline(encoder, trees).fit(given_, random.random(200) < 0.5)
    payload = prove(fitted, frame, ["count", "flag"], ["month"], "classification")
    batch = pa.RecordBatch.from_pandas(frame, schema=pa.schema(
        [("count", pa.int32()), ("flag", pa.bool_()), ("month", pa.int16())]))  # fmt: skip
    found = compiled.score(compiled.load(payload), batch)
    assert found.tobytes() == fitted.predict_proba(given_)[:, 1].tobytes()


def test_a_worker_that_scores_by_the_form_imports_neither_scikit_learn_nor_pandas(made: Any) -> None:
    *_, payload = made[MODELS[0]]
    code = (
        "import sys; from lakehouse.ml import compiled; compiled.load(sys.stdin.buffer.read()); import scipy.special; "
        "print(sorted({'sklearn', 'pandas', 'skops', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=payload, capture_output=True, check=True)
    assert done.stdout.decode().strip() == "[]"


def test_training_proves_a_form_of_what_it_selects() -> None:
    spec = model_folders.load("flight_delay")
    trained = train(*flights())
    assert isinstance(trained, training.Trained)
    assert trained.compiled_reason == f"equal on {sum(trained.rows.values())} rows"
    batch = pa.RecordBatch.from_pandas(trained.test[spec.features.inputs], preserve_index=False)
    scores = compiled.score(compiled.load(trained.compiled), batch)
    assert hashlib.sha256(scores.tobytes()).hexdigest() == trained.predictions_sha256
