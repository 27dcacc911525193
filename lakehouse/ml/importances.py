"""Importances: by how much the loss on the test days rises when one input is shuffled among the rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakehouse.ml.metrics import metric

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

    from lakehouse.ml.model_spec import ModelSpec

REPEATS, ROWS = 3, 2000


@dataclass(frozen=True)
class Importance:
    """What the model loses without an input.

    Attributes:
        mean: Rise of the mean loss over the repeats.
        deviation: Standard deviation over the repeats.
    """

    mean: float
    deviation: float


def importances(
    fitted: Pipeline, scorer: Callable[[pd.DataFrame], Any], inputs: pd.DataFrame, outcomes: Any, spec: ModelSpec
) -> dict[str, Importance]:
    """Permutation importances (Breiman, 2001, "Random forests"), the greatest first.

    Of two inputs that say the same each seems unimportant, as the other one stays.

    Args:
        fitted: The selected candidate.
        scorer: Gives its scores of the model's inputs.
        inputs: The model's view of the test rows, numbered from 0 on; a sample of them is used.
        outcomes: One per row, as floats.
        spec: The model.
    """
    from sklearn.inspection import permutation_importance

    loss = metric(spec.metrics.optimize)

    def score(_: Any, rows: pd.DataFrame, known: Any) -> float:
        return -loss.of(known, scorer(rows), None)

    some = inputs.sample(min(ROWS, len(inputs)), random_state=spec.training.seed)
    found = permutation_importance(
        fitted,
        some.reset_index(drop=True),
        outcomes[some.index],
        scoring=score,
        n_repeats=REPEATS,
        random_state=spec.training.seed,
    )
    pairs = zip(inputs.columns, found.importances_mean, found.importances_std, strict=True)
    return {
        name: Importance(float(mean), float(deviation))
        for name, mean, deviation in sorted(pairs, key=lambda pair: -pair[1])
    }
