"""What a person sees of a wrong command: one clear message, and an exit code."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
import typer
import yaml
from rich.tree import Tree
from typer.testing import CliRunner

from lakehouse import cli, contracts, engine
from lakehouse.cli import queries
from lakehouse.cli.alerts import list_alerts
from lakehouse.cli.errors import expected, first_lines
from lakehouse.cli.printing import print_rows, print_table, show
from lakehouse.errors import LakeError
from lakehouse.interval import Interval
from lakehouse.ml import model_folders
from lakehouse.ml.model_spec import InvalidModelError
from lakehouse.quality import suites
from lakehouse.registry import registry, roles
from lakehouse.registry.reproduction import NotReproducedError
from lakehouse.settings import PROJECT_DIR, settings
from lakehouse.tables import UnreadableError, VersionGoneError

Lake = Callable[..., tuple[int, str]]


@pytest.fixture
def lake(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Lake]:
    """Runs a command in this process: its exit code and what it printed to standard error."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["lake", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capsys.readouterr().err

    yield run
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A contract of its own, which can be spoilt."""
    (tmp_path / "planes.yaml").write_text((contracts.SOURCES_DIR / "planes.yaml").read_text())
    monkeypatch.setattr(contracts, "SOURCES_DIR", tmp_path)
    contracts.load.cache_clear()
    yield tmp_path
    contracts.load.cache_clear()


def test_the_version_is_that_of_the_project() -> None:
    declared = tomllib.loads((PROJECT_DIR / "pyproject.toml").read_text())["project"]["version"]
    said = CliRunner().invoke(cli.command_line(), ["--version"])
    assert (said.exit_code, said.output) == (0, f"lakehouse {declared}\n")


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


def test_check_names_what_is_wrong_with_contracts_models_and_suites(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def suite(**kwargs: object) -> str:
        rules = [("expect_table_row_count_to_be_between", {"min_value": 1}),
                 ("expect_column_values_to_be_between", {"column": "seats", "min_value": 1} | kwargs)]  # fmt: skip
        return json.dumps(
            {"name": "bronze.planes", "expectations": [{"type": kind, "kwargs": k} for kind, k in rules]}, indent=1
        )

    def check() -> tuple[int, str]:
        outcome = CliRunner().invoke(cli.command_line(), ["check"], catch_exceptions=False)
        return outcome.exit_code, outcome.stdout

    path = tmp_path / "suites" / "bronze" / "planes.json"
    path.parent.mkdir(parents=True)
    path.write_text(suite())
    monkeypatch.setattr(suites, "SUITES_DIR", tmp_path / "suites")
    monkeypatch.setattr(subprocess, "call", lambda *_, **__: 0)
    code, said = check()
    assert code == 0 and said.startswith(f"note: {path}:5: expectations[0].type: is decided for the table as a whole")
    path.write_text(suite(strict_min="often"))
    code, said = check()
    assert code == 1 and f"{path}:15: expectations[1].kwargs.strict_min: " in said
    path.write_text(suite(column="saets"))
    code, said = check()
    assert code == 1 and "kwargs.column: the table has no column 'saets'. Did you mean seats?" in said
    path.write_text(suite())
    (folder / "planes.yaml").write_text("[")
    contracts.load.cache_clear()
    monkeypatch.setattr(model_folders, "problems", lambda: {"x": "models/x/model.yaml, line 3: no"})
    code, said = check()
    assert code == 1 and "planes.yaml, line 2: not YAML" in said and "models/x/model.yaml, line 3: no" in said


def test_an_unknown_source_is_refused_with_a_near_one(lake: Lake) -> None:
    code, error = lake("land", "wether", "--interval", "2013-01-01")
    assert code == 1 and "wether" in error and "weather" in error


@pytest.mark.parametrize("command", ["gate", "release"])
def test_a_table_that_is_none_is_refused_with_a_near_one(lake: Lake, command: str) -> None:
    code, error = lake(command, "gold.fct_flight", "--interval", "2013-01-01")
    assert code == 2 and "gold.fct_flight" in error and "gold.fct_flights" in error


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


def test_each_version_is_made_again_whatever_becomes_of_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes: dict[int, dict[str, Any] | LakeError] = {
        1: VersionGoneError("Version 4 of gold_next.x is no longer in the table's log"), 2: {"equal": True},
        3: NotReproducedError("metric loss: 1 then, 2 now"), 4: UnreadableError("checksum"), 5: {"equal": True},
        6: InvalidModelError("gold.x has no column Y"),
    }  # fmt: skip

    def again(_model: str, version: int) -> dict[str, Any]:
        outcome = outcomes[version]
        if isinstance(outcome, LakeError):
            raise outcome
        return outcome

    def reproduce(*versions: int) -> tuple[int, list[dict[str, Any]], str]:
        monkeypatch.setattr(registry, "versions", lambda _name: [SimpleNamespace(version=each) for each in versions])
        monkeypatch.setattr(sys, "argv", ["lake", "reproduce", "flight_delay"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), [json.loads(line) for line in said.out.splitlines()], said.err

    monkeypatch.setattr("lakehouse.steps.job", {"reproduce_training": again}.__getitem__)
    code, lines, error = reproduce(*outcomes)
    assert code == 1
    assert [(line["model_version"], line["equal"]) for line in lines] == [
        (1, None), (2, True), (3, False), (4, None), (5, True), (6, None),
    ]  # fmt: skip
    assert [line["because"] for line in lines if "because" in line] == [
        str(outcome) for outcome in outcomes.values() if isinstance(outcome, LakeError)
    ]
    assert "these come out otherwise: 3; these cannot be made again: 1, 4, 6." in error
    for version, what in ((1, "cannot be made again"), (3, "come out otherwise")):
        code, _, error = reproduce(2, version)
        assert code == 1 and error.count("these ") == 1 and f"these {what}" in error and f": {version}." in error
    assert reproduce(2, 5)[0] == 0


REPLAYED = {"rows_replayed": 1, "version": 4, "unreleased": True}
ASKED: dict[str, tuple[Any, ...]] = {
    "replay": ("weather", Interval.parse("2013-03-01"), False),
    "gate": (["bronze.weather"], Interval.parse("2013-03-01")),
    "release": (["bronze.weather"], Interval.parse("2013-03-01")),
}


@pytest.fixture
def replaying(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, list[Any], str, dict[str, tuple[Any, ...]]]]:
    """Runs `lake replay` on steps that write nothing: exit code, what it printed, and what it asked of which step."""

    def run(
        *options: str, failing: str | None = None, replayed: dict[str, Any] = REPLAYED
    ) -> tuple[int, list[Any], str, dict[str, tuple[Any, ...]]]:
        asked: dict[str, tuple[Any, ...]] = {}

        def made(name: str, outcome: Any) -> Callable[..., Any]:
            def step(*arguments: Any) -> Any:
                asked[name] = arguments
                if name == failing:
                    raise LakeError(f"{name} has failed")
                return outcome

            return step

        monkeypatch.setattr("lakehouse.steps.job", {"replay": made("replay", replayed)}.__getitem__)
        monkeypatch.setattr("lakehouse.releases.audit.gate", made("gate", {"bronze.weather": 4}))
        monkeypatch.setattr("lakehouse.releases.release.release", made("release", 7))
        monkeypatch.setattr(sys, "argv", ["lake", "replay", "weather", "--interval", "2013-03-01", *options])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), [json.loads(line) for line in said.out.splitlines()], said.err, asked

    return run


def test_a_replay_by_hand_is_gated_and_released_as_by_its_dag(replaying: Any) -> None:
    code, lines, _, asked = replaying()
    assert (code, lines) == (0, [REPLAYED, {"bronze.weather": 4}, {"release_id": 7}])
    assert list(asked.items()) == list(ASKED.items())


def test_a_dry_run_of_a_replay_neither_gates_nor_releases(replaying: Any) -> None:
    code, lines, _, asked = replaying("--dry-run")
    assert (code, lines) == (0, [REPLAYED])
    assert asked == {"replay": ("weather", Interval.parse("2013-03-01"), True)}


def test_a_replay_that_changes_nothing_is_neither_gated_nor_released(replaying: Any) -> None:
    code, _, _, asked = replaying(replayed={**REPLAYED, "rows_replayed": 0, "unreleased": False})
    assert (code, list(asked)) == (0, ["replay"])


@pytest.mark.parametrize("failing", list(ASKED))
def test_a_replay_by_hand_ends_at_the_step_that_fails(replaying: Any, failing: str) -> None:
    code, lines, error, asked = replaying(failing=failing)
    before = list(ASKED).index(failing)
    assert (code, error) == (1, f"lake: {failing} has failed\n")
    assert lines == [REPLAYED, {"bronze.weather": 4}][:before]
    assert list(asked) == list(ASKED)[: before + 1]


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


def test_every_value_that_a_query_can_have_is_printed_as_json_and_as_csv(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pyspark.sql import Row

    values = {
        "binary": bytearray(b"\x00\xff"), "interval": dt.timedelta(days=1, seconds=5), "nan": float("nan"),
        "infinite": float("-inf"), "number": 0.1, "decimal": Decimal("1.10"), "day": dt.date(2013, 3, 1), "text": "é",
        "list": [1.5, float("nan"), Row(day=dt.date(2013, 3, 1))], "map": {dt.date(2013, 3, 1): b"a"}, "nothing": None,
    }  # fmt: skip
    result = SimpleNamespace(columns=list(values), collect=lambda: [Row(**values)])
    monkeypatch.setattr(engine, "spark", lambda: SimpleNamespace(sql=lambda query: result))

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    print_rows("select", as_json=True)
    assert json.loads(capsys.readouterr().out, parse_constant=refuse) == [
        {
            "binary": "00ff", "interval": "1 day, 0:00:05", "nan": None, "infinite": None, "number": 0.1,
            "decimal": "1.10", "day": "2013-03-01", "text": "é", "list": [1.5, None, {"day": "2013-03-01"}],
            "map": {"2013-03-01": "61"}, "nothing": None,
        }
    ]  # fmt: skip
    print_rows("select", as_csv=True)
    [names, row] = csv.reader(io.StringIO(capsys.readouterr().out))
    assert dict(zip(names, row, strict=True)) == {
        "binary": "00ff", "interval": "1 day, 0:00:05", "nan": "nan", "infinite": "-inf", "number": "0.1",
        "decimal": "1.10", "day": "2013-03-01", "text": "é", "list": '[1.5, null, {"day": "2013-03-01"}]',
        "map": '{"2013-03-01": "61"}', "nothing": "",
    }  # fmt: skip


def test_an_error_of_a_query_is_shown_without_plan_and_stack() -> None:
    error = ValueError(
        "[TABLE_OR_VIEW_NOT_FOUND] There is no `gold`.`nope`. SQLSTATE: 42P01; line 1 pos 14;\n'Project [*]\n"
        "+- 'UnresolvedRelation [gold, nope]\n\n\nJVM stacktrace:\norg.apache.spark.sql.Error\n\tat x.y(Z.scala:1)"
    )
    assert first_lines(error) == ("[TABLE_OR_VIEW_NOT_FOUND] There is no `gold`.`nope`. SQLSTATE: 42P01; line 1 pos 14")
    of_a_frame = ValueError("[UNRESOLVED_COLUMN] There is no `a`. SQLSTATE: 42703;\n'Project ['a]\n+- Relation")
    assert first_lines(of_a_frame) == "[UNRESOLVED_COLUMN] There is no `a`. SQLSTATE: 42703"
    for said in (
        "[FAILED_READ_FILE.NO_HINT] Failed to read /x.json. SQLSTATE: KD001",
        "[DELTA_VERSIONS_NOT_CONTIGUOUS] Versions (Vector(0, 2)) are not contiguous. SQLSTATE: KD00C",
    ):
        damaged = ValueError(f"(org.apache.spark.sql.delta.DeltaIllegalStateException) {said}\n\nJVM stacktrace:\nat x")
        assert first_lines(damaged) == f"{said} `lake verify` names what is damaged or missing."


def test_a_database_that_cannot_be_reached_is_told_in_a_line() -> None:
    with pytest.raises(psycopg.OperationalError) as refused:
        psycopg.connect("postgresql://lake@127.0.0.1:1/lake")
    assert isinstance(refused.value, expected())
    said = first_lines(refused.value)
    assert re.fullmatch(r"The database of the platform cannot be reached: .* `lake up` starts .*", said)


def test_a_command_that_needs_the_engine_says_at_once_that_there_is_none(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And does not ask one that another state folder has started at the same port."""
    monkeypatch.setenv("LAKE_HOME", str(tmp_path))
    monkeypatch.delenv("SPARK_REMOTE", raising=False)
    settings.cache_clear()
    engine.spark.cache_clear()
    monkeypatch.setattr("pyspark.sql.SparkSession.builder", None)
    code, said = lake("sql", "select 1")
    assert code == 1 and f"The engine of {tmp_path} is not running. Start it with `lake up`" in said


