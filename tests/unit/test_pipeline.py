"""Training and the candidates of flight_delay, on made-up flights whose delays follow a known rule."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skops import io

from lakehouse.interval import Interval
from lakehouse.ml import model_folders, training
from lakehouse.ml.metrics import calibration_bins, metric
from lakehouse.ml.model_spec import InvalidModelError
from lakehouse.ml.scoring import TRUSTED, ServedModel, model_input, score
from lakehouse.registry.model_card import card
from tests.made_up_flights import SPEC, WINDOW, flights, train


@pytest.fixture(scope="module")
def trained() -> training.Trained:
    return train(*flights())


@pytest.fixture(scope="module")
def fitted() -> dict[str, ServedModel]:
    features, labels = flights()
    frame = training.training_frame(features, labels, SPEC).dropna(subset="label")
    inputs = model_input(frame, SPEC.features.numeric, SPEC.features.categorical)
    return {
        name: ServedModel(
            name=name,
            version=1,
            numeric=tuple(SPEC.features.numeric),
            categorical=tuple(SPEC.features.categorical),
            threshold=0.3,
            payload=io.dumps(candidate.fit(inputs, frame["label"].astype("int8"))),
        )
        for name, candidate in model_folders.candidates(SPEC).items()
    }


def on_test_days(trained: training.Trained) -> dict[str, float]:
    """What the selected candidate has on the test days."""
    return trained.candidates[trained.selected].test


def test_the_window_is_cut_by_time() -> None:
    plan = training.split(WINDOW, SPEC.training)
    assert str(plan.train) == "2013-01-01/2013-02-21"
    assert str(plan.test) == "2013-02-22/2013-02-28"
    assert [(str(fitted), str(validated)) for fitted, validated in plan.folds] == [
        ("2013-01-01/2013-01-31", "2013-02-01/2013-02-07"),
        ("2013-01-01/2013-02-07", "2013-02-08/2013-02-14"),
        ("2013-01-01/2013-02-14", "2013-02-15/2013-02-21"),
    ]


def test_days_whose_outcomes_are_not_known_yet_are_fitted_on_by_none() -> None:
    plan = training.split(WINDOW, SPEC.training, known_after_days=3)
    for fitted, predicted in [*plan.folds, (plan.train, plan.test)]:
        assert (predicted.start - fitted.end).days == 3
    assert (plan.test.start, plan.test.end) == (dt.date(2013, 2, 22), WINDOW.end)
    with pytest.raises(training.NotEnoughDataError, match=r"need 49, with 7 days before each"):
        training.split(Interval.parse("2013-01-01/2013-02-17"), SPEC.training, known_after_days=8)


def test_a_window_that_is_too_short_says_what_it_needs() -> None:
    with pytest.raises(training.NotEnoughDataError, match=r"has 31 days.*need 35"):
        training.split(Interval.parse("2013-01-01/2013-01-31"), SPEC.training)


@pytest.mark.parametrize(
    ("part", "key", "columns"),
    [
        ("promotion", "segments", ["origin", "tail"]),
        ("features", "numeric", ["distance_miles", "tail"]),
        ("features", "categorical", ["tail"]),
    ],
)
def test_a_column_that_the_features_do_not_have_is_named_before_anything_is_fitted(
    part: str, key: str, columns: list[str]
) -> None:
    wrong = SPEC.model_copy(update={part: getattr(SPEC, part).model_copy(update={key: columns})})
    frame = training.training_frame(*flights(per_day=5), SPEC)
    message = rf"models/flight_delay/model\.yaml: {part}\.{key}: gold\.flight_delay_features has no column tail"
    with pytest.raises(InvalidModelError, match=message):
        training.train(frame, {}, wrong, WINDOW)


def test_the_default_window_ends_with_the_labels() -> None:
    assert str(training.default_window(SPEC.training, dt.date(2013, 2, 28))) == "2013-01-08/2013-02-28"


def test_days_without_labels_are_named() -> None:
    features, labels = flights()
    labels.loc[labels["flight_date"] >= dt.date(2013, 2, 22), "is_late"] = pd.NA
    with pytest.raises(training.NotEnoughDataError, match=r"2013-02-22/2013-02-28.*gold.fct_flights"):
        train(features, labels)


def test_the_best_on_the_folds_is_selected_and_beats_the_base_rate(trained: training.Trained) -> None:
    contenders = {name: f for name, f in trained.candidates.items() if name != "base_rate"}
    assert trained.baseline == "base_rate"
    assert trained.selected == min(contenders, key=lambda name: contenders[name].validation)
    assert on_test_days(trained)["log_loss"] < trained.candidates["base_rate"].test["log_loss"]
    assert on_test_days(trained)["auc"] > 0.7
    assert trained.candidates["base_rate"].test["auc"] == 0.5


def test_the_same_rows_in_any_order_train_the_same_model(trained: training.Trained) -> None:
    features, labels = flights()
    again = train(features.sample(frac=1, random_state=3), labels.sample(frac=1, random_state=4))
    assert again.predictions_sha256 == trained.predictions_sha256
    assert again.candidates == trained.candidates


def test_the_test_days_have_no_say_in_selection_or_fit(trained: training.Trained) -> None:
    features, labels = flights()
    untouched = labels["flight_date"] >= trained.split.test.start
    labels.loc[untouched, "is_late"] = ~labels.loc[untouched, "is_late"]
    turned = train(features, labels)
    assert turned.selected == trained.selected
    assert turned.predictions_sha256 == trained.predictions_sha256
    assert on_test_days(turned)["log_loss"] != on_test_days(trained)["log_loss"]


def test_rows_outside_of_the_window_change_nothing(trained: training.Trained) -> None:
    features, labels = flights()
    later = flights(Interval.parse("2013-03-01/2013-03-05"), seed=9)
    more = train(pd.concat([features, later[0]]), pd.concat([labels, later[1]]))
    assert more.predictions_sha256 == trained.predictions_sha256
    assert more.rows == trained.rows


def test_the_model_sees_its_listed_columns_and_no_other() -> None:
    features, labels = flights()
    leaky = features.assign(is_late=labels["is_late"], departure_delay_minutes=labels["is_late"].fillna(False) * 60)
    inputs = model_input(leaky, SPEC.features.numeric, SPEC.features.categorical)
    assert list(inputs) == SPEC.features.inputs
    assert train(leaky, labels).predictions_sha256 == train(features, labels).predictions_sha256


def test_no_input_is_known_only_after_departure() -> None:
    outcomes = ("delay", "arrival", "air_time", "cancelled", "diverted", "is_late", "departure_time", "reported")
    assert not [name for name in SPEC.features.inputs if any(word in name for word in outcomes)]


def test_the_example_is_no_row_of_the_data(trained: training.Trained) -> None:
    features, _ = flights()
    assert list(trained.example) == SPEC.features.inputs and len(trained.example) == 3
    for name in SPEC.features.categorical:
        assert (features[name].value_counts()[trained.example[name]] >= 20).all()
    rare = pd.DataFrame({name: [f"person {n}" for n in range(100)] for name in SPEC.features.categorical})
    rare = rare.assign(**dict.fromkeys(SPEC.features.numeric, 1.0))
    assert training._example(rare, SPEC)[SPEC.features.categorical].isna().all(axis=None)


def test_the_inputs_that_matter_are_the_important_ones(trained: training.Trained) -> None:
    assert set(list(trained.importances)[:2]) == {"carrier_late_rate_28d", "carrier"}
    assert set(trained.importances) == set(SPEC.features.inputs)
    unused = trained.importances["weather_temperature_f"]
    assert trained.selected == "logistic_regression" and (unused.mean, unused.deviation) == (0, 0)


def test_figures_add_up(trained: training.Trained) -> None:
    for figures in trained.candidates.values():
        assert sum(rows for rows, _, _ in figures.calibration) == trained.rows["test"]
        shares = sum(rows * share for rows, _, share in figures.calibration) / trained.rows["test"]
        assert shares == pytest.approx(trained.test["label"].mean())
    assert sum(trained.rows.values()) == len(flights()[0])


def test_calibration_by_hand() -> None:
    scores = np.array([0.1, 0.1, 0.1, 0.9])
    assert calibration_bins(np.array([0, 0, 1, 1]), scores) == [
        (3, pytest.approx(0.1), pytest.approx(1 / 3)),
        (1, 0.9, 1.0),
    ]
    part = pd.DataFrame({"label": [0, 1], "flight_date": [dt.date(2013, 2, 28)] * 2, "origin": ["EWR", "LGA"]})
    even = training.measure(part, np.array([0.5, 0.5]), SPEC, 0.7)
    assert even.test == {
        "log_loss": pytest.approx(np.log(2)), "brier": 0.25, "auc": 0.5, "calibration_error": 0,
        "precision": 0.5, "recall": 1.0,
    }  # fmt: skip
    assert even.segments == {f"origin={name}": (1, pytest.approx(np.log(2))) for name in ("EWR", "LGA")}
    assert (even.low, even.high, even.intervals) == (None, None, {})  # of one day there is none


def test_the_calibration_error_by_hand() -> None:
    """Worked on paper, in tenths of twenty scores.

    0.10 ten times, of which two come true: their bin is off by 10 * |0.10 - 0.20| = 1.0. Then 0.5 twice (one true, off
    by 0), 0.6 twice (both true, off by 0.8), 0.7 twice (none, off by 1.4), 0.8 twice (both, 0.4), 0.9 twice (one, 0.8).
    Together 4.4 of 20 rows.
    """
    scores = np.repeat([0.1, 0.5, 0.6, 0.7, 0.8, 0.9], [10, 2, 2, 2, 2, 2])
    outcomes = np.array([1, 1, *[0] * 8, 1, 0, 1, 1, 0, 0, 1, 1, 1, 0], "float64")
    assert metric("calibration_error").of(outcomes, scores, None) == pytest.approx(0.22)


def test_a_training_without_intervals_has_a_card_and_no_such_figures(trained: training.Trained) -> None:
    bare = {name: replace(each, low=None, high=None, intervals={}) for name, each in trained.candidates.items()}
    short = replace(trained, candidates=bare)
    assert {"test_log_loss", "test_log_loss_baseline"} < short.headline().keys()
    assert not [name for name in short.metrics() if name.endswith(("_low", "_high"))]
    assert f"| auc | {on_test_days(trained)['auc']:.4f} |  |  |" in card(SPEC, short, {})


def test_the_card_shows_every_candidate(trained: training.Trained) -> None:
    text = card(SPEC, trained, {"release_id": "7"}, "# Flights\n\nWritten by hand.\n")
    assert "**Promotion.** A version becomes champion if on its test days" in text
    for condition in (
        "by 0.0005 at least",
        "lower than that of the baseline beside it",
        "rules of the gate of `ml.predictions_flight_delay`",
        "calibration_error is no more than 0.02 worse",
        "in no origin the log_loss",
    ):
        assert condition in text, condition
    assert text.startswith("# Flights\n\nWritten by hand.\n\n## ")
    low, high = trained.candidates[trained.selected].intervals["auc"]
    assert f"| auc | {on_test_days(trained)['auc']:.4f} | {low:.4f} | {high:.4f} |" in text
    assert f"| {next(iter(trained.importances))} |" in text and trained.compiled_reason in text
    for name in trained.candidates:
        assert f"| {name} |" in text
    calibration = trained.candidates[trained.selected].calibration
    lines = [f"| {rows} | {score:.3f} | {outcome:.3f} |" for rows, score, outcome in calibration]
    assert len(lines) == 10
    assert f"Calibration of {trained.selected} on the test days:" in text and "\n".join(lines) in text
    assert "| release_id | 7 |" in text
    assert f"Selected: **{trained.selected}**" in text


def test_candidates_hold_only_trusted_types(fitted: dict[str, ServedModel]) -> None:
    for model in fitted.values():
        assert set(io.get_untrusted_types(data=model.payload)) <= set(TRUSTED)


def test_nulls_and_unknown_names_get_a_score(fitted: dict[str, ServedModel]) -> None:
    strange = flights()[0].head(4).copy()
    strange[SPEC.features.numeric] = strange[SPEC.features.numeric].astype(object)
    strange.loc[0, SPEC.features.numeric] = None
    strange.loc[1, SPEC.features.categorical] = None
    strange.loc[2, SPEC.features.categorical] = "never seen before"
    for model in fitted.values():
        scores = score(strange, model)
        assert np.isfinite(scores).all()
        assert ((scores > 0) & (scores < 1)).all()


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.integers(0, 3000), min_size=1, max_size=200))
def test_a_row_has_the_same_score_in_any_batch(fitted: dict[str, ServedModel], rows: list[int]) -> None:
    features, _ = flights()
    for model in fitted.values():
        alone = score(features.iloc[rows], model)
        assert (alone == score(features, model)[rows]).all()
