"""A training for each week of the year: what the benchmark of the year compares the retraining policy with.

    python -m benchmarks.weekly HOME

Trains on the same windows as the policy would, scores every later flight, and keeps the scores in ``HOME/weekly``, so
that it goes on where it stopped. It needs the tables of the lake in that folder, and no engine.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse.interval import Interval

if TYPE_CHECKING:
    import pandas as pd


def main(home: Path) -> None:
    """Train for each week that has no scores yet.

    Args:
        home: Folder of the lake.
    """
    import lakehouse
    from benchmarks.year import MODEL, say, training_windows
    from lakehouse import registry, training

    spec = registry.load(MODEL)
    folder = home / "weekly"
    folder.mkdir(exist_ok=True)
    frame: pd.DataFrame | None = None
    for window in training_windows():
        file = folder / f"{window.end}.parquet"
        if file.exists():
            continue
        if frame is None:
            features, outcomes = lakehouse.read(spec.features.table), lakehouse.read(spec.label.table)
            frame = training.training_frame(features, outcomes, spec)
        trained = training.train(frame, registry.candidates(spec), spec, window)
        scores(frame, trained, spec, window).to_parquet(file, index=False)
        say(f"weekly: {window}: {trained.selected}, {trained.headline()[f'test_{spec.metrics.optimize}']:.4f}")


def scores(frame: Any, trained: Any, spec: Any, window: Interval) -> pd.DataFrame:
    """Scores of every row that the training could be asked for: its test days, and the days after them.

    Args:
        frame: The rows.
        trained: The training.
        spec: The model.
        window: What it was trained on.
    """
    from lakehouse.scoring import model_input, predict

    day = spec.features.interval_column
    later = frame[frame[day] >= trained.split.test.start]
    inputs = model_input(later, spec.features.numeric, spec.features.categorical)
    kept: pd.DataFrame = later[[*spec.features.entity_key, day]].assign(
        score=predict(trained.pipeline, inputs, spec.task)
    )
    return kept


if __name__ == "__main__":
    os.environ["LAKE_HOME"] = sys.argv[1]
    main(Path(sys.argv[1]))
