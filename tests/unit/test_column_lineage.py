"""Column lineage of the reference project, against a table that was written by reading the SQL."""

from __future__ import annotations

import csv
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lakehouse import dbt_project, ops
from lakehouse.cli import command_line
from lakehouse.lineage import column_lineage
from lakehouse.lineage.column_lineage import (
    Edge,
    LineageError,
    Project,
    UnknownColumnError,
    downstream,
    edges_of_query,
    upstream,
)
from lakehouse.ml import model_folders

CASES = Path(__file__).parents[1] / "cases" / "column_lineage.csv"
MERGE = CASES.with_name("column_lineage_merge.csv")

# Columns that no source column goes into, and why.
WITHOUT_SOURCE = {
    "gold.daily_delays_by_airport.flights": "counts rows",
    "gold.daily_delays_by_carrier.flights": "counts rows",
    "gold.daily_delays_by_route.flights": "counts rows",
    "gold.on_time_league.flights": "adds up counted rows",
    "silver.stg_planes.snapshot_date": "the interval, which landing writes",
    "gold.dim_planes.valid_from": "made of the interval, which landing writes",
    "gold.dim_planes.valid_to": "made of the interval, which landing writes",
    "gold.dim_planes.is_current": "made of the interval, which landing writes",
    "ml.predictions_flight_delay.model_name": "written by the scoring step",
    "ml.predictions_flight_delay_minutes.model_name": "written by the scoring step",
    "ml.predictions_flight_delay.model_version": "written by the scoring step",
    "ml.predictions_flight_delay_minutes.model_version": "written by the scoring step",
    "ml.predictions_flight_delay.role": "written by the scoring step",
    "ml.predictions_flight_delay_minutes.role": "written by the scoring step",
    "ml.predictions_flight_delay.run_id": "written by the scoring step",
    "ml.predictions_flight_delay_minutes.run_id": "written by the scoring step",
    "ml.predictions_flight_delay.release_id": "written by the scoring step",
    "ml.predictions_flight_delay_minutes.release_id": "written by the scoring step",
    "ml.predictions_flight_delay.scored_at": "written by the scoring step",
    "ml.predictions_flight_delay_minutes.scored_at": "written by the scoring step",
}


def expected(cases: Path = CASES) -> tuple[set[Edge], set[tuple[str, str]]]:
    """The edges written by hand, and the columns of which they are all edges."""
    rows = list(csv.DictReader(cases.open()))
    edges = {
        Edge(*(row[name] for name in ("table", "column", "source_table", "source_column", "kind", "transformation")))  # type: ignore[arg-type]
        for row in rows
        if row["source_table"]
    }
    assert len(edges) == sum(1 for row in rows if row["source_table"]), "a row is there twice"
    return edges, {(row["table"], row["column"]) for row in rows}


def test_precision_and_recall_on_the_edges_written_by_hand_are_one() -> None:
    wanted, covered = expected()
    assert len(wanted) >= 60
    compare({edge for edge in column_lineage.edges() if (edge.table, edge.column) in covered}, wanted)


def test_precision_and_recall_on_a_merge_are_one() -> None:
    wanted, _ = expected(MERGE)
    (analysis,) = dbt_project.compiled("merge_carriers")
    known = column_lineage.columns() | {"mine.carriers": tuple(dict.fromkeys(edge.column for edge in wanted))}
    compare(set(edges_of_query(analysis.compiled_code, "mine.carriers", known)), wanted)


def compare(found: set[Edge], wanted: set[Edge]) -> None:
    assert sorted(found - wanted) == [], "edges that the SQL does not have"
    assert sorted(wanted - found) == [], "edges that were not found"
    precision, recall = len(wanted & found) / len(found), len(wanted & found) / len(wanted)
    assert (precision, recall) == (1.0, 1.0)


def test_every_column_leads_to_a_source_or_is_known_to_have_none() -> None:
    sources = _origins()
    without = {
        f"{table}.{column}"
        for table, names in column_lineage.columns().items()
        if table.partition(".")[0] not in ("source", "bronze")
        for column in names
        if not any(origin.startswith("source.") for origin in sources[table, column])
    }
    assert without == set(WITHOUT_SOURCE)


