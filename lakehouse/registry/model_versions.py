"""A version of a model, wherever it is kept: its facts and its bytes, also when the registry has lost it."""

from __future__ import annotations

from typing import Any

import pyarrow.compute as pc

from lakehouse import ops
from lakehouse.interval import Interval
from lakehouse.ml.scoring import ModelFailedError, ServedModel
from lakehouse.registry import registry
from lakehouse.registry.registry import ModelVersion
from lakehouse.settings import settings

FALLBACK_BASELINE = "fallback_baseline"
"""Role of a row that the baseline had to score which was fitted beside the version on the row."""

PINS = (
    "release_id", "code_version", "seed", "lock_sha256", "model_sha256", "row_order", "input_sha256", "environment",
    "predictions_sha256",
)  # fmt: skip
"""Columns of ``ops.models`` that are tags of a version, too."""


def fetch_to_score(version: ModelVersion, *, baseline: bool = False) -> ServedModel:
    """Bring a version here, to score.

    Args:
        version: Which.
        baseline: The baseline that was fitted beside it.

    Raises:
        ModelFailedError: It cannot be loaded, or somebody has deleted it.
    """
    if version.deleted and not baseline:
        raise ModelFailedError(
            f"{version.name} version {version.version} cannot be loaded: it was deleted from the registry."
        )
    return fetch(version, baseline=baseline)


def fetch(version: ModelVersion, *, baseline: bool = False) -> ServedModel:
    """Bring a version here as it was stored, also one that was deleted from the registry since.

    Args:
        version: Which.
        baseline: The baseline that was fitted beside it.

    Raises:
        ModelFailedError: It cannot be loaded.
    """
    try:
        return _fetched(version, baseline)
    except Exception as error:
        if _unreachable(error):
            raise
        # What is damaged in the registry raises what its format's library likes.
        raise ModelFailedError(
            f"{version.name} version {version.version} cannot be loaded: {type(error).__name__}: {error}"
        ) from error


def find_or_unknown(name: str, number: int) -> ModelVersion:
    """A version that has or had a role; of one that nobody knows its name and number, marked as deleted.

    A deleted version does not score, its baseline can.

    Args:
        name: The model.
        number: The version.
    """
    try:
        return find(name, number)
    except registry.UnknownVersionError:
        return ModelVersion(name, number, "", deleted=True)


def find(name: str, number: int) -> ModelVersion:
    """A version that was trained, also one that was deleted from the registry since: ``ops.models`` has its pins.

    Args:
        name: The model.
        number: The version.

    Raises:
        lakehouse.registry.registry.UnknownVersionError: Neither of the two knows it.
        lakehouse.registry.registry.AnotherVersionError: MLflow has another one of that number.
    """
    this = (pc.field("model_name") == name) & (pc.field("model_version") == number)
    row = next(iter(ops.read("ops.models", where=this).to_pylist()), None)
    try:
        found = registry.version(name, number)
    except registry.UnknownVersionError:
        if row is None:
            raise
    else:
        if row is not None and row["mlflow_run_id"] != found.run_id:
            raise registry.AnotherVersionError(
                f"{name} version {number} was trained by the MLflow run {row['mlflow_run_id']}, as ops.models has it, "
                f"and MLflow at {settings().mlflow_uri} has one by the run {found.run_id}: is it this platform's?"
            )
        return found
    assert row is not None
    tags = {pin: str(row[pin]) for pin in PINS if row[pin] is not None}
    tags |= {f"version.{table}": str(version) for table, version in row["versions"] or ()}
    if row["window_start"]:
        tags["training_window"] = str(Interval(row["window_start"], row["window_end"]))
    return ModelVersion(name, number, row["mlflow_run_id"], tags=tags, deleted=True)


def _fetched(version: ModelVersion, baseline: bool) -> ServedModel:
    from mlflow.exceptions import MlflowException

    try:
        return registry.fetch(version, baseline=baseline)
    except MlflowException as error:
        if _unreachable(error):
            raise
    # It does not tell a file that is not there from one that the server failed to send just now.
    return registry.fetch(version, baseline=baseline)


def _unreachable(error: BaseException | None) -> bool:
    """Whether the registry did not answer, which says nothing of the model: the step is to be tried again."""
    import requests

    while error is not None:
        if isinstance(error, requests.ConnectionError | requests.Timeout):
            return True
        error = error.__cause__ or error.__context__
    return False


def that_scored(name: str, row: dict[str, Any]) -> ServedModel:
    """The version that has scored a row of predictions, also one that was deleted from the registry since.

    Args:
        name: The model.
        row: The row: its ``model_version`` and ``role``.

    Raises:
        ModelFailedError: It cannot be loaded.
    """
    return fetch(find_or_unknown(name, int(row["model_version"])), baseline=row["role"] == FALLBACK_BASELINE)
