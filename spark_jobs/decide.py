"""Decide: do what a person has answered to a proposed version, with the evidence and the person's name."""

from __future__ import annotations

from typing import Any

from lakehouse.ml import model_folders
from lakehouse.registry import labelled_rows, registry, roles
from lakehouse.registry.comparison import compare
from lakehouse.steps import step, user


def run(
    model: str, version: int, champion: int | None, approved: bool, note: str = "", by: str | None = None
) -> dict[str, Any]:
    """Make a proposed version champion, or turn it down.

    The comparison is made again on the same frozen rows, so the evidence is that of the moment of the decision.

    Args:
        model: Name of a model folder.
        version: The proposed version.
        champion: The champion that it was compared with when the person was asked; None for its baseline.
        approved: The answer.
        note: What the person has added.
        by: Who has answered; the user of the process without it.

    Returns:
        ``model_version``, ``event``, ``champion``, ``reason``.

    Raises:
        lakehouse.registry.roles.RoleError: Another version has become champion since the person was asked.
    """
    spec = model_folders.load(model)
    with step("decide", f"{model}@{version}", None, writes=f"models.{model}") as this:
        challenger = registry.version(model, version)
        comparison = compare(spec, challenger, labelled_rows.frozen(spec, challenger, this))
        if comparison.champion != champion:
            raise roles.RoleError(
                f"{model} version {version} was proposed against version {champion}, but version "
                f"{comparison.champion} has become champion since. Propose it again: promote_{model}."
            )
        event = roles.decide(spec, challenger, comparison, this, by or user(), approved, note)
        this.rows_in = event["evaluation_rows"]
        this.details = {"event": event["event"], "reason": event["reason"], "champion_before": event["champion_before"]}
        return roles.outcome(event)
