"""The settings and environment variables of the pages are what the platform and Airflow understand."""

from __future__ import annotations

import json
import os
import pkgutil
import re
import subprocess
import tomllib
from pathlib import Path

from lakehouse.settings import AlertRoute
from tests.docs.blocks import ROOT, blocks

HOW_TO = ROOT / "docs" / "how-to"


def exported(page: Path) -> dict[str, str]:
    """The variables that the shell blocks of a page export, as a shell has them then."""
    found: dict[str, str] = {}
    for block in blocks(page):
        if block.language == "bash" and "\nexport " in block.text:
            commands = re.sub(r"^\./lake .*$", "", block.text, flags=re.MULTILINE)
            done = subprocess.run(["bash", "-ec", f"{commands}\nenv -0"], capture_output=True, text=True, check=True)
            now = dict(line.partition("=")[::2] for line in done.stdout.split("\0") if line)
            found |= {name: now[name] for name in re.findall(r"(\w+)=", commands) if name in now}
    return {name: value for name, value in found.items() if os.environ.get(name) != value}


def test_the_routes_of_alerts_can_be_made_and_their_connection_is_one() -> None:
    page = HOW_TO / "be-told.md"
    [routes] = [tomllib.loads(block.text)["alerts"] for block in blocks(page) if block.language == "toml"]
    for route in map(AlertRoute.model_validate, routes.values()):
        pkgutil.resolve_name(route.notifier)(**route.arguments)
    from airflow.sdk import Connection

    variables = exported(page)
    assert set(variables) == {"AIRFLOW_CONN_SMTP_DEFAULT"}
    connection = Connection.from_json(variables["AIRFLOW_CONN_SMTP_DEFAULT"], conn_id="smtp_default")
    assert (connection.conn_type, connection.host, connection.login) == ("smtp", "mail.example.com", "lake")
    assert json.loads(connection.extra or "") == {"from_email": "lake@example.com"}


def test_the_variables_of_a_database_are_those_that_its_contract_names() -> None:
    page = HOW_TO / "read-from-a-database.md"
    named = {
        name for block in blocks(page) if block.language == "yaml" for name in re.findall(r"\$\{(\w+)\}", block.text)
    }
    assert set(exported(page)) == named >= {"ORDERS_PASSWORD"}
