"""Promote: compare a version with the champion on its frozen test days, or appoint one by a person's word."""

from __future__ import annotations

from typing import Any

from lakehouse.ml import model_folders
from lakehouse.registry import labelled_rows, registry, roles
from lakehouse.registry.comparison import contest
from lakehouse.steps import step, user


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
            event = contest(spec, challenger, labelled_rows.frozen(spec, challenger, this), this, by)
            this.rows_in = event["evaluation_rows"]
        this.details = {"event": event["event"], "reason": event["reason"], "champion_before": event["champion_before"]}
        return roles.outcome(event)
