"""Search: hyper-parameters of a candidate, tried by optuna on the time-ordered folds of the train days."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakehouse.errors import LakeError

if TYPE_CHECKING:
    import optuna
    from sklearn.pipeline import Pipeline

    from lakehouse.ml.model_spec import Search

    Space = Callable[[optuna.Trial], dict[str, Any]]
    """Suggests parameters for ``Pipeline.set_params``."""


class SearchError(LakeError, ValueError):
    """A search is asked for that cannot be made."""


@dataclass(frozen=True)
class Trial:
    """One set of hyper-parameters.

    Attributes:
        candidate: Whose.
        number: From 0 on, within the candidate.
        parameters: What was tried, by name.
        validation: Mean over the folds of the metric that decides; lower is better, infinite where it cannot be told.
    """

    candidate: str
    number: int
    parameters: dict[str, Any]
    validation: float


def tune(
    name: str,
    candidate: Pipeline,
    space: Space,
    validate: Callable[[Pipeline], float],
    budget: Search,
    seed: int,
    trials: int | None = None,
) -> tuple[list[Trial], dict[str, Any] | None]:
    """Try hyper-parameters of a candidate, and choose those that are better than its own.

    The tree-structured Parzen estimator (Bergstra et al., 2011, "Algorithms for hyper-parameter optimization") proposes
    the same trials for the same seed and outcomes, so a search repeats when its number of trials is given.

    Args:
        name: The candidate.
        candidate: Its unfitted pipeline.
        space: Suggests its parameters.
        validate: Gives the mean over the folds of an unfitted pipeline.
        budget: How many trials, or how long.
        seed: Of the proposals.
        trials: So many, whatever the budget says: to repeat a search that was ended by its time.

    Returns:
        The trials; the best parameters, or None when none was better than the candidate as it is.

    Raises:
        SearchError: The space names a parameter that the pipeline does not have.
    """
    import optuna
    from sklearn.base import clone

    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial: optuna.Trial) -> float:
        parameters = space(trial)
        try:
            tried = clone(candidate).set_params(**parameters)
        except ValueError as error:
            raise SearchError(f"The search space of {name} cannot be set: {error}") from error
        trial.set_user_attr("parameters", parameters)
        return validate(tried)

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.optimize(
        objective,
        n_trials=budget.trials if trials is None else trials,
        timeout=budget.seconds if trials is None else None,
    )
    found = [
        Trial(name, each.number, each.user_attrs["parameters"], each.value)
        for each in study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
        if each.value is not None
    ]
    if not found:  # the time was over before the first
        return [], None
    best = min(found, key=lambda each: each.validation)
    return found, best.parameters if best.validation < validate(candidate) else None
