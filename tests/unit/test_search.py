"""Searches: repeatable, on the folds alone, and what they tried is in MLflow below the training's run."""

from __future__ import annotations

import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from skops import io

from lakehouse.ml import linear, model_folders, training
from lakehouse.ml.compilation import attempt
from lakehouse.ml.model_spec import InvalidModelError, ModelSpec, Search, read_spec
from lakehouse.ml.scoring import TRUSTED, ServedModel, score
from lakehouse.ml.search import SearchError, tune
from lakehouse.registry import registry
from lakehouse.registry.pins import Pins
from tests.made_up_flights import SPEC, WINDOW, flights

CONSTANTS = {"flight_delay": DummyClassifier(strategy="prior"), "flight_delay_minutes": DummyRegressor(strategy="mean")}


def with_search(**budget: Any) -> ModelSpec:
    part = SPEC.training.model_copy(update={"search": Search(**budget), "folds": 2})
    return SPEC.model_copy(update={"training": part})


def candidates() -> dict[str, Pipeline]:
    return {"base_rate": make_pipeline(DummyClassifier()), "linear": linear.linear(SPEC)}


def spaces(_: ModelSpec) -> dict[str, Any]:
    return {"linear": lambda trial: {"logisticregression__C": trial.suggest_float("C", 1e-5, 1.0, log=True)}}


def train(spec: ModelSpec, trials: dict[str, int] | None = None, seed: int = 1) -> training.Trained:
    frame = training.training_frame(*flights(per_day=20, seed=seed), spec)
    return training.train(frame, candidates(), spec, WINDOW, spaces(spec), trials)


def test_the_best_trial_is_fitted_and_the_search_repeats() -> None:
    spec = with_search(trials=5)
    trained = train(spec)
    assert [trial.number for trial in trained.trials] == [0, 1, 2, 3, 4]
    best = min(trained.trials, key=lambda trial: trial.validation)
    assert trained.tuned == {"linear": best.parameters}
    assert trained.candidates["linear"].validation == best.validation
    assert best.parameters["logisticregression__C"] == trained.pipeline[-1].C
    assert train(spec).trials == trained.trials
    ended_by_time = train(with_search(seconds=3600), {"linear": 5})
    assert ended_by_time.predictions_sha256 == trained.predictions_sha256


def test_what_is_worse_than_the_candidate_as_it_is_is_not_taken() -> None:
    spec = with_search(trials=1)
    frame = training.training_frame(*flights(per_day=20), spec)
    poor = {"linear": lambda trial: {"logisticregression__C": trial.suggest_float("C", 1e-9, 1e-8)}}
    trained = training.train(frame, candidates(), spec, WINDOW, poor)
    assert len(trained.trials) == 1 and trained.tuned == {}
    assert trained.pipeline[-1].C == 1.0


def test_the_test_days_have_no_say_in_a_search() -> None:
    spec = with_search(trials=3)
    features, labels = flights(per_day=20)
    turned = labels.copy()
    late = turned["flight_date"] >= training.split(WINDOW, spec.training).test.start
    turned.loc[late, "is_late"] = ~turned.loc[late, "is_late"]
    first, second = (
        training.train(training.training_frame(features, each, spec), candidates(), spec, WINDOW, spaces(spec))
        for each in (labels, turned)
    )
    assert first.trials == second.trials and first.tuned == second.tuned


def test_a_search_ends_when_its_time_is_over_and_repeats_by_the_number_of_its_trials() -> None:
    def slow(pipeline: Pipeline) -> float:
        time.sleep(0.1)
        return abs(float(pipeline[-1].C) - 0.01)

    space = spaces(SPEC)["linear"]
    found, _ = tune("linear", linear.linear(SPEC), space, slow, Search(seconds=0.25), seed=1)
    assert 1 <= len(found) <= 3
    again, _ = tune("linear", linear.linear(SPEC), space, slow, Search(seconds=0.01), seed=1, trials=len(found))
    assert again == found


def test_without_a_budget_nothing_is_searched_and_a_budget_needs_a_space() -> None:
    assert train(SPEC).trials == ()
    frame = training.training_frame(*flights(per_day=20), SPEC)
    with pytest.raises(SearchError, match="gives no space to spend it on"):
        training.train(frame, candidates(), with_search(trials=1), WINDOW)
    with pytest.raises(SearchError, match="names lineer, which is no candidate"):
        training.train(frame, candidates(), with_search(trials=1), WINDOW, {"lineer": spaces(SPEC)["linear"]})
    with pytest.raises(SearchError, match=r"search space of linear cannot be set: .*'strength'"):
        wrong = {"linear": lambda trial: {"strength": trial.suggest_float("C", 0.1, 1.0)}}
        training.train(frame, candidates(), with_search(trials=1), WINDOW, wrong)


