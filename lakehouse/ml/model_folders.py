"""What the folders under ``models/`` hold.

A model is a folder ``models/<name>/`` with ``model.yaml`` (see :mod:`lakehouse.ml.model_spec`), ``pipeline.py``
(its candidate pipelines) and ``README.md`` (its card). DAG files import this module, so libraries of the models are
imported late.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from lakehouse.ml import linear
from lakehouse.ml.model_spec import PREDICTIONS, InvalidModelError, ModelSpec, read_spec
from lakehouse.settings import PROJECT_DIR

if TYPE_CHECKING:
    from types import ModuleType

    from sklearn.pipeline import Pipeline

    from lakehouse.ml.search import Space


MODELS_DIR = PROJECT_DIR / "models"


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


def readable() -> list[ModelSpec]:
    """The models whose ``model.yaml`` can be read, sorted: one that is wrong is in the way of its model alone."""
    return _all()[0]


def problems() -> dict[str, InvalidModelError]:
    """The models whose ``model.yaml`` is wrong, each with what is wrong with it."""
    return _all()[1]


def _all() -> tuple[list[ModelSpec], dict[str, InvalidModelError]]:
    good, wrong = [], {}
    for name in models():
        try:
            good.append(load(name))
        except InvalidModelError as error:
            wrong[name] = error
    return good, wrong


def of_predictions(table: str) -> ModelSpec | None:
    """The model that makes a table of predictions; None for any other table.

    Args:
        table: The table, as readers name it.

    Raises:
        InvalidModelError: Its ``model.yaml`` is wrong.
    """
    good, wrong = _all()
    if error := wrong.get(table.removeprefix(f"ml.{PREDICTIONS}")):
        raise error
    return next((spec for spec in good if spec.predictions_table == table), None)


def candidates(spec: ModelSpec) -> dict[str, Pipeline]:
    """The model's unfitted candidate pipelines, by name; the first is the baseline.

    A linear model is always among them: where the folder has none, the platform adds its own.

    Args:
        spec: The model.

    Raises:
        InvalidModelError: The first is not the constant that every model has to beat.
    """
    from sklearn.pipeline import Pipeline, make_pipeline

    given = _pipeline_module(spec).candidates(spec)
    found = {name: each if isinstance(each, Pipeline) else make_pipeline(each) for name, each in given.items()}
    baseline = next(iter(found), None)
    if baseline is None or not _is_the_constant(found[baseline], spec):
        kind = (
            "DummyClassifier(strategy='prior')" if spec.task == "classification" else "DummyRegressor(strategy='mean')"
        )
        raise InvalidModelError(
            f"{MODELS_DIR / spec.name / 'pipeline.py'}: the first candidate is the baseline that every model has to "
            f"beat. It has to be {kind}, and nothing before it; {baseline or 'none'} is not."
        )
    if not any(linear.is_linear(each) for name, each in found.items() if name != baseline):
        found[linear.NAME] = linear.linear(spec)
    return found


def _is_the_constant(candidate: Pipeline, spec: ModelSpec) -> bool:
    """Whether a candidate says the mean outcome of the rows that it is fitted on, whatever it is asked."""
    from sklearn.dummy import DummyClassifier, DummyRegressor

    kind, strategy = (DummyClassifier, "prior") if spec.task == "classification" else (DummyRegressor, "mean")
    return len(candidate) == 1 and isinstance(candidate[0], kind) and candidate[0].strategy == strategy


def search_spaces(spec: ModelSpec) -> dict[str, Space]:
    """The search spaces of a model's candidates, by candidate; none where ``pipeline.py`` has no ``search_spaces``.

    Args:
        spec: The model.
    """
    spaces = getattr(_pipeline_module(spec), "search_spaces", None)
    return {} if spaces is None else dict(spaces(spec))


def _pipeline_module(spec: ModelSpec) -> ModuleType:
    # By its place and not as a package: the folders belong to the project, which need not be where the library is.
    path = MODELS_DIR / spec.name / "pipeline.py"
    found = importlib.util.spec_from_file_location(f"models.{spec.name}.pipeline", path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module
