"""Platforms that tests start for themselves, as a user would: by ``./lake``."""

from __future__ import annotations

import json
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
PORTS = ("postgres", "connect", "thrift", "mlflow", "airflow")


def free_ports(names: tuple[str, ...] = PORTS) -> dict[str, str]:
    """Settings that give each part of the platform a port that is free now."""
    sockets = [socket.socket() for _ in names]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return {
            f"LAKE_PORTS__{name.upper()}": str(each.getsockname()[1]) for name, each in zip(names, sockets, strict=True)
        }
    finally:
        for each in sockets:
            each.close()


@dataclass(frozen=True)
class Platform:
    """A running platform of its own.

    Attributes:
        home: Its state folder.
        environment: What makes ``./lake`` speak to it.
        demo: What ``./lake demo`` printed.
    """

    home: Path
    environment: dict[str, str]
    demo: str

    def lake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the ``lake`` command."""
        return subprocess.run(
            [PROJECT / "lake", *arguments],
            env=self.environment,
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=check,
            timeout=900,
        )

    def port(self, name: str) -> int:
        return int(self.environment[f"LAKE_PORTS__{name.upper()}"])

    def secret(self, name: str) -> str:
        return json.loads((self.home / "secrets.json").read_text())[name]

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of a query, by the Thrift endpoint as a BI tool would ask."""
        from pyhive import hive

        connection = hive.connect(
            host="127.0.0.1",
            port=self.port("thrift"),
            username="lake",
            password=self.secret("sql_password"),
            auth="CUSTOM",
        )
        try:
            cursor = connection.cursor()
            cursor.execute(query)
            return cursor.fetchall()
        finally:
            connection.close()
