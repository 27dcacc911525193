"""Model folders, and versions and roles in a real MLflow on SQLite."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from skops import io

from lakehouse import registry, scoring, training
from lakehouse.model_spec import InvalidModelError, read_spec
from lakehouse.settings import settings
from tests.made_up_flights import SPEC, WINDOW, flights, train

NAME = "flight_delay"


@pytest.fixture
def mlflow_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    """An MLflow with nothing in it."""
    monkeypatch.setattr(settings(), "mlflow_tracking_uri", f"sqlite:///{tmp_path}/mlflow.sqlite")
    registry.connect.cache_clear()
    client = registry.connect()
    client.create_experiment(NAME, artifact_location=(tmp_path / "artifacts").as_uri())
    yield client
    registry.connect.cache_clear()


@pytest.fixture(scope="module")
def good() -> training.Trained:
    return train(*flights())


@pytest.fixture(scope="module")
def weak() -> training.Trained:
    """Learnt from outcomes that depend on the features only a little, measured on the same days as the good one."""
    features, labels = flights(signal=0.3)
    test_days = labels["flight_date"] >= train(*flights()).split.test.start
    labels.loc[test_days, "is_late"] = flights()[1].loc[test_days, "is_late"]
    return train(features, labels)


def pins(version: int = 4) -> registry.Pins:
    versions = {SPEC.features.table: version, SPEC.label.table: 7}
    return registry.Pins.of(SPEC, WINDOW, versions, release_id=12, code_version="0123abc", input_sha256="4f0c")


def edited(tmp_path: Path, **changes: object) -> Path:
    """``model.yaml`` with some keys (``part__key``) set to other values, or removed with None."""
    document = yaml.safe_load((registry.MODELS_DIR / NAME / "model.yaml").read_text())
    for path, value in changes.items():
        *parts, key = path.split("__")
        place = document
        for part in parts:
            place = place[part]
        if value is None:
            del place[key]
        else:
            place[key] = value
    file = tmp_path / NAME / "model.yaml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(document))
    return file


def test_every_folder_declares_a_model_and_has_a_card() -> None:
    assert NAME in registry.models()
    for name in registry.models():
        spec = registry.load(name)
        assert spec.predictions_table == f"ml.predictions_{name}"
        assert (registry.MODELS_DIR / name / "README.md").stat().st_size > 500
        assert len(registry.candidates(spec)) > 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__test_day": 7}, r"model\.yaml: training\.test_day: Extra inputs"),
        ({"ownr": "x"}, r"model\.yaml: ownr: Extra inputs"),
        ({"label": None}, r"model\.yaml: label: Field required"),
        ({"training__folds": "three"}, r"model\.yaml: training\.folds: .*valid integer"),
        ({"decision_threshold": 30}, r"model\.yaml: decision_threshold: .*less than 1"),
        ({"name": "other"}, r"model\.yaml: name: is 'other', but the folder is 'flight_delay'"),
        ({"features__categorical": ["carrier", "is_late"]}, r"is_late is the label"),
        ({"features__categorical": ["carrier", "carrier"]}, r"listed twice: carrier"),
    ],
)
def test_a_wrong_model_yaml_is_refused_by_file_and_field(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidModelError, match=message):
        read_spec(edited(tmp_path, **changes))


def test_what_is_not_yaml_and_what_is_not_there(tmp_path: Path) -> None:
    file = edited(tmp_path)
    file.write_text("name: [")
    with pytest.raises(InvalidModelError, match=r"model\.yaml: is not YAML"):
        read_spec(file)
    with pytest.raises(InvalidModelError, match=r"no model 'fligth_delay'. Models: .*flight_delay"):
        registry.load("fligth_delay")


def test_a_dag_file_can_list_models_without_heavy_imports() -> None:
    code = (
        "import sys; from lakehouse import registry; [registry.load(m) for m in registry.models()]; "
        "print(sorted({'mlflow', 'sklearn', 'pandas', 'numpy', 'pyarrow', 'pyspark', 'skops'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert found.stdout.strip() == "[]"


def test_without_training_there_is_no_champion(mlflow_client: MlflowClient) -> None:
    with pytest.raises(registry.NoChampionError, match="lake train flight_delay"):
        registry.champion(NAME)
    assert registry.versions(NAME) == []


def test_the_first_good_version_is_champion_and_carries_its_pins(
    mlflow_client: MlflowClient, good: training.Trained
) -> None:
    version = registry.register(SPEC, good, pins(), "run-1")
    assert (version.version, version.aliases) == (1, ("champion",))
    assert version.tags["role_reason"].startswith("first version; log loss")
    expected = {
        "training_window": str(WINDOW),
        "release_id": "12",
        "code_version": "0123abc",
        "seed": "2013",
        "version.gold.flight_delay_features": "4",
        "version.gold.fct_flights": "7",
        "step_run_id": "run-1",
        "candidate": good.selected,
        "predictions_sha256": good.predictions_sha256,
        "test_log_loss": f"{good.test_log_loss:.6f}",
    }
    assert expected.items() <= version.tags.items()
    assert len(version.tags["lock_sha256"]) == len(version.tags["model_sha256"]) == 64

    run = mlflow_client.get_run(version.run_id)
    assert expected.items() - {("test_log_loss", expected["test_log_loss"])} <= run.data.tags.items()
    assert run.data.params["test_days"] == "2013-02-22/2013-02-28"
    assert run.data.metrics["base_rate/test_log_loss"] == pytest.approx(good.baseline_test_log_loss)
    assert run.inputs is not None
    assert {entry.dataset.name for entry in run.inputs.dataset_inputs} == {
        "gold.flight_delay_features@4",
        "gold.fct_flights@7",
    }
    assert {artifact.path for artifact in mlflow_client.list_artifacts(version.run_id)} >= {"card.md", "metrics.json"}
    figures = json.loads(Path(mlflow_client.download_artifacts(version.run_id, "metrics.json")).read_text())
    assert figures["candidates"].keys() == good.candidates.keys()


def test_the_stored_model_scores_as_it_was_measured(mlflow_client: MlflowClient, good: training.Trained) -> None:
    served = registry.fetch(registry.register(SPEC, good, pins(), "run-1"))
    assert (served.name, served.version, served.threshold) == (NAME, 1, SPEC.decision_threshold)
    assert served.inputs == SPEC.features.inputs
    assert good.test_log_loss_of(served) == good.test_log_loss


def test_the_same_training_again_registers_nothing(mlflow_client: MlflowClient, good: training.Trained) -> None:
    first = registry.register(SPEC, good, pins(), "run-1")
    assert registry.register(SPEC, good, pins(), "run-2") == first
    assert len(registry.versions(NAME)) == 1


def test_a_training_killed_before_its_role_gets_it_when_run_again(
    mlflow_client: MlflowClient, good: training.Trained
) -> None:
    registry.register(SPEC, good, pins(), "run-1")
    mlflow_client.delete_registered_model_alias(NAME, "champion")
    mlflow_client.delete_model_version_tag(NAME, "1", "role_reason")
    again = registry.register(SPEC, good, pins(), "run-2")
    assert (again.version, again.aliases) == (1, ("champion",))


def test_only_a_better_version_replaces_the_champion(
    mlflow_client: MlflowClient, good: training.Trained, weak: training.Trained
) -> None:
    assert weak.test_log_loss < weak.baseline_test_log_loss
    registry.register(SPEC, weak, pins(1), "run-1")
    better = registry.register(SPEC, good, pins(2), "run-2")
    assert better.aliases == ("champion",)
    assert "is below version 1's" in better.tags["role_reason"]
    equal = registry.register(SPEC, good, pins(3), "run-3")
    assert equal.aliases == ("challenger",)
    assert "is not below version 2's" in equal.tags["role_reason"]
    assert registry.champion(NAME).version == 2


def test_what_does_not_beat_the_base_rate_does_not_score(mlflow_client: MlflowClient, good: training.Trained) -> None:
    useless = dataclasses.replace(good.candidates[good.selected], log_loss=9.0)
    poor = dataclasses.replace(good, candidates={**good.candidates, good.selected: useless})
    version = registry.register(SPEC, poor, pins(), "run-1")
    assert version.aliases == ("challenger",)
    assert "is not below the base rate's" in version.tags["role_reason"]
    with pytest.raises(registry.NoChampionError):
        registry.champion(NAME)


def test_a_model_of_other_types_is_not_loaded() -> None:
    from functools import partial

    payload = io.dumps(partial(os.system, "touch /tmp/never"))
    harmful = scoring.ServedModel(NAME, 1, (), (), 0.3, payload)
    with pytest.raises(scoring.UntrustedModelError, match="version 1 holds types that are not trusted"):
        scoring.pipeline(harmful)
