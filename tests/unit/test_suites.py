"""Suites: reading, and what is said of a faulty one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lakehouse.quality import suites
from lakehouse.quality.suites import InvalidSuiteError, SuiteNotFoundError

VALID = {
    "name": "bronze.flights",
    "expectations": [
        {
            "type": "expect_column_values_to_not_be_null",
            "kwargs": {"column": "carrier"},
            "severity": "critical",
            "meta": {},
        },
        {
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "departure_time", "min_value": 0, "max_value": 2400, "mostly": 0.99},
            "severity": "critical",
        },
        {
            "type": "expect_column_values_to_be_in_set",
            "kwargs": {"column": "origin", "value_set": ["JFK"]},
            "severity": "warning",
        },
        {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 1}},
    ],
    "meta": {"great_expectations_version": "1.24.1"},
}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(suites, "SUITES_DIR", tmp_path)

    def _write(content: Any) -> Path:
        path = tmp_path / "bronze" / "flights.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=2), "utf-8")
        return path

    return _write


def with_expectation(**entry: Any) -> dict[str, Any]:
    return {"name": "bronze.flights", "expectations": [entry]}


def test_a_suite_is_read_as_written(write: Any) -> None:
    write(VALID)
    suite = suites.load("bronze.flights", columns=["carrier", "departure_time", "origin"])
    assert [e.type for e in suite.row_rules()] == [
        "expect_column_values_to_not_be_null",
        "expect_column_values_to_be_between",
    ]
    assert [e.mostly for e in suite.row_rules()] == [1, 0.99]
    assert [e.type for e in suite.table_rules()] == ["expect_table_row_count_to_be_between"]
    assert suite.expectations[1].label == "expect_column_values_to_be_between(departure_time, 0..2400)"
    assert suite.expectations[3].severity == "critical"
    assert suites.names() == ["bronze.flights"]


def test_a_missing_suite_names_the_file_and_a_near_one(write: Any) -> None:
    write(VALID)
    with pytest.raises(SuiteNotFoundError, match=r"bronze/flight\.json\. Did you mean bronze\.flights"):
        suites.load("bronze.flight")


def test_what_is_not_json_names_the_line(write: Any) -> None:
    write('{\n  "name": "bronze.flights",\n  "expectations": [,]\n}')
    with pytest.raises(InvalidSuiteError, match=r"flights\.json:3: column \d+: is not JSON"):
        suites.load("bronze.flights")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r":1: suite: must be an object"),
        ({"name": "x", "expectations": VALID["expectations"]}, r":2: name: must be 'bronze.flights'"),
        ({"name": "bronze.flights", "expectations": []}, r":3: expectations: must be a list of at least one"),
        ({**VALID, "expectation": 1}, r"expectation: is not a field of a suite. Did you mean expectations\?"),
        (
            with_expectation(type="expect_column_values_to_be_betwen", kwargs={}),
            r":5: expectations\[0\]\.type: 'expect_column_values_to_be_betwen' is not an expectation of GX\. "
            r"Did you mean expect_column_values_to_be_between\?",
        ),
        (
            with_expectation(type="expect_column_values_to_be_null", kwargs={"column": "a", "mostl": 1}),
            r":8: expectations\[0\]\.kwargs\.mostl: is not an argument of .*Did you mean mostly\?",
        ),
        (
            with_expectation(type="expect_column_values_to_be_null", kwargs={"column": "a", "mostly": 99}),
            r":8: expectations\[0\]\.kwargs\.mostly: 99 is not a share",
        ),
        (
            with_expectation(type="expect_column_values_to_be_null", kwargs={"column": "a"}, severity="fatal"),
            r":9: expectations\[0\]\.severity: 'fatal' is not one of critical, warning, info",
        ),
        (
            with_expectation(type="expect_column_values_to_be_null", kwargs={"column": "carier"}),
            r":7: expectations\[0\]\.kwargs\.column: the table has no column 'carier'\. Did you mean carrier\?",
        ),
        (
            with_expectation(type="expect_compound_columns_to_be_unique", kwargs={"column_list": ["carrier", "nope"]}),
            r"kwargs\.column_list: the table has no column 'nope'",
        ),
        (
            with_expectation(type="expect_column_values_to_match_regex", kwargs={"column": "carrier"}),
            r":6: expectations\[0\]\.kwargs\.regex: is missing",
        ),
        (
            with_expectation(type="expect_column_values_to_be_between", kwargs={"column": "carrier"}),
            r"min_value: is missing, and so is max_value",
        ),
        (
            with_expectation(
                type="expect_column_values_to_be_between",
                kwargs={"column": "carrier", "min_value": "2013-01-01T00:00:00"},
            ),
            r"needs its zone: write 2013-01-01T00:00:00Z",
        ),
        ({**VALID, "expectations": VALID["expectations"] * 2}, r"expectations\[4\]: repeats expectations\[0\]"),
    ],
)
def test_a_fault_is_named_with_file_line_and_field(write: Any, content: Any, message: str) -> None:
    write(content)
    with pytest.raises(InvalidSuiteError, match=r"flights\.json.*" + message):
        suites.load("bronze.flights", columns=["carrier", "a"])


def test_lint_lets_gx_check_values_and_names_table_level_rules(write: Any) -> None:
    path = write(VALID)
    found = suites.lint(path)
    assert found.problems == []
    assert [(note.line, note.field) for note in found.notes] == [(33, "expectations[3].type")]

    path = write(
        with_expectation(
            type="expect_column_values_to_be_between",
            kwargs={"column": "a", "min_value": 1, "max_value": 2, "strict_min": "often"},
        )
    )
    (problem,) = suites.lint(path).problems
    assert (problem.line, problem.field) == (10, "expectations[0].kwargs.strict_min")
    assert "boolean" in problem.message

    path.write_text("{", "utf-8")
    assert "is not JSON" in suites.lint(path).problems[0].message


def test_gx_reads_the_same_file(write: Any) -> None:
    import great_expectations as gx

    path = write(VALID)
    gx.get_context(mode="ephemeral")
    read = json.loads(path.read_text("utf-8"))
    theirs = gx.ExpectationSuite(**read)
    ours = suites.load("bronze.flights")
    assert [c.type for c in theirs.expectation_configurations] == [e.type for e in ours.expectations]


def test_reading_a_suite_does_not_import_the_heavy_libraries() -> None:
    code = (
        "import sys; from lakehouse.quality import suites, gate; suites.known_types(); "
        "print([m for m in ('great_expectations', 'pyspark', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_anomaly_rule_keeps_no_personal_figure(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites.contracts, "personal_columns", lambda table: frozenset({"salary"}))
    write({**VALID, "meta": {"anomalies": [{"metric": "null_share", "column": "salary"}]}})
    suites.load("bronze.flights")
    write({**VALID, "meta": {"anomalies": [{"metric": "mean", "column": "salary"}]}})
    with pytest.raises(InvalidSuiteError, match=r"anomalies\[0\]\.column: is personal: its mean would be kept"):
        suites.load("bronze.flights")


def test_our_own_expectation_has_its_arguments_checked(write: Any) -> None:
    kind = "expect_column_values_to_be_increasing_within_tolerance"
    path = write(with_expectation(type=kind, kwargs={"column": "day", "tolerance_days": 1, "order_by": ["id"]}))
    found = suites.lint(path)
    assert (found.problems, found.notes) == ([], [])
    path = write(with_expectation(type=kind, kwargs={"column": "day", "tolerance_days": "some"}))
    assert "float" in suites.lint(path).problems[0].message
    path = write(with_expectation(type=kind, kwargs={"column": "day", "tolerance": 1}))
    assert "Did you mean tolerance_days?" in suites.lint(path).problems[0].message
