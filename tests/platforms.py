"""Platforms that tests start for themselves, as a user would: by ``./lake``."""

from __future__ import annotations

import configparser
import json
import socket
import subprocess
import sys
import threading
import xmlrpc.client
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
from supervisor.xmlrpc import SupervisorTransport

PROJECT = Path(__file__).parents[1]
PORTS = ("postgres", "connect", "thrift", "mlflow", "airflow")

COMMANDS = """
import contextlib, io, json, os, sys, traceback
from lakehouse.cli import main

asked, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.dup2(2, 1)
for line in asked:
    sys.argv = ["lake", *json.loads(line)]
    code = 0
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as error:
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        except Exception:
            code = 1
            traceback.print_exc()
    print(json.dumps([code, out.getvalue(), error.getvalue()]), file=answers, flush=True)
"""
"""A process that runs ``lake`` with the arguments that stand in each line of its input, and answers with a line."""

Lake = Callable[..., subprocess.CompletedProcess[str]]


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

    @contextmanager
    def one_process(self) -> Iterator[Lake]:
        """Something that is called like ``lake``, but whose commands share a process, which is started once.

        Of what a command says by the log, only the first one's is in ``stderr``.
        """
        process = subprocess.Popen(
            [sys.executable, "-c", COMMANDS],
            env=self.environment,
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

        def lake(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
            assert process.stdin and process.stdout
            print(json.dumps(arguments), file=process.stdin, flush=True)
            done = subprocess.CompletedProcess(["lake", *arguments], *json.loads(process.stdout.readline()))
            if check:
                done.check_returncode()
            return done

        try:
            yield lake
        finally:
            process.communicate(timeout=300)

    def pids(self) -> dict[str, int]:
        """Numbers of the processes of the parts that run, asked of the supervisor, which costs less than ``lake``."""
        configuration = configparser.ConfigParser()
        configuration.read(self.home / "supervisor" / "supervisord.conf")
        server = configuration["unix_http_server"]
        transport = SupervisorTransport(server["username"], server["password"], f"unix://{server['file']}")
        try:
            known: Any = xmlrpc.client.ServerProxy("http://127.0.0.1", transport).supervisor.getAllProcessInfo()
        finally:
            transport.close()
        return {info["name"]: info["pid"] for info in known if info["pid"]}

    def pid(self, part: str) -> int:
        """Number of the process of a part."""
        try:
            return self.pids()[part]
        except (KeyError, xmlrpc.client.Error) as error:
            raise ValueError(f"{part} has no process, or the supervisor is not ready.") from error

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

    def content(self, tables: Collection[str], without: Collection[str] = ()) -> dict[str, tuple[int, str]]:
        """How many rows each table has, and a sum of their hashes, which the engine makes.

        Args:
            tables: Their names.
            without: Columns that are left out of whatever table has them.
        """
        queries = []
        for table in tables:
            known = self.sql(f"show columns in {table}") if without else []
            names = ", ".join(f"`{name}`" for (name, *_) in known if name not in without) or "*"
            row = f"conv(substr(sha2(to_json(struct({names})), 256), 1, 15), 16, 10)"
            queries.append(f"select '{table}', count(*), string(sum(cast({row} as decimal(38, 0)))) from {table}")
        return {table: (rows, total) for table, rows, total in self.sql(" union all ".join(queries))}
