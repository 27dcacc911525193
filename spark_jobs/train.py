"""Train: select, fit and measure a model on released tables, and register it."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow.compute as pc

from lakehouse import ops, tables
from lakehouse.interval import Interval
from lakehouse.lineage import column_lineage
from lakehouse.ml import model_folders, training
from lakehouse.monitoring.reference import ARTIFACT, Reference
from lakehouse.registry import labelled_rows, registry, roles
from lakehouse.registry.comparison import contest
from lakehouse.registry.pins import Pins
from lakehouse.registry.promotion import ComparisonError
from lakehouse.release_log import NotReleasedError, released
from lakehouse.steps import code_version, step, user


def run(
    model: str, interval: Interval | None = None, by: str | None = None, cause: str | None = None
) -> dict[str, Any]:
    """Train a model on a window of released features and labels, and register it.

    Args:
        model: Name of a model folder.
        interval: Training window, test days included. Without it, the window of ``model.yaml``'s length that
            ends on the last day with labels.
        by: Who wants it; the user of the process without it.
        cause: Why, as the retraining policy has said; it is kept with the run.

    Returns:
        ``model_version``, ``roles``, ``reason`` for its role, ``candidate``, and its figures on the test days.

    Raises:
        lakehouse.release_log.NotReleasedError: The features or labels have never been released.
        lakehouse.ml.training.NotEnoughDataError: The window is too short, or has too few labels.
        lakehouse.ml.leaks.LeakError: An input tells the outcome by itself.
    """
    spec = model_folders.load(model)
    features, label = spec.features, spec.label
    with step("train", spec.name, interval, writes=f"models.{spec.name}") as this:
        state = released()
        missing = [table for table in (features.table, label.table) if table not in state]
        if missing:
            raise NotReleasedError(
                f"{' and '.join(missing)} not released. Build, gate and release the warehouse before training."
            )
        versions = {table: state[table].version for table in (features.table, label.table)}
        release_id = max(state[table].release_id for table in versions)
        this.versions_in = {tables.next_table(table): version for table, version in versions.items()}

        window = interval or training.default_window(spec.training, labelled_rows.last_day(spec, state[label.table]))
        frame = labelled_rows.read(spec, release_id, window)
        this.rows_in = len(frame)
        candidates = model_folders.candidates(spec)
        trained = training.train(frame, candidates, spec, window, model_folders.search_spaces(spec))
        for name in [name for name in candidates if name not in trained.candidates]:
            this.say("%s: %s: set aside, as it gives no number to some rows of the test days", spec.name, name)
        for name, figures in trained.candidates.items():
            this.say(
                "%s: %s: %s %.4f on the folds, %.4f on the test days",
                spec.name, name, trained.optimize, figures.validation, figures.test[trained.optimize],
            )  # fmt: skip

        pins = Pins.of(spec, window, versions, release_id, code_version(), training.content_sha256(frame))
        this.check_lock()
        version = registry.register(spec, trained, pins, this.run_id)
        this.versions_out = {f"models.{spec.name}": version.version}
        pinned = versions[features.table]
        snapshot = Reference.of(
            training.scored(frame, trained, spec), spec, window, pinned,
            tables.types(tables.next_table(features.table), pinned),
        )  # fmt: skip
        registry.keep_text(version, ARTIFACT, snapshot.to_json())
        by = by or user()
        roles.show(spec.name)
        # The same training again, or one that was killed on its way here.
        if not any(event["model_version"] == version.version for event in roles.events(spec.name)):
            if spec.promotion.policy == "auto":
                try:
                    contest(spec, version, trained.test, this, by)
                except ComparisonError as error:
                    roles.keep_out(spec, version, str(error), by, this)
            else:
                roles.register(spec, version, by, this)
        version = registry.version(spec.name, version.version)
        record(version, pins, trained.headline(), by, this.run_id)
        outcome = {
            "model_version": version.version,
            "roles": list(version.aliases),
            "reason": version.tags["role_reason"],
            "candidate": trained.selected,
            "window": str(window),
            **{name: round(value, 6) for name, value in trained.headline().items()},
        }
        this.details = {**outcome, "mlflow_run_id": version.run_id, "release_id": release_id, "cause": cause}
        if cause is not None:
            registry.set_cause(version, cause)
        this.say(
            "%s version %d (%s) is %s; %s",
            spec.name, version.version, trained.selected, ", ".join(version.aliases) or "without a role",
            version.tags["role_reason"],
        )  # fmt: skip
        try:
            column_lineage.record()
        except column_lineage.LineageError as error:  # of a dbt model, whose build says so; the version is trained
            this.say("The lineage of columns is not recorded: %s", error)
        return outcome


def record(version: registry.ModelVersion, pins: Pins, metrics: dict[str, float], by: str, run_id: str) -> None:
    """Say in ``ops.models`` what a version was made from, and why it has its role; once.

    Args:
        version: Which.
        pins: What it was made from.
        metrics: The figures that it is known by.
        by: Who wanted it.
        run_id: The step that has trained it.
    """
    this = (pc.field("model_name") == version.name) & (pc.field("model_version") == version.version)
    if ops.read("ops.models", ["model_version"], where=this).num_rows:
        return
    ops.append(
        "ops.models",
        [
            {
                "registered_at": dt.datetime.now(dt.UTC),
                "model_name": version.name,
                "model_version": version.version,
                "role": ", ".join(version.aliases) or None,
                "reason": version.tags["role_reason"],
                "decided_by": by,
                # Of a training that was killed before this, its retry, which has found the same.
                "run_id": run_id,
                "mlflow_run_id": version.run_id,
                "candidate": version.tags["candidate"],
                "window_start": pins.window.start,
                "window_end": pins.window.end,
                "release_id": int(version.tags["release_id"]),
                "seed": int(version.tags["seed"]),
                "versions": sorted(pins.versions.items()),
                "row_order": ", ".join(pins.row_order),
                "metrics": sorted(metrics.items()),
                **{
                    name: version.tags[name]
                    for name in (
                        "code_version",
                        "lock_sha256",
                        "model_sha256",
                        "input_sha256",
                        "predictions_sha256",
                        "environment",
                    )
                },
            }
        ],
    )
