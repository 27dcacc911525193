from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyarrow.fs import SubTreeFileSystem

from lakehouse import tables


def test_gated_layers_are_stored_beside_what_readers_see() -> None:
    assert tables.next_table("bronze.weather") == "bronze_next.weather"
    assert tables.next_table("ops.runs") == "ops.runs"
    assert tables.next_table("quarantine.weather") == "quarantine.weather"


@pytest.mark.parametrize("name", ["weather", "a.b.c", "bronze.", ".weather", "bronze.we ather", "bronze.x; drop"])
def test_a_name_that_is_no_table_is_refused(name: str) -> None:
    with pytest.raises(tables.InvalidTableNameError, match=r"layer\.table"):
        tables.split(name)


def test_a_table_on_a_disk_is_read_by_pyarrow_itself(tmp_path: Path) -> None:
    folder = tmp_path / "50 % of ä"
    write_deltalake(str(folder), pa.table({"a": [1, 2]}))
    write_deltalake(str(folder), pa.table({"a": [3]}), mode="append")
    log = DeltaTable(str(folder))
    filesystem = tables.filesystem(log)
    assert isinstance(filesystem, SubTreeFileSystem)
    assert sorted(log.to_pyarrow_table(filesystem=filesystem)["a"].to_pylist()) == [1, 2, 3]


def test_nothing_reads_a_table_through_deltalakes_file_system() -> None:
    """It aborts the process now and then, when it ends: see ``tables.filesystem``."""
    calls = re.compile(r"\.(?:to_pyarrow_table|to_pyarrow_dataset|to_pandas)\(([^()]*(?:\([^()]*\)[^()]*)*)\)")
    found = [
        (path.name, match[0])
        for folder in ("lakehouse", "spark_jobs", "infra")
        for path in Path(folder).rglob("*.py")
        for match in calls.finditer(path.read_text())
        if path.name != "scoring.py"  # batches of Arrow, not tables
    ]
    assert len(found) >= 6
    assert [call for call in found if "filesystem=" not in call[1]] == []
