"""The platform's Airflow plugin: lets the scheduler read back the timetables and mappers of the DAGs."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from lakehouse.airflow.partitions import IntervalMapper, IntervalTimetable, ManualTimetable


class LakehousePlugin(AirflowPlugin):
    """Registers what the DAG files use beyond Airflow's own classes."""

    name = "lakehouse"
    timetables = [IntervalTimetable, ManualTimetable]  # noqa: RUF012 - the base class's attribute
    partition_mappers = [IntervalMapper]  # noqa: RUF012
