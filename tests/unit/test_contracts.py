"""Contracts: what a good one says, and that a wrong one is refused by file, line, field and way out."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from open_data_contract_standard.model import OpenDataContractStandard

from lakehouse import contracts
from lakehouse.contracts import Contract, ContractError
from lakehouse.contracts.for_dbt import dbt_sources
from lakehouse.interval import Interval

CASE = (Path(__file__).parents[1] / "cases" / "contracts" / "parcels.yaml").read_text()
DATABASE = """\
servers:
  - server: shop
    type: postgresql
    host: ${PARCELS_HOST}
    port: 5432
    database: shop
    schema: public
    customProperties:
      - property: username
        value: reader
      - property: password
        value: ${PARCELS_PASSWORD}
"""
FILES = CASE[CASE.index("servers:") : CASE.index("schema:\n")]
IN_DATABASE = CASE.replace(FILES, DATABASE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for contracts, next to one with the suite of ``parcels``."""
    suites = tmp_path / "suites"
    suites.mkdir()
    (suites / "parcels.json").write_text("{}")
    monkeypatch.setattr(contracts, "SUITES_DIR", suites)
    return tmp_path


def read(folder: Path, text: str, name: str = "parcels.yaml") -> Contract:
    path = folder / name
    path.write_text(text)
    return contracts.read(path)


def replaced(old: str, new: str, text: str = CASE) -> str:
    assert old in text, old
    return text.replace(old, new, 1)


def test_a_contract_says_what_the_document_says(folder: Path) -> None:
    contract = read(folder, CASE)
    assert (contract.name, contract.table, contract.owner) == ("parcels", "bronze.parcels", "logistics")
    assert contract.keys == ("parcel_id", "depot")
    assert {column.name: column.spark_type for column in contract.columns} == {
        "depot": "STRING", "parcel_id": "BIGINT", "weight_kg": "DOUBLE", "postage_eur": "DECIMAL(10,2)",
        "sender": "STRING", "handed_in_at": "TIMESTAMP",
    }  # fmt: skip
    columns = {column.name: column for column in contract.columns}
    assert columns["handed_in_at"].format == "dd.MM.yyyy HH:mm"
    assert columns["parcel_id"].format is None
    assert [name for name, column in columns.items() if column.pii] == ["sender"]
    assert columns["postage_eur"].classification == "confidential"
    assert [name for name, column in columns.items() if column.required] == ["depot", "parcel_id", "handed_in_at"]
    assert (contract.lag_days, contract.cron, contract.retention_days) == (2, "30 5 * * *", 14)
    assert (contract.wait, contract.poke) == (dt.timedelta(minutes=5), dt.timedelta(seconds=10))
    assert (contract.load, contract.warehouse_trigger, contract.allow_empty) == ("full", "none", False)


def test_a_day_has_its_file(folder: Path) -> None:
    contract = read(folder, CASE)
    days = Interval(dt.date(2020, 2, 29), dt.date(2020, 3, 1))
    assert contract.locations(days, "s3://lake/drop/") == {
        dt.date(2020, 2, 29): "s3://lake/drop/parcels/parcels_2020-02-29.csv",
        dt.date(2020, 3, 1): "s3://lake/drop/parcels/parcels_2020-03-01.csv",
    }
    assert contract.arrival(dt.date(2020, 12, 31)) == dt.date(2021, 1, 2)
    with pytest.raises(ContractError, match="not from a database"):
        contract.connection()


@pytest.mark.parametrize("day", [dt.date(2020, 1, 1), dt.date(2020, 12, 31)])
def test_days_of_the_history_are_good(folder: Path, day: dt.date) -> None:
    read(folder, CASE).check_days(Interval(day, day))


@pytest.mark.parametrize("day", [dt.date(2019, 12, 31), dt.date(2021, 1, 1)])
def test_days_outside_of_the_history_are_refused(folder: Path, day: dt.date) -> None:
    with pytest.raises(ContractError, match=rf"no data about {day}: its history goes from 2020-01-01 to 2020-12-31"):
        read(folder, CASE).check_days(Interval(day, day))