def test_a_budget_without_a_limit_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "flight_delay" / "model.yaml"
    file.parent.mkdir()
    text = (model_folders.MODELS_DIR / "flight_delay" / "model.yaml").read_text()
    file.write_text(text.replace("  seed: 2013\n", "  seed: 2013\n  search: {}\n"))
    with pytest.raises(InvalidModelError, match=r"line \d+: training\.search: needs trials, seconds or both"):
        read_spec(file)


def test_trials_are_child_runs_and_the_plots_are_there(mlflow_client: Any) -> None:
    spec = with_search(trials=2)
    trained = train(spec)
    versions = {spec.features.table: 4, spec.label.table: 7}
    pins = Pins.of(spec, WINDOW, versions, release_id=12, code_version="0123abc", input_sha256="4f0c")
    version = registry.register(spec, trained, pins, "run-1")
    experiment = mlflow_client.get_run(version.run_id).info.experiment_id
    children = mlflow_client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{version.run_id}'")
    assert {(run.data.params["candidate"], run.data.metrics["validation_log_loss"]) for run in children} == {
        (trial.candidate, trial.validation) for trial in trained.trials
    }
    assert {run.info.status for run in children} == {"FINISHED"}
    parameters = registry.logged(version).parameters
    assert parameters["search_trials.linear"] == "2"
    plots = {file.path: file.file_size for file in mlflow_client.list_artifacts(version.run_id, "plots")}
    names = ("calibration", "confusion", "importances", "roc_and_precision_recall")
    assert set(plots) == {f"plots/{name}.png" for name in names}
    assert min(plots.values()) > 3000
    metrics = registry.logged(version).metrics
    assert metrics["linear/segments/origin_JFK/test_log_loss"] == trained.candidates["linear"].segments["origin=JFK"][1]
    assert metrics["linear/test_auc_low"] < metrics["linear/test_auc"] < metrics["linear/test_auc_high"]
    assert "Owner" in registry.card(version) and "Of 2 trials of the search" in registry.card(version)


@pytest.mark.parametrize("task", ["flight_delay", "flight_delay_minutes"])
@pytest.mark.parametrize("categorical", [True, False])
def test_a_linear_model_is_always_among_the_candidates(
    monkeypatch: pytest.MonkeyPatch, task: str, categorical: bool
) -> None:
    assert linear.NAME not in model_folders.candidates(model_folders.load(task))
    spec = model_folders.load(task)
    if not categorical:
        spec = spec.model_copy(update={"features": spec.features.model_copy(update={"categorical": []})})

    class Folder:
        @staticmethod
        def candidates(_: ModelSpec) -> dict[str, Pipeline]:
            return {"base_rate": make_pipeline(CONSTANTS[task]), "t": make_pipeline(HistGradientBoostingClassifier())}

    monkeypatch.setattr(model_folders, "_pipeline_module", lambda _spec: Folder)
    assert list(model_folders.candidates(spec)) == ["base_rate", "t", "linear"]
    features, labels = flights(per_day=20)
    frame = training.training_frame(features, labels.assign(arrival_delay_minutes=labels["is_late"]), spec)
    frame = frame.dropna(subset="label")
    fitted = training._fit(
        model_folders.candidates(spec)["linear"], frame.assign(label=frame["label"].astype("int8")), spec
    )
    payload, reason = attempt(fitted, frame, spec)
    assert payload, reason
    shape = tuple(spec.features.numeric), tuple(spec.features.categorical)
    model = ServedModel("linear", 1, *shape, None, io.dumps(fitted), spec.task)
    assert set(io.get_untrusted_types(data=model.payload)) <= set(TRUSTED)
    whole = score(frame, model)
    assert all((score(frame.head(size), model) == whole[:size]).all() for size in (1, 7, 100))


@pytest.mark.parametrize("task", CONSTANTS)
@pytest.mark.parametrize(
    "first",
    [
        None,
        HistGradientBoostingClassifier(),
        DummyClassifier(strategy="most_frequent"),
        DummyRegressor(strategy="constant", constant=1e6),
        make_pipeline("passthrough", DummyClassifier(strategy="prior")),
    ],
    ids=["none", "a model", "the most frequent", "a number", "something before it"],
)
def test_the_baseline_is_the_constant_and_nothing_that_is_easily_beaten(
    monkeypatch: pytest.MonkeyPatch, task: str, first: Any
) -> None:
    given = {} if first is None else {"base": first, "t": HistGradientBoostingClassifier()}
    monkeypatch.setattr(model_folders, "_pipeline_module", lambda _: SimpleNamespace(candidates=lambda _: given))
    with pytest.raises(InvalidModelError, match=r"pipeline\.py: the first candidate .*Dummy(Classifier|Regressor)\("):
        model_folders.candidates(model_folders.load(task))
    other = next(name for name in CONSTANTS if name != task)
    given |= {"base": CONSTANTS[other]}
    with pytest.raises(InvalidModelError, match=type(CONSTANTS[task]).__name__):
        model_folders.candidates(model_folders.load(task))


