"""What dbt is told about the sources: their contracts, in dbt's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lakehouse.contracts import TECHNICAL_COLUMNS, problems, readable


def dbt_sources(before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The dbt source ``bronze``, as the content of a properties file.

    Args:
        before: What this has returned before. A source whose contract cannot be read now is taken from there: what
            has been released of it is still there, and the models that read it can be built.

    Returns:
        A mapping to be written as YAML or JSON.
    """
    known = [table for source in (before or {}).get("sources", []) for table in source["tables"]]
    wrong = problems()
    tables = [table for table in known if table["name"] in wrong]
    for contract in readable():
        columns: list[dict[str, Any]] = []
        for column in contract.columns:
            meta = {"classification": column.classification, "pii": column.pii}
            columns.append(
                {
                    "name": column.name,
                    "description": column.description,
                    "data_type": column.spark_type.lower(),
                    "config": {"meta": meta},
                }
                | ({"data_tests": ["not_null"]} if column.required else {})
            )
        columns += [
            {"name": name, "description": description, "data_type": spark_type.lower()}
            for name, (spark_type, description) in TECHNICAL_COLUMNS.items()
        ]
        tables.append(
            {
                "name": contract.name,
                "description": f"{contract.description} {contract.grain} {contract.limitations}".strip(),
                "config": {
                    "meta": {
                        "owner": contract.owner,
                        "contract_version": contract.version,
                        "primary_key": list(contract.keys),
                        "delivery": contract.delivery,
                        "warehouse_trigger": contract.warehouse_trigger,
                    }
                },
                "columns": columns,
            }
        )
    return {
        "version": 2,
        "sources": [
            {
                "name": "bronze",
                "schema": "bronze",
                "description": "The released rows of every source, as its contract describes them.",
                "tables": sorted(tables, key=lambda table: str(table["name"])),
            }
        ],
    }