def test_the_columns_of_every_model_are_those_that_its_properties_name() -> None:
    manifest = json.loads(dbt_project.ensure_manifest().read_text())
    known = column_lineage.columns()
    models = [node for node in manifest["nodes"].values() if node["resource_type"] == "model"]
    assert models
    for node in models:
        table = f"{node['schema'].removesuffix('_next')}.{node['alias']}"
        assert set(known[table]) == set(node["columns"]), table


def test_every_edge_is_between_columns_that_there_are() -> None:
    known = column_lineage.columns()
    for edge in column_lineage.edges():
        assert edge.column in known[edge.table], edge
        assert edge.source_column in known[edge.source_table], edge
    for condition in column_lineage.conditions():
        assert condition.source_column in known[condition.source_table], condition


def test_conditions_are_the_filters_joins_and_groups_of_the_whole_query() -> None:
    found = defaultdict(set)
    for each in column_lineage.conditions():
        found[each.table].add(f"{each.transformation} {each.source_table}.{each.source_column}")
    assert found["gold.daily_delays_by_carrier"] == {
        "FILTER gold.fct_flights.is_reported",
        "FILTER gold.fct_flights.flight_date",
        "GROUP_BY gold.fct_flights.flight_date",
        "GROUP_BY gold.fct_flights.carrier",
    }
    assert found["gold.on_time_league"] == {
        "GROUP_BY gold.daily_delays_by_carrier.flight_date",
        "GROUP_BY gold.daily_delays_by_carrier.carrier",
        "JOIN gold.daily_delays_by_carrier.carrier",
        "JOIN silver.stg_airlines.carrier",
    }
    assert found["silver.stg_airlines"] == {"FILTER bronze.airlines._interval"}
    assert "silver.stg_weather" not in found


def test_a_score_leads_back_to_the_files_of_every_source_that_it_is_made_from() -> None:
    columns = {f"{edge.source_table}.{edge.source_column}" for edge in upstream("ml.predictions_flight_delay.score")}
    assert {
        "source.weather.temperature_f",
        "source.planes.year_built",
        "source.flight_actuals.arrival_delay_minutes",
        "source.flight_schedule.distance_miles",
    } <= columns
    assert not {name for name in columns if name.startswith(("source.airlines", "source.airports"))}
    # Not an input of the model, though it is among the features.
    assert "source.weather.humidity_percent" not in columns


def test_a_source_column_leads_on_to_the_prediction() -> None:
    made = {f"{edge.table}.{edge.column}" for edge in downstream("source.weather.temperature_f")}
    assert made == {
        "bronze.weather.temperature_f",
        "silver.stg_weather.temperature_f",
        "gold.fct_flights.temperature_f",
        "gold.flight_delay_features.weather_temperature_f",
        "models.flight_delay.weather_temperature_f",
        "models.flight_delay.score",
        "ml.predictions_flight_delay.score",
        "ml.predictions_flight_delay.decision",
    }


def test_with_conditions_a_filter_reaches_every_column() -> None:
    plain = {f"{e.table}.{e.column}" for e in downstream("gold.fct_flights.is_reported")}
    wide = {f"{e.table}.{e.column}" for e in downstream("gold.fct_flights.is_reported", with_conditions=True)}
    assert plain == set()
    assert {"gold.daily_delays_by_route.flights", "gold.on_time_league.cancellation_rate"} <= wide


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gold.fct_flihts", "no table gold.fct_flihts. Did you mean gold.fct_flights?"),
        ("fct_flights", "no table fct_flights. Did you mean gold.fct_flights?"),
        ("gold.fct_flights.is_lat", "gold.fct_flights has no column is_lat. Did you mean is_late"),
        ("gold.on_time_league.zzz", "gold.on_time_league has no column zzz. It has: month, carrier"),
        ("zzz", "no table zzz. There are: "),
    ],
)
def test_an_unknown_name_gets_those_that_are_close(name: str, message: str) -> None:
    with pytest.raises(UnknownColumnError) as error:
        upstream(name)
    assert message in str(error.value)


