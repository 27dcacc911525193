"""Schema drift: what each policy makes of each way in which a delivery can differ from its contract."""

from __future__ import annotations

import datetime as dt
import io
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml

from lakehouse import contracts, readers
from lakehouse.interval import Interval
from lakehouse.landing.batches import judge, parse
from lakehouse.quality import suites
from lakehouse.readers.batch import SourceError
from tests.spark.sources import BOUNDS, FIRST, UNIQUE, expect
from tests.spark.sources import new_source as new_source

DAY = "2020-01-05"
CASES = {path.stem: yaml.safe_load(path.read_text()) for path in Path("tests/cases/schema_drift").glob("*.yaml")}
PAGE = Path("docs/reference/schema-drift.md")


def content(case: dict[str, Any]) -> bytes:
    if "records" not in case:
        return str(case["content"]).encode()
    kinds = {"list<int32>": pa.list_(pa.int32()), "date32[day]": pa.date32()}
    schema = pa.schema([(name, kinds.get(type_) or pa.type_for_alias(type_)) for name, type_ in case["types"].items()])
    rows = [row | {"day": dt.datetime.fromisoformat(row["day"])} for row in case["records"]]
    file = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_pylist(rows, schema=schema), file)
    return file.getvalue()


@pytest.mark.parametrize("policy", ["reject", "ignore", "evolve"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_a_delivery_that_differs(new_source: Any, name: str, policy: str) -> None:
    case = CASES[name]
    source = new_source(f"drift_{name}", case.get("suffix", "csv"), policy)
    source.put(DAY, content(case))
    contract = contracts.load(source.name)
    if isinstance(case[policy], str):
        with pytest.raises(SourceError) as error:
            readers.read(contract, Interval.parse(DAY))
        assert error.value.code == case[policy]
        assert source.file(DAY).name in str(error.value)
        return
    batch = readers.read(contract, Interval.parse(DAY))
    rules = suites.load(f"bronze.{source.name}").row_rules() if name != "nested_value" else []
    judged = [row.asDict() for row in judge(parse(batch.rows, contract, batch.added), rules).collect()]
    good = [row for row in judged if not row["_reasons"]]
    plain = [{k: str(v) if isinstance(v, dt.date) else v for k, v in row.items() if k[0] != "_"} for row in good]
    assert sorted(plain, key=repr) == sorted(case[policy]["rows"], key=lambda row: repr({k: row[k] for k in plain[0]}))
    assert [row["_codes"] for row in judged if row["_reasons"]] == case[policy].get("bad", [])


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 18


@pytest.mark.parametrize("policy", ["reject", "ignore", "evolve"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_readers_see_what_the_contract_says_of_each(new_source: Any, suffix: str, policy: str) -> None:
    """All cases of a format that land, each as the delivery of its own day, in one landing."""
    landing = [
        case
        for _, case in sorted(CASES.items())
        if case.get("suffix", "csv") == suffix and isinstance(case[policy], dict)
    ]
    source = new_source(f"drift_all_{suffix}_{policy}", suffix, policy)
    source.rules(BOUNDS)
    source.contract(policy, empty=True)
    wanted = {}
    for place, case in enumerate(landing):
        day = FIRST + dt.timedelta(place)
        source.put(day.isoformat(), content(case))
        wanted[day] = case[policy]
    whole = f"{FIRST}/{max(wanted)}"
    outcome = source.land(whole)
    source.publish(whole)
    found: dict[dt.date, list[dict[str, Any]]] = {day: [] for day in wanted}
    for row in source.rows(table=f"bronze.{source.name}"):
        values = {k: str(v) if isinstance(v, dt.date) else v for k, v in row.items() if k[0] != "_"}
        found[row["_interval"]].append(values)
    for day, expected in wanted.items():
        columns = {name for row in found[day] for name in row}
        rows = [dict.fromkeys(columns) | row for row in expected["rows"]]  # other days have more columns
        assert sorted(found[day], key=lambda row: row["id"]) == sorted(rows, key=lambda row: row["id"]), day
    bad: dict[dt.date, list[list[str]]] = {day: [] for day in wanted}
    for row in source.bad("_interval, _codes"):
        bad[row["_interval"]].append(row["_codes"])
    assert bad == {day: expected.get("bad", []) for day, expected in wanted.items()}
    assert outcome["rows_quarantined"] == sum(map(len, bad.values()))


def test_a_column_that_evolves_reaches_readers_and_stays(new_source: Any) -> None:
    source = new_source("drift_stays", drift="evolve")
    source.put(DAY, "id,colour,person,amount,pieces,day\n1,blue,Ann,5,1,2020-01-05\n2,red,Bo,500,1,2020-01-05\n")
    source.land(DAY)
    source.publish(DAY)
    blue = expect("column_values_to_be_in_set", "warning", column="colour", value_set=["blue"])
    source.rules(UNIQUE, BOUNDS, blue)  # which the next delivery does not have
    source.put("2020-01-06", "id,person,amount,pieces,day\n3,Cy,5,1,2020-01-06\n")
    source.land("2020-01-06")
    source.publish("2020-01-06")
    released = f"bronze.{source.name}"
    assert source.rows("id, colour", released) == [{"id": 1, "colour": "blue"}, {"id": 3, "colour": None}]
    source.rules()
    source.rules({"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "id"}})
    assert source.replay(DAY)["rows_replayed"] == 1
    source.publish(DAY)
    assert source.rows("id, colour", released)[1] == {"id": 2, "colour": "red"}


def test_the_documentation_has_every_class_and_what_becomes_of_it() -> None:
    rows = {
        cells[0].strip().strip("`"): [re.sub(r"[`\s]", "", cell) for cell in cells[2:5]]
        for line in PAGE.read_text().splitlines()
        if line.startswith("| `")
        for cells in [line.strip("|").split("|")]
    }
    for name, case in CASES.items():
        for policy, said in zip(("reject", "ignore", "evolve"), rows[name], strict=True):
            outcome = case[policy]
            if isinstance(outcome, str):
                assert said == outcome, (name, policy)
            else:
                assert said == ("row:" + outcome["bad"][0][0] if outcome.get("bad") else "lands"), (name, policy)
