"""A backend for OpenLineage's events that checks each of them."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from lakehouse.lineage import openlineage
from lakehouse.settings import settings
from tests.openlineage_schema import faults


class Receiver(HTTPServer):
    """Takes events as a backend does: 400 for what the schema does not allow, and slow when it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.events: list[dict[str, Any]] = []
        self.faults: list[str] = []
        self.delay = 0.0
        self.broken = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        time.sleep(self.server.delay)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        event = json.loads(body)
        wrong = faults(event)
        self.server.events.append(event)
        self.server.faults += wrong
        self.send_response(503 if self.server.broken else 400 if wrong else 201)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Have the steps of this process send their events to a backend of their own."""
    server = Receiver()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings(), "openlineage", {"type": "http", "url": server.url, "timeout": 1})
        openlineage._client.cache_clear()
        yield server
    openlineage._client.cache_clear()
    server.shutdown()
    server.server_close()


def told(events: list[dict[str, Any]], job: str, end: str = "COMPLETE") -> dict[str, Any]:
    """The last event of a job, which ended well, or as is said, and had begun before.

    Args:
        events: All that have arrived.
        job: Name of the job.
        end: Type of that event.
    """
    *_, last = (event for event in events if event["job"]["name"] == job)
    assert last["eventType"] == end, last
    kinds = [event["eventType"] for event in events if event["run"]["runId"] == last["run"]["runId"]]
    assert kinds == ["START", end], kinds
    return last


def versions_of(datasets: list[dict[str, Any]]) -> dict[str, str]:
    """Name of each dataset of an event to the version that it has.

    Args:
        datasets: Its inputs or outputs.
    """
    return {
        each["name"]: each["facets"]["version"]["datasetVersion"] for each in datasets if "version" in each["facets"]
    }


def made_from(dataset: dict[str, Any]) -> set[tuple[str, str, str, str, str]]:
    """The edges of a dataset's columns: column, source table, source column, kind, transformation.

    Args:
        dataset: An output of an event.
    """
    return {
        (column, source["name"], source["field"], way["type"].lower(), way["subtype"])
        for column, fields in dataset["facets"]["columnLineage"]["fields"].items()
        for source in fields["inputFields"]
        for way in source["transformations"]
    }
