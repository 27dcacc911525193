"""Requests to our own servers on loopback, which no proxy must see."""

from __future__ import annotations

import base64
import json
import urllib.request
from typing import Any

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(url: str, timeout: float = 10, login: tuple[str, str] | None = None) -> bytes:
    """The body of a page.

    Args:
        url: Where it is.
        timeout: Seconds to wait for each answer of the socket.
        login: User and password, for a server that wants them.

    Raises:
        OSError: No answer, or one that is not a success.
    """
    request = urllib.request.Request(url)  # noqa: S310 - our own addresses
    if login:
        request.add_header("Authorization", f"Basic {base64.b64encode(':'.join(login).encode()).decode()}")
    with _opener.open(request, timeout=timeout) as response:
        body: bytes = response.read()
    return body


def get_json(url: str, timeout: float = 10) -> Any:
    """The body of a page, read as JSON.

    Args:
        url: Where it is.
        timeout: Seconds to wait for each answer of the socket.
    """
    return json.loads(get(url, timeout))
