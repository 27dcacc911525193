"""Labelled rows: features with what came of them, as a training reads them, or read them."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from lakehouse import release_log, tables
from lakehouse.engine import sql
from lakehouse.interval import Interval
from lakehouse.ml import training
from lakehouse.registry import registry
from lakehouse.release_log import released

if TYPE_CHECKING:
    import pandas as pd

    from lakehouse.ml.model_spec import ModelSpec
    from lakehouse.release_log import Released
    from lakehouse.steps import Run


def read(spec: ModelSpec, release_id: int, window: Interval) -> pd.DataFrame:
    """The features of some days with their outcomes, as they were right after a release; no row of other days is read.

    Args:
        spec: The model.
        release_id: The release.
        window: The days.
    """
    features, label = spec.features, spec.label
    days = [(features.interval_column, ">=", window.start), (features.interval_column, "<=", window.end)]
    columns = [*dict.fromkeys([*features.entity_key, features.interval_column, label.column])]
    return training.training_frame(
        release_log.read(features.table, release_id=release_id, where=days),
        release_log.read(label.table, release_id=release_id, columns=columns, where=days),
        spec,
    )


def frozen(spec: ModelSpec, version: registry.ModelVersion, this: Run) -> pd.DataFrame:
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
    versions = {table: state[table].version for table in (spec.features.table, spec.label.table)}
    for table, number in versions.items():
        tables.check_kept(tables.next_table(table), number)
    this.versions_in = {tables.next_table(table): number for table, number in versions.items()}
    days = Interval.parse(registry.logged(version).parameters["test_days"])
    return read(spec, release_id, days)


def last_day(spec: ModelSpec, label: Released, until: dt.date | None = None) -> dt.date:
    """The last day of which outcomes are known; the engine looks, so that no row comes here.

    Args:
        spec: The model.
        label: The released version of the label table.
        until: Only up to this day.

    Raises:
        lakehouse.ml.training.NotEnoughDataError: No outcome is known.
    """
    day = spec.features.interval_column
    bound = f"and {day} <= date'{until}'" if until else ""
    last: dt.date | None = sql(
        f"select max({day}) from {tables.next_table(label.table)} version as of {label.version} "
        f"where {spec.label.column} is not null {bound}"
    ).collect()[0][0]
    if last is None:
        upto = f" up to {until}" if until else ""
        raise training.NotEnoughDataError(f"{label.table} has no rows where {spec.label.column} is known{upto}.")
    return last
