"""Lakehouse and batch-ML platform: the library behind the DAGs, the jobs and the ``lake`` command."""

from __future__ import annotations

from typing import Any

__all__ = ["read"]


def __getattr__(name: str) -> Any:
    # Looked up late, so that importing the package stays cheap for DAG files.
    if name == "read":
        from lakehouse.release_log import read

        return read
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
