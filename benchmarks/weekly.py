"""A training for each week of the year, from which the benchmark of the year takes what it needs.

    python -m benchmarks.weekly HOME

Trains on each window that could be trained on, scores every flight from its first day on, and keeps the scores in
``HOME/weekly``, so that it goes on where it stopped. It needs the tables of the lake in that folder, and no engine.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse.interval import Interval

if TYPE_CHECKING:
    import pandas as pd

    from lakehouse.model_spec import ModelSpec


def read(spec: ModelSpec) -> pd.DataFrame:
    """All rows of the features, with their outcomes.

    Args:
        spec: The model.
    """
    import lakehouse
    from lakehouse import training

    key = list(dict.fromkeys([*spec.features.entity_key, spec.features.interval_column]))
    features = lakehouse.read(spec.features.table)
    outcomes = lakehouse.read(spec.label.table, columns=[*key, spec.label.column])
    return training.training_frame(features, outcomes, spec)


def train(home: Path, frame: pd.DataFrame, spec: ModelSpec, window: Interval) -> pd.DataFrame:
    """The scores of a training, which is made when it has not been yet.

    Args:
        home: Folder of the benchmark.
        frame: Outcome of :func:`read`.
        spec: The model.
        window: What to train on.

    Returns:
        A row for each row of the frame from the window's first day on, in its order: key, day and ``score``.
    """
    import pandas as pd

    from benchmarks.year import say
    from lakehouse import registry, training

    file = home / "weekly" / f"{window.end}.parquet"
    if not file.exists():
        trained = training.train(frame, registry.candidates(spec), spec, window)
        file.parent.mkdir(exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}")
        scores(frame, trained, spec, window).to_parquet(part, index=False)
        part.rename(file)
        say(f"trained on {window}: {trained.selected}, {trained.headline()[f'test_{spec.metrics.optimize}']:.4f}")
    return pd.read_parquet(file)


def scores(frame: pd.DataFrame, trained: Any, spec: ModelSpec, window: Interval) -> pd.DataFrame:
    """Scores of the rows of a window, and of all after it.

    Args:
        frame: Outcome of :func:`read`.
        trained: The training.
        spec: The model.
        window: What it was trained on.
    """
    from lakehouse.scoring import model_input, predict

    day = spec.features.interval_column
    later = frame[frame[day] >= window.start]
    inputs = model_input(later, spec.features.numeric, spec.features.categorical)
    key = list(dict.fromkeys([*spec.features.entity_key, day]))
    kept: pd.DataFrame = later[key].assign(score=predict(trained.pipeline, inputs, spec.task))
    return kept


if __name__ == "__main__":
    os.environ["LAKE_HOME"] = sys.argv[1]
    from benchmarks.year import MODEL, training_windows
    from lakehouse import registry

    model = registry.load(MODEL)
    everything = read(model)
    for each in training_windows():
        train(Path(sys.argv[1]), everything, model, each)
