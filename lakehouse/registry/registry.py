"""The versions of models, in the MLflow registry.

MLflow is imported only by the functions that talk to it: it takes seconds.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lakehouse.engine import process_record
from lakehouse.errors import LakeError
from lakehouse.ml import model_folders
from lakehouse.ml.model_spec import ModelSpec
from lakehouse.ml.scoring import TRUSTED, ServedModel, UntrustedModelError, refuse_untrusted
from lakehouse.registry.pins import Pins
from lakehouse.settings import settings

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from lakehouse.ml.training import Trained

CHAMPION = "champion"
CHALLENGER = "challenger"

# No telemetry, no noise in task logs, and requirements that do not depend on the working directory.
_MLFLOW_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",
}
CARD = "card.md"
_BASELINE = "baseline.skops"
_BASELINE_FACTS = "baseline.json"
_COMPILED = "compiled.json"
_PACKAGES = ("scikit-learn", "skops", "numpy", "scipy", "pandas")


class RegistryDownError(LakeError):
    """There is no MLflow, and nobody is about to start it."""


class AnotherVersionError(LakeError):
    """MLflow has another version of a number than the lake has recorded."""


class UnknownVersionError(LakeError, LookupError):
    """A model has no such version."""


@dataclass(frozen=True)
class ModelVersion:
    """A version in the registry.

    Attributes:
        name: The model.
        version: Number of the version.
        run_id: MLflow run that trained it.
        aliases: Its roles, such as ``champion``.
        tags: Its pins, figures, and why it has its role.
        deleted: Whether its entry in the registry is gone; its training run has the model and the card all the same.
    """

    name: str
    version: int
    run_id: str
    aliases: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    deleted: bool = False


@dataclass(frozen=True)
class Logged:
    """What MLflow has kept of a training run.

    Attributes:
        parameters: By name, as text.
        metrics: By name.
    """

    parameters: dict[str, str]
    metrics: dict[str, float]


@cache
def connect() -> MlflowClient:
    """The MLflow of the settings.

    Raises:
        RegistryDownError: It is that of the platform, which was not started, or was stopped.
    """
    if settings().mlflow_tracking_uri is None and not process_record().exists():
        try:
            socket.create_connection(("localhost", settings().ports.mlflow), timeout=5).close()
        except OSError as error:  # which MLflow's client would try again for minutes
            raise RegistryDownError(
                f"MLflow of {settings().home} is not running. Start it with `lake up`; `lake status` shows what runs."
            ) from error
    os.environ |= _MLFLOW_ENVIRONMENT
    if settings().mlflow_tracking_uri is None:
        os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = settings().mlflow_login
    import mlflow

    mlflow.set_tracking_uri(settings().mlflow_uri)
    return mlflow.MlflowClient()


def versions(name: str) -> list[ModelVersion]:
    """All registered versions of a model without their aliases, oldest first.

    Args:
        name: The model.
    """
    found = [_model_version(entry) for entry in connect().search_model_versions(f"name='{name}'")]
    return sorted(found, key=lambda entry: entry.version)


def registered() -> list[ModelVersion]:
    """All registered versions of all models without their aliases, also of those that no longer have a folder."""
    found: list[ModelVersion] = []
    token = None
    while token is None or token:
        page = connect().search_model_versions(page_token=token)
        found += [_model_version(entry) for entry in page]
        token = page.token or ""
    return found


def version(name: str, number: int) -> ModelVersion:
    """One version of a model.

    Args:
        name: The model.
        number: The version.

    Raises:
        UnknownVersionError: There is no such version.
    """
    known = [entry.version for entry in versions(name)]
    if number not in known:
        shown = ", ".join(map(str, known)) or "none yet"
        raise UnknownVersionError(f"The model {name} has no version {number}. Versions: {shown}.")
    # A search does not tell the aliases.
    return _model_version(connect().get_model_version(name, str(number)))


def logged(version: ModelVersion) -> Logged:
    """The parameters and metrics of the run that trained a version.

    Args:
        version: Which.
    """
    data = connect().get_run(version.run_id).data
    return Logged(dict(data.params), dict(data.metrics))


def card(version: ModelVersion) -> str:
    """The model card that was generated when a version was trained, as Markdown.

    Args:
        version: Which.
    """
    from mlflow.artifacts import load_text

    connect()
    text: str = load_text(f"runs:/{version.run_id}/{CARD}")
    return text


def parameters(spec: ModelSpec, trained: Trained, pins: Pins) -> dict[str, Any]:
    """What a training run was made with, as MLflow keeps it.

    Args:
        spec: The model.
        trained: Its training.
        pins: What it was made from.
    """
    return {
        "candidate": trained.selected,
        "training_window": str(pins.window),
        "train_days": str(trained.split.train),
        "test_days": str(trained.split.test),
        "seed": pins.seed,
        "decision_threshold": spec.decision_threshold,
        **{f"rows_{part}": rows for part, rows in trained.rows.items()},
        # Up to the last that came to its end: those that were given up on the way there are trials, too.
        **{f"search_trials.{each.candidate}": each.number + 1 for each in trained.trials},
        **{f"tuned.{name}.{key}": value for name, best in trained.tuned.items() for key, value in best.items()},
        **trained.hyperparameters(),
    }


def fetch(version: ModelVersion, *, baseline: bool = False) -> ServedModel:
    """Bring a version's bytes and input columns here, without loading the model.

    Args:
        version: Which.
        baseline: The baseline that was fitted beside it, on the same rows, and not the version itself, of which
            nothing has to be there but its training run.

    Raises:
        lakehouse.ml.scoring.UntrustedModelError: The stored model names types that are not known to be harmless.
    """
    import tempfile

    from mlflow.artifacts import download_artifacts

    connect()
    with tempfile.TemporaryDirectory() as folder:
        kept = kept_text(version, _BASELINE_FACTS) if baseline else None
        if kept is None:  # of a baseline, when it was trained before they were kept beside it
            entry = f"models:/{version.name}/{version.version}"
            uri = f"runs:/{version.run_id}/{version.name}" if version.deleted else entry
            local = Path(download_artifacts(uri, dst_path=folder))
            metadata = yaml.safe_load((local / "MLmodel").read_text())["metadata"]
        else:
            metadata = json.loads(kept)
        path = download_artifacts(f"runs:/{version.run_id}/{_BASELINE}", dst_path=folder) if baseline else ""
        payload = Path(path or local / "model.skops").read_bytes()
        compiled = b"" if baseline else _compiled(version, folder)
    model = ServedModel(
        name=version.name,
        version=version.version,
        # The baseline is a constant: it is there when a column is gone.
        numeric=() if baseline else tuple(metadata["numeric"]),
        categorical=() if baseline else tuple(metadata["categorical"]),
        threshold=metadata["decision_threshold"],
        payload=payload,
        task=metadata.get("task", "classification"),
        compiled=compiled,
    )
    refuse_untrusted(model)
    return model


def _compiled(version: ModelVersion, folder: str) -> bytes:
    """The compiled form that was proven when a version was trained; empty where there was none."""
    from mlflow.artifacts import download_artifacts

    proven = version.tags.get("compiled_sha256")
    if not proven:
        return b""
    payload = Path(download_artifacts(f"runs:/{version.run_id}/{_COMPILED}", dst_path=folder)).read_bytes()
    if hashlib.sha256(payload).hexdigest() != proven:
        raise UntrustedModelError(
            f"{_COMPILED} of {version.name} version {version.version} is not what was proven equal when it was trained."
        )
    return payload


def register(spec: ModelSpec, trained: Trained, pins: Pins, step_run_id: str) -> ModelVersion:
    """Log a training run to MLflow, and register its model, which has no role yet.

    The same training again (same data, code of the model, environment and outcome) registers nothing new and
    returns the version that there is.

    Args:
        spec: The model.
        trained: Outcome of :func:`lakehouse.ml.training.train`.
        pins: What it was made from.
        step_run_id: The step of ``ops.runs`` that trained it.
    """
    client = connect()
    fingerprint = pins.fingerprint(trained.predictions_sha256)
    known = client.search_model_versions(f"name='{spec.name}' and tags.fingerprint='{fingerprint}'")
    if known:
        return version(spec.name, int(known[0].version))
    return _log(client, spec, trained, pins, {"fingerprint": fingerprint, "step_run_id": step_run_id})


def keep_text(version: ModelVersion, path: str, text: str) -> None:
    """Keep a text beside a version, as an artifact of the run that trained it.

    Args:
        version: Which.
        path: Of the artifact; one that is there is replaced.
        text: What it holds.
    """
    connect().log_text(version.run_id, text, path)


def kept_text(version: ModelVersion, path: str) -> str | None:
    """What :func:`keep_text` has kept; None when nothing was.

    Args:
        version: Which.
        path: Of the artifact.
    """
    from mlflow.artifacts import load_text

    folder = path.rpartition("/")[0] or None
    if path not in {entry.path for entry in connect().list_artifacts(version.run_id, folder)}:
        return None
    text: str = load_text(f"runs:/{version.run_id}/{path}")
    return text


def set_alias(name: str, alias: str, number: int | None) -> None:
    """Show a version's role in MLflow.

    Args:
        name: The model.
        alias: ``champion`` or ``challenger``.
        number: The version that has the role now; None for no version.
    """
    if number is not None:
        connect().set_registered_model_alias(name, alias, str(number))
    elif _by_alias(name, alias) is not None:
        connect().delete_registered_model_alias(name, alias)


def set_reason(name: str, number: int, reason: str) -> None:
    """Show in MLflow why a version has its role.

    Args:
        name: The model.
        number: The version.
        reason: Why.
    """
    connect().set_model_version_tag(name, str(number), "role_reason", reason)


def set_cause(version: ModelVersion, cause: str) -> None:
    """Show in MLflow why a version was trained.

    Args:
        version: Which.
        cause: Why, as the retraining policy has said.
    """
    connect().set_model_version_tag(version.name, str(version.version), "cause", cause)


def _log(client: MlflowClient, spec: ModelSpec, trained: Trained, pins: Pins, tags: dict[str, str]) -> ModelVersion:
    import tempfile

    import mlflow
    import skops.io
    from mlflow.data.delta_dataset_source import DeltaDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.exceptions import MlflowException
    from mlflow.models import infer_signature

    from lakehouse import tables
    from lakehouse.ml.training import LABEL
    from lakehouse.registry import plots
    from lakehouse.registry.model_card import card

    # Says for every model that there is no pip; an environment made by uv has none.
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)
    predict = "predict_proba" if spec.task == "classification" else "predict"
    metadata = {
        "numeric": list(spec.features.numeric),
        "categorical": list(spec.features.categorical),
        "decision_threshold": spec.decision_threshold,
        "task": spec.task,
    }
    tags = {
        **pins.tags(),
        **tags,
        "candidate": trained.selected,
        "predictions_sha256": trained.predictions_sha256,
        "compiled": trained.compiled_reason,
        **({"compiled_sha256": hashlib.sha256(trained.compiled).hexdigest()} if trained.compiled else {}),
    }
    mlflow.set_experiment(spec.name)
    with mlflow.start_run(run_name=f"{spec.name} {pins.window}", tags={**tags, "owner": spec.owner}) as run:
        mlflow.log_params(parameters(spec, trained, pins))
        mlflow.log_metrics(trained.metrics())
        for table, version in pins.versions.items():
            source = DeltaDatasetSource(path=tables.location(tables.next_table(table)), delta_table_version=version)
            dataset = MetaDataset(source, name=f"{table}@{version}")  # type: ignore[abstract]  # MLflow's own lapse
            mlflow.log_input(dataset, context="training")
        mlflow.log_dict(trained.figures(), "metrics.json")
        written = model_folders.MODELS_DIR / spec.name / "README.md"
        text = card(spec, trained, pins.tags(), written.read_text() if written.is_file() else None)
        mlflow.log_text(text, CARD)
        with tempfile.TemporaryDirectory() as folder:
            skops.io.dump(trained.baseline_pipeline, Path(folder) / _BASELINE)
            (Path(folder) / _BASELINE_FACTS).write_text(json.dumps(metadata))
            if trained.compiled:
                (Path(folder) / _COMPILED).write_bytes(trained.compiled)
            drawn = Path(folder) / "plots"
            drawn.mkdir()
            outcomes = trained.test[LABEL].to_numpy("float64")
            plots.draw(drawn, spec.task, outcomes, trained.scores, spec.decision_threshold, trained.importances)
            mlflow.log_artifacts(folder)
        info = mlflow.sklearn.log_model(
            trained.pipeline,
            name=spec.name,
            serialization_format="skops",
            skops_trusted_types=TRUSTED,
            signature=infer_signature(trained.example, getattr(trained.pipeline, predict)(trained.example)),
            input_example=trained.example,
            pyfunc_predict_fn=predict,
            # Given, because MLflow would start a process to find them out.
            pip_requirements=[f"{package}=={_installed(package)}" for package in _PACKAGES],
            metadata=metadata,
        )
        run_id = run.info.run_id
        _log_trials(client, run.info.experiment_id, run_id, trained)
    try:
        client.create_registered_model(spec.name, tags={"owner": spec.owner}, description=spec.description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    created = client.create_model_version(
        spec.name,
        info.model_uri,
        run_id,
        model_id=info.model_id,
        tags={**tags, **{name: f"{value:.6f}" for name, value in trained.headline().items()}},
        description=f"{trained.selected}, trained on {trained.split.train}, measured on {trained.split.test}.",
    )
    return _model_version(created)


def _log_trials(client: MlflowClient, experiment: str, parent: str, trained: Trained) -> None:
    from mlflow.entities import Metric, Param

    for trial in trained.trials:
        name = f"{trial.candidate} trial {trial.number}"
        run = client.create_run(experiment, tags={"mlflow.parentRunId": parent}, run_name=name)
        client.log_batch(
            run.info.run_id,
            [Metric(f"validation_{trained.optimize}", trial.validation, run.info.start_time, 0)],
            [Param("candidate", trial.candidate), *(Param(k, str(v)) for k, v in trial.parameters.items())],
        )
        client.set_terminated(run.info.run_id)


def _by_alias(name: str, alias: str) -> ModelVersion | None:
    from mlflow.exceptions import MlflowException

    try:
        return _model_version(connect().get_model_version_by_alias(name, alias))
    except MlflowException as error:
        # The server says INVALID_PARAMETER_VALUE of an alias, RESOURCE_DOES_NOT_EXIST of a model that is not there.
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _model_version(entry: Any) -> ModelVersion:
    return ModelVersion(entry.name, int(entry.version), entry.run_id, tuple(entry.aliases), dict(entry.tags))


def _installed(package: str) -> str:
    from importlib.metadata import version

    return version(package)
