"""Platforms that tests start for themselves, as a user would: by ``./lake``."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx

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


@contextmanager
def web_server() -> Iterator[tuple[int, list[tuple[str, Any]]]]:
    """A web server that takes whatever JSON it is sent: its port, and the paths and bodies so far."""
    received: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, json.loads(body)))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *arguments: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, received
    server.shutdown()


def http_connection(port: int) -> str:
    """An Airflow connection to a web server on this machine, as a variable of the environment has it."""
    return json.dumps({"conn_type": "http", "host": "127.0.0.1", "port": port, "schema": "http"})


@dataclass(frozen=True)
class Platform:
    """A running platform of its own.

    Attributes:
        home: Its state folder.
        environment: What makes ``./lake`` speak to it.
        demo: What ``./lake demo`` printed.
        told: What its alerts have sent to a web server: paths and bodies.
    """

    home: Path
    environment: dict[str, str]
    demo: str = ""
    told: list[tuple[str, Any]] = field(default_factory=list)

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

    def pid(self, part: str) -> int:
        """Number of the process of a part."""
        status = self.lake("status", check=False).stdout
        [line] = [line for line in status.splitlines() if f" {part} " in line]
        return next(int(cell) for cell in line.split() if cell.isdigit())

    def port(self, name: str) -> int:
        return int(self.environment[f"LAKE_PORTS__{name.upper()}"])

    def secret(self, name: str) -> str:
        return json.loads((self.home / "secrets.json").read_text())[name]

    def mlflow(self, what: str, **parameters: str) -> dict[str, Any]:
        """An answer of MLflow's REST API, such as that to ``model-versions/get``."""
        url = f"http://127.0.0.1:{self.port('mlflow')}/api/2.0/mlflow/{what}"
        login = ("lake", self.secret("mlflow_password"))
        return httpx.get(url, params=parameters, auth=login).raise_for_status().json()

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
