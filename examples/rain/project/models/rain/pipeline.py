"""Candidate pipelines for rain. The platform adds a linear one, as there is none here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sklearn.compose import make_column_transformer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder

from lakehouse.ml.model_spec import ModelSpec

if TYPE_CHECKING:
    from optuna import Trial

BOOSTING = "histogram_gradient_boosting"


def candidates(spec: ModelSpec) -> dict[str, Pipeline]:
    """The pipelines to choose from, unfitted. The first is the baseline that the others have to beat.

    Args:
        spec: The model's ``model.yaml``.
    """
    names = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    encoder = make_column_transformer(
        (names, list(spec.features.categorical)), ("passthrough", list(spec.features.numeric))
    )
    boosting = HistGradientBoostingClassifier(
        max_iter=40, max_leaf_nodes=6, early_stopping=False, random_state=spec.training.seed
    )
    return {
        "base_rate": make_pipeline(DummyClassifier(strategy="prior")),
        BOOSTING: make_pipeline(encoder, boosting),
    }


def search_spaces(spec: ModelSpec) -> dict[str, Callable[[Trial], dict[str, Any]]]:
    """What the search may set, by candidate.

    Args:
        spec: The model's ``model.yaml``.
    """
    step = "histgradientboostingclassifier"

    def boosting(trial: Trial) -> dict[str, Any]:
        return {
            f"{step}__learning_rate": trial.suggest_float("learning_rate", 0.02, 0.3, log=True),
            f"{step}__min_samples_leaf": trial.suggest_int("min_samples_leaf", 10, 80),
        }

    return {BOOSTING: boosting}
