"""Models: what their folders declare, their versions in the MLflow registry, and which one is champion.

A model is a folder ``models/<name>/`` with ``model.yaml`` (read here into :class:`ModelSpec`), ``pipeline.py``
(its candidate pipelines) and ``README.md`` (its card). MLflow is imported only by the functions that talk to
it, because DAG files import this module.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
import platform
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lakehouse.errors import LakeError
from lakehouse.interval import Interval
from lakehouse.scoring import TRUSTED, ServedModel, check
from lakehouse.settings import PROJECT_DIR, settings

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient
    from sklearn.pipeline import Pipeline

    from lakehouse.training import Trained

MODELS_DIR = PROJECT_DIR / "models"
CHAMPION = "champion"
CHALLENGER = "challenger"

# No telemetry, no noise in task logs, and requirements that do not depend on the working directory.
_MLFLOW_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_UV_AUTO_DETECT": "false",
}
_PACKAGES = ("scikit-learn", "skops", "numpy", "scipy", "pandas")


class InvalidModelError(LakeError, ValueError):
    """A model's folder is missing, or its ``model.yaml`` is wrong."""


class NoChampionError(LakeError, LookupError):
    """No version of a model has the alias ``champion``."""


class UnknownVersionError(LakeError, LookupError):
    """A model has no such version."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Features(_Part):
    """Where a model's input comes from, and which of its columns the model sees."""

    table: str = Field(description="Released table with one row per entity and interval.")
    entity_key: list[str] = Field(min_length=1, description="Columns that name the entity a prediction is about.")
    interval_column: str = Field(description="DATE column that tells the interval of a row.")
    carried: list[str] = Field([], description="Columns copied to the predictions for their readers.")
    numeric: list[str] = Field(description="Input columns that are numbers or booleans.")
    categorical: list[str] = Field([], description="Input columns that are names.")

    @property
    def inputs(self) -> list[str]:
        """The columns that the model sees, in order."""
        return [*self.numeric, *self.categorical]

    @property
    def kept(self) -> list[str]:
        """The columns that a prediction keeps of its input row."""
        return list(dict.fromkeys([*self.entity_key, self.interval_column, *self.carried]))


class Label(_Part):
    """Where the outcome is, which is joined by entity key and interval column."""

    table: str = Field(description="Released table with the outcomes.")
    column: str = Field(description="Boolean column; rows where it is null are not trained on.")


class Training(_Part):
    """How the model is trained and selected."""

    window_days: int = Field(gt=0, description="Length of the training window when none is given.")
    test_days: int = Field(gt=0, description="Last days of the window: only measured, never fitted or selected on.")
    folds: int = Field(gt=0, description="Number of time-ordered validation folds.")
    fold_days: int = Field(gt=0, description="Days per fold.")
    seed: int = Field(description="Seed of everything random.")
    schedule: str | None = Field(None, description="Cron expression of the training DAG; null trains on demand.")


class ModelSpec(_Part):
    """What ``model.yaml`` declares."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="The name of the folder.")
    owner: str
    description: str
    features: Features
    label: Label
    decision_threshold: float = Field(gt=0, lt=1, description="From this score on the decision is true.")
    training: Training

    @property
    def predictions_table(self) -> str:
        """Released table of the model's predictions."""
        return f"ml.predictions_{self.name}"

    @model_validator(mode="after")
    def _inputs_are_sound(self) -> ModelSpec:
        inputs = self.features.inputs
        twice = sorted({column for column in inputs if inputs.count(column) > 1})
        if twice:
            raise ValueError(f"features: listed twice: {', '.join(twice)}")
        if self.label.column in [*inputs, *self.features.kept]:
            raise ValueError(f"features: {self.label.column} is the label and cannot be an input")
        return self


def models() -> list[str]:
    """Names of all models, sorted: the folders that have a ``model.yaml``."""
    return sorted(path.parent.name for path in MODELS_DIR.glob("*/model.yaml"))


def load(name: str) -> ModelSpec:
    """Read and check a model's ``model.yaml``.

    Args:
        name: Name of the model's folder.

    Raises:
        InvalidModelError: There is no such model, or a key is unknown, missing or of the wrong type.
    """
    path = MODELS_DIR / name / "model.yaml"
    if not path.is_file():
        raise InvalidModelError(f"There is no model {name!r}. Models: {', '.join(models()) or 'none yet'}.")
    return read_spec(path)


def read_spec(path: Path) -> ModelSpec:
    """Read and check one ``model.yaml``.

    Args:
        path: The file, in a folder of the model's name.

    Raises:
        InvalidModelError: The file is not YAML, a key is unknown, missing or of the wrong type.
    """
    try:
        document = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise InvalidModelError(f"{path}: is not YAML: {error}") from error
    try:
        spec = ModelSpec.model_validate(document)
    except ValidationError as error:
        faults = "; ".join(
            ": ".join(filter(None, [".".join(map(str, fault["loc"])), fault["msg"]])) for fault in error.errors()
        )
        raise InvalidModelError(f"{path}: {faults}") from error
    if spec.name != path.parent.name:
        raise InvalidModelError(f"{path}: name: is {spec.name!r}, but the folder is {path.parent.name!r}")
    return spec


