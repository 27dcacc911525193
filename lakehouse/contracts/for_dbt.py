"""What dbt is told about the sources: their contracts, in dbt's words."""

from __future__ import annotations

from typing import Any

from lakehouse.contracts import TECHNICAL_COLUMNS, load, sources


def dbt_sources() -> dict[str, Any]:
    """The dbt source ``bronze``, as the content of a properties file.

    Returns:
        A mapping to be written as YAML or JSON.
    """
    tables = []
    for contract in map(load, sources()):
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
                "tables": tables,
            }
        ],
    }
