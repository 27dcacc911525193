"""MLflow's web application behind the platform's password.

MLflow's own users (its ``basic-auth`` app) are experimental, cost queries for each request, and leave some routes open.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable

from fastapi import HTTPException, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.security import HTTPBasic
from mlflow.server.fastapi_app import app

from lakehouse.settings import MLFLOW_USER, settings

__all__ = ["app"]

_basic = HTTPBasic(realm="MLflow of the lakehouse platform")
_LOGIN = f"{MLFLOW_USER}:{settings().secret('mlflow_password')}".encode()


@app.middleware("http")  # what is added last is asked first
async def ask_for_the_password(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    """Answer only who logs in by HTTP basic authentication (RFC 7617).

    Args:
        request: What is asked.
        answer: MLflow itself.
    """
    try:
        given = await _basic(request)
    except HTTPException:
        given = None
    if given and secrets.compare_digest(f"{given.username}:{given.password}".encode(), _LOGIN):
        return await answer(request)
    said = f"The user is {MLFLOW_USER}; the password is mlflow_password in secrets.json of the state folder.\n"
    return PlainTextResponse(said, 401, _basic.make_authenticate_headers())
