"""Requests to our own servers on loopback, which no proxy must see."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(url: str, timeout: float = 10) -> bytes:
    """The body of a page.

    Args:
        url: Where it is.
        timeout: Seconds to wait for each answer of the socket.

    Raises:
        OSError: No answer, or one that is not a success.
    """
    with _opener.open(url, timeout=timeout) as response:
        body: bytes = response.read()
    return body


def get_json(url: str, timeout: float = 10) -> Any:
    """The body of a page, read as JSON.

    Args:
        url: Where it is.
        timeout: Seconds to wait for each answer of the socket.
    """
    return json.loads(get(url, timeout))
