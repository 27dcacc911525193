"""Reproduce predictions: score past batches again from what their rows say of themselves, and compare the content."""

from __future__ import annotations

import datetime as dt
from typing import Any

from lakehouse import registry, reproduction, tables
from lakehouse.engine import sql
from lakehouse.errors import LakeError
from lakehouse.interval import Interval
from lakehouse.release import NotReleasedError, released
from lakehouse.reproduction import Difference
from lakehouse.scoring import LINEAGE
from lakehouse.steps import step
from spark_jobs.score import predictions, select_features


class NoPredictionsError(LakeError):
    """There are no released predictions for an interval."""


def run(model: str, interval: Interval, release_id: int | None = None) -> dict[str, Any]:
    """Score again what was scored for an interval, each batch with the model version and features that it names.

    Args:
        model: Name of a model folder.
        interval: Day or range of days of the predictions.
        release_id: The predictions that readers saw right after this release; those of the present without it.

    Returns:
        ``equal``, and ``batches``: per run that scored its days, ``rows``, ``model_version``, ``release_id`` of the
        features, and ``content_sha256``.

    Raises:
        NoPredictionsError: Nothing was scored for the interval.
        lakehouse.reproduction.NotReproducedError: Rows came out otherwise.
        lakehouse.tables.VersionGoneError: The features or the predictions are no longer kept.
    """
    spec = registry.load(model)
    table, day = spec.predictions_table, spec.features.interval_column
    with step("reproduce", table, interval) as this:
        seen = released(release_id).get(table)
        if seen is None:
            raise NotReleasedError(f"{table} has no released version.")
        stored = tables.next_table(table)
        tables.check_kept(stored, seen.version)
        this.versions_in[stored] = seen.version
        batches = _batches(stored, seen.version, day, interval)
        if not batches:
            raise NoPredictionsError(f"{table} has no predictions for {interval} in its version {seen.version}.")
        outcomes, found = [], []
        for facts, days in batches:
            source = released(facts["release_id"])[spec.features.table]
            tables.check_kept(tables.next_table(source.table), source.version)
            this.versions_in[tables.next_table(source.table)] = source.version
            served = registry.fetch(registry.version(model, facts["model_version"]))
            listed = ", ".join(f"date'{each}'" for each in days)
            condition = f"{day} in ({listed})"
            features, kept = select_features(spec, served, source, condition)
            again = predictions(features, served, spec, kept, facts)
            then = sql(
                f"select {', '.join(f'`{name}`' for name in again.columns)} from {stored} version as of {seen.version} "
                f"where {condition} and run_id = '{facts['run_id']}'"
            )
            was, now = reproduction.content_sha256(then), reproduction.content_sha256(again)
            if was != now:
                found.append(Difference(f"content of run {facts['run_id']} ({days[0]} to {days[-1]})", was, now))
            rows = then.count()
            outcomes.append(
                {
                    "run_id": facts["run_id"],
                    "rows": rows,
                    "model_version": served.version,
                    "release_id": facts["release_id"],
                    "content_sha256": was,
                }
            )
            this.say("%s: run %s, %d rows: %s", table, facts["run_id"], rows, "equal" if was == now else "differ")
        this.rows_in = sum(batch["rows"] for batch in outcomes)
        return {**reproduction.conclude(f"{table} {interval}", found, [], this.details), "batches": outcomes}


def _batches(stored: str, version: int, day: str, interval: Interval) -> list[tuple[dict[str, Any], list[dt.date]]]:
    """What each run says of its rows, and the days that it has scored."""
    log = tables.delta(stored, version)
    assert log is not None
    rows = log.to_pyarrow_table(
        columns=[*LINEAGE, day],
        filesystem=tables.filesystem(log),
        filters=[(day, ">=", interval.start), (day, "<=", interval.end)],
    )
    found: dict[str, tuple[dict[str, Any], set[dt.date]]] = {}
    for row in rows.group_by([*LINEAGE, day]).aggregate([]).to_pylist():
        facts = {name: row[name] for name in LINEAGE}
        found.setdefault(row["run_id"], (facts, set()))[1].add(row[day])
    return [(facts, sorted(days)) for _, (facts, days) in sorted(found.items())]