def test_a_bare_estimator_is_a_pipeline_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"base_rate": DummyClassifier(), "trees": HistGradientBoostingClassifier(max_iter=5)}
    monkeypatch.setattr(model_folders, "_pipeline_module", lambda _: SimpleNamespace(candidates=lambda _: given))
    numbers = SPEC.features.model_copy(update={"categorical": []})
    spec = SPEC.model_copy(update={"features": numbers})
    frame = training.training_frame(*flights(per_day=20), spec)
    trained = training.train(frame, model_folders.candidates(spec), spec, WINDOW)
    assert list(trained.candidates) == ["base_rate", "trees", "linear"]
    assert trained.candidates["base_rate"].test["auc"] == 0.5
    assert isinstance(trained.pipeline, Pipeline) and trained.hyperparameters()


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_trial_whose_loss_is_no_number_does_not_win(wrong: float) -> None:
    def validate(pipeline: Pipeline) -> float:
        strength = float(pipeline[-1].C)
        return wrong if strength < 1e-3 else strength

    found, best = tune("linear", linear.linear(SPEC), spaces(SPEC)["linear"], validate, Search(trials=12), seed=1)
    good = [trial for trial in found if trial.validation < math.inf]
    assert 0 < len(good) < 12
    assert best == min(good, key=lambda trial: trial.validation).parameters


def test_a_trial_that_was_given_up_is_none() -> None:
    def space(trial: Any) -> dict[str, Any]:
        if trial.number == 1:
            raise optuna.TrialPruned
        return {"logisticregression__C": trial.suggest_float("C", 0.1, 1.0)}

    found, _ = tune("linear", linear.linear(SPEC), space, lambda _: 0.5, Search(trials=3), seed=1)
    assert [trial.number for trial in found] == [0, 2]


def test_a_search_repeats_with_the_trials_that_were_given_up_among_them() -> None:
    spec = with_search(trials=5)
    frame = training.training_frame(*flights(per_day=20), spec)

    def space(trial: Any) -> dict[str, Any]:
        strength = trial.suggest_float("C", 1e-5, 1.0, log=True)
        if trial.number in (0, 2):
            raise optuna.TrialPruned
        return {"logisticregression__C": strength}

    def search(trials: dict[str, int] | None = None) -> training.Trained:
        return training.train(frame, candidates(), spec, WINDOW, {"linear": space}, trials)

    first = search()
    assert [trial.number for trial in first.trials] == [1, 3, 4]
    pins = Pins.of(spec, WINDOW, {}, release_id=12, code_version="0123abc", input_sha256="4f0c")
    kept = registry.parameters(spec, first, pins)
    assert kept["search_trials.linear"] == 5
    assert search({"linear": kept["search_trials.linear"]}).trials == first.trials
    assert search({}).trials == ()  # a search whose time was over before its first trial


class NoNumbers(DummyClassifier):
    """Says nothing where it was fitted on few days."""

    def predict_proba(self, rows: Any) -> Any:
        said = super().predict_proba(rows)
        return said if self.rows_ > 800 else said * math.nan

    def fit(self, rows: Any, outcomes: Any) -> NoNumbers:
        self.rows_ = len(rows)
        super().fit(rows, outcomes)
        return self


def test_a_candidate_whose_scores_are_no_numbers_on_the_folds_is_not_selected() -> None:
    spec = with_search(trials=1).model_copy(update={"training": SPEC.training})
    frame = training.training_frame(*flights(per_day=20), spec)
    found = {"base_rate": make_pipeline(DummyClassifier()), "no numbers": make_pipeline(NoNumbers()),
             "linear": linear.linear(spec)}  # fmt: skip
    trained = training.train(frame, found, spec, WINDOW)
    assert (trained.candidates["no numbers"].validation, trained.selected) == (math.inf, "linear")
    del found["linear"]
    with pytest.raises(InvalidModelError, match=r"flight_delay/pipeline\.py: no candidate but the baseline gives"):
        training.train(frame, found, spec, WINDOW)


class Silent(LogisticRegression):
    """Says nothing where it was fitted on all of the train days."""

    def fit(self, rows: Any, outcomes: Any) -> Silent:
        self.rows_ = len(outcomes)
        super().fit(rows, outcomes)
        return self

    def predict_proba(self, rows: Any) -> Any:
        said = super().predict_proba(rows)
        return said * math.nan if self.rows_ > 950 else said


def test_a_candidate_whose_scores_are_no_numbers_on_the_test_days_is_set_aside() -> None:
    frame = training.training_frame(*flights(per_day=20), SPEC)
    silent = make_pipeline(linear.linear(SPEC)[0], Silent(max_iter=500))
    weak = linear.linear(SPEC).set_params(logisticregression__C=1e-6)
    found = {"base_rate": make_pipeline(DummyClassifier()), "silent": silent, "weak": weak}
    trained = training.train(frame, found, SPEC, WINDOW)
    assert (list(trained.candidates), trained.selected) == (["base_rate", "weak"], "weak")
    del found["weak"]
    with pytest.raises(InvalidModelError, match="no candidate but the baseline gives"):
        training.train(frame, found, SPEC, WINDOW)
