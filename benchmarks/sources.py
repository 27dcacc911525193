"""Sources of a benchmark's own: contract and suite of the outcomes of flights, under another name and format."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path

import yaml

MODEL = "flight_actuals"


def declare(source: str, form: str) -> None:
    """Have a source.

    Args:
        source: Its name.
        form: Format of its files, such as ``csv``.
    """
    from lakehouse import contracts
    from lakehouse.quality import suites
    from lakehouse.settings import PROJECT_DIR

    contract = yaml.safe_load((PROJECT_DIR / "spark_jobs" / "sources" / f"{MODEL}.yaml").read_text("utf-8"))
    suite = json.loads((PROJECT_DIR / "expectations" / "bronze" / f"{MODEL}.json").read_text("utf-8"))
    contract["name"] = contract["schema"][0]["name"] = source
    contract["servers"][0] |= {"format": form, "path": f"{{drop}}/{source}/{source}_{{interval}}.{form}"}
    for each in contract["customProperties"]:
        if each["property"] == "historyStart":
            each["value"] = "2000-01-01"
    suite["name"] = f"bronze.{source}"
    for each in suite["expectations"]:
        if each["type"] == "expect_table_row_count_to_be_between":
            each["kwargs"]["max_value"] = 1_000_000_000
    contracts.SOURCES_DIR, suites.SUITES_DIR = _folder() / "contracts", _folder() / "suites"
    contracts.SUITES_DIR = suites.SUITES_DIR / "bronze"
    (contracts.SOURCES_DIR / f"{source}.yaml").write_text(yaml.safe_dump(contract), "utf-8")
    (contracts.SUITES_DIR / f"{source}.json").write_text(json.dumps(suite), "utf-8")
    contracts.load.cache_clear()


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="lake-benchmark-sources-"))
    (folder / "contracts").mkdir()
    (folder / "suites" / "bronze").mkdir(parents=True)
    return folder
