"""The training snapshot of a version, as counts: what monitoring compares later days with.

It is made when a version is trained, from the rows in memory, and kept with the run that trained it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakehouse.interval import Interval
from lakehouse.ml.scoring import SCORE
from lakehouse.ml.training import LABEL
from lakehouse.monitoring import histograms, performance
from lakehouse.monitoring.drift import Bins

if TYPE_CHECKING:
    import pandas as pd

    from lakehouse.ml.model_spec import ModelSpec

ARTIFACT = "monitoring/reference.json"
"""Where the run that trained a version keeps it."""

SPARK_NAMES = {"tinyint": "byte", "smallint": "short", "int": "integer", "bigint": "long"}
"""What Spark's SQL calls types of Delta's log: snapshots that were kept before the log was asked have these names."""


@dataclass(frozen=True)
class Reference:
    """The training snapshot of a version, as counts.

    Attributes:
        window: Its days.
        version: Delta version of the features table that it is of.
        rows: How many rows it has.
        types: Input column to its type.
        features: Input column to its counts.
        score: The version's scores of the same rows.
        score_edges: Ends of the fine bins of the score.
        mean_score: Of the same rows.
        mean_outcome: Of those with an outcome; what the baseline predicts.
    """

    window: Interval
    version: int
    rows: int
    types: dict[str, str]
    features: dict[str, Bins]
    score: Bins
    score_edges: tuple[float, ...]
    mean_score: float
    mean_outcome: float

    @classmethod
    def of(
        cls, rows: pd.DataFrame, spec: ModelSpec, window: Interval, version: int, types: Mapping[str, str]
    ) -> Reference:
        """Count the rows that a version was trained on.

        Args:
            rows: With the model's inputs, ``score`` and ``label``.
            spec: The model.
            window: Their days.
            version: Delta version of the features table that they are of.
            types: Column of that table to its type.
        """
        numeric, categorical = spec.features.numeric, spec.features.categorical
        bins = {name: histograms.of_numbers(rows[name], spec.monitoring.bins) for name in numeric}
        bins |= {name: histograms.of_names(rows[name]) for name in categorical}
        of_score = {SCORE: histograms.of_numbers(rows[SCORE], spec.monitoring.bins)}
        return cls(
            window=window,
            version=version,
            rows=len(rows),
            types={name: types[name] for name in spec.features.inputs},
            features=histograms.count_in_memory(rows, bins),
            score=histograms.count_in_memory(rows, of_score)[SCORE],
            score_edges=histograms.of_numbers(rows[SCORE], performance.BINS).edges,
            mean_score=float(rows[SCORE].mean()),
            mean_outcome=float(rows[LABEL].astype("float64").mean()),
        )

    def to_json(self) -> str:
        """What is kept beside the version."""
        kept = vars(self) | {
            "window": str(self.window),
            "features": {name: bins.as_dict() for name, bins in self.features.items()},
            "score": self.score.as_dict(),
        }
        return json.dumps(kept)

    @classmethod
    def from_json(cls, text: str) -> Reference:
        """Inverse of :meth:`to_json`.

        Args:
            text: What was kept.
        """
        kept = json.loads(text)
        return cls(
            **kept
            | {
                "window": Interval.parse(kept["window"]),
                "types": {name: SPARK_NAMES.get(type_, type_) for name, type_ in kept["types"].items()},
                "features": {name: Bins.from_dict(bins) for name, bins in kept["features"].items()},
                "score": Bins.from_dict(kept["score"]),
                "score_edges": tuple(kept["score_edges"]),
            }
        )
