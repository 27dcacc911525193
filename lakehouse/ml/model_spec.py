"""What a model's folder declares: ``model.yaml``, checked strictly, with errors that name the line.

DAG files read it, so it imports no library of the models.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import yaml
from croniter import croniter  # type: ignore[import-untyped]
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from lakehouse.errors import LakeError

LOSSES = {
    "classification": ("log_loss", "brier"),
    "regression": ("mean_squared_error", "mean_absolute_error"),
}
"""Kind of model to the metrics that it can be selected and promoted by: means over rows, lower is better."""

WATCHED = {
    "classification": ("brier", "auc", "calibration_error", "precision", "recall"),
    "regression": ("mean_absolute_error", "bias"),
}
"""Kind of model to the other metrics that are measured when ``model.yaml`` names none."""

PREDICTIONS = "predictions_"
"""What the name of a table of predictions begins with; that of the model follows."""

SCORING_STEPS = ("score", "shadow", "what_if")
"""Steps that write predictions."""


def tables_without_release(model: str) -> tuple[str, str]:
    """The tables that have no gate and no release: of what challengers say in the shadow, and of what-if scorings.

    Args:
        model: Name of the model.
    """
    return f"ml_shadow.{PREDICTIONS}{model}", f"ml_what_if.{PREDICTIONS}{model}"


_METRICS = {kind: sorted({*LOSSES[kind], *WATCHED[kind]}) for kind in LOSSES}


class InvalidModelError(LakeError, ValueError):
    """A model's folder is missing, or its ``model.yaml`` is wrong."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Features(_Part):
    """Where a model's input comes from, and which of its columns the model sees."""

    table: str = Field(description="Released table with one row per entity and interval.")
    entity_key: list[str] = Field(min_length=1, description="Columns that name the entity a prediction is about.")
    interval_column: str = Field(description="DATE column that tells the interval of a row.")
    carried: list[str] = Field([], description="Columns copied to the predictions for their readers.")
    numeric: list[str] = Field(description="Input columns that are numbers or booleans.")
    categorical: list[str] = Field([], description="Input columns that are names.")

    @property
    def inputs(self) -> list[str]:
        """The columns that the model sees, in order."""
        return [*self.numeric, *self.categorical]

    @property
    def kept(self) -> list[str]:
        """The columns that a prediction keeps of its input row."""
        return list(dict.fromkeys([*self.entity_key, self.interval_column, *self.carried]))


class Label(_Part):
    """Where the outcome is, which is joined by entity key and interval column, and when it becomes known."""

    table: str = Field(description="Released table with the outcomes.")
    column: str = Field(description="Boolean column, or a number for a regression; rows where it is null are left out.")
    known_after_days: int = Field(
        1, ge=0, description="Days from an interval to the day on which its outcomes are known."
    )
    reported: str | None = Field(
        None,
        description="Boolean column that is true once a row's outcome has come, if only to say that there is none; "
        "without it, a row without an outcome is given up when outcomes of later days are known.",
    )


class Metrics(_Part):
    """What good means."""

    optimize: str = Field(description="Mean loss over rows that decides in selection and promotion; lower is better.")
    watch: list[str] = Field([], description="Metrics that are measured beside it.")


class Search(_Part):
    """How much a search for hyper-parameters may cost; one of both, or whichever is used up first."""

    trials: int | None = Field(
        None, gt=0, description="Trials of each candidate that has a space; repeatable as it is."
    )
    seconds: float | None = Field(None, gt=0, description="Seconds for all candidates together.")

    def share(self, candidates: int) -> Search:
        """The budget of one candidate.

        Args:
            candidates: How many are searched.
        """
        return Search(trials=self.trials, seconds=self.seconds and self.seconds / candidates)

    @model_validator(mode="after")
    def _is_bounded(self) -> Search:
        if self.trials is None and self.seconds is None:
            raise ValueError("needs trials, seconds or both")
        return self


class Training(_Part):
    """How the model is trained and selected."""

    window_days: int = Field(gt=0, description="Length of the training window when none is given.")
    test_days: int = Field(gt=0, description="Last days of the window: only measured, never fitted or selected on.")
    folds: int = Field(gt=0, description="Number of time-ordered validation folds.")
    fold_days: int = Field(gt=0, description="Days per fold.")
    seed: int = Field(description="Seed of everything random.")
    schedule: str | None = Field(None, description="Cron expression of the training DAG; null trains on demand.")
    search: Search | None = Field(
        None, description="Budget of a search in the spaces of `pipeline.py`; none without it."
    )

    @field_validator("schedule")
    @classmethod
    def _is_cron(cls, schedule: str | None) -> str | None:
        if schedule is not None and not croniter.is_valid(schedule):
            raise ValueError(f"{schedule!r} is no cron expression such as 0 6 * * 1")
        return schedule


