"""Propose: compare a version with the champion, for a person who is to decide; one that does not win is kept out."""

from __future__ import annotations

from typing import Any

from lakehouse.ml import model_folders
from lakehouse.registry import labelled_rows, registry, roles
from lakehouse.registry.comparison import Comparison, compare
from lakehouse.registry.promotion import ComparisonError
from lakehouse.steps import step, user


def run(model: str, version: int | None = None, by: str | None = None) -> dict[str, Any] | None:
    """Compare a version with the champion on its frozen test days.

    Args:
        model: Name of a model folder.
        version: Number in the registry; without it the newest that nothing has been decided about.
        by: Who wants it; the user of the process without it.

    Returns:
        ``model_version``, ``champion`` that it was compared with, and ``text`` for the person; None when there is
        nothing to ask: no version waits, or it has not won and is kept out.

    Raises:
        lakehouse.registry.registry.UnknownVersionError: There is no such version.
        lakehouse.registry.roles.RoleError: It is the champion.
    """
    spec = model_folders.load(model)
    number = version or roles.waiting(roles.events(model))
    if number is None:
        return None
    with step("propose", f"{model}@{number}", None, writes=f"models.{model}") as this:
        challenger, by = registry.version(model, number), by or user()
        try:
            comparison = compare(spec, challenger, labelled_rows.frozen(spec, challenger, this))
        except ComparisonError as error:
            event = roles.keep_out(spec, challenger, str(error), by, this)
        else:
            this.rows_in = comparison.decision.difference.rows
            if comparison.decision.promote:
                this.details = {"model_version": number, "champion": comparison.champion, "reason": str(comparison)}
                return {
                    "model_version": number,
                    "champion": comparison.champion,
                    "text": text(comparison, model, number),
                }
            event = roles.decide(spec, challenger, comparison, this, by)
        this.details = {"event": event["event"], "reason": event["reason"], "champion_before": event["champion_before"]}
        return None


def text(comparison: Comparison, model: str, number: int) -> str:
    """A comparison for the person who decides, as Markdown.

    Args:
        comparison: Outcome of :func:`lakehouse.registry.comparison.compare`.
        model: The model.
        number: The version that was compared.
    """
    decision, rival = comparison.decision, "the baseline"
    if comparison.champion is not None:
        rival = f"version {comparison.champion}"
    broken = [rule for rule, kept in decision.gate.items() if not kept]
    lines = [
        f"Version {number} of `{model}` {comparison}.",
        "",
        f"| | {rival} | version {number} | difference | interval |",
        "|---|---|---|---|---|",
        *(
            f"| {name} ({one.rows} rows) | {one.champion:.4f} | {one.challenger:.4f} | {one.value:+.4f} "
            f"| {one.interval} |"
            for name, one in {"mean loss": decision.difference, **decision.segments}.items()
        ),
        *(
            f"| {name} | {theirs:.4f} | {ours:.4f} | {ours - theirs:+.4f} | |"
            for name, (theirs, ours) in decision.guards.items()
        ),
        "",
        f"Of {len(decision.gate)} rules of the gate about its scores, {len(decision.gate) - len(broken)} hold"
        + (f", and not {', '.join(broken)}." if broken else "."),
        "",
        f"Both were measured on the same rows of {comparison.days} (`{comparison.sha256[:12]}`).",
    ]
    return "\n".join(lines)
