"""What a person sees of a wrong command: one clear message, and an exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from lakehouse import cli, contracts
from lakehouse.cli.errors import first_lines

Lake = Callable[..., tuple[int, str]]


@pytest.fixture
def lake(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lake:
    """Runs a command in this process: its exit code and what it printed to standard error."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["lake", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A contract of its own, which can be spoilt."""
    (tmp_path / "planes.yaml").write_text((contracts.SOURCES_DIR / "planes.yaml").read_text())
    monkeypatch.setattr(contracts, "SOURCES_DIR", tmp_path)
    contracts.load.cache_clear()
    yield tmp_path
    contracts.load.cache_clear()


def test_an_invalid_contract_is_named_with_its_field(lake: Lake, folder: Path) -> None:
    path = folder / "planes.yaml"
    document = yaml.safe_load(path.read_text())
    document["schema"][0]["properties"][0]["logicalType"] = "strnig"
    path.write_text(yaml.safe_dump(document))
    code, error = lake("land", "planes", "--interval", "2013-01-01")
    assert code == 1
    assert error.startswith("lake: ") and "planes.yaml" in error and "logicalType" in error and "strnig" in error
    assert "Traceback" not in error


def test_a_contract_that_is_no_yaml_is_named_with_its_line(lake: Lake, folder: Path) -> None:
    path = folder / "planes.yaml"
    path.write_text(path.read_text().replace("schema:", "schema: [", 1))
    code, error = lake("land", "planes", "--interval", "2013-01-01")
    assert code == 1 and "planes.yaml" in error and "line" in error


def test_an_unknown_source_is_refused_with_a_near_one(lake: Lake) -> None:
    code, error = lake("land", "wether", "--interval", "2013-01-01")
    assert code == 1 and "wether" in error and "weather" in error


@pytest.mark.parametrize("days", ["2013-02-30", "yesterday", "2013-03-02/2013-03-01", "2013-1-1"])
def test_days_that_are_none_are_refused(lake: Lake, days: str) -> None:
    code, error = lake("land", "weather", "--interval", days)
    assert code == 2 and days in error


def test_a_day_before_the_history_is_refused(lake: Lake) -> None:
    code, error = lake("land", "weather", "--interval", "1999-01-01")
    assert code == 1 and "1999-01-01" in error and "2013-01-01" in error


@pytest.mark.parametrize(
    "arguments",
    [
        ("explain",), ("explain", "--model", "flight_delay"), ("explain", "x", "--key", "y"),
        ("reproduce", "flight_delay", "--predictions"), ("reproduce", "flight_delay@one"),
        ("release",), ("release", "--override", "x"), ("maintain", "--keep-days", "-1"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_before_anything_is_done(lake: Lake, arguments: tuple[str, ...]) -> None:
    code, error = lake(*arguments)
    assert code == 2 and f"lake {arguments[0]} [OPTIONS]" in error


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("lake rep", {"replay", "reproduce"}),
        ("lake land pl", {"planes"}),
        ("lake score flight_delay", {"flight_delay", "flight_delay_minutes"}),
    ],
)
def test_completion_knows_commands_sources_and_models(typed: str, completed: set[str]) -> None:
    asked = {"_LAKE_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    done = subprocess.run(
        [Path(sys.executable).with_name("lake")],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stdout.split()) == completed


def test_an_error_of_a_query_is_shown_without_plan_and_stack() -> None:
    error = ValueError(
        "[TABLE_OR_VIEW_NOT_FOUND] There is no `gold`.`nope`. SQLSTATE: 42P01; line 1 pos 14;\n'Project [*]\n"
        "+- 'UnresolvedRelation [gold, nope]\n\n\nJVM stacktrace:\norg.apache.spark.sql.Error\n\tat x.y(Z.scala:1)"
    )
    assert first_lines(error) == ("[TABLE_OR_VIEW_NOT_FOUND] There is no `gold`.`nope`. SQLSTATE: 42P01; line 1 pos 14")
