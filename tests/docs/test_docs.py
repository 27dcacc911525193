"""What the documentation names exists: files, headings, commands, options, settings, columns, tables."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import yaml

from benchmarks import year
from lakehouse.interval import Interval
from tests.docs import generate
from tests.docs.blocks import ROOT, blocks, runnable_blocks, script

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
REFERENCE = ROOT / "docs" / "reference"
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# What the how-to pages make up: none of it is there.
MADE_UP = {
    "silver.x",
    "bronze.orders",
    "quarantine.orders",
    "gold.flights_per_day",
    "ml.predictions_long_delay",
    "gold.x",
    "bronze.x",
}
MADE_UP_DAGS = {"ingest_orders", "train_long_delay", "score_long_delay"}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    lines, inside = [], False
    for line in page.read_text("utf-8").splitlines():
        if line.startswith("```"):
            inside = not inside
        elif not inside:
            lines.append(line)
    return "\n".join(lines)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_relative_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_is_linked_from_the_readme_or_from_a_page_that_is() -> None:
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        local = (link.partition("#")[0] for link in LINK.findall(prose(page)) if "://" not in link)
        waiting += [(page.parent / name).resolve() for name in local if name]
    assert set(PAGES) <= seen


def commands(code: str) -> Iterator[list[str]]:
    """The arguments of each call of ``./lake`` in a piece of shell."""
    code = code.replace("\\\n", " ")
    for start in re.finditer(r"\./lake (?=[a-z-])", code):
        lexer = shlex.shlex(code[start.end() :], posix=True, punctuation_chars="();<>|&\n")
        lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
        arguments: list[str] = []
        for token in lexer:
            if token.startswith("#") or set(token) <= set("();<>|&\n"):
                break
            arguments.append(token)
        yield arguments


def leaf(arguments: list[str]) -> tuple[object, list[str]]:
    """The command that arguments call, and the rest of them."""
    known = dict(generate.leaves())
    for length in (2, 1):
        if tuple(arguments[:length]) in known:
            return known[tuple(arguments[:length])], arguments[length:]
    raise AssertionError(f"there is no command: lake {' '.join(arguments)}")


@every_page
def test_commands_in_blocks_are_understood(page: Path) -> None:
    for block in blocks(page):
        if block.language != "bash":
            continue
        for arguments in commands(block.text):
            command, rest = leaf(arguments)
            # Parses options and arguments as a call would, and runs nothing.
            command.make_context("lake", rest)  # type: ignore[attr-defined]


def test_the_lineage_of_a_column_is_what_the_command_prints() -> None:
    from typer.testing import CliRunner

    from lakehouse import cli

    page = blocks(ROOT / "docs" / "explanation" / "lineage.md")
    [(command, printed)] = [(one, other) for one, other in pairwise(page) if one.text.startswith("./lake lineage ")]
    said = CliRunner().invoke(cli.command_line(), shlex.split(command.text)[1:], catch_exceptions=False).stdout
    assert [line.rstrip() for line in said.splitlines()] == printed.text.splitlines()


@every_page
def test_commands_in_sentences_exist_with_their_options(page: Path) -> None:
    for code in re.findall(r"`((?:\./)?lake [^`]+)`", prose(page)):
        arguments = shlex.split(code)[1:]
        if arguments[0].startswith("--") or arguments[0].isupper():
            continue
        command, rest = leaf(arguments)
        if command.context_settings.get("ignore_unknown_options"):  # type: ignore[attr-defined]
            continue  # they belong to the command that is called
        options = {name for parameter in command.params for name in parameter.opts}  # type: ignore[attr-defined]
        for word in rest:
            if word.startswith("-"):
                assert word.partition("=")[0] in options | {"--help"}, code


@every_page
def test_settings_that_are_named_exist(page: Path) -> None:
    from lakehouse.settings import setting_variables

    named = set(re.findall(r"\bLAKE_[A-Z_]*[A-Z]\b", page.read_text("utf-8")))
    assert named <= setting_variables()


@every_page
def test_tables_and_dags_that_are_named_exist(page: Path) -> None:
    from lakehouse import contracts, ops
    from lakehouse.ml import model_folders

    examples = list((ROOT / "examples").glob("*/project"))
    queries = [path for root in (ROOT, *examples) for path in (root / "dbt" / "models").rglob("*.sql")]
    sources = [*contracts.sources(), *(path.stem for each in examples for path in each.glob("spark_jobs/sources/*"))]
    models = [*model_folders.models(), *(path.name for each in examples for path in each.glob("models/*"))]
    tables = {
        *(f"{layer}.{source}" for layer in ("bronze", "quarantine") for source in sources),
        *(f"{layer}.{path.stem}" for layer in ("silver", "gold") for path in queries),
        *(f"ml.predictions_{model}" for model in models),
        *ops.SCHEMAS,
        *ops.VIEWS,
    }
    dags = {
        "build_warehouse",
        *(f"ingest_{source}" for source in sources),
        *(f"{stage}_{model}" for stage in ("train", "score") for model in models),
    }
    text = page.read_text("utf-8")
    named = re.findall(r"(?<![\w.])((?:bronze|silver|gold|ml|quarantine|ops)(?:_next)?\.[a-z][a-z0-9_]*)", text)
    assert {name.replace("_next.", ".") for name in named} - MADE_UP - {"ops.ensure"} <= tables
    # ingest_<source> and score_<model> stand for all of them.
    assert set(re.findall(r"\b(?:ingest|train|score|build)_[a-z_]*[a-z]\b", text)) - MADE_UP_DAGS <= dags | {
        "train_part"
    }


@every_page
def test_blocks_are_shell_or_data_that_can_be_read(page: Path) -> None:
    for block in blocks(page):
        assert block.info in ("", "bash", "bash no-test", "yaml", "toml", "json", "sql", "text"), block.place
        if block.info == "yaml":
            yaml.safe_load(block.text)
    found = runnable_blocks(page)
    if found:
        checked = subprocess.run(["bash", "-n"], input=script(found), text=True, capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr


def test_the_tables_of_the_year_are_those_of_the_kept_result() -> None:
    text, kept = year.PAGE.read_text("utf-8"), json.loads(year.RESULT.read_text("utf-8"))
    assert text == year.fill(text, kept)
    assert f"]({year.PICTURE.relative_to(year.PAGE.parent)})" in text
    assert year.PICTURE.read_text("utf-8") == year.picture(kept)


def test_the_result_of_the_year_is_whole_and_agrees_with_itself() -> None:
    kept = json.loads(year.RESULT.read_text("utf-8"))
    weeks, (never, policy, fair, newest) = kept["weeks"], kept["plans"]
    days = [Interval.parse(week["days"]) for week in weeks]
    assert days[0].start == year.FIRST.end + dt.timedelta(days=1) and days[-1].end == year.YEAR.end
    assert all(one.end + dt.timedelta(days=1) == other.start for one, other in pairwise(days))
    trained = [week for week in weeks if week["decision"] == "retrain"]
    assert [week for week in weeks if week["contest"]] == trained and all(week["causes"] for week in trained)
    assert policy["trainings"] == 1 + len(trained)
    assert policy["champions"] == 1 + sum(week["contest"]["promote"] for week in trained)
    assert len({week["champion"] for week in weeks}) == policy["champions"]
    assert (never["trainings"], fair["trainings"], newest["champions"]) == (1, len(weeks), len(weeks))
    for plan in kept["plans"]:
        months = plan["months"].values()
        assert [month["rows"] for month in months] == [month["rows"] for month in never["months"].values()]
        rows = sum(month["rows"] for month in months)
        loss = sum(month["rows"] * month["log_loss"] for month in months) / rows
        assert loss == pytest.approx(plan["metrics"]["log_loss"])


def test_what_is_said_of_the_year_is_what_the_result_says() -> None:
    kept = json.loads(year.RESULT.read_text("utf-8"))
    never, policy, fair, newest = kept["plans"]
    words = " ".join(year.PAGE.read_text("utf-8").partition(year.END)[2].split())

    def metric(plan: Any, name: str) -> float:
        return float(plan["metrics"][name])

    off = metric(policy, "log_loss") - metric(never, "log_loss")
    assert f"the policy, with {policy['trainings']} trainings, has the log loss of the first version to within" in words
    assert f"within {off:.4f} and ranks a little better, every week is worse" in words
    assert metric(never, "auc") < metric(policy, "auc") < metric(never, "auc") + 0.01
    assert min(metric(each, "log_loss") for each in (fair, newest)) > metric(policy, "log_loss")
    assert "each is less well calibrated than the first version" in words
    assert all(metric(e, "calibration_error") > metric(never, "calibration_error") for e in (policy, fair, newest))
    gains = {month: found["log_loss"] - never["months"][month]["log_loss"] for month, found in policy["months"].items()}
    helped = [month[-2:] for month, gain in gains.items() if gain < -0.005]
    cost = [month[-2:] for month, gain in gains.items() if gain > 0.005]
    assert "It helped in June and July and cost from August to October and in December." in words
    assert (helped, cost) == (["06", "07"], ["08", "09", "10", "12"])
    drifted: dict[str, list[float]] = {}
    for week in kept["weeks"]:
        [share] = [each["value"] for each in week["measures"] if each["metric"] == "drifted_share"]
        drifted.setdefault(week["days"][-10:-3], []).append(share)
    assert "About half of the features have drifted in any month" in words
    assert all(0.4 < mean(shares) < 0.62 for shares in drifted.values())
    numbers = ("no", "one", "two", "three", "four", "five", "six")
    score = " ".join((ROOT / "docs" / "how-to" / "score.md").read_text("utf-8").split())
    assert f"where {numbers[policy['champions']]} versions served one after the other" in score


@pytest.mark.parametrize("name", generate.GENERATED)
def test_the_generated_reference_is_up_to_date(name: str) -> None:
    text = (REFERENCE / name).read_text("utf-8")
    assert text == generate.fill(name, text), "run: python -m tests.docs.generate"


def test_every_setting_is_in_the_reference() -> None:
    from lakehouse.settings import setting_variables

    text = (REFERENCE / "settings.md").read_text("utf-8")
    aliases = {"DATABASE_URL", "SPARK_REMOTE", "JAVA_HOME", "MLFLOW_TRACKING_URI"}
    prefixed = {name for name in setting_variables() if name.startswith("LAKE_")} - {"LAKE_PORTS"}
    assert {name for name in prefixed | aliases if name not in text} == set()


def test_every_column_of_the_ops_tables_is_explained() -> None:
    from lakehouse.ops import SCHEMAS, VIEWS

    sections = re.split(r"^## ", (REFERENCE / "ops-tables.md").read_text("utf-8"), flags=re.MULTILINE)[1:]
    explained = {
        section.splitlines()[0]: re.findall(r"^\| `(\w+)` \| \S", section, re.MULTILINE) for section in sections
    }
    views = {
        view: re.findall(r"(\w+),?$", query.rpartition("\nselect")[2].rpartition("\nfrom")[0], re.MULTILINE)
        for view, query in VIEWS.items()
    }
    assert explained == {table: schema.names for table, schema in SCHEMAS.items()} | views


def test_the_row_level_expectations_are_all_listed() -> None:
    from lakehouse.quality.rules import ROW_RULES

    section = (REFERENCE / "expectations.md").read_text("utf-8").partition("## About rows")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"^- `(\w+)`$", section, re.MULTILINE)) == sorted(ROW_RULES)


def test_every_property_that_a_contract_has_is_in_the_reference() -> None:
    text = (REFERENCE / "contracts.md").read_text("utf-8")
    for path in sorted((ROOT / "spark_jobs" / "sources").glob("*.yaml")):
        document = yaml.safe_load(path.read_text("utf-8"))
        named = [entry["property"] for part in ("customProperties", "slaProperties") for entry in document[part]]
        named += [field for column in document["schema"][0]["properties"] for field in column]
        used = set(named) - {"examples"}  # for people; the platform does not read them
        assert {name for name in used if f"`{name}`" not in text} == set(), path.name


def test_the_rows_of_the_architecture_are_the_layers_that_imports_are_held_to() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    [layers] = [
        contract["layers"]
        for contract in project["tool"]["importlinter"]["contracts"]
        if contract.get("containers") == ["lakehouse"]
    ]
    _, _, table = (ROOT / "docs/explanation/architecture.md").read_text().partition("| in `lakehouse` |")
    rows = [line.split("|")[1] for line in table.partition("\n\n")[0].splitlines()[2:]]
    assert [re.findall(r"`(\w+)`", row) for row in rows] == [layer.split(" : ") for layer in reversed(layers)]


def test_every_decision_is_in_the_list() -> None:
    folder = ROOT / "docs" / "adr"
    listed = re.findall(r"\]\((\d{4}-[\w-]+\.md)\) \| (.+) \|", (folder / "README.md").read_text("utf-8"))
    titles = {path.name: path.read_text("utf-8").splitlines()[0][len("# 0000 ") :] for path in folder.glob("0*.md")}
    assert dict(listed) == titles
    for path in folder.glob("0*.md"):
        text = path.read_text("utf-8")
        assert all(f"**{part}.**" in text for part in ("Context", "Decision", "Consequences")), path.name


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what `lake new` adds to."""
    for folder in ("spark_jobs", "expectations", "models", "dbt"):
        ignored = shutil.ignore_patterns("__pycache__", "target", "logs")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    return tmp_path


