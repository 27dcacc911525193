"""Assets: what DAGs tell each other of, each by the name that readers use."""

from __future__ import annotations

from airflow.sdk import Asset


def asset(name: str) -> Asset:
    """The asset that stands for the releases of a table, or for the versions of a model.

    Args:
        name: Such as ``bronze.weather``, ``gold`` for its tables as a set, or ``models.flight_delay``.
    """
    return Asset(name=name, uri=f"lake://{name.replace('.', '/')}")
