"""The trainings of the year, from which its benchmark takes what it needs; each is made once.

What a training has said is kept in a folder that is called by a hash: of the code that it runs, of the model's folder
and of the rows. So the benchmark goes on where it stopped, and what another code has said is not taken for its own.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import code
from lakehouse.ml import model_folders, training
from lakehouse.ml.scoring import model_input, predict

if TYPE_CHECKING:
    import pandas as pd

    from lakehouse.interval import Interval
    from lakehouse.ml.model_spec import ModelSpec

BASELINE = "baseline"


def read(spec: ModelSpec) -> pd.DataFrame:
    """All rows of the features, with their outcomes.

    Args:
        spec: The model.
    """
    import lakehouse

    key = list(dict.fromkeys([*spec.features.entity_key, spec.features.interval_column]))
    features = lakehouse.read(spec.features.table)
    outcomes = lakehouse.read(spec.label.table, columns=[*key, spec.label.column])
    return training.training_frame(features, outcomes, spec)


class Trainings:
    """Trainings on windows of the same rows.

    Args:
        home: Folder of the benchmark.
        frame: Outcome of :func:`read`.
        spec: The model.

    Attributes:
        sha256: Hash of all that the trainings are made of.
    """

    def __init__(self, home: Path, frame: pd.DataFrame, spec: ModelSpec) -> None:
        self.frame, self._spec = frame, spec
        made_of = [
            code.sha256("lakehouse.ml.training", "lakehouse.ml.linear", folders=(f"models/{spec.name}",)),
            spec.model_dump_json(),
            training.content_sha256(frame),
        ]
        self.sha256 = hashlib.sha256("".join(made_of).encode()).hexdigest()
        self._folder = home / f"trainings-{self.sha256[:16]}"

    def scores(self, window: Interval) -> pd.DataFrame:
        """What a training says.

        Args:
            window: What it is made on.

        Returns:
            A row for each row of the frame from the window's first day on, in its order: key, day, ``score`` and
            ``baseline``.
        """
        import pandas as pd

        file = self._folder / f"{window.end}.parquet"
        if not file.exists():
            spec = self._spec
            trained = training.train(
                self.frame, model_folders.candidates(spec), spec, window, model_folders.search_spaces(spec)
            )
            self._folder.mkdir(parents=True, exist_ok=True)
            facts = {"selected": trained.selected, **trained.headline()}
            self._facts(window).write_text(json.dumps(facts), "utf-8")
            part = file.with_suffix(f".{os.getpid()}")
            self._said(trained, window).to_parquet(part, index=False)
            part.rename(file)
        return pd.read_parquet(file)

    def facts(self, window: Interval) -> dict[str, Any]:
        """What is known of a training that was made: the candidate that was selected, and its figures.

        Args:
            window: What it was made on.
        """
        found: dict[str, Any] = json.loads(self._facts(window).read_text("utf-8"))
        return found

    def _facts(self, window: Interval) -> Path:
        return self._folder / f"{window.end}.json"

    def _said(self, trained: training.Trained, window: Interval) -> pd.DataFrame:
        spec, day = self._spec, self._spec.features.interval_column
        later = self.frame[self.frame[day] >= window.start]
        inputs = model_input(later, spec.features.numeric, spec.features.categorical)
        key = list(dict.fromkeys([*spec.features.entity_key, day]))
        said = {"score": trained.pipeline, BASELINE: trained.baseline_pipeline}
        return later[key].assign(**{name: predict(each, inputs, spec.task) for name, each in said.items()})