class Promotion(_Part):
    """When a challenger becomes champion."""

    policy: Literal["auto", "approve"] = Field(
        "auto", description="`auto`: by the comparison alone; `approve`: a person confirms it in Airflow."
    )
    min_effect: float = Field(0.0, ge=0, description="By how much the mean loss has to be lower at least.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of the intervals of the differences.")
    guards: dict[str, float] = Field({}, description="Metric to how much worse than the champion's it may be.")
    segments: list[str] = Field([], description="Columns of the features in whose values the loss must not rise.")
    segment_tolerance: float = Field(0.0, ge=0, description="How much it may rise in one of them, beyond doubt.")
    segment_rows: int = Field(200, gt=0, description="Segments of fewer rows are not looked at.")


class Costs(_Part):
    """What decisions cost, in any unit: the threshold of the least expected cost follows from it."""

    false_alarm: float = Field(description="A decision that is true where the outcome is false.")
    missed: float = Field(description="A decision that is false where the outcome is true.")
    hit: float = Field(0.0, description="A true decision that was right.")
    quiet: float = Field(0.0, description="A false decision that was right.")

    @property
    def threshold(self) -> float:
        """From this probability on, true is the cheaper decision.

        Elkan, 2001, "The foundations of cost-sensitive learning".
        """
        alarm, silence = self.false_alarm - self.quiet, self.missed - self.hit
        return alarm / (alarm + silence)

    @model_validator(mode="after")
    def _punishes_errors(self) -> Costs:
        if self.false_alarm <= self.quiet or self.missed <= self.hit:
            raise ValueError("a wrong decision has to cost more than the right one about the same outcome")
        return self


def _share(value: object) -> object:
    if not (isinstance(value, str) and value.endswith("%")):
        raise ValueError(f"{value!r} is not a share of the entities such as 10%")
    return value.removesuffix("%").strip()


Share = Annotated[float, BeforeValidator(_share), Field(gt=0, lt=100), WithJsonSchema({"type": "string"})]
"""Per cent of the entities, written as ``10%``."""


class Experiment(_Part):
    """A comparison on entities that are drawn for it alone."""

    experiment: str = Field(pattern=r"^[A-Za-z0-9_-]+$", description="Its name, by which the entities are drawn.")
    share: Share = Field(description="Share of the entities that the challenger scores, such as `50%`.")


class Serving(_Part):
    """Which versions score beside the champion, and in its place."""

    shadow: bool = Field(True, description="A challenger scores the same rows, where readers do not look.")
    canary: Share | None = Field(
        None, description="Share of the entities, such as `10%`, whose predictions are the challenger's."
    )
    ab: Experiment | None = Field(None, description="The same for an experiment with a name; not beside `canary`.")
    fallback: Literal["stop", "previous_version", "baseline"] = Field(
        "stop", description="What scores when the champion cannot be loaded, or fails."
    )
    unreleased_days: int | None = Field(
        None, gt=0, description="Days after which maintenance deletes rows of the shadow and of what-if; never without."
    )

    @model_validator(mode="after")
    def _routes_once(self) -> Serving:
        if self.canary is not None and self.ab is not None:
            raise ValueError("serving.ab: an entity has one prediction: give canary or ab")
        return self

    @property
    def route(self) -> tuple[str, float] | None:
        """What entities are drawn by, and the share of them that the challenger scores; None for none of them."""
        if self.ab is not None:
            return self.ab.experiment, self.ab.share / 100
        return None if self.canary is None else ("canary", self.canary / 100)


class Gate(_Part):
    """How far the scores of a day may be from those of the days before, beside what the suite asks of them."""

    shift_warning: float | None = Field(
        0.5, gt=0, le=1, description="From this share of a day's scores on that would have to lie elsewhere a warning."
    )
    shift: float | None = Field(
        0.85, gt=0, le=1, description="From this one on the predictions are not released; null to release them."
    )

    @model_validator(mode="after")
    def _warns_first(self) -> Gate:
        if self.shift is not None and self.shift_warning is not None and self.shift_warning > self.shift:
            raise ValueError("shift_warning is more than shift")
        return self


