"""Reproduce predictions: score past batches again from what their rows say of themselves, and compare the content."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from lakehouse import ops, tables
from lakehouse.engine import sql
from lakehouse.errors import LakeError
from lakehouse.interval import Interval
from lakehouse.ml import model_folders
from lakehouse.ml.predictions import column_types, predictions, select
from lakehouse.ml.scoring import LINEAGE
from lakehouse.registry import model_versions, pins, reproduction
from lakehouse.registry.reproduction import Difference
from lakehouse.release_log import NotReleasedError, released
from lakehouse.steps import code_version, step

if TYPE_CHECKING:
    from lakehouse.ml.model_spec import ModelSpec


class NoPredictionsError(LakeError):
    """There are no released predictions for an interval."""


def run(model: str, interval: Interval, release_id: int | None = None) -> dict[str, Any]:
    """Score again what was scored for an interval, each batch with the model version and features that it names.

    Args:
        model: Name of a model folder.
        interval: Day or range of days of the predictions.
        release_id: The predictions that readers saw right after this release; those of the present without it.

    Returns:
        ``equal``, and ``batches``: per run that scored its days and version that did, ``rows``, ``model_version``,
        ``role``, ``release_id`` of the features, and ``content_sha256``.

    Raises:
        NoPredictionsError: Nothing was scored for the interval.
        lakehouse.registry.reproduction.NotReproducedError: Rows came out otherwise.
        lakehouse.tables.VersionGoneError: The features or the predictions are no longer kept.
        lakehouse.tables.UnreadableError: A file of them is damaged or missing.
    """
    spec = model_folders.load(model)
    table, day = spec.predictions_table, spec.features.interval_column
    with step("reproduce", table, interval) as this:
        seen = released(release_id).get(table)
        if seen is None:
            by_then = "" if release_id is None else f" as of release {release_id}"
            raise NotReleasedError(f"{table} has no released version{by_then}.")
        stored = tables.next_table(table)
        tables.check_kept(stored, seen.version)
        made = f"The predictions of {interval} are in version {seen.version}"
        reproduction.require_columns(table, tables.types(stored, seen.version), [*spec.features.entity_key, day], made)
        this.versions_in[stored] = seen.version
        batches = _batches(stored, seen.version, day, interval)
        if not batches:
            raise NoPredictionsError(f"{table} has no predictions for {interval} in its version {seen.version}.")
        outcomes, found, reasons = [], [], _changed_since(spec, {facts["run_id"] for facts, _ in batches})
        shared = Counter(facts["run_id"] for facts, _ in batches)
        for facts, days in batches:
            state = released(facts["release_id"])
            made = f"The predictions of run {facts['run_id']} were made from release {facts['release_id']}"
            reproduction.require_known(spec.features.table, state, made)
            source = state[spec.features.table]
            tables.check_kept(tables.next_table(source.table), source.version)
            this.versions_in[tables.next_table(source.table)] = source.version
            served = model_versions.that_scored(model, facts)
            types = column_types(source)
            reproduction.require_columns(source.table, types, [*spec.features.kept, *served.inputs], made)
            kept = {name: types[name] for name in spec.features.kept}
            listed = ", ".join(f"date'{each}'" for each in days)
            condition = f"{day} in ({listed})"
            features = select(spec, source, set(served.inputs), condition)
            stored_rows = sql(
                f"select * from {stored} version as of {seen.version} where {condition} and "
                f"run_id = '{facts['run_id']}' and role = '{facts['role']}' and "
                f"model_version = {facts['model_version']}"
            )
            if shared[facts["run_id"]] > 1:
                # Which entities a version was given is on the rows; that none was left out is for the gate.
                key = [*spec.features.entity_key, day]
                features = features.join(stored_rows.select(*key), key, "left_semi")
            again = predictions(features, served, spec, kept, facts)
            # Every column: one that model.yaml has gained or lost since is a difference, too.
            with reproduction.named_if_damaged({source.table: facts["release_id"], table: release_id}):
                was, now = tables.content_sha256(stored_rows), tables.content_sha256(again)
            if was != now:
                of = f"of run {facts['run_id']} ({facts['role']}, {days[0]} to {days[-1]})"
                found.append(Difference(f"content {of}", was, now))
                if lost := sorted(set(stored_rows.columns) - set(again.columns)):
                    found.append(Difference(f"columns {of}", ", ".join(lost), "none of them"))
            rows = stored_rows.count()
            outcomes.append(
                {
                    "run_id": facts["run_id"],
                    "rows": rows,
                    "model_version": served.version,
                    "role": facts["role"],
                    "release_id": facts["release_id"],
                    "content_sha256": was,
                }
            )
            this.say("%s: run %s, %d rows: %s", table, facts["run_id"], rows, "equal" if was == now else "differ")
        this.rows_in = sum(batch["rows"] for batch in outcomes)
        return {**reproduction.conclude(f"{table} {interval}", found, reasons, this.details), "batches": outcomes}


def _changed_since(spec: ModelSpec, run_ids: set[str]) -> list[Difference]:
    """How the code and its surroundings differ from those of the runs that have scored."""
    runs = ops.read("ops.runs", ["run_id", "code_version", "details"]).sort_by("run_id").to_pylist()
    now = {"code_version": code_version(), **pins.surroundings(spec)}
    found = [
        each
        for run in runs
        if run["run_id"] in run_ids
        for each in reproduction.changed(
            {"code_version": run["code_version"], **json.loads(run["details"] or "{}").get("made_with", {})}, now
        )
    ]
    return list(dict.fromkeys(found))


def _batches(stored: str, version: int, day: str, interval: Interval) -> list[tuple[dict[str, Any], list[dt.date]]]:
    """What each version says of its rows in each run, and the days that it has scored."""
    log = tables.delta(stored, version)
    assert log is not None
    rows = tables.read(log, [*LINEAGE, day], [(day, ">=", interval.start), (day, "<=", interval.end)])
    found: dict[tuple[Any, ...], tuple[dict[str, Any], set[dt.date]]] = {}
    for row in rows.group_by([*LINEAGE, day]).aggregate([]).to_pylist():
        facts = {name: row[name] for name in LINEAGE}
        key = row["run_id"], row["role"], row["model_version"]
        found.setdefault(key, (facts, set()))[1].add(row[day])
    return [(facts, sorted(days)) for _, (facts, days) in sorted(found.items())]