def candidates(spec: ModelSpec) -> dict[str, Pipeline]:
    """The model's unfitted candidate pipelines, by name; the first is the baseline.

    Args:
        spec: The model.
    """
    module = importlib.import_module(f"models.{spec.name}.pipeline")
    found: dict[str, Pipeline] = module.candidates(spec)
    return found


@dataclass(frozen=True)
class Pins:
    """What a training run was made from: enough to make it again.

    Attributes:
        window: The training window, test days included.
        versions: Table (as readers name it) to Delta version.
        release_id: The release whose state of the tables was read.
        code_version: Commit of the code.
        seed: Seed of everything random.
        lock_sha256: Hash of ``uv.lock``.
        model_sha256: Hash of the model's folder: ``model.yaml`` and ``pipeline.py``.
        row_order: Columns that the rows were sorted by.
        input_sha256: Hash of the rows that were trained on.
        environment: Python and the kind of machine.
    """

    window: Interval
    versions: dict[str, int]
    release_id: int
    code_version: str
    seed: int
    lock_sha256: str
    model_sha256: str
    row_order: tuple[str, ...]
    input_sha256: str
    environment: str

    @classmethod
    def of(
        cls,
        spec: ModelSpec,
        window: Interval,
        versions: dict[str, int],
        release_id: int,
        code_version: str,
        input_sha256: str,
    ) -> Pins:
        """Pins of a training run that starts now.

        Args:
            spec: The model.
            window: The training window, test days included.
            versions: Table to Delta version.
            release_id: The release whose state is read.
            code_version: Commit of the code.
            input_sha256: Hash of the rows that are trained on.
        """
        folder = MODELS_DIR / spec.name
        return cls(
            window=window,
            versions=versions,
            release_id=release_id,
            code_version=code_version,
            seed=spec.training.seed,
            lock_sha256=_sha256(PROJECT_DIR / "uv.lock"),
            model_sha256=_sha256(folder / "model.yaml", folder / "pipeline.py"),
            row_order=(spec.features.interval_column, *spec.features.entity_key),
            input_sha256=input_sha256,
            environment=f"Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        )

    def tags(self) -> dict[str, str]:
        """The pins as MLflow tags."""
        return {
            "training_window": str(self.window),
            "release_id": str(self.release_id),
            "code_version": self.code_version,
            "seed": str(self.seed),
            "lock_sha256": self.lock_sha256,
            "model_sha256": self.model_sha256,
            "row_order": ", ".join(self.row_order),
            "input_sha256": self.input_sha256,
            "environment": self.environment,
            **{f"version.{table}": str(version) for table, version in sorted(self.versions.items())},
        }

    def fingerprint(self, predictions_sha256: str) -> str:
        """Equal for two training runs that read the same data with the same model and came out the same.

        Args:
            predictions_sha256: Hash of the fitted model's scores on the test days.
        """
        facts = [str(self.window), sorted(self.versions.items()), self.seed, self.lock_sha256, self.model_sha256]
        return hashlib.sha256(json.dumps([*facts, predictions_sha256]).encode()).hexdigest()


@dataclass(frozen=True)
class ModelVersion:
    """A version in the registry.

    Attributes:
        name: The model.
        version: Number of the version.
        run_id: MLflow run that trained it.
        aliases: Its roles, such as ``champion``.
        tags: Its pins, figures, and why it has its role.
    """

    name: str
    version: int
    run_id: str
    aliases: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)


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
    """The MLflow of the settings."""
    os.environ |= _MLFLOW_ENVIRONMENT
    import mlflow

    mlflow.set_tracking_uri(settings().mlflow_uri)
    return mlflow.MlflowClient()


def champion(name: str) -> ModelVersion:
    """The version that scores, looked up now. Call once per run and keep the answer: the alias can move.

    Args:
        name: The model.

    Raises:
        NoChampionError: The model has not been trained, or no version was good enough.
    """
    found = _by_alias(name, CHAMPION)
    if found is None:
        raise NoChampionError(
            f"The model {name} has no champion. Train it first: lake train {name} --interval FIRST/LAST; "
            "a version that does not beat the base rate does not become champion."
        )
    return found


def versions(name: str) -> list[ModelVersion]:
    """All registered versions of a model, oldest first.

    Args:
        name: The model.
    """
    found = [_model_version(entry) for entry in connect().search_model_versions(f"name='{name}'")]
    return sorted(found, key=lambda entry: entry.version)


def registered() -> list[ModelVersion]:
    """All registered versions of all models, also of those that no longer have a folder."""
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
    text: str = load_text(f"runs:/{version.run_id}/card.md")
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
        **trained.hyperparameters(),
    }


