"""New sources, tables and models: the files that each one consists of, ready to be edited."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from importlib import resources
from pathlib import Path
from string import Template
from typing import Literal, get_args

from lakehouse.errors import LakeError
from lakehouse.settings import PROJECT_DIR

Format = Literal["csv", "jsonl", "parquet", "avro", "jdbc"]
RETENTION_YEARS = 3
FORMATS: tuple[str, ...] = get_args(Format)

_FILE_SERVER = """\
  - server: drop
    type: local
    format: $format
    path: '{drop}/$name/${name}_{interval}.$format'"""
_DATABASE_SERVER = """\
  - server: database
    type: postgresql
    host: $${${prefix}_HOST}
    port: $${${prefix}_PORT}
    database: $${${prefix}_DATABASE}
    schema: public
    customProperties:
      - property: username
        value: $${${prefix}_USER}
      - property: password
        value: $${${prefix}_PASSWORD}"""
_INCREMENTAL = """\
  - property: load
    value: incremental
  - property: watermark
    value: updated_at"""


class ScaffoldError(LakeError):
    """The files cannot be made."""


def new_source(name: str, format_: str = "csv", history_start: dt.date | None = None) -> list[Path]:
    """Make the contract and the suite of a source.

    Args:
        name: The source, which is also its bronze table.
        format_: One of ``FORMATS``.
        history_start: The first day that there is data for; today without it.

    Returns:
        The files made.

    Raises:
        ScaffoldError: The name or format will not do, or a file is there already.
    """
    if format_ not in FORMATS:
        raise ScaffoldError(f"{format_!r} is not a format. Choose one of {', '.join(FORMATS)}.")
    today = dt.date.today()
    server = _DATABASE_SERVER if format_ == "jdbc" else _FILE_SERVER
    values = {
        "name": name,
        "id": str(uuid.uuid4()),
        "history_start": str(history_start or today),
        # Counted from today: the history that there is will be kept, too.
        "retention_years": str(RETENTION_YEARS + max(0, today.year - (history_start or today).year)),
        "server": Template(server).substitute(name=name, format=format_, prefix=name.upper()),
        "custom": _INCREMENTAL if format_ == "jdbc" else "",
        "layer": "bronze",
        "column": "id",
    }
    return _write(
        name,
        values,
        {
            f"spark_jobs/sources/{name}.yaml": "source.yaml",
            f"expectations/bronze/{name}.json": "suite.json",
        },
    )


def new_table(name: str) -> list[Path]:
    """Make the query, the properties and the suite of a gold table.

    Args:
        name: The table, without its layer.

    Returns:
        The files made.

    Raises:
        ScaffoldError: The name will not do, or a file is there already.
    """
    return _write(
        name,
        {"name": name, "layer": "gold", "column": "flight_date"},
        {
            f"dbt/models/marts/{name}.sql": "table.sql",
            f"dbt/models/marts/{name}.yml": "table.yml",
            f"expectations/gold/{name}.json": "suite.json",
        },
    )


def new_model(name: str) -> list[Path]:
    """Make the folder of a model, and the suite of its predictions.

    Args:
        name: The model.

    Returns:
        The files made.

    Raises:
        ScaffoldError: The name will not do, or a file is there already.
    """
    return _write(
        name,
        {"name": name},
        {
            f"models/{name}/model.yaml": "model.yaml",
            f"models/{name}/pipeline.py": "pipeline.py.txt",
            f"models/{name}/README.md": "model.md",
            f"expectations/ml/predictions_{name}.json": "predictions.json",
        },
    )


def _write(name: str, values: dict[str, str], files: dict[str, str]) -> list[Path]:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ScaffoldError(f"{name!r} is not a name: use lower-case letters, digits and _, a letter first.")
    paths = [PROJECT_DIR / path for path in files]
    for path in paths:
        if path.exists():
            raise ScaffoldError(f"{path.relative_to(PROJECT_DIR)} is there already. Edit it, or choose another name.")
    for path, template in zip(paths, files.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        text = resources.files("lakehouse.templates").joinpath(template).read_text()
        path.write_text(Template(text).safe_substitute(values).rstrip("\n") + "\n")
    return paths