class Monitoring(_Part):
    """What is watched while the model is in use, and from where on it is bad."""

    window_days: int = Field(
        7, gt=0, description="Days, up to the interval's last, that drift and performance are measured on."
    )
    bins: int = Field(10, ge=2, le=50, description="Bins of a numeric feature: quantiles of the training snapshot.")
    psi_warning: float = Field(0.1, gt=0, description="From this population stability index on a warning.")
    psi: float = Field(0.25, gt=0, description="From this one on a feature has drifted, if a test agrees.")
    significance: float = Field(0.01, gt=0, lt=1, description="Of that test, after correction for many features.")
    null_share: float = Field(0.2, gt=0, le=1, description="Rise of a feature's share of nulls that is a defect.")
    volume_drop: float = Field(0.5, gt=0, lt=1, description="Share of the usual rows whose absence is a defect.")
    stale_days: int = Field(0, ge=0, description="Days that may be missing at the end of a source, or of the features.")
    skill_drop: float = Field(
        0.05, gt=0, description="Fall of the skill (1 - loss / the baseline's loss) below that of the test days."
    )
    segments: list[str] = Field(
        [], description="Columns of the predictions in whose values performance is measured on its own."
    )
    segment_rows: int = Field(200, gt=0, description="Segments with fewer outcomes are not looked at.")


class Retrain(_Part):
    """What is a cause to train again; each may be left out."""

    drift_share: float | None = Field(None, gt=0, le=1, description="Share of the features that have drifted.")
    performance: bool = Field(False, description="The skill is lower than `monitoring.skill_drop` allows.")
    max_age_days: int | None = Field(None, gt=0, description="Days since the last day of the champion's window.")
    new_rows: int | None = Field(None, gt=0, description="Rows with an outcome since then.")
    cooldown_days: int = Field(14, ge=0, description="Days from one training to the next, whatever the cause.")


class ModelSpec(_Part):
    """What ``model.yaml`` declares."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="The name of the folder.")
    owner: str = Field(description="Who answers for it.")
    description: str = Field(description="What a score means.")
    intended_use: str = Field(description="Who may decide what by it, and what it is not for.")
    task: Literal["classification", "regression"] = Field(
        "classification", description="Whether a score is a probability or a number in the label's unit."
    )
    features: Features = Field(description="What it sees.")
    label: Label = Field(description="What it predicts.")
    metrics: Metrics = Field(description="Of the task's own without it: `log_loss` or `mean_squared_error` decides.")
    decision_threshold: float | None = Field(
        None, description="From this score on the decision is true; without it, predictions have no decision."
    )
    costs: Costs | None = Field(None, description="In place of `decision_threshold`, which follows from them.")
    training: Training = Field(description="How it is fitted and selected.")
    promotion: Promotion = Field(Promotion(), description="Without it, a challenger that is better beyond doubt wins.")
    serving: Serving = Field(Serving(), description="Without it, challengers score in the shadow, and failures stop.")
    gate: Gate = Field(Gate(), description="Without it, with the defaults.")
    monitoring: Monitoring = Field(Monitoring(), description="Without it, with the defaults.")
    retrain: Retrain | None = Field(None, description="Without it, nothing is a cause to train again.")

    @property
    def predictions_table(self) -> str:
        """Released table of the model's predictions."""
        return f"ml.{PREDICTIONS}{self.name}"

    @property
    def shadow_table(self) -> str:
        """Table of what challengers would have predicted; it has no gate and no release."""
        return tables_without_release(self.name)[0]

    @property
    def what_if_table(self) -> str:
        """Table of what any version would have predicted; it has no gate and no release."""
        return tables_without_release(self.name)[1]

    def serves_from(self, window_end: dt.date) -> dt.date:
        """The first day that a version may score without knowing of its future.

        Args:
            window_end: Last day of its training window, whose outcomes have to be known.
        """
        return window_end + dt.timedelta(days=max(self.label.known_after_days, 1))

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_task(cls, document: object) -> object:
        if not isinstance(document, dict) or document.get("task", "classification") not in LOSSES:
            return document
        task = document.get("task", "classification")
        given = document.get("metrics", {})
        if not isinstance(given, dict):
            return document
        return {**document, "metrics": {"optimize": LOSSES[task][0], "watch": list(WATCHED[task]), **given}}

    @model_validator(mode="before")
    @classmethod
    def _threshold_of_the_costs(cls, document: object) -> object:
        if not isinstance(document, dict) or document.get("costs") is None:
            return document
        if document.get("decision_threshold") is not None:
            raise ValueError("costs: the decision_threshold follows from them: give one of the two")
        try:
            threshold = Costs.model_validate(document["costs"]).threshold
        except ValidationError:
            return document  # what is wrong with them is told with their line
        return {**document, "decision_threshold": threshold}

    @model_validator(mode="after")
    def _is_sound(self) -> ModelSpec:
        inputs = self.features.inputs
        twice = sorted({column for column in inputs if inputs.count(column) > 1})
        if twice:
            raise ValueError(f"features: listed twice: {', '.join(twice)}")
        if self.label.column in [*inputs, *self.features.kept]:
            raise ValueError(f"features: {self.label.column} is the label and cannot be an input")
        if self.metrics.optimize not in LOSSES[self.task]:
            raise ValueError(
                f"metrics.optimize: a {self.task} is selected by {' or '.join(LOSSES[self.task])}, and not by "
                f"{self.metrics.optimize}"
            )
        strange = [name for name in [*self.metrics.watch, *self.promotion.guards] if name not in _METRICS[self.task]]
        if strange:
            raise ValueError(
                f"metrics: {', '.join(strange)} is none of a {self.task}; there are {', '.join(_METRICS[self.task])}"
            )
        threshold = self.decision_threshold
        if self.task == "classification" and threshold is not None and not 0 < threshold < 1:
            raise ValueError("decision_threshold: is a probability: more than 0 and less than 1")
        if self.task == "regression" and self.costs is not None:
            raise ValueError("costs: are weighed by probabilities; a regression takes a decision_threshold")
        unseen = sorted({*self.monitoring.segments} - {*self.features.kept})
        if unseen:
            raise ValueError(
                f"monitoring.segments: predictions have no {', '.join(unseen)}; add it to features.carried"
            )
        if self.monitoring.psi_warning > self.monitoring.psi:
            raise ValueError("monitoring.psi_warning: is more than psi")
        if self.decision_threshold is None and {"precision", "recall"} & {*self.metrics.watch, *self.promotion.guards}:
            raise ValueError("metrics: precision and recall need a decision_threshold")
        return self