def fetch(version: ModelVersion) -> ServedModel:
    """Bring a version's bytes and input columns here, without loading the model.

    Args:
        version: Which.

    Raises:
        lakehouse.scoring.UntrustedModelError: The stored model names types that are not known to be harmless.
    """
    import tempfile

    from mlflow.artifacts import download_artifacts

    connect()
    with tempfile.TemporaryDirectory() as folder:
        local = Path(download_artifacts(f"models:/{version.name}/{version.version}", dst_path=folder))
        metadata = yaml.safe_load((local / "MLmodel").read_text())["metadata"]
        payload = (local / "model.skops").read_bytes()
    model = ServedModel(
        name=version.name,
        version=version.version,
        numeric=tuple(metadata["numeric"]),
        categorical=tuple(metadata["categorical"]),
        threshold=metadata["decision_threshold"],
        payload=payload,
    )
    check(model)
    return model


def register(spec: ModelSpec, trained: Trained, pins: Pins, step_run_id: str) -> ModelVersion:
    """Log a training run to MLflow, register its model, and give it its role.

    The same training again (same data, code of the model, environment and outcome) registers nothing new and
    returns the version that there is. A version becomes champion when it beats the base rate in log loss on
    the test days and, where there is a champion, beats it on the same days; otherwise it is the challenger.

    Args:
        spec: The model.
        trained: Outcome of :func:`lakehouse.training.train`.
        pins: What it was made from.
        step_run_id: The step of ``ops.runs`` that trained it.
    """
    client = connect()
    fingerprint = pins.fingerprint(trained.predictions_sha256)
    known = client.search_model_versions(f"name='{spec.name}' and tags.fingerprint='{fingerprint}'")
    if known:
        version = _model_version(known[0])
    else:
        version = _log(client, spec, trained, pins, {"fingerprint": fingerprint, "step_run_id": step_run_id})
    if "role_reason" not in version.tags:
        _assign_role(client, spec, trained, version)
    return _model_version(client.get_model_version(spec.name, str(version.version)))


def _assign_role(client: MlflowClient, spec: ModelSpec, trained: Trained, version: ModelVersion) -> None:
    current = _by_alias(spec.name, CHAMPION)
    ours, base, days = trained.test_log_loss, trained.baseline_test_log_loss, trained.split.test
    if ours >= base:
        role, reason = CHALLENGER, f"log loss {ours:.4f} is not below the base rate's {base:.4f} on {days}"
    elif current is None or current.version == version.version:
        role, reason = CHAMPION, f"first version; log loss {ours:.4f} is below the base rate's {base:.4f} on {days}"
    else:
        theirs = trained.test_log_loss_of(fetch(current))
        role = CHAMPION if ours < theirs else CHALLENGER
        relation = "below" if ours < theirs else "not below"
        reason = f"log loss {ours:.4f} is {relation} version {current.version}'s {theirs:.4f} on {days}"
    client.set_registered_model_alias(spec.name, role, str(version.version))
    # Last, so that a run that was killed before it decides again.
    client.set_model_version_tag(spec.name, str(version.version), "role_reason", reason)


def _log(client: MlflowClient, spec: ModelSpec, trained: Trained, pins: Pins, tags: dict[str, str]) -> ModelVersion:
    import mlflow
    from mlflow.data.delta_dataset_source import DeltaDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.exceptions import MlflowException
    from mlflow.models import infer_signature

    from lakehouse import tables
    from lakehouse.training import card

    # Says for every model that there is no pip; an environment made by uv has none.
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)
    example = trained.example
    tags = {**pins.tags(), **tags, "candidate": trained.selected, "predictions_sha256": trained.predictions_sha256}
    mlflow.set_experiment(spec.name)
    with mlflow.start_run(run_name=f"{spec.name} {pins.window}", tags={**tags, "owner": spec.owner}) as run:
        mlflow.log_params(parameters(spec, trained, pins))
        mlflow.log_metrics(trained.metrics())
        for table, version in pins.versions.items():
            source = DeltaDatasetSource(path=tables.location(tables.next_table(table)), delta_table_version=version)
            dataset = MetaDataset(source, name=f"{table}@{version}")  # type: ignore[abstract]  # MLflow's own lapse
            mlflow.log_input(dataset, context="training")
        mlflow.log_dict(trained.figures(), "metrics.json")
        mlflow.log_text(card(spec, trained, pins.tags()), "card.md")
        info = mlflow.sklearn.log_model(
            trained.pipeline,
            name=spec.name,
            serialization_format="skops",
            skops_trusted_types=TRUSTED,
            signature=infer_signature(example, trained.pipeline.predict_proba(example)),
            input_example=example,
            pyfunc_predict_fn="predict_proba",
            # Given, because MLflow would start a process to find them out.
            pip_requirements=[f"{package}=={_installed(package)}" for package in _PACKAGES],
            metadata={
                "numeric": list(spec.features.numeric),
                "categorical": list(spec.features.categorical),
                "decision_threshold": spec.decision_threshold,
            },
        )
        run_id = run.info.run_id
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


def _sha256(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
