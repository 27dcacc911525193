"""The linear model that every training measures: a folder whose candidates have none gets this one beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from lakehouse.ml.model_spec import ModelSpec

NAME = "linear"


def is_linear(candidate: Pipeline) -> bool:
    """Whether a pipeline ends in a linear model of scikit-learn.

    Args:
        candidate: A pipeline, fitted or not.
    """
    return type(candidate[-1]).__module__.startswith("sklearn.linear_model.")


def linear(spec: ModelSpec) -> Pipeline:
    """A regularised linear model of all inputs, unfitted: numbers imputed and scaled, names one-hot.

    Args:
        spec: The model.
    """
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, StandardScaler

    numeric, categorical = list(spec.features.numeric), list(spec.features.categorical)
    imputer = SimpleImputer(keep_empty_features=True)
    parts: list[Any] = []
    if numeric:
        parts.append((make_pipeline(imputer, StandardScaler()), numeric))
    if categorical:
        parts.append((OneHotEncoder(handle_unknown="ignore"), categorical))
    else:
        # Halves, which are sparse: a dense matrix product would round a row by the shape of its batch.
        halves = KBinsDiscretizer(n_bins=2, encode="onehot", quantile_method="averaged_inverted_cdf")
        parts.append((make_pipeline(imputer, halves), numeric))
    encoder = make_column_transformer(*parts, sparse_threshold=1.0)
    final = LogisticRegression(max_iter=500) if spec.task == "classification" else Ridge()
    return make_pipeline(encoder, final)