def test_the_statements_of_a_file_are_run_up_to_the_first_that_fails(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(query: str, *_: Any) -> None:
        asked.append(query)
        if "wrong" in query:
            raise LakeError("that is wrong")

    monkeypatch.setattr(queries, "print_rows", answer)
    monkeypatch.setattr(sys, "stdin", io.StringIO("select 1; select wrong; select 2"))
    assert lake("sql") == (1, "lake: that is wrong\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("select 3"))
    assert lake("sql") == (0, "")
    monkeypatch.setattr(sys, "stdin", io.StringIO("select 4; select 5"))
    assert lake("sql", "--json")[0] == 2
    assert asked == ["select 1", " select wrong", "select 3"]


def test_a_query_is_asked_for_where_there_is_no_input(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    code, message = lake("sql")
    assert code == 2
    assert "no input" in message


def test_a_setting_of_the_wrong_type_is_named(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_PORTS__AIRFLOW", "abc")
    settings.cache_clear()
    code, said = lake("sql", "select 1")
    assert (
        code == 2 and "the setting ports.airflow is wrong: Input should be a valid integer" in said and "'abc'" in said
    )
    assert "errors.pydantic.dev" not in said


def test_a_table_that_is_piped_is_not_folded(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["table", "why"], [{"table": "gold.daily_delays_by_carrier", "why": "because " * 20}])
    assert "gold.daily_delays_by_carrier" in capsys.readouterr().out


def test_what_stands_in_brackets_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["[red]why"], [{"[red]why": "RejectedBatchError: [below_mostly] weather [/foo]"}])
    said = capsys.readouterr().out
    assert "[red]why" in said and "RejectedBatchError: [below_mostly] weather [/foo]" in said


def test_a_page_is_written_to_a_file_in_a_folder_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown(path: Path) -> None:
        show({"a": 1}, Tree("a"), lambda facts: f"<p>{facts['a']} ä</p>", False, path)

    shown(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text("utf-8") == "<p>1 ä</p>"
    assert capsys.readouterr().out == f"{tmp_path / 'page.html'}\n"
    with pytest.raises(typer.BadParameter, match="cannot be written: "):
        shown(tmp_path)


@pytest.mark.parametrize(
    "command",
    ["explain 0a --json --html x", "impact x --json --html x", "sql x --csv --json", "verify --kept --release 1"],
)
def test_options_of_which_one_would_be_dropped_are_refused(command: str) -> None:
    result = CliRunner().invoke(cli.command_line(), command.split())
    assert result.exit_code == 2 and "give " in result.output.lower()


def test_what_does_not_exist_is_no_success(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lakehouse.release_log.sets", lambda _table: [])
    code, said = lake("releases", "gold.nosuch", "--json")
    assert code == 1 and "No release has changed gold.nosuch" in said
    monkeypatch.setattr("lakehouse.registry.registry.versions", lambda _model: [])
    code, said = lake("reproduce", "flight_delay")
    assert code == 1 and "flight_delay has no version yet: `lake train flight_delay`" in said
    code, said = lake("lineage", "quarantine.weather")
    assert code == 1 and "a record of the platform's own" in said


@pytest.mark.parametrize("command", ["explain 0a", "impact 2013-03-01"])
@pytest.mark.parametrize(
    ("file", "said"), [(".", ". is a folder: name the file"), ("none/page.html", "lies in none, which is no folder")]
)
def test_a_page_that_cannot_be_written_is_refused_before_it_is_made(
    command: str, file: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.command_line(), [*command.split(), "--html", file])
    assert result.exit_code == 2 and said in " ".join(result.output.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["impact", "2013-13-01"], "there is no 2013-13-01: month must be in 1..12"),
        (["impact", "2013-03-02/2013-03-01"], "ends before it starts"),
        (
            ["explain", "--model", "m", "--key", "k", "--date", "03/03/2013"],
            "Give one day, such as 2013-03-01: '03/03/2013' is no day",
        ),
    ],
)
def test_days_that_are_none_are_a_wrong_argument(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakehouse.provenance.ledger.Ledger.read", lambda: None)
    result = CliRunner().invoke(cli.command_line(), arguments)
    assert result.exit_code == 2 and said in " ".join(result.output.replace("│", " ").split())


def test_a_list_of_alerts_says_when_nobody_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lakehouse.alerts.read", list)
    list_alerts()
    assert "no route is set" in capsys.readouterr().err
    monkeypatch.setattr(settings(), "alerts", {"mail": None})
    list_alerts()
    assert capsys.readouterr().err == ""


def test_a_wrong_model_is_named_and_the_others_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("flight_delay", "flight_delay_minutes"):
        (tmp_path / name).mkdir()
        shutil.copy(model_folders.MODELS_DIR / name / "model.yaml", tmp_path / name)
    wrong = tmp_path / "flight_delay_minutes" / "model.yaml"
    wrong.write_text(wrong.read_text().replace("task: regression", "task: guessing"))
    monkeypatch.setattr(model_folders, "MODELS_DIR", tmp_path)
    monkeypatch.setattr(roles, "events", lambda _: [])
    done = CliRunner().invoke(cli.command_line(), ["models"], catch_exceptions=False)
    assert done.exit_code == 0
    assert re.findall(r"flight_delay\w*", done.stdout) == ["flight_delay"]
    assert f"{wrong}, line " in done.stderr and "guessing" not in done.stdout


def test_models_are_listed_with_who_has_a_role_and_one_with_all_that_was_decided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def event(number: int, what: str, before: int | None, day: int, by: str, reason: str) -> dict[str, object]:
        return {"at": dt.datetime(2013, 3, day, 6, 30, tzinfo=dt.UTC), "model_version": number, "event": what,
                "champion_before": before, "serves_from": dt.date(2013, 3, day + 1), "decided_by": by, "reason": reason,
                "evidence": None}  # fmt: skip

    log = [
        event(1, "promoted", None, 1, "ada", "against the baseline: log_loss is lower"),
        event(2, "promoted", 1, 8, "eve", "the airline asked for it"),
        event(3, "kept out", 2, 15, "ada", "log_loss is not lower beyond doubt"),
    ]
    monkeypatch.setattr(roles, "events", lambda name: log if name == "flight_delay" else [])
    lake = CliRunner()
    shown = lake.invoke(cli.command_line(), ["models"], catch_exceptions=False).stdout
    cells = [[cell.strip() for cell in re.split("[│┃|]", line)[1:-1]] for line in shown.splitlines()]
    rows = {row[0]: row[1:] for row in cells if len(row) == 5}
    assert rows["model"] == ["champion", "since", "challenger", "owner"]
    assert rows["flight_delay"] == ["2", "2013-03-09", "3", "data-platform"]
    assert rows["flight_delay_minutes"][:3] == ["", "", ""]
    told = lake.invoke(cli.command_line(), ["models", "flight_delay"], catch_exceptions=False).stdout
    assert told.splitlines() == [
        "2013-03-01 06:30 version 1 promoted, may score from 2013-03-02 on, by ada: against the baseline: log_loss is "
        "lower",
        "2013-03-08 06:30 version 2 promoted, may score from 2013-03-09 on, by eve: the airline asked for it",
        "2013-03-15 06:30 version 3 kept out, may score from 2013-03-16 on, by ada: log_loss is not lower beyond doubt",
    ]
