"""Retrain: decide by a model's policy whether it is to be trained again, and keep the decision with its evidence."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from lakehouse import dbt_project, ops
from lakehouse.interval import Interval
from lakehouse.ml import model_folders, training
from lakehouse.monitoring import retraining
from lakehouse.monitoring.measuring import LOG as MEASURES
from lakehouse.monitoring.retraining import RETRAIN, Decision, Evidence, NotMonitoredError
from lakehouse.registry import labelled_rows, registry, roles
from lakehouse.registry.model_versions import FALLBACK_BASELINE
from lakehouse.registry.serving import FALLBACK
from lakehouse.release_log import NotReleasedError, released
from lakehouse.steps import step, user

if TYPE_CHECKING:
    from lakehouse.ml.model_spec import ModelSpec

LOG = "ops.retrain_decisions"


def run(model: str, interval: Interval | None = None, by: str | None = None, check: bool = False) -> dict[str, Any]:
    """Decide whether a model is to be trained again; training itself is another step.

    A decision to retrain stands: asked again about the same interval and champion, the answer is the same.

    Args:
        model: Name of a model folder.
        interval: One that was monitored; the newest without it.
        by: Who asks; the user of the process without it.
        check: Only say what would be decided, and keep nothing.

    Returns:
        ``decision``, ``reason``, ``causes``; to retrain, the ``window`` to train on.

    Raises:
        lakehouse.monitoring.retraining.NoPolicyError: ``model.yaml`` has no section ``retrain``.
        lakehouse.registry.roles.NoChampionError: There is nothing to train again.
        lakehouse.monitoring.retraining.NotMonitoredError: The champion has not been monitored.
    """
    spec = model_folders.load(model)
    log = roles.events(spec.name)
    office = roles.in_office(log)
    if office is None:
        raise roles.no_champion(spec.name, log, None)
    version = int(office["model_version"])
    if check:
        evidence, measured, window = gather(spec, version, interval)
        return _outcome(spec, measured, retraining.decide(spec, evidence), window)
    with step("retrain", spec.name, interval, writes=LOG) as this:
        evidence, measured, window = gather(spec, version, interval)
        before = _standing(spec.name, version, measured)
        if before is not None:
            this.say("%s %s: decided before: %s", spec.name, measured, before["reason"])
            decision = Decision(RETRAIN, dict(zip(before["causes"], before["causes"], strict=True)), before["reason"])
            return _outcome(spec, measured, decision, Interval(before["window_start"], before["window_end"]))
        decision = retraining.decide(spec, evidence)
        this.check_lock()
        ops.append(
            LOG,
            [
                {
                    "at": dt.datetime.now(dt.UTC),
                    "model_name": spec.name,
                    "model_version": version,
                    "interval_start": measured.start,
                    "interval_end": measured.end,
                    "decision": decision.outcome,
                    "causes": list(decision.causes),
                    "reason": decision.reason,
                    "window_start": window.start if decision.outcome == RETRAIN else None,
                    "window_end": window.end if decision.outcome == RETRAIN else None,
                    "decided_by": by or user(),
                    "run_id": this.run_id,
                    "evidence": json.dumps(_kept(evidence), default=str),
                }
            ],
        )
        this.details = {"decision": decision.outcome, "reason": decision.reason}
        this.say("%s %s: %s: %s", spec.name, measured, decision.outcome, decision.reason)
        return _outcome(spec, measured, decision, window)


def gather(spec: ModelSpec, version: int, interval: Interval | None) -> tuple[Evidence, Interval, Interval]:
    """What a decision is made on, the interval that it is about, and the window to train on.

    Of days on which the champion has failed, it is made on what has scored in its place.

    Args:
        spec: The model.
        version: Its champion.
        interval: One that was monitored; the newest without it.

    Raises:
        lakehouse.monitoring.retraining.NotMonitoredError: There is none.
    """
    field = pc.field
    mine = field("model_name") == spec.name
    wanted = (field("model_version") == version) & (field("role") == registry.CHAMPION)
    wanted |= field("role").isin([FALLBACK, FALLBACK_BASELINE])
    if interval is not None:
        wanted &= _of(interval)
    events = roles.events(spec.name)
    # Who was measured, and when, is told by few columns; of the figures only those are read that are looked at.
    keys = ["role", "model_version", "interval_start", "interval_end"]
    known = ops.read(MEASURES, keys, where=mine & wanted).group_by(keys).aggregate([]).to_pylist()
    rows = [row for row in known if _was_due(version, row, events)]
    if not rows:
        where = f" for {interval}" if interval else ""
        raise NotMonitoredError(
            f"{spec.name} version {version}, the champion, has not been monitored{where}. "
            f"Run `lake monitor {spec.name} --interval DAYS` for days that it has scored."
        )
    measured = max(
        (Interval(row["interval_start"], row["interval_end"]) for row in rows), key=lambda i: (i.end, i.start)
    )
    of_days = [row for row in rows if (row["interval_start"], row["interval_end"]) == (measured.start, measured.end)]
    first = min(
        of_days,
        key=lambda row: (row["role"] != registry.CHAMPION, row["model_version"] != version, *row.values()),
    )
    whose = (field("role") == first["role"]) & (field("model_version") == first["model_version"])
    chosen = ops.read(MEASURES, where=mine & whose & _of(measured)).to_pylist()
    window = window_of(spec, measured.end)
    watched = measured.end - dt.timedelta(days=spec.monitoring.window_days - 1)
    span = Interval(min(measured.start, watched, window.start), measured.end)
    # A challenger is compared with a snapshot of its own; whoever served on the other days, their data is the same.
    others = mine & (field("role") != registry.CHALLENGER)
    within = (field("interval_end") >= span.start) & (field("interval_start") <= span.end)
    defects = [
        row for row in retraining.standing_defects(ops.read(MEASURES, where=others & within).to_pylist(), span)
        if (row["interval_start"], row["interval_end"]) != (measured.start, measured.end)
    ]  # fmt: skip
    evidence = Evidence(measured.end, chosen, red_gates(spec), _last_training(spec.name, measured), defects)
    return evidence, measured, window


def _of(interval: Interval) -> pc.Expression:
    """Rows about exactly these days."""
    return (pc.field("interval_start") == interval.start) & (pc.field("interval_end") == interval.end)


def _was_due(version: int, row: dict[str, Any], events: list[dict[str, Any]]) -> bool:
    """Whether days were a champion's own, whoever has scored them."""
    office = roles.in_office(events, row["interval_end"])
    return row["role"] == registry.CHAMPION or (office is not None and office["model_version"] == version)


