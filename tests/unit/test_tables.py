from __future__ import annotations

import re
import struct
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyarrow import parquet
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


def test_a_page_with_a_flipped_bit_is_refused_and_not_read_as_another_value(tmp_path: Path) -> None:
    numbers = pa.table({"a": [1.5, 2.5, 3.5]})
    write_deltalake(str(tmp_path), numbers)
    log = DeltaTable(str(tmp_path))
    [file] = tmp_path.glob("*.parquet")
    # As the engine writes it, with checksums, and for once so that the bytes of a value can be found.
    parquet.write_table(numbers, file, compression="none", use_dictionary=False, write_page_checksum=True)
    assert tables.read(log, ["a"], [("a", ">", 2)]).to_pydict() == {"a": [2.5, 3.5]}
    content = file.read_bytes()
    file.write_bytes(content.replace(struct.pack("<d", 2.5), struct.pack("<d", 4.5), 1))
    flipped = log.to_pyarrow_table(filesystem=tables.filesystem(log))
    assert flipped["a"].to_pylist() == [1.5, 4.5, 3.5]
    with pytest.raises(tables.UnreadableError, match=r"(?s)Version 0 of .*checksum.*`lake verify`"):
        tables.read(log)
    file.unlink()
    with pytest.raises(tables.UnreadableError, match=file.name):
        tables.read(log)


@pytest.mark.parametrize(
    ("damaged", "said"), [(b"l`te_rate", "l`te_rate"), (b"late_seat", "late_seat"), (b"l\xe1te_rate", "decode")]
)
def test_a_column_whose_name_was_damaged_in_a_file_is_not_read_as_nulls(
    damaged: bytes, said: str, tmp_path: Path
) -> None:
    write_deltalake(tmp_path, pa.table({"late_seat": [1, 2], "late_rate": [0.5, 0.25]}))
    log = DeltaTable(tmp_path)
    [file] = tmp_path.glob("*.parquet")
    # A later column that the file does not have is none, and is null in it.
    more = pa.table({"late_seat": [3], "late_rate": [1.0], "new": [1]})
    write_deltalake(tmp_path, more, mode="append", schema_mode="merge")
    newer = DeltaTable(tmp_path)
    assert sorted(tables.read(newer).to_pydict()["new"], key=str) == [1, None, None]
    file.write_bytes(file.read_bytes().replace(b"late_rate", damaged))
    for columns in (["late_rate"], ["late_seat"]):
        with pytest.raises(tables.UnreadableError, match=f"(?s){said}.*`lake verify`"):
            tables.read(log, columns)
    assert tables.read(newer, None, [("late_seat", ">", 2)]).num_rows == 1


def test_nothing_reads_a_table_through_deltalakes_file_system() -> None:
    """It aborts the process now and then, when it ends: see ``tables.filesystem``."""
    calls = re.compile(r"\.(?:to_pyarrow_table|to_pyarrow_dataset|to_pandas)\(([^()]*(?:\([^()]*\)[^()]*)*)\)")
    found = [
        (path.name, match[0])
        for folder in ("lakehouse", "spark_jobs", "infra")
        for path in Path(folder).rglob("*.py")
        for match in calls.finditer(path.read_text())
        if path.name not in ("scoring.py", "release_log.py")  # rows that Arrow has already
    ]
    assert len(found) >= 6
    assert [call for call in found if "filesystem=" not in call[1]] == []


def test_a_file_that_is_cut_off_cannot_be_read_and_a_column_that_is_not_there_is_no_damage(tmp_path: Path) -> None:
    write_deltalake(tmp_path, pa.table({"seats": [1, 2, 3]}))
    log = DeltaTable(tmp_path)
    with pytest.raises(tables.UnknownColumnError, match=r"has no column seat\. Did you mean seats\?"):
        tables.read(log, ["seat"], None)
    with pytest.raises(tables.UnknownColumnError, match=r"has no column nothing_like_it\. It has: seats\."):
        tables.read(log, None, [("nothing_like_it", "=", 1)])
    [file] = tmp_path.glob("*.parquet")
    for whole in (file.read_bytes(), b""):
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(tables.UnreadableError, match=r"cannot be read as it was written.*`lake verify` names"):
            tables.read(log, ["seats"], None)