@pytest.fixture
def fresh_table() -> Iterator[None]:
    _forget()
    yield
    _forget()


@pytest.mark.usefixtures("fresh_table")
def test_lineage_is_recorded_only_when_it_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert column_lineage.record() is True
    assert column_lineage.record() is False
    project = column_lineage._project()
    rows = ops.read("ops.lineage_columns").to_pylist()
    assert len(rows) == len(project.edges) + len(project.conditions)
    assert {
        "table_name": "ml.predictions_flight_delay",
        "column_name": "decision",
        "source_table": "models.flight_delay",
        "source_column": "score",
        "kind": "direct",
        "transformation": "TRANSFORMATION",
    }.items() <= next(row for row in rows if row["column_name"] == "decision").items()
    # What decides about the rows of a table belongs to none of its columns.
    assert {row["transformation"] for row in rows if row["column_name"] is None} == {"FILTER", "JOIN", "GROUP_BY"}

    changed = Project(project.columns, project.edges[1:], project.conditions)
    monkeypatch.setattr(column_lineage, "_project", lambda: changed)
    assert column_lineage.record() is True
    assert column_lineage.record() is False
    monkeypatch.undo()
    # Back to what it was before: that is a change too.
    assert column_lineage.record() is True
    assert len({row["recorded_at"] for row in ops.read("ops.lineage_columns").to_pylist()}) == 3


def test_what_is_kept_is_read_without_dbt(monkeypatch: pytest.MonkeyPatch) -> None:
    column_lineage._kept.cache_clear()  # another test may have left the lineage of another project in the folder
    before = column_lineage._project()
    column_lineage._kept.cache_clear()
    monkeypatch.setattr(dbt_project, "compiled_models", _must_not_run)
    assert column_lineage._project() == before


def test_a_changed_model_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def compiled() -> list[dbt_project.CompiledModel]:
        asked.append("dbt")
        return [
            dbt_project.CompiledModel(
                "gold.flight_delay_features", "models/x.sql", "select carrier from bronze.nowhere"
            )
        ]

    column_lineage._project()
    monkeypatch.setattr(dbt_project, "project_digest", lambda: "another")
    monkeypatch.setattr(dbt_project, "compiled_models", compiled)
    with pytest.raises(
        LineageError, match=r"dbt/models/x\.sql.*gold\.flight_delay_features: line 1, column \d+: .*bronze"
    ):
        column_lineage._project()
    assert asked == ["dbt"]


def test_a_model_may_read_a_table_that_is_made_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    _read_features_of(monkeypatch, "gold.made_elsewhere")
    origins = {edge.source_table for edge in upstream("ml.predictions_flight_delay")}
    assert origins == {"gold.made_elsewhere", "models.flight_delay"}
    assert "plane_seats" in column_lineage.columns()["gold.made_elsewhere"]


def test_a_model_that_reads_a_column_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    _read_features_of(monkeypatch, "gold.dim_planes")
    with pytest.raises(
        LineageError, match=r"models/flight_delay/model\.yaml: features: gold\.dim_planes has no column carrier"
    ):
        column_lineage.edges()


def _read_features_of(monkeypatch: pytest.MonkeyPatch, table: str) -> None:
    spec = model_folders.load("flight_delay")
    other = spec.model_copy(update={"features": spec.features.model_copy(update={"table": table})})
    monkeypatch.setattr(model_folders, "load", lambda _name: other)


