"""Comparison: a version and the champion, or its baseline where there is none, on the same frozen rows."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lakehouse.interval import Interval
from lakehouse.ml import training
from lakehouse.ml.scoring import ModelFailedError, score
from lakehouse.registry import model_versions, promotion, registry, roles
from lakehouse.registry.promotion import ComparisonError, Decision
from lakehouse.registry.registry import ModelVersion
from lakehouse.registry.roles import RoleError

if TYPE_CHECKING:
    import pandas as pd

    from lakehouse.ml.model_spec import ModelSpec
    from lakehouse.steps import Run


def contest(spec: ModelSpec, challenger: ModelVersion, rows: pd.DataFrame, run: Run, by: str) -> dict[str, Any]:
    """Compare a version with the champion, or with its baseline where there is none, and act on the outcome.

    Args:
        spec: The model.
        challenger: The version.
        rows: Its test days: the features table's columns and ``label``; every one with an outcome.
        run: The step that does it, which holds the model's lock.
        by: Who wants it.

    Returns:
        The event.

    Raises:
        lakehouse.registry.promotion.ComparisonError: There are no days that neither of the two was fitted on.
    """
    return roles.decide(spec, challenger, compare(spec, challenger, rows), run, by)


@dataclass(frozen=True)
class Comparison:
    """A version and its rival on the same rows.

    Attributes:
        champion: The rival's number; None for the version's own baseline, where there is no champion.
        decision: What follows, and why.
        days: First and last day of the rows.
        sha256: Hash of the rows.
    """

    champion: int | None
    decision: Decision
    days: Interval
    sha256: str

    def __str__(self) -> str:
        against = "the baseline" if self.champion is None else f"version {self.champion}"
        return f"against {against} on {self.days}: {'; '.join(self.decision.reasons)}"

    def facts(self) -> dict[str, Any]:
        """The evidence, as columns of ``ops.model_events``."""
        return {
            "evaluation_start": self.days.start,
            "evaluation_end": self.days.end,
            "evaluation_rows": self.decision.difference.rows,
            "evaluation_sha256": self.sha256,
            "evidence": json.dumps(asdict(self.decision)),
        }


def compare(spec: ModelSpec, challenger: ModelVersion, rows: pd.DataFrame) -> Comparison:
    """Compare a version with the champion, or with its baseline where there is none.

    Args:
        spec: The model.
        challenger: The version.
        rows: Its test days: the features table's columns and ``label``; every one with an outcome.

    Raises:
        lakehouse.registry.roles.RoleError: The version is the champion.
        lakehouse.registry.promotion.ComparisonError: There are no days that neither of the two was fitted on, or the
            champion needs a column that the rows do not have, or fails; or the model's predictions have no suite, so
            no gate to pass.
    """
    office = roles.in_office(roles.events(spec.name))
    before = None if office is None else office["model_version"]
    if before == challenger.version:
        raise RoleError(f"{spec.name} version {before} is the champion.")
    champion, fitted = None, None
    if before is not None:
        theirs = model_versions.find_or_unknown(spec.name, before)
        try:
            champion = model_versions.fetch_to_score(theirs)
        except ModelFailedError as error:
            raise _no_rival(challenger, str(error)) from error
        fitted = Interval.parse(registry.logged(theirs).parameters["train_days"]).end
    if missing := [name for name in (champion.inputs if champion else ()) if name not in rows]:
        raise ComparisonError(
            f"The test days of {spec.name} version {challenger.version} have no {', '.join(missing)}, which the "
            f"champion, version {before}, needs: the two cannot be measured on the same rows."
        )
    rows, digest = evaluation_set(rows, spec, fitted)
    if rows.empty:
        raise ComparisonError(
            f"The test days of {spec.name} version {challenger.version} have no outcomes that the champion, version "
            f"{before}, was not fitted on (up to {fitted}): no comparison is fair. Train on a window that ends later."
        )
    said = {}
    if champion:
        try:
            said = {"champion": score(rows, champion)}
        except Exception as error:  # whatever a model raises
            failed = f"{spec.name} version {before} cannot score: {type(error).__name__}: {error}"
            raise _no_rival(challenger, failed) from error
    compared = rows.assign(
        day=rows[spec.features.interval_column],
        outcome=rows[training.LABEL],
        baseline=score(rows, registry.fetch(challenger, baseline=True)),
        challenger=score(rows, registry.fetch(challenger)),
        **said,
    )
    days = compared["day"]
    return Comparison(before, promotion.judge(compared, spec), Interval(days.min(), days.max()), digest)


def _no_rival(challenger: ModelVersion, failed: str) -> ComparisonError:
    return ComparisonError(
        f"The champion has failed: {failed.removesuffix('.')}. A person can make another version champion without a "
        f"comparison: lake promote {challenger.name}@{challenger.version} --reason WHY."
    )


def evaluation_set(rows: pd.DataFrame, spec: ModelSpec, fitted: dt.date | None) -> tuple[pd.DataFrame, str]:
    """The rows that two versions are compared on, and their hash: the same from the same release, whenever it is asked.

    Args:
        rows: Test days: the features table's columns and ``label``.
        spec: The model.
        fitted: Last day that the champion was fitted on; such rows are left out.

    Returns:
        The rows with an outcome, in the order of day and entity; the hash of their names and values.
    """
    day = spec.features.interval_column
    rows = rows[rows[training.LABEL].notna() & ((rows[day] > fitted) if fitted else True)]
    rows = rows.assign(**{training.LABEL: rows[training.LABEL].astype("float64")})
    rows = rows.sort_values([day, *spec.features.entity_key], kind="stable").reset_index(drop=True)
    return rows, training.content_sha256(rows)
