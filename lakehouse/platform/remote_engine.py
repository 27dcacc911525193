"""An engine elsewhere, behind the setting ``spark_remote``: what the platform needs there before it can work."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from lakehouse import ops
from lakehouse.engine import sql
from lakehouse.platform import postgres
from lakehouse.platform.engine import SCHEMAS
from lakehouse.platform.errors import PlatformError
from lakehouse.settings import settings

CONNECT_PORT = 15002
"""Of Spark Connect, for a URL that names none."""


def check() -> None:
    """See whether somebody listens: Spark's client tries for ten minutes before it says that nobody does.

    Raises:
        PlatformError: Nobody does.
    """
    place = urlsplit(settings().spark_remote or "")
    address = (place.hostname or "", place.port or CONNECT_PORT)
    try:
        socket.create_connection(address, timeout=5).close()
    except OSError as error:
        raise PlatformError(
            f"No Spark Connect server answers at {address[0]}:{address[1]}, where SPARK_REMOTE points ({error}). "
            "Start it, or correct SPARK_REMOTE; without it the embedded engine is used."
        ) from error


def prepare() -> None:
    """Make the database of the locks, and on the engine the schemas of all layers and the platform's own tables.

    Raises:
        PlatformError: The engine does not answer.
    """
    check()
    postgres.ensure_lake_database()
    create_schemas(SCHEMAS)
    for statement in ops.create():
        sql(statement)


def create_schemas(names: tuple[str, ...]) -> None:
    """Create schemas in the platform's warehouse, wherever the engine would keep them by itself.

    Args:
        names: Those that are wanted; one that is there is left as it is.
    """
    there = {row[0] for row in sql("show schemas").collect()}
    for name in names:
        if name not in there:
            sql(f"create schema if not exists {name} location '{settings().warehouse_url.rstrip('/')}/{name}.db'")