def red_gates(spec: ModelSpec) -> list[str]:
    """Tables that a model's input is made from, and whose newest verdict is that they have not passed.

    Args:
        spec: The model.
    """
    found = dbt_project.upstream([spec.features.table, spec.label.table])
    columns = ["checked_at", "table_name", "verdict"]
    verdicts = ops.read("ops.gate_results", columns, where=pc.field("table_name").isin(list(found)))
    newest = {row["table_name"]: row["verdict"] for row in verdicts.sort_by("checked_at").to_pylist()}
    return sorted(table for table in found if newest.get(table) == "failed")


def window_of(spec: ModelSpec, day: dt.date) -> Interval:
    """The window to train on: the newest days with outcomes, as many as ``model.yaml`` says.

    Args:
        spec: The model.
        day: The last day that may be known.

    Raises:
        lakehouse.release_log.NotReleasedError: The outcomes have never been released.
        lakehouse.ml.training.NotEnoughDataError: No outcome is known.
    """
    state = released().get(spec.label.table)
    if state is None:
        raise NotReleasedError(f"{spec.label.table} has no released version.")
    return training.default_window(spec.training, labelled_rows.last_day(spec, state, day))


def _last_training(name: str, measured: Interval) -> dt.date | None:
    # Those of later days, too: days that are monitored again must not find that there was no training since.
    trained = ops.read("ops.models", ["window_end"], where=pc.field("model_name") == name)["window_end"].to_pylist()
    decided = [row["interval_end"] for row in _decisions(name)
               if row["decision"] == RETRAIN
               and (row["interval_start"], row["interval_end"]) != (measured.start, measured.end)]  # fmt: skip
    return max([*trained, *decided], default=None)


def _standing(name: str, version: int, interval: Interval) -> dict[str, Any] | None:
    wanted = (version, interval.start, interval.end, RETRAIN)
    keys = ("model_version", "interval_start", "interval_end", "decision")
    return next((row for row in _decisions(name) if tuple(row[key] for key in keys) == wanted), None)


def _decisions(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ops.read(LOG, where=pc.field("model_name") == name).to_pylist()
    return found


def _kept(evidence: Evidence) -> dict[str, Any]:
    """What a decision was made on, without the figures that it did not look at."""
    looked = {row["metric"]: row["value"] for row in evidence.measures if row["segment"] == "all"}
    red = [f"{row['metric']} {row['segment']}" for row in evidence.measures if row["verdict"] == "red"]
    return {
        "measures": looked,
        "red": red,
        "red_gates": evidence.red_gates,
        "last_training": evidence.last_training,
        "defects": [
            f"{row['metric']} {row['segment']} {Interval(row['interval_start'], row['interval_end'])}"
            for row in evidence.defects
        ],
    }


def _outcome(spec: ModelSpec, interval: Interval, decision: Decision, window: Interval) -> dict[str, Any]:
    outcome = {
        "model": spec.name,
        "interval": str(interval),
        "decision": decision.outcome,
        "causes": list(decision.causes),
        "reason": decision.reason,
    }
    return outcome | ({"window": str(window)} if decision.outcome == RETRAIN else {})
