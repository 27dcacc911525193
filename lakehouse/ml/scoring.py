"""Scoring inside Spark's Python workers: Arrow batches in, scores out, the model loaded once per worker.

Workers import this module, the one of errors and that of compiled forms, so they stay small: no MLflow, no settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lakehouse.errors import LakeError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from sklearn.pipeline import Pipeline

SCORE, DECISION = "score", "decision"
LINEAGE = {
    "model_name": "string",
    "model_version": "int",
    "role": "string",
    "run_id": "string",
    "release_id": "bigint",
    "scored_at": "timestamp",
}
"""What every prediction says of where it comes from, with the types."""

# Beyond what skops trusts by itself: types of numbers, and the trees of gradient boosting, which are arrays of them.
TRUSTED = ["numpy.dtype", "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"]

_loaded: dict[tuple[str, int, int], Pipeline] = {}


class UntrustedModelError(LakeError, ValueError):
    """A stored model would load types that are not known to be harmless."""


class ModelFailedError(LakeError):
    """A model version cannot be loaded, or cannot score the rows that it was given."""


@dataclass(frozen=True)
class ServedModel:
    """A model version as it travels to the workers: bytes that are not a pickle, and what it needs as input.

    Attributes:
        name: The model.
        version: Number in the registry.
        numeric: Input columns that are numbers.
        categorical: Input columns that are names.
        threshold: From this score on the decision is true; None for a model without decisions.
        payload: The skops file.
        task: Whether a score is a probability (``classification``) or a number (``regression``).
        compiled: A form that scores faster and the same (see :mod:`lakehouse.ml.compiled`); empty where there is none.
    """

    name: str
    version: int
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    threshold: float | None
    payload: bytes = field(repr=False)
    task: str = "classification"
    compiled: bytes = field(default=b"", repr=False)

    @property
    def inputs(self) -> list[str]:
        """The columns that the model sees, in order."""
        return [*self.numeric, *self.categorical]


def model_input(frame: pd.DataFrame, numeric: list[str], categorical: list[str]) -> pd.DataFrame:
    """The model's view of a table: its own columns only, in order, numbers as float64, names as text or NaN.

    Args:
        frame: Rows of the features table, with any other columns.
        numeric: Input columns that are numbers or booleans.
        categorical: Input columns that are names.
    """
    import numpy as np
    import pandas as pd

    columns: dict[str, Any] = {
        name: pd.to_numeric(frame[name]).to_numpy("float64", na_value=np.nan) for name in numeric
    }
    for name in categorical:
        values = frame[name].astype(object)
        columns[name] = values.where(values.notna(), np.nan)
    return pd.DataFrame(columns, index=frame.index)


def refuse_untrusted(model: ServedModel) -> None:
    """Make sure that a model holds only types that are known to be harmless.

    Args:
        model: Which.

    Raises:
        UntrustedModelError: The bytes name other types.
    """
    from skops import io

    mistrusted = sorted(set(io.get_untrusted_types(data=model.payload)) - set(TRUSTED))
    if mistrusted:
        raise UntrustedModelError(
            f"{model.name} version {model.version} holds types that are not trusted: {', '.join(mistrusted)}. "
            "It is not loaded."
        )


def pipeline(model: ServedModel) -> Pipeline:
    """The fitted pipeline of a model version, loaded once per process.

    Args:
        model: Which.

    Raises:
        UntrustedModelError: The bytes name types that are not known to be harmless.
    """
    key = (model.name, model.version, hash(model.payload))
    if key not in _loaded:
        from skops import io

        refuse_untrusted(model)
        _loaded[key] = io.loads(model.payload, trusted=TRUSTED)
    return _loaded[key]


def score(frame: pd.DataFrame, model: ServedModel) -> Any:
    """The score of each row, as a float64 array.

    Args:
        frame: Rows of the features table.
        model: The version that scores.
    """
    inputs = model_input(frame, list(model.numeric), list(model.categorical))
    return predict(pipeline(model), inputs, model.task)


def predict(fitted: Pipeline, inputs: pd.DataFrame, task: str) -> Any:
    """The score of each row: the probability of the positive class, or the number that a regression predicts.

    Args:
        fitted: A fitted pipeline.
        inputs: Outcome of :func:`model_input`.
        task: ``classification`` or ``regression``.
    """
    return fitted.predict_proba(inputs)[:, 1] if task == "classification" else fitted.predict(inputs)


def score_batch(batch: pa.RecordBatch, model: ServedModel) -> Any:
    """The score of each row of an Arrow batch, as a float64 array: by the compiled form, where there is one.

    Args:
        batch: The model's inputs.
        model: The version that scores.
    """
    if model.compiled:
        from lakehouse.ml import compiled

        with suppress(compiled.UnfitError):
            return compiled.score(compiled.load(model.compiled), batch)
    return score(batch.to_pandas(), model)


def score_batches(batches: Iterator[pa.RecordBatch], model: ServedModel, kept: list[str]) -> Iterator[pa.RecordBatch]:
    """Score Arrow batches: the function that ``DataFrame.mapInArrow`` runs in the workers.

    Args:
        batches: Rows with the model's inputs and the columns to keep.
        model: The version that scores.
        kept: Columns that pass through unchanged, in order; the score follows them.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    for batch in batches:
        if batch.num_rows == 0:
            continue
        try:
            scores = pa.array(score_batch(batch.select(model.inputs), model), pa.float64())
            if strange := batch.num_rows - (pc.sum(pc.is_finite(scores)).as_py() or 0):
                raise ValueError(f"{strange} of {batch.num_rows} scores are no numbers")
        except Exception as error:
            # Whatever a model raises: the driver has to tell it from a fault of the engine.
            raise ModelFailedError(
                f"{model.name} version {model.version} cannot score: {type(error).__name__}: {error}"
            ) from error
        yield pa.RecordBatch.from_arrays([*(batch[name] for name in kept), scores], [*kept, SCORE])
