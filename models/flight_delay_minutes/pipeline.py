"""Candidate pipelines for the minutes of delay of a flight."""

from __future__ import annotations

from sklearn.compose import make_column_transformer
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, RobustScaler

from lakehouse.ml.model_spec import ModelSpec


def candidates(spec: ModelSpec) -> dict[str, Pipeline]:
    """The pipelines to choose from, unfitted. The first is the baseline that the others have to beat.

    Args:
        spec: The model's ``model.yaml``.
    """
    numeric, names = list(spec.features.numeric), list(spec.features.categorical)
    # Sparse, as a dense matrix product would give a row another last digit in another batch.
    one_hot = OneHotEncoder(handle_unknown="ignore")
    scaled = make_pipeline(SimpleImputer(keep_empty_features=True), RobustScaler())
    linear = make_column_transformer((scaled, numeric), (one_hot, names), sparse_threshold=1.0)
    trees = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), names), ("passthrough", numeric)
    )
    boosting = HistGradientBoostingRegressor(
        learning_rate=0.05, max_iter=60, max_leaf_nodes=8, min_samples_leaf=500, early_stopping=False,
        random_state=spec.training.seed,
    )  # fmt: skip
    return {
        "mean": make_pipeline(DummyRegressor(strategy="mean")),
        "ridge": make_pipeline(linear, Ridge(alpha=100.0)),
        "histogram_gradient_boosting": make_pipeline(trees, boosting),
    }