def test_the_command_prints_a_tree_of_columns_or_of_tables() -> None:
    shown = _lake("lineage", "gold.on_time_league.carrier_name")
    assert [line.strip("│├└─ ") for line in shown.splitlines()] == [
        "gold.on_time_league.carrier_name",
        "made from",
        "silver.stg_airlines.carrier_name IDENTITY",
        "bronze.airlines.name IDENTITY",
        "source.airlines.name IDENTITY",
        "its rows decided by",
        "gold.daily_delays_by_carrier: carrier, flight_date GROUP_BY",
        "gold.daily_delays_by_carrier: carrier JOIN",
        "silver.stg_airlines: carrier JOIN",
        "goes into",
        "nothing",
    ]
    shown = _lake("lineage", "source.planes", "--down")
    assert [line.strip("│├└─ ") for line in shown.splitlines()] == [
        "source.planes",
        "goes into",
        "bronze.planes",
        "silver.stg_planes",
        "gold.dim_planes",
        "gold.flight_delay_features",
        "ml.predictions_flight_delay",
        "ml.predictions_flight_delay_minutes",
        "models.flight_delay",
        "ml.predictions_flight_delay",
        "models.flight_delay_minutes",
        "ml.predictions_flight_delay_minutes",
    ]
    # What is reached twice is followed once.
    shown = _lake("lineage", "ml.predictions_flight_delay", "--up")
    assert shown.count("gold.flight_delay_features") == 2
    assert shown.count("gold.flight_delay_features (as above)") == 1
    assert shown.rstrip().endswith("gold.fct_flights.is_late label of models.flight_delay")
    assert "no column: it counts rows" in _lake("lineage", "gold.daily_delays_by_carrier.flights", "--up")
    assert "nothing here: it is what the upstream delivers" in _lake("lineage", "source.planes", "--up")


def test_a_column_that_only_decides_about_rows_is_not_said_to_go_nowhere() -> None:
    shown = _lake("lineage", "gold.fct_flights.is_reported", "--down")
    assert "decides about the rows of" in shown
    assert "gold.daily_delays_by_carrier FILTER" in shown and "gold.daily_delays_by_route FILTER" in shown
    found = json.loads(_lake("lineage", "gold.fct_flights.is_reported", "--down", "--json"))
    assert {each["table"] for each in found["decides_about"]} >= {"gold.daily_delays_by_carrier"}
    assert "decides about" not in _lake("lineage", "bronze.weather.temperature_f", "--down")


def test_the_label_of_a_model_is_named_on_both_sides() -> None:
    minutes = "source.flight_actuals.arrival_delay_minutes"
    lines = [line.strip("│├└─ ") for line in _lake("lineage", minutes, "--down").splitlines()]
    assert lines[lines.index("teaches") + 1 :] == [
        "models.flight_delay by its label gold.fct_flights.is_late",
        "models.flight_delay_minutes by its label gold.fct_flights.arrival_delay_minutes",
    ]
    [label] = json.loads(_lake("lineage", "gold.fct_flights.is_late", "--down", "--json"))["label_of"]
    assert label == {"model": "models.flight_delay", "table": "gold.fct_flights", "column": "is_late"}
    assert json.loads(_lake("lineage", "ml.predictions_flight_delay.score", "--up", "--json"))["labels"] == [label]
    for name, direction in (("source.planes", "--down"), ("gold.fct_flights", "--up")):
        assert "label" not in _lake("lineage", name, direction)


def test_the_command_prints_json() -> None:
    found = json.loads(_lake("lineage", "silver.stg_airlines.carrier_name", "--up", "--json"))
    assert [edge["source_table"] for edge in found["upstream"]] == ["source.airlines", "bronze.airlines"]
    assert [each["transformation"] for each in found["conditions"]] == ["FILTER"]
    assert "downstream" not in found


def _lake(*arguments: str) -> str:
    result = CliRunner().invoke(command_line(), arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def _origins() -> dict[tuple[str, str], set[str]]:
    """Each column to the tables that it comes from, by following the edges one by one."""
    parents: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    for edge in column_lineage.edges():
        parents[edge.table, edge.column].add((edge.source_table, edge.source_column))
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    follow: Callable[[tuple[str, str]], set[str]]

    def follow(node: tuple[str, str]) -> set[str]:
        if node not in found:
            found[node] = {node[0]}
            for parent in parents[node]:
                found[node] |= follow(parent)
        return found[node]

    for table, names in column_lineage.columns().items():
        for name in names:
            follow((table, name))
    return found


def _forget() -> None:
    from lakehouse import tables

    shutil.rmtree(tables.location(column_lineage.TABLE).removeprefix("file://"), ignore_errors=True)


def _must_not_run() -> list[dbt_project.CompiledModel]:
    raise AssertionError("dbt was asked")
