"""Pins: what a training or a scoring was made with, beside the code and the data; enough to make it again."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass
from pathlib import Path

from lakehouse.interval import Interval
from lakehouse.ml import model_folders
from lakehouse.ml.model_spec import ModelSpec
from lakehouse.settings import PROJECT_DIR


def surroundings(spec: ModelSpec) -> dict[str, str]:
    """What a training or a scoring that starts now is made with, beside the code and the data.

    Args:
        spec: The model.

    Returns:
        ``lock_sha256``, ``model_sha256``, ``environment``: see :class:`Pins`.
    """
    folder = model_folders.MODELS_DIR / spec.name
    return {
        "lock_sha256": _sha256(PROJECT_DIR / "uv.lock"),
        "model_sha256": _sha256(folder / "model.yaml", folder / "pipeline.py"),
        "environment": f"Python {platform.python_version()}, {platform.system()} {platform.machine()}",
    }


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
        return cls(
            window=window,
            versions=versions,
            release_id=release_id,
            code_version=code_version,
            seed=spec.training.seed,
            row_order=(spec.features.interval_column, *spec.features.entity_key),
            input_sha256=input_sha256,
            **surroundings(spec),
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


def _sha256(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
