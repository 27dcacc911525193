"""Reproduce a training: train a registered version again from its pins, and compare all that came out of it."""

from __future__ import annotations

from typing import Any

from lakehouse import tables
from lakehouse.interval import Interval
from lakehouse.ml import model_folders, training
from lakehouse.registry import labelled_rows, model_versions, registry, reproduction
from lakehouse.registry.pins import Pins
from lakehouse.registry.reproduction import Difference, differences
from lakehouse.release_log import released
from lakehouse.steps import code_version, step


def run(model: str, version: int) -> dict[str, Any]:
    """Train again on the pinned versions of the tables, and register nothing.

    Args:
        model: Name of a model folder.
        version: Number of the version; it may have been deleted from the registry since.

    Returns:
        ``equal``; ``changed_since``: pins that have changed without an effect; how many ``parameters`` and
        ``metrics`` are the same, and ``predictions_sha256``.

    Raises:
        lakehouse.registry.reproduction.NotReproducedError: Something came out otherwise; each is named, with what has
            changed.
        lakehouse.tables.VersionGoneError: The data of the training is no longer kept.
    """
    spec = model_folders.load(model)
    with step("reproduce", f"{model}@{version}", None) as this:
        then = model_versions.find(model, version)
        if "release_id" not in then.tags:
            raise reproduction.NotReproducedError(
                f"{model} version {version} names no release in MLflow: it was not registered by `lake train`."
            )
        release_id = int(then.tags["release_id"])
        state, made = released(release_id), f"{model} version {version} was trained on release {release_id}"
        features, label = spec.features, spec.label
        needed = {table: [*features.entity_key, features.interval_column] for table in (features.table, label.table)}
        needed[features.table] += features.inputs
        needed[label.table] += [label.column]
        for table in needed:
            reproduction.require_known(table, state, made)
        versions = {table: state[table].version for table in needed}
        for table, number in versions.items():
            tables.check_kept(tables.next_table(table), number)
            reproduction.require_columns(table, tables.types(tables.next_table(table), number), needed[table], made)
        this.versions_in = {tables.next_table(table): number for table, number in versions.items()}

        window = Interval.parse(then.tags["training_window"])
        frame = labelled_rows.read(spec, release_id, window)
        this.rows_in = len(frame)
        input_sha256 = training.content_sha256(frame)
        logged = registry.logged(then)
        # A search that was ended by its time is repeated by the number of its trials.
        prefix = "search_trials."
        trials = {k.removeprefix(prefix): int(v) for k, v in logged.parameters.items() if k.startswith(prefix)}
        spaces = model_folders.search_spaces(spec)
        trained = training.train(frame, model_folders.candidates(spec), spec, window, spaces, trials)

        pins = Pins.of(spec, window, versions, release_id, code_version(), input_sha256)
        parameters = {name: str(value) for name, value in registry.parameters(spec, trained, pins).items()}
        hashes = {"input_sha256": input_sha256, "predictions_sha256": trained.predictions_sha256}
        found: list[Difference] = [
            *differences("hash", {name: then.tags.get(name) for name in hashes}, hashes),
            *differences("parameter", logged.parameters, parameters),
            *differences("metric", logged.metrics, trained.metrics()),
        ]
        outcome = reproduction.conclude(
            f"{model} version {version}", found, reproduction.changed(then.tags, pins.tags()), this.details
        )
        this.say("%s version %d: made again, equal", model, version)
        return {**outcome, "parameters": len(parameters), "metrics": len(logged.metrics), **hashes}
