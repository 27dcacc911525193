"""Attribution: how much each input of a model has moved a score away from that of an average row, in log-odds.

Exact for the kinds of model that the platform knows: the contributions of a row and the base add up to its score.

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

from lakehouse.errors import LakeError
from lakehouse.scoring import ServedModel, model_input, pipeline

if TYPE_CHECKING:
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

TOLERANCE = 1e-6
"""In log-odds; sums of floats in another order differ by about 1e-12."""


class AttributionError(LakeError):
    """The reasons of a score cannot be told."""


@dataclass(frozen=True)
class Attribution:
    """The reasons of some scores.

    Attributes:
        base: Log-odds of an average row.
        contributions: Per row and input of the model, in log-odds; rows and index are those of the input.
        method: How they were found.
    """

    base: float
    contributions: pd.DataFrame
    method: str


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
    if hasattr(final, "coef_"):
        encoded, mean = _encoded(fitted, model, rows), _encoded(fitted, model, background()).mean(axis=0)
        values, base = (encoded - mean) * final.coef_[0], float(final.intercept_[0] + mean @ final.coef_[0])
        method = "linear model: coefficient times distance from the mean"
    elif type(final).__name__ == "HistGradientBoostingClassifier":
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
    return Attribution(base, contributions, method)


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
    off = np.abs(base + contributions.sum(axis=1).to_numpy() - fitted.decision_function(inputs)).max(initial=0.0)
    if off > TOLERANCE:
        raise AttributionError(
            f"{model.name} version {model.version}: the contributions of the inputs miss the score by {off:g} "
            "log-odds. This is a fault of the platform."
        )
