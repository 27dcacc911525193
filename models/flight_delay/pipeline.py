"""Candidate pipelines for the delay of a flight."""

from __future__ import annotations

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, OrdinalEncoder, StandardScaler

from lakehouse.ml.model_spec import ModelSpec

BASELINE = "base_rate"
TIME_OF_DAY = "departure_minute_of_day"


def candidates(spec: ModelSpec) -> dict[str, Pipeline]:
    """The pipelines to choose from, unfitted. The first is the baseline that the others have to beat.

    Args:
        spec: The model's ``model.yaml``.
    """
    numeric, categorical = list(spec.features.numeric), list(spec.features.categorical)
    history = [column for column in numeric if not column.startswith("weather_")]
    return {
        BASELINE: make_pipeline(DummyClassifier(strategy="prior")),
        "logistic_regression": _logistic_regression(history, categorical),
        "logistic_regression_with_weather": _logistic_regression(numeric, categorical),
        "histogram_gradient_boosting": _gradient_boosting(numeric, categorical, spec.training.seed),
    }


def _logistic_regression(numeric: list[str], categorical: list[str]) -> Pipeline:
    rest = [column for column in numeric if column != TIME_OF_DAY]
    # Delays build up over the day, and not along a straight line.
    hours = KBinsDiscretizer(n_bins=8, quantile_method="averaged_inverted_cdf")
    encoder = ColumnTransformer(
        [
            ("numeric", make_pipeline(_imputer(), StandardScaler()), rest),
            ("time_of_day", make_pipeline(_imputer(), hours), [TIME_OF_DAY]),
            ("categorical", OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=50), categorical),
        ],
        # A dense matrix product rounds by the shape of its batch; a sparse one gives a row the same score anywhere.
        sparse_threshold=1.0,
    )
    return make_pipeline(encoder, LogisticRegression(C=0.01, max_iter=500))


def _gradient_boosting(numeric: list[str], categorical: list[str], seed: int) -> Pipeline:
    ordinal = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=np.nan, max_categories=200
    )
    return make_pipeline(
        ColumnTransformer([("categorical", ordinal, categorical), ("numeric", "passthrough", numeric)]),
        HistGradientBoostingClassifier(
            learning_rate=0.03,
            max_iter=80,
            max_leaf_nodes=8,
            min_samples_leaf=400,
            l2_regularization=10.0,
            early_stopping=False,
            random_state=seed,
        ),
    )


def _imputer() -> SimpleImputer:
    # Keeps a column that is null in every row it is fitted on, so that the number of columns stays the same.
    return SimpleImputer(keep_empty_features=True)
