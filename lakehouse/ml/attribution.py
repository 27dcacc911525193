"""Attribution: how much each input of a model has moved a score away from that of an average row.

Of a probability in log-odds, of a regression in the unit of its label.

Exact for the kinds of model that the platform knows: the contributions of a row and the base add up to its score.

- A baseline, which is a constant: nothing contributes.
- A linear model: coefficient times distance from the mean of the training rows, which is the Shapley value of a linear
  model with independent inputs (Štrumbelj and Kononenko, 2014, "Explaining prediction models and individual
  predictions with feature contributions").
- Gradient-boosted trees: TreeSHAP (Lundberg et al., 2020, "From local explanations to global understanding with
  explainable AI for trees"), by the library shap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.dummy import DummyClassifier, DummyRegressor

from lakehouse.errors import LakeError
from lakehouse.ml.scoring import ServedModel, model_input, pipeline, predict

if TYPE_CHECKING:
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

TOLERANCE = 1e-6
"""Sums of floats in another order differ by about 1e-12."""

UNITS = {"classification": "log-odds", "regression": "units of the label"}
"""Kind of model to what contributions are counted in."""


class AttributionError(LakeError):
    """The reasons of a score cannot be told."""


@dataclass(frozen=True)
class Attribution:
    """The reasons of some scores.

    Attributes:
        base: What an average row has, in ``unit``.
        contributions: Per row and input of the model, in ``unit``; rows and index are those of the input.
        method: How they were found.
        unit: One of ``UNITS``.
    """

    base: float
    contributions: pd.DataFrame
    method: str
    unit: str


def attribute(model: ServedModel, rows: pd.DataFrame, background: Callable[[], pd.DataFrame]) -> Attribution:
    """The contributions of a model's inputs to its scores.

    Args:
        model: The version that has scored.
        rows: Rows of the features table.
        background: Gives the rows of the features table that the version was fitted on; called when they are needed.

    Raises:
        AttributionError: The model is of a kind that is not known here, or the contributions do not add up.
    """
    fitted = pipeline(model)
    final = fitted[-1]
    if isinstance(final, DummyClassifier | DummyRegressor):
        base = _constant(fitted, model, rows)
        return Attribution(
            base, pd.DataFrame(0.0, index=rows.index, columns=model.inputs), "constant", UNITS[model.task]
        )
    if hasattr(final, "coef_"):
        encoded, mean = _encoded(fitted, model, rows), _encoded(fitted, model, background()).mean(axis=0)
        weights, intercept = np.ravel(final.coef_), np.ravel(final.intercept_)[0]
        values, base = (encoded - mean) * weights, float(intercept + mean @ weights)
        method = "linear model: coefficient times distance from the mean"
    elif type(final).__name__.startswith("HistGradientBoosting"):
        import shap

        explainer = shap.TreeExplainer(final)
        values = explainer.shap_values(_encoded(fitted, model, rows))
        base, method = float(np.ravel(explainer.expected_value)[0]), "TreeSHAP"
    else:
        raise AttributionError(
            f"{model.name} version {model.version} is a {type(final).__name__}: how its inputs contribute to a score "
            "is known for linear models and for histogram gradient boosting alone."
        )
    contributions = pd.DataFrame(0.0, index=rows.index, columns=model.inputs)
    for place, name in enumerate(_inputs_of(fitted)):
        contributions[name] += values[:, place]
    _check_sum(base, contributions, fitted, model, rows)
    return Attribution(base, contributions, method, UNITS[model.task])


def _constant(fitted: Pipeline, model: ServedModel, rows: pd.DataFrame) -> float:
    """What a baseline says of every row, in the unit of contributions."""
    score = float(
        predict(fitted, model_input(rows.head(1), list(model.numeric), list(model.categorical)), model.task)[0]
    )
    return score if model.task == "regression" else float(np.log(score) - np.log1p(-score))


def _encoded(fitted: Pipeline, model: ServedModel, rows: pd.DataFrame) -> Any:
    encoded = fitted[:-1].transform(model_input(rows, list(model.numeric), list(model.categorical)))
    return np.asarray(encoded.toarray() if hasattr(encoded, "toarray") else encoded, dtype="float64")


def _inputs_of(fitted: Pipeline) -> list[str]:
    """For each column that the final step sees, the input that it was made from."""
    encoder: ColumnTransformer = fitted[0]
    found: list[str] = []
    for part, _, columns in encoder.transformers_:
        if part == "remainder":
            continue
        for name in encoder.get_feature_names_out()[encoder.output_indices_[part]]:
            plain = name.removeprefix(f"{part}__")
            found.append(max((c for c in columns if plain == c or plain.startswith(f"{c}_")), key=len))
    return found


def _check_sum(
    base: float, contributions: pd.DataFrame, fitted: Pipeline, model: ServedModel, rows: pd.DataFrame
) -> None:
    inputs = model_input(rows, list(model.numeric), list(model.categorical))
    scores = fitted.decision_function(inputs) if model.task == "classification" else fitted.predict(inputs)
    off = np.abs(base + contributions.sum(axis=1).to_numpy() - scores).max(initial=0.0)
    if off > TOLERANCE:
        raise AttributionError(
            f"{model.name} version {model.version}: the contributions of the inputs miss the score by {off:g} "
            f"{UNITS[model.task]}. This is a fault of the platform."
        )