def test_a_database_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watermark = (
        "customProperties:\n  - property: load\n    value: incremental\n"
        "  - property: watermark\n    value: handed_in_at\n"
        "  - property: delivery"
    )
    text = replaced("customProperties:\n  - property: delivery", watermark, IN_DATABASE)
    contract = read(
        folder, replaced("  - name: parcels\n", "  - name: parcels\n    physicalName: shop_parcels\n", text)
    )
    assert (contract.format, contract.server.table) == ("jdbc", "public.shop_parcels")
    assert (contract.load, contract.watermark) == ("incremental", "handed_in_at")
    with pytest.raises(ContractError, match=r"servers\[0\].host: the environment variable PARCELS_HOST is not set"):
        contract.connection()
    monkeypatch.setenv("PARCELS_HOST", "db.example.com")
    monkeypatch.setenv("PARCELS_PASSWORD", "p@ss/word")
    connection = contract.connection()
    assert connection.jdbc_url == "jdbc:postgresql://db.example.com:5432/shop"
    assert connection.url == "postgresql://reader:p%40ss%2Fword@db.example.com:5432/shop"
    with pytest.raises(ContractError, match="has no files"):
        contract.location(dt.date(2020, 1, 1), "drop")


WRONG = {
    "not YAML": (replaced("kind: DataContract", "kind: [DataContract"), "line 3: not YAML"),
    "empty": ("", "line 1: the document is empty"),
    "unknown field": (replaced("kind: ", "knid: "), "knid is not a field of .* Did you mean kind"),
    "unknown field inside": (
        replaced("description: Weight", "descripton: Weight"),
        r"line 38: schema\[0\].properties\[2\].descripton is not a field .* Did you mean description",
    ),
    "field twice": (
        replaced("kind: DataContract", "kind: DataContract\nkind: X"),
        "line 3: kind is there twice, first on line 2",
    ),
    "wrong type of a field": (replaced("version: 1.0.0", "version: 1.0"), "line 5: version .*valid string.*1.0"),
    "wrong kind": (replaced("DataContract", "Contract"), "line 2: kind is 'Contract'"),
    "old version": (replaced("v3.1.0", "v2.2.2"), "line 1: apiVersion is 'v2.2.2'"),
    "other name than the file": (replaced("name: parcels", "name: parcel"), "line 4: name is 'parcel'.*parcels"),
    "no owner": (replaced("  name: logistics", "  description: us"), "line 8: team.name is missing. Name the team"),
    "no description": (replaced("  purpose: Parcels", "  usage: Parcels"), "line 6: description.purpose is missing"),
    "column without description": (
        replaced("        description: Weight, in kilograms.\n", ""),
        r"line 35: schema\[0\].properties\[2\].description is missing. Say what weight_kg means",
    ),
    "column without classification": (
        replaced("        classification: restricted\n", ""),
        "classification of sender is None. Set it to one of: public",
    ),
    "unknown type": (
        replaced("logicalType: number", "logicalType: float"),
        r"line 36: schema\[0\].properties\[2\].logicalType is 'float'. Set it to one of: string",
    ),
    "unknown width": (replaced("format: i64", "format: u64"), "line 29: .*format is 'u64'. Set it to one of: i8"),
    "decimal of text": (
        replaced("logicalType: number\n        physicalType", "logicalType: string\n        physicalType"),
        "physicalType is a decimal, but logicalType is string",
    ),
    "a rule in the contract": (
        replaced("format: i64", "minimum: 1"),
        "logicalTypeOptions.minimum is a rule about values: write it as an expectation",
    ),
    "column twice": (replaced("name: sender", "name: depot"), "name depot is there twice"),
    "bad column name": (replaced("name: sender", "name: _interval"), "name is '_interval'. Use lower-case"),
    "key not required": (replaced("        required: true\n", ""), "required of depot must be true"),
    "key positions": (replaced("primaryKeyPosition: 2", "primaryKeyPosition: 3"), r"key positions \[1, 3\]"),
    "unknown server": (replaced("type: local", "type: kafka"), "line 12: .*type is 'kafka'. Set it to one of: local"),
    "unknown format": (replaced("format: csv", "format: xlsx"), "line 13: .*format is 'xlsx'"),
    "a way out of the drop folder": (
        replaced("_{interval}", "/../../secrets_{interval}"),
        r"^\[outside_drop\] .*line 14: servers\[0\].path .*Write it without '\.\.'",
    ),
    "no place for the day": (replaced("_{interval}", ""), r"line 14: servers\[0\].path .*placeholder {interval}"),
    "unknown placeholder": (replaced("{drop}", "{folder}"), "and no other"),
    "password in clear": (
        replaced("${PARCELS_PASSWORD}", "secret", IN_DATABASE),
        "line 20: .*password must not be written",
    ),
    "no host": (replaced("    host: ${PARCELS_HOST}\n", "", IN_DATABASE), "host is missing"),
    "no latency": (replaced("property: latency", "property: retention"), "retention is there twice"),
    "unknown service level": (replaced("property: latency", "property: uptime"), "'uptime'. The platform keeps"),
    "latency in hours": (replaced("    unit: d", "    unit: h"), "unit of latency is 'h'"),
    "not daily": (replaced("value: 1\n", "value: 7\n"), "frequency must be one day"),
    "bad cron": (replaced("30 5 * * *", "daily"), "line 64: .*schedule of frequency is 'daily'"),
    "unknown property": (
        replaced("property: waitMinutes", "property: waitMinute"),
        r"line 75: customProperties\[3\].property waitMinute is not known to the platform. Did you mean waitMinutes",
    ),
    "unknown delivery": (replaced("value: daily", "value: hourly"), "delivery is 'hourly'. Set it to one of: daily"),
    "no history": (replaced("  - property: historyStart\n    value: 2020-01-01\n", ""), "has no historyStart"),
    "another way to write a day": (
        replaced("2020-12-31", "20201231"),
        "historyEnd is 20201231. Write a day as 2013-12-31",
    ),
    "history ends first": (replaced("2020-12-31", "2019-12-31"), "2019-12-31 is before historyStart"),
    "day that does not exist": (
        replaced("2020-12-31", "2020-02-30"),
        "line 73: .*historyEnd is '2020-02-30'. Write a day as",
    ),
    "no time to wait": (replaced("value: 5\n", "value: soon\n"), "waitMinutes is 'soon'. Write a whole number"),
    "incremental files": (
        CASE + "  - property: load\n    value: incremental\n",
        "load incremental is for database tables",
    ),
    "incremental without watermark": (
        IN_DATABASE + "  - property: load\n    value: incremental\n  - property: watermark\n    value: depot\n",
        "watermark is 'depot'. Name a column of type date or timestamp",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_contract_is_refused(folder: Path, case: str) -> None:
    text, message = WRONG[case]
    with pytest.raises(ContractError, match=message) as refusal:
        read(folder, text)
    assert "parcels.yaml, line " in str(refusal.value)


def test_a_contract_without_suite_is_refused(folder: Path) -> None:
    (contracts.SUITES_DIR / "parcels.json").unlink()
    with pytest.raises(ContractError, match=r"parcels has no expectations. Write its suite as .*parcels\.json"):
        read(folder, CASE)


def test_the_sources_of_the_platform() -> None:
    assert contracts.sources() == [
        "airlines",
        "airports",
        "flight_actuals",
        "flight_schedule",
        "planes",
        "weather",
    ]
    for name in contracts.sources():
        assert contracts.load(name).name == name
        assert contracts.load(name) is contracts.load(name)


def test_an_unknown_source_suggests_a_near_one() -> None:
    with pytest.raises(ContractError, match=r"Unknown source 'wether'. Did you mean weather\?"):
        contracts.load("wether")


@pytest.mark.parametrize("path", sorted(contracts.SOURCES_DIR.glob("*.yaml")), ids=lambda path: path.stem)
def test_contracts_are_valid_by_the_standards_own_schema(path: Path) -> None:
    schema = json.loads(OpenDataContractStandard.json_schema())
    document = json.loads(json.dumps(yaml.safe_load(path.read_text()), default=str))
    jsonschema.validators.validator_for(schema)(schema).validate(document)


def test_dbt_sources_follow_from_the_contracts() -> None:
    [source] = dbt_sources()["sources"]
    assert (source["name"], source["schema"]) == ("bronze", "bronze")
    tables = {table["name"]: {column["name"]: column for column in table["columns"]} for table in source["tables"]}
    assert list(tables) == contracts.sources()
    schedule = tables["flight_schedule"]
    assert schedule["carrier"]["data_tests"] == ["not_null"]
    assert "data_tests" not in schedule["tail_number"]
    assert schedule["distance_miles"]["data_type"] == "int"
    assert list(schedule)[-3:] == ["_interval", "_source_file", "_source_row"]
    assert all(column["description"] for table in tables.values() for column in table.values())


def test_a_wrong_contract_is_in_the_way_of_its_source_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dbt_sources()
    for path in contracts.SOURCES_DIR.glob("*.yaml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "planes.yaml").write_text("apiVersion: v3.1.0\nkind: DataContract\nname: plans\n")
    (tmp_path / "weather.yaml").write_text("[")
    monkeypatch.setattr(contracts, "SOURCES_DIR", tmp_path)
    contracts.load.cache_clear()
    try:
        assert [each.name for each in contracts.readable()] == [
            "airlines",
            "airports",
            "flight_actuals",
            "flight_schedule",
        ]
        assert list(contracts.problems()) == ["planes", "weather"]
        assert "planes.yaml, line 3: name is 'plans'" in str(contracts.problems()["planes"])
        assert dbt_sources(before) == before
        assert {table["name"] for table in dbt_sources()["sources"][0]["tables"]}.isdisjoint(contracts.problems())
    finally:
        contracts.load.cache_clear()
