"""Made-up tables of the warehouse."""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path

import pandas as pd
import pytest

from lakehouse import ops, tables
from lakehouse.engine import spark
from lakehouse.quality import suites
from lakehouse.releases.release import release


def put(table: str, frame: pd.DataFrame, folder: Path, *, visible: bool = True, mode: str = "overwrite") -> int:
    """Write a table and release it, as the warehouse would; its columns may be others than before."""
    file = folder / f"{table}.parquet"
    frame.to_parquet(file, index=False, coerce_timestamps="us")
    stored = tables.next_table(table)
    writer = spark().read.parquet(str(file)).write.format("delta").mode(mode)
    if mode == "overwrite":
        writer = writer.option("overwriteSchema", "true")
    writer.saveAsTable(stored)
    version = tables.head(stored)
    assert version is not None
    if visible:
        verdict = {"table_name": table, "version": version, "verdict": "passed", "checked_at": dt.datetime.now(dt.UTC)}
        ops.append("ops.gate_results", [verdict])
        release([table], None)
    return version


def give_suites(patch: pytest.MonkeyPatch, folder: Path, like: dict[str, str]) -> None:
    """Give tables of predictions the suites that others have; without one no version becomes champion."""
    copied = folder / "expectations"
    shutil.copytree(suites.SUITES_DIR, copied)
    found = {table: suites.suite_path(other).read_text().replace(other, table) for table, other in like.items()}
    patch.setattr(suites, "SUITES_DIR", copied)
    for table, text in found.items():
        suites.suite_path(table).write_text(text)


def forget(model: str) -> None:
    """Have it that a model was never trained, measured or decided about: its registry is a new one."""
    for table in ("ops.models", "ops.model_events", "ops.model_metrics", "ops.retrain_decisions"):
        log = tables.delta(table)
        if log is not None:
            log.delete(f"model_name = '{model}'")
