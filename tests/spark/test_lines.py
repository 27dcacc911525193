"""Files that are read line by line have the records that Spark's reader of CSV finds in them, numbered alike."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.errors import PySparkException

from lakehouse.engine import spark
from lakehouse.readers import csv, files

DAY = dt.date(2020, 1, 1)
NAMES = ("a", "b")
PIECES = ["a", "é", "7", " ", "\t", "\x0b", "\x85", "\u2028", "'", "\\", "#", "-"]
QUOTED = [*PIECES, ",", '""']
ENDS = ["\n", "\n", "\n", "\r\n", "\n\n", "\n,\n"]
OPTIONS = {"spark.sql.files.maxPartitionBytes": "200b", "spark.sql.files.openCostInBytes": "10b"}


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files that Spark reads in many blocks, several of them in one task."""
    monkeypatch.setattr(files, "LARGE_FILE", 0)
    before = {name: spark().conf.get(name) for name in OPTIONS}
    for name, value in OPTIONS.items():
        spark().conf.set(name, value)
    yield
    for name, value in before.items():
        spark().conf.set(name, str(value))


def written(folder: Path, texts: list[str]) -> dict[str, dt.date]:
    paths = [folder / f"{number}.csv" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text.encode())
    return {str(path): DAY + dt.timedelta(number) for number, path in enumerate(paths)}


def made_up(seed: int, records: int) -> str:
    draw = random.Random(seed)

    def field() -> str:
        if draw.random() < 0.3:
            return f'"{"".join(draw.choices(QUOTED, k=draw.randint(0, 4)))}"'
        return "".join(draw.choices(PIECES, k=draw.randint(0, 3)))

    # Two fields or more: that reader writes a record of one anew.
    lines = [",".join(field() for _ in range(draw.choice([2, 2, 2, 3]))) for _ in range(records)]
    return "\ufeffa,b\n" + "".join(line + draw.choice(ENDS) for line in lines)


def test_a_line_is_what_the_reader_of_csv_takes_for_a_record(blocks: None, tmp_path: Path) -> None:
    paths = written(tmp_path, [made_up(seed, 400) for seed in range(3)])
    assert all(files.check_text(path, "UTF-8", quoted=True) for path in paths)

    columns = ["_source_file", "_source_row", "_interval", "_raw"]
    by_line, by_record = (
        sorted(map(tuple, read.select(columns).collect()))
        for read in (csv._lines(NAMES, paths), csv._records(NAMES, paths, "UTF-8"))
    )
    assert len(by_record) > 1200
    assert by_line == by_record


def test_an_empty_line_is_no_record_however_it_ends(tmp_path: Path) -> None:
    paths = written(tmp_path, ["a,b\r\n1,2\r\n\r\n3,4\r\n\r\n"])
    for read in (csv._lines(NAMES, paths), csv._records(NAMES, paths, "UTF-8")):
        assert sorted(map(tuple, read.select("_source_row", "_raw").collect())) == [(1, "1,2"), (2, "3,4")]


def test_lines_of_a_block_that_was_not_counted_are_not_lost(
    blocks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = written(tmp_path, [made_up(0, 100)])
    monkeypatch.setattr(files, "sorted", lambda rows: sorted(rows)[1:], raising=False)
    with pytest.raises(PySparkException, match="other blocks than those"):
        csv._lines(NAMES, paths).collect()


@pytest.mark.parametrize("blank", [True, False])
def test_lines_of_many_blocks_are_numbered_as_they_stand(blocks: None, blank: bool, tmp_path: Path) -> None:
    texts = ["".join(f"{row}\n" if row % 7 else "\r\n" for row in range(1, rows + 1)) for rows in (1000, 10, 300)]
    local = list(written(tmp_path, texts))
    found = files.lines(local, blank=blank).select("_path", "_number", "_line").collect()
    assert spark().read.text(local).selectExpr("count(distinct _metadata.file_block_start)").collect()[0][0] > 10
    for path, text in zip(local, texts, strict=True):
        mine = sorted((row["_number"], row["_line"].rstrip("\r")) for row in found if row["_path"].endswith(path))
        kept = [line for line in text.splitlines() if blank or line]
        assert mine == list(enumerate(kept, start=1))


def test_whether_each_line_is_a_record(tmp_path: Path) -> None:
    texts = ['a,b\n1,"2"\n', 'a,b\n1,"2\n3"\n', 'a,b\n1,"2', 'a,b\n1,"2\r3"\n']
    paths = written(tmp_path, texts)
    assert [files.check_text(path, "UTF-8", quoted=True) for path in paths] == [True, False, False, True]
