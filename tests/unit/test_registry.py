"""Model folders, and versions and roles in a real MLflow on SQLite."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn
import yaml
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.models import get_model_info
from skops import io

from lakehouse.ml import model_folders, scoring, training
from lakehouse.ml.model_spec import InvalidModelError, read_spec
from lakehouse.registry import registry
from lakehouse.registry.pins import Pins
from tests.made_up_flights import SPEC, WINDOW, flights, train

NAME = "flight_delay"


@pytest.fixture(scope="module")
def good() -> training.Trained:
    return train(*flights())


def pins(version: int = 4) -> Pins:
    versions = {SPEC.features.table: version, SPEC.label.table: 7}
    return Pins.of(SPEC, WINDOW, versions, release_id=12, code_version="0123abc", input_sha256="4f0c")


def edited(tmp_path: Path, **changes: object) -> Path:
    """``model.yaml`` with some keys (``part__key``) set to other values, or removed with None."""
    document = yaml.safe_load((model_folders.MODELS_DIR / NAME / "model.yaml").read_text())
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
    assert NAME in model_folders.models()
    for name in model_folders.models():
        spec = model_folders.load(name)
        assert spec.predictions_table == f"ml.predictions_{name}"
        assert (model_folders.MODELS_DIR / name / "README.md").stat().st_size > 500
        assert len(model_folders.candidates(spec)) > 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__test_day": 7}, r"model\.yaml, line LINE: training\.test_day: Extra inputs"),
        (
            {"training__schedule": "every monday"},
            r"model\.yaml, line LINE: training\.schedule: 'every monday' is no cron",
        ),
        ({"ownr": "x"}, r"model\.yaml, line LINE: ownr: Extra inputs"),
        ({"label": None}, r"model\.yaml, line 1: label: Field required"),
        ({"training__folds": "three"}, r"model\.yaml, line LINE: training\.folds: .*valid integer"),
        ({"decision_threshold": 30}, r"model\.yaml, line LINE: decision_threshold: .*less than 1"),
        ({"costs": {"false_alarm": 1, "missed": 2}}, r"model\.yaml, line LINE: costs: .*give one of the two"),
        (
            {"decision_threshold": None, "costs": {"false_alarm": 1}},
            r"model\.yaml, line \d+: costs\.missed: Field required",
        ),
        (
            {"decision_threshold": None, "costs": {"false_alarm": 1, "missed": 0}},
            r"model\.yaml, line \d+: costs: a wrong decision has to cost more",
        ),
        ({"name": "other"}, r"model\.yaml, line LINE: name: is 'other', but the folder is 'flight_delay'"),
        ({"task": "clustering"}, r"model\.yaml, line LINE: task: .*'classification' or 'regression'"),
        ({"metrics__optimize": "auc"}, r"model\.yaml, line LINE: metrics\.optimize: .*log_loss or brier"),
        ({"monitoring__psi": "high"}, r"model\.yaml, line LINE: monitoring\.psi: .*valid number"),
        ({"monitoring__segments": ["tail"]}, r"model\.yaml, line \d+: monitoring\.segments: predictions have no tail"),
        ({"monitoring__psi_warning": 0.3}, r"model\.yaml, line LINE: monitoring\.psi_warning: is more than psi"),
        ({"retrain__cooldown": 3}, r"model\.yaml, line LINE: retrain\.cooldown: Extra inputs"),
        ({"promotion__guards": {"bias": 1}}, r"model\.yaml, line \d+: metrics: bias is none of a classification"),
        ({"serving": {"canary": "lots"}}, r"model\.yaml, line \d+: serving\.canary: 'lots' is not a share .* 10%"),
        ({"serving": {"fallback": "other"}}, r"model\.yaml, line \d+: serving\.fallback: .*'previous_version'"),
        ({"decision_threshold": None}, r"precision and recall need a decision_threshold"),
        ({"features__categorical": ["carrier", "is_late"]}, r"is_late is the label"),
        ({"features__categorical": ["carrier", "carrier"]}, r"listed twice: carrier"),
    ],
)
def test_a_wrong_model_yaml_is_refused_by_file_and_field(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    file = edited(tmp_path, **changes)
    key = next(iter(changes)).split("__")[-1]
    lines = [
        number for number, line in enumerate(file.read_text().splitlines(), 1) if line.strip().startswith(f"{key}:")
    ]
    with pytest.raises(InvalidModelError, match=message.replace("LINE", str(lines[-1]) if lines else "")):
        read_spec(file)


def test_the_threshold_that_follows_from_costs_is_that_of_the_least_expected_cost(tmp_path: Path) -> None:
    costs = {"false_alarm": 3.0, "missed": 8.0, "hit": 1.0, "quiet": -1.0}
    spec = read_spec(edited(tmp_path, decision_threshold=None, costs=costs))
    assert spec.decision_threshold == pytest.approx(4 / 11)
    for p in np.linspace(0.01, 0.99, 99):
        says_true = p * costs["hit"] + (1 - p) * costs["false_alarm"]
        says_false = p * costs["missed"] + (1 - p) * costs["quiet"]
        assert (p >= spec.decision_threshold) == (says_true <= says_false), p


@pytest.mark.parametrize("schedule", ["0 6 * * 1", "*/15 6-9 * * MON,FRI", "@weekly"])
def test_a_training_takes_any_cron_expression(tmp_path: Path, schedule: str) -> None:
    assert read_spec(edited(tmp_path, training__schedule=schedule)).training.schedule == schedule


def test_costs_are_weighed_by_probabilities(tmp_path: Path) -> None:
    file = tmp_path / "flight_delay_minutes" / "model.yaml"
    file.parent.mkdir()
    text = (model_folders.MODELS_DIR / "flight_delay_minutes" / "model.yaml").read_text()
    file.write_text(text + "\ncosts: {false_alarm: 1, missed: 2}\n")
    with pytest.raises(InvalidModelError, match=r"line \d+: costs: are weighed by probabilities"):
        read_spec(file)


def test_what_is_not_yaml_and_what_is_not_there(tmp_path: Path) -> None:
    file = edited(tmp_path)
    file.write_text("name: [")
    with pytest.raises(InvalidModelError, match=r"model\.yaml, line 1: is not YAML"):
        read_spec(file)
    with pytest.raises(InvalidModelError, match=r"no model 'fligth_delay'. Models: .*flight_delay"):
        model_folders.load("fligth_delay")


def test_a_wrong_model_is_in_the_way_of_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edited(tmp_path)
    for name, content in {"latin": b"name: caf\xe9\n", "no_day": b"name: 2013-02-30\n", "other": b"name: [\n"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.yaml").write_bytes(content)
    monkeypatch.setattr(model_folders, "MODELS_DIR", tmp_path)
    assert [spec.name for spec in model_folders.readable()] == [NAME]
    assert list(model_folders.problems()) == ["latin", "no_day", "other"]
    assert model_folders.of_predictions(f"ml.predictions_{NAME}") == model_folders.load(NAME)
    for other in ("gold.fct_flights", "ml.predictions_nobody", f"ml.{NAME}", f"gold.predictions_{NAME}"):
        assert model_folders.of_predictions(other) is None
    with pytest.raises(InvalidModelError, match=r"other/model\.yaml, line 2"):
        model_folders.of_predictions("ml.predictions_other")


def test_a_dag_file_can_list_models_without_heavy_imports() -> None:
    code = (
        "import sys; from lakehouse.ml import model_folders; [model_folders.load(m) for m in model_folders.models()]; "
        "print(sorted({'mlflow', 'sklearn', 'pandas', 'numpy', 'pyarrow', 'pyspark', 'skops'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert found.stdout.strip() == "[]"


def test_a_version_carries_its_pins_and_has_no_role_yet(mlflow_client: MlflowClient, good: training.Trained) -> None:
    version = registry.register(SPEC, good, pins(), "run-1")
    assert (version.version, version.aliases) == (1, ())
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
        "test_log_loss": f"{good.headline()['test_log_loss']:.6f}",
    }
    assert expected.items() <= version.tags.items()
    assert len(version.tags["lock_sha256"]) == len(version.tags["model_sha256"]) == 64

    run = mlflow_client.get_run(version.run_id)
    assert expected.items() - {("test_log_loss", expected["test_log_loss"])} <= run.data.tags.items()
    assert run.data.params["test_days"] == "2013-02-22/2013-02-28"
    assert run.data.metrics["base_rate/test_log_loss"] == pytest.approx(good.candidates["base_rate"].test["log_loss"])
    assert run.inputs is not None
    assert {entry.dataset.name for entry in run.inputs.dataset_inputs} == {
        "gold.flight_delay_features@4",
        "gold.fct_flights@7",
    }
    assert {artifact.path for artifact in mlflow_client.list_artifacts(version.run_id)} >= {"card.md", "metrics.json"}
    model = get_model_info(f"models:/{NAME}/{version.version}")
    assert model.signature.inputs.input_names() == SPEC.features.inputs and len(model.signature.outputs.inputs) == 1
    stored = Path(download_artifacts(f"models:/{NAME}/{version.version}"))
    assert f"scikit-learn=={sklearn.__version__}" in (stored / "requirements.txt").read_text().splitlines()
    assert (stored / "model.skops").is_file() and model.saved_input_example_info
    figures = json.loads(Path(mlflow_client.download_artifacts(version.run_id, "metrics.json")).read_text())
    assert figures["candidates"].keys() == good.candidates.keys()


def test_the_stored_model_scores_as_it_was_measured(mlflow_client: MlflowClient, good: training.Trained) -> None:
    version = registry.register(SPEC, good, pins(), "run-1")
    served = registry.fetch(version)
    assert (served.name, served.version, served.threshold) == (NAME, 1, SPEC.decision_threshold)
    assert served.inputs == SPEC.features.inputs
    scores = scoring.score(good.test, served)
    assert hashlib.sha256(scores.tobytes()).hexdigest() == good.predictions_sha256
    assert set(scoring.score(good.test, registry.fetch(version, baseline=True))) == {good.mean_outcome}


def test_the_compiled_form_comes_with_a_version_and_only_as_it_was_proven(
    mlflow_client: MlflowClient, good: training.Trained, tmp_path: Path
) -> None:
    version = registry.register(SPEC, good, pins(), "run-1")
    assert version.tags["compiled"] == f"equal on {sum(good.rows.values())} rows"
    assert registry.fetch(version).compiled == good.compiled
    assert registry.fetch(version, baseline=True).compiled == b""
    (tmp_path / "compiled.json").write_bytes(good.compiled.replace(b'"intercept": -', b'"intercept": '))
    mlflow_client.log_artifact(version.run_id, str(tmp_path / "compiled.json"))
    with pytest.raises(scoring.UntrustedModelError, match=r"compiled\.json of flight_delay version 1 is not what"):
        registry.fetch(version)


def test_the_same_training_again_registers_nothing(mlflow_client: MlflowClient, good: training.Trained) -> None:
    first = registry.register(SPEC, good, pins(), "run-1")
    assert registry.register(SPEC, good, pins(), "run-2") == first
    assert len(registry.versions(NAME)) == 1


def test_a_model_of_other_types_is_not_loaded() -> None:
    from functools import partial

    payload = io.dumps(partial(os.system, "touch /tmp/never"))
    harmful = scoring.ServedModel(NAME, 1, (), (), 0.3, payload)
    with pytest.raises(scoring.UntrustedModelError, match="version 1 holds types that are not trusted"):
        scoring.pipeline(harmful)
