"""Promote: compare a version with the champion on its frozen test days, or appoint one by a person's word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lakehouse import tables
from lakehouse.interval import Interval
from lakehouse.ml import model_folders
from lakehouse.registry import registry, roles
from lakehouse.release_log import released
from lakehouse.steps import step, user
from spark_jobs.train import read_frame

if TYPE_CHECKING:
    import pandas as pd

    from lakehouse.ml.model_spec import ModelSpec
    from lakehouse.steps import Run


def run(model: str, version: int | None = None, reason: str | None = None, by: str | None = None) -> dict[str, Any]:
    """Compare a version with the champion, and make it champion if it wins; with a reason, without a comparison.

    Args:
        model: Name of a model folder.
        version: Number in the registry; the newest without it.
        reason: Why it becomes champion whatever a comparison would say.
        by: Who wants it; the user of the process without it.

    Returns:
        ``model_version``, ``event``, ``champion``, ``reason``.

    Raises:
        lakehouse.registry.registry.UnknownVersionError: There is no such version.
        lakehouse.registry.roles.RoleError: It is the champion already.
        lakehouse.registry.promotion.ComparisonError: No day is left that neither of the two was fitted on.
        lakehouse.tables.VersionGoneError: The rows of its test days are no longer kept.
    """
    spec = model_folders.load(model)
    known = registry.versions(model)
    number = version or (known[-1].version if known else 0)
    with step("promote", f"{model}@{number}", None, writes=f"models.{model}") as this:
        challenger = registry.version(model, number)
        by = by or user()
        if reason is not None:
            event = roles.appoint(spec, challenger, roles.PROMOTED, reason, by, this)
        else:
            event = roles.contest(spec, challenger, frozen_rows(spec, challenger, this), this, by)
            this.rows_in = event["evaluation_rows"]
        this.details = {"event": event["event"], "reason": event["reason"], "champion_before": event["champion_before"]}
        return outcome(event)


def frozen_rows(spec: ModelSpec, version: registry.ModelVersion, this: Run) -> pd.DataFrame:
    """The test days of a version, exactly as its training read them.

    Args:
        spec: The model.
        version: The version.
        this: The step that reads them.

    Raises:
        lakehouse.tables.VersionGoneError: They are no longer kept.
    """
    release_id = int(version.tags["release_id"])
    state = released(release_id)
    read = {table: state[table].version for table in (spec.features.table, spec.label.table)}
    for table, number in read.items():
        tables.check_kept(tables.next_table(table), number)
    this.versions_in = {tables.next_table(table): number for table, number in read.items()}
    days = Interval.parse(registry.logged(version).parameters["test_days"])
    return read_frame(spec, release_id, days)


def outcome(event: dict[str, Any]) -> dict[str, Any]:
    """What a person wants to know of an event.

    Args:
        event: A row of ``ops.model_events``.
    """
    won = event["event"] in roles.APPOINTMENTS
    return {
        "model_version": event["model_version"],
        "event": event["event"],
        "champion": event["model_version"] if won else event["champion_before"],
        "reason": event["reason"],
    }
