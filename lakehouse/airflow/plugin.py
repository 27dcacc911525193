"""The platform's Airflow plugin: timetables and mappers of the DAGs, pages for the web server, lineage of the tasks."""

from __future__ import annotations

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from lakehouse.airflow import lineage
from lakehouse.airflow.links import PREFIX
from lakehouse.airflow.partitions import (
    IntervalAssetTimetable,
    IntervalMapper,
    IntervalTimetable,
    ManualTimetable,
)


class LakehousePlugin(AirflowPlugin):
    """Registers what the DAG files use beyond Airflow's own classes."""

    name = "lakehouse"
    timetables = [IntervalAssetTimetable, IntervalTimetable, ManualTimetable]  # noqa: RUF012 - the base class's attribute
    partition_mappers = [IntervalMapper]  # noqa: RUF012
    listeners = [lineage]  # noqa: RUF012

    @property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The pages; a property, because only the web server has use for what they import."""
        from lakehouse.airflow.pages import app

        return [{"app": app, "url_prefix": PREFIX, "name": "lakehouse"}]