def test_what_the_pages_let_one_make_is_valid(project: Path) -> None:
    calls = [
        arguments
        for page in PAGES
        for block in blocks(page)
        if block.language == "bash"
        for arguments in commands(block.text)
        if arguments[0] == "new"
    ]
    assert {arguments[1] for arguments in calls} == {"source", "table", "model"}
    # Its manifest is no other project's.
    environment = os.environ | {"LAKE_PROJECT": str(project), "LAKE_HOME": str(project / "home")}

    def python(code: str, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], env=environment, cwd=project, capture_output=True, text=True
        )
        assert done.returncode == 0, (arguments, done.stderr)

    for arguments in calls:
        before = {path for path in project.rglob("*") if path.is_file()}
        python("from lakehouse.cli import main; main()", *arguments)
        made = {path for path in project.rglob("*") if path.is_file() and "__pycache__" not in path.parts} - before
        suite = next(path for path in made if path.suffix == ".json").relative_to(project)
        python(
            "import sys; from lakehouse.quality import suites; suites.load(sys.argv[1])",
            f"{suite.parent.name}.{suite.stem}",
        )
        check = {
            "source": "import sys; from lakehouse import contracts; contracts.load(sys.argv[1])",
            "model": "import sys; from lakehouse.ml import model_folders as m; m.candidates(m.load(sys.argv[1]))",
            "table": "import sys; from lakehouse.dbt_project import meta; assert meta('gold.' + sys.argv[1])",
        }[arguments[1]]
        python(check, arguments[2])
        for path in made:  # the next page may make one of the same name
            path.unlink()
