"""R8, a MERGE of 1 % into a table, against delta-rs doing the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
from deltalake import DeltaTable, write_deltalake

from benchmarks import data
from benchmarks.comparators import merge as comparator
from benchmarks.harness import Goal, Result, Side, compare
from benchmarks.platform import engine
from benchmarks.sizes import rows_of

SIZE, QUICK_SIZE = "10M", "100k"
GOAL = Goal(0.3)
KEY = ["l_orderkey", "l_linenumber"]
ROWS_PER_SCALE = 6_000_000


def run(size: str, pairs: int) -> list[Result]:
    """Time both sides in turn.

    Args:
        size: Rows of the table, such as ``10M``.
        pairs: How often each side is timed.
    """
    with engine() as home:
        return [measure(size, pairs, home)]


def measure(size: str, pairs: int, home: Path) -> Result:
    """Time both sides in turn, on the engine that is there.

    Args:
        size: Rows of the table, such as ``10M``.
        pairs: How often each side is timed.
        home: A folder for the tables.
    """
    from lakehouse.engine import sql

    rows = rows_of(size)
    lines = data.tpch("lineitem", rows * 1.02 / ROWS_PER_SCALE, home)
    changes = home / "changes.parquet"
    folders = {name: home / "merge" / name for name in ("engine", "delta-rs")}
    with duckdb.connect() as connection:
        # New rows are the last ones, and changed ones lie all over the table: nine of ten changes.
        connection.execute(f"create table lines as select *, row_number() over () as n from '{lines}' limit {rows}")
        last = rows - rows // 1000
        connection.execute(
            "copy (select * exclude (n) replace (l_quantity + 1 as l_quantity) from lines "
            f"where hash(l_orderkey, l_linenumber) % 1000 < 9 or n > {last}) to '{changes}' (format parquet)"
        )
        base = connection.sql(f"select * exclude (n) from lines where n <= {last} order by n")
        write_deltalake(folders["engine"], base.to_arrow_reader(100_000))
    shutil.copytree(folders["engine"], folders["delta-rs"])
    sql("create schema if not exists gold_next").collect()
    sql(f"create table gold_next.lines using delta location '{folders['engine']}'").collect()
    sql(f"create or replace temporary view changes as select * from parquet.`{changes}`").collect()
    condition = " and ".join(f"t.{name} = s.{name}" for name in KEY)

    def merge() -> None:
        sql(
            f"merge into gold_next.lines t using changes s on {condition} "
            "when matched then update set * when not matched then insert *"
        ).collect()

    def back(name: str) -> None:
        table = DeltaTable(folders[name])
        if table.version():
            table.restore(0)

    result = Result(
        "R8",
        "MERGE of 1 % ÷ delta-rs doing the same",
        size,
        GOAL,
        ("MERGE on the engine", "delta-rs"),
        notes=("Lines of TPC-H orders. The changed rows lie all over the table; a tenth of the 1 % is new.",),
    )
    ours = Side("MERGE on the engine", merge, lambda: data.digest(folders["engine"]), lambda: back("engine"))
    theirs = Side(
        "delta-rs",
        lambda: comparator.merge(folders["delta-rs"], changes, KEY),
        lambda: data.digest(folders["delta-rs"]),
        lambda: back("delta-rs"),
    )
    return compare(result, ours, theirs, pairs)