def read_spec(path: Path) -> ModelSpec:
    """Read and check one ``model.yaml``.

    Args:
        path: The file, in a folder of the model's name.

    Raises:
        InvalidModelError: The file is not YAML, a key is unknown, missing or of the wrong type; the message names
            the line.
    """
    try:
        text = path.read_text("utf-8")
        document = yaml.safe_load(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError) as error:  # the latter of what is no UTF-8, or a day that does not exist
        mark = getattr(error, "problem_mark", None)
        raise InvalidModelError(f"{path}, line {mark.line + 1 if mark else 1}: is not YAML: {error}") from error
    try:
        spec = ModelSpec.model_validate(document)
    except ValidationError as error:
        faults = "\n".join(_fault(path, root, fault["loc"], fault["msg"]) for fault in error.errors())
        raise InvalidModelError(faults) from error
    if spec.name != path.parent.name:
        raise InvalidModelError(
            f"{path}, line {_line(root, ['name'])}: name: is {spec.name!r}, but the folder is {path.parent.name!r}"
        )
    return spec


def _fault(path: Path, root: yaml.Node | None, where: Sequence[str | int], message: str) -> str:
    message = message.removeprefix("Value error, ")
    # A fault that concerns several fields names the one to look at first, before the colon.
    place = where or message.split(":")[0].split(".")
    field = "".join(f"{'.'.join(map(str, where))}: " for _ in range(bool(where)))
    return f"{path}, line {_line(root, place)}: {field}{message}"


def _line(node: yaml.Node | None, path: Sequence[str | int]) -> int:
    """Line of a field, or of the nearest field around it that the document has."""
    line = 1
    for part in path:
        children: list[tuple[object, yaml.Node, int]] = []
        if isinstance(node, yaml.MappingNode):
            children = [(key.value, value, key.start_mark.line + 1) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            children = [(place, value, value.start_mark.line + 1) for place, value in enumerate(node.value)]
        found = next((child for child in children if child[0] == part), None)
        if found is None:
            break
        _, node, line = found
    return line
