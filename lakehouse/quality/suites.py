"""Expectation suites: one JSON file per table, in ``expectations/<layer>/<table>.json``.

A file is a suite as Great Expectations itself serialises one, so that GX can read it too. What a suite means is
GX's: ``severity`` (``critical`` without one), ``mostly`` (all rows without one), and how nulls count.

Loading checks the form without importing GX, which takes seconds; :func:`lint` and the gate also let GX check
every argument's value.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from lakehouse import contracts
from lakehouse.errors import LakeError
from lakehouse.quality import anomalies, rules
from lakehouse.quality.expectation import Expectation
from lakehouse.settings import PROJECT_DIR
from lakehouse.wording import did_you_mean

SUITES_DIR = PROJECT_DIR / "expectations"
SEVERITIES = ("critical", "warning", "info")

_NAMES_OF_COLUMNS = ("column", "column_A", "column_B", "column_list", "order_by", "within")
_SUITE_KEYS = {"name", "id", "expectations", "meta", "notes"}
_EXPECTATION_KEYS = {
    "type", "kwargs", "meta", "severity", "id", "notes", "description", "rendered_content", "expectation_context",
}  # fmt: skip


class InvalidSuiteError(LakeError):
    """A suite is not valid; the message names file, line and field."""


class SuiteNotFoundError(LakeError):
    """A table has no suite."""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a suite.

    Attributes:
        path: The suite's file.
        line: Line in the file, from 1.
        field: Which field, such as ``expectations[3].kwargs.min_value``.
        message: What is wrong, and what to do.
    """

    path: Path
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        path = self.path.relative_to(PROJECT_DIR) if self.path.is_relative_to(PROJECT_DIR) else self.path
        return f"{path}:{self.line}: {self.field}: {self.message}"


@dataclass(frozen=True)
class Suite:
    """The expectations of one table.

    Attributes:
        name: The table, as readers name it.
        expectations: In the file's order.
        meta: The suite's ``meta``.
        path: Its file, if it was read from one.
    """

    name: str
    expectations: tuple[Expectation, ...]
    meta: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None

    def row_rules(self) -> list[Expectation]:
        """Critical expectations that are decided row by row: what breaks them goes to quarantine."""
        return [e for e in self.expectations if e.severity == "critical" and rules.is_row_rule(e)]

    def table_rules(self) -> list[Expectation]:
        """Expectations that only the gate decides: those about the table as a whole."""
        return [e for e in self.expectations if not rules.is_row_rule(e)]


def suite_path(name: str) -> Path:
    """Where the suite of a table is.

    Args:
        name: ``layer.table``, as readers name it.
    """
    layer, _, table = name.partition(".")
    return SUITES_DIR / layer / f"{table}.json"


def names() -> list[str]:
    """All tables that have a suite."""
    return sorted(f"{path.parent.name}.{path.stem}" for path in SUITES_DIR.glob("*/*.json"))


def load(name: str, columns: Collection[str] | None = None) -> Suite:
    """Read the suite of a table.

    Args:
        name: ``layer.table``, as readers name it.
        columns: The table's columns, to check the suite's against.

    Raises:
        SuiteNotFoundError: There is no such file.
        InvalidSuiteError: The file is not a valid suite; all that is wrong with it is in the message.
    """
    path = suite_path(name)
    if not path.is_file():
        expected = path.relative_to(PROJECT_DIR) if path.is_relative_to(PROJECT_DIR) else path
        raise SuiteNotFoundError(f"{name} has no expectation suite: expected {expected}.{did_you_mean(name, names())}")
    return read(path, name, columns)


def read(path: Path, name: str | None = None, columns: Collection[str] | None = None) -> Suite:
    """Read a suite from a file.

    Args:
        path: A JSON file.
        name: The table that it has to be about; by default as the path says.
        columns: The table's columns, to check the suite's against.

    Raises:
        InvalidSuiteError: The file is not a valid suite.
    """
    name = name or f"{path.parent.name}.{path.stem}"
    document = _Document(path)
    problems = list(_problems(document, name, columns))
    if problems:
        raise InvalidSuiteError("\n".join(map(str, problems)))
    content = document.content
    return Suite(
        name=name,
        expectations=tuple(
            Expectation(
                type=entry["type"],
                kwargs=entry.get("kwargs") or {},
                severity=entry.get("severity") or "critical",
                meta=entry.get("meta") or {},
            )
            for entry in content["expectations"]
        ),
        meta=content.get("meta") or {},
        path=path,
    )


@dataclass(frozen=True)
class Lint:
    """What :func:`lint` finds.

    Attributes:
        problems: What makes the suite invalid.
        notes: What its author should know, such as a critical rule that is about the table as a whole.
    """

    problems: list[Problem]
    notes: list[Problem]


def lint(path: Path, columns: Collection[str] | None = None) -> Lint:
    """Check a suite's file thoroughly, with Great Expectations' own classes: what ``lake check`` does.

    Args:
        path: A JSON file.
        columns: The table's columns, to check the suite's against.
    """
    try:
        document = _Document(path)
    except InvalidSuiteError as error:
        return Lint([Problem(path, 1, "file", str(error))], [])
    problems = list(_problems(document, f"{path.parent.name}.{path.stem}", columns))
    if problems:
        return Lint(problems, [])
    from lakehouse.quality.gx_engine import argument_errors

    notes: list[Problem] = []
    for index, entry in enumerate(document.content["expectations"]):
        expectation = Expectation(entry["type"], entry.get("kwargs") or {}, entry.get("severity") or "critical")
        for where, message in argument_errors(expectation):
            problems.append(document.problem(("expectations", index, "kwargs", where), message))
        # Only on the way into bronze are there rows to be quarantined.
        if path.parent.name == "bronze" and expectation.severity == "critical" and not rules.is_row_rule(expectation):
            notes.append(
                document.problem(
                    ("expectations", index, "type"),
                    "is decided for the table as a whole: rows that break it are not quarantined, "
                    "the gate fails instead.",
                )
            )
    return Lint(problems, notes)


@cache
def known_types() -> dict[str, frozenset[str] | None]:
    """Every expectation type that the installed GX has, and our own, with the arguments where they are published."""
    spec = find_spec("great_expectations")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("great_expectations is not installed.")
    core = Path(spec.origin).parent / "expectations" / "core"
    schemas = {path.stem.lower(): path for path in (core / "schemas").glob("*.json")}
    types: dict[str, frozenset[str] | None] = {}
    for module in core.glob("*.py"):
        if module.stem.startswith(("expect_", "unexpected_")):
            schema = schemas.get(module.stem.replace("_", ""))
            types[module.stem] = (
                frozenset(json.loads(schema.read_text("utf-8"))["properties"]) if schema is not None else None
            )
    return {**types, **rules.OWN_TYPES}


class _Document:
    """A JSON file that knows the line of each of its fields."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._text = path.read_text("utf-8")
        try:
            self.content: Any = json.loads(self._text)
        except json.JSONDecodeError as error:
            raise InvalidSuiteError(
                str(Problem(path, error.lineno, f"column {error.colno}", f"is not JSON: {error.msg}."))
            ) from error

    def problem(self, keys: Sequence[str | int], message: str) -> Problem:
        name = ""
        for key in keys:
            name += f"[{key}]" if isinstance(key, int) else f".{key}" if key else ""
        return Problem(self.path, self._line(keys), name.lstrip(".") or "suite", message)

    def _line(self, keys: Sequence[str | int]) -> int:
        """The line of a field, or of what comes nearest above it if it is missing."""
        # JSON is YAML but for tabs, which JSON allows between tokens only.
        node = yaml.compose(self._text.replace("\t", " "), Loader=yaml.CSafeLoader)
        line = 1 if node is None else node.start_mark.line + 1
        for key in keys:
            if isinstance(node, yaml.MappingNode):
                found = next((pair for pair in node.value if pair[0].value == key), None)
                if found is None:
                    break
                line, node = found[0].start_mark.line + 1, found[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                node = node.value[key]
                line = node.start_mark.line + 1
            else:
                break
        return line


def _problems(document: _Document, name: str, columns: Collection[str] | None) -> Iterator[Problem]:
    content = document.content
    if not isinstance(content, dict):
        yield document.problem((), 'must be an object with "name" and "expectations".')
        return
    for key in content.keys() - _SUITE_KEYS:
        yield document.problem((key,), f"is not a field of a suite.{_meant(key, _SUITE_KEYS)}")
    if content.get("name") != name:
        yield document.problem(("name",), f"must be {name!r}, as the file's path says.")
    meta = content.get("meta") or {}
    if "anomalies" in meta:
        for keys, message in anomalies.problems(meta["anomalies"], columns):
            yield document.problem(("meta", "anomalies", *keys), message)
        yield from _personal_figures(document, name, meta["anomalies"])
    expectations = content.get("expectations")
    if not isinstance(expectations, list) or not expectations:
        yield document.problem(("expectations",), "must be a list of at least one expectation.")
        return
    seen: dict[str, int] = {}
    for index, entry in enumerate(expectations):
        at = ("expectations", index)
        if not isinstance(entry, dict):
            yield document.problem(at, 'must be an object with "type" and "kwargs".')
            continue
        yield from _expectation_problems(document, at, entry, columns)
        text = json.dumps([entry.get("type"), entry.get("kwargs")], sort_keys=True)
        if text in seen:
            yield document.problem(at, f"repeats expectations[{seen[text]}].")
        seen.setdefault(text, index)


def _personal_figures(document: _Document, name: str, rules: Any) -> Iterator[Problem]:
    """Anomaly rules whose history would be made of values that nobody is to be shown."""
    for index, rule in enumerate(rules if isinstance(rules, list) else ()):
        figure = isinstance(rule, dict) and rule.get("metric") in ("mean", "freshness")
        if figure and rule.get("column") in contracts.personal_columns(name):
            yield document.problem(
                ("meta", "anomalies", index, "column"),
                f"is personal: its {rule['metric']} would be kept and shown. Bound its null_share.",
            )


def _expectation_problems(
    document: _Document, at: tuple[str | int, ...], entry: Mapping[str, Any], columns: Collection[str] | None
) -> Iterator[Problem]:
    for key in entry.keys() - _EXPECTATION_KEYS:
        yield document.problem((*at, key), f"is not a field of an expectation.{_meant(key, _EXPECTATION_KEYS)}")
    if entry.get("severity", "critical") not in SEVERITIES:
        yield document.problem((*at, "severity"), f"{entry['severity']!r} is not one of {', '.join(SEVERITIES)}.")
    kind, kwargs = entry.get("type"), entry.get("kwargs", {})
    types = known_types()
    if kind not in types:
        yield document.problem((*at, "type"), f"{kind!r} is not an expectation of GX.{_meant(kind, types)}")
        return
    if not isinstance(kwargs, dict):
        yield document.problem((*at, "kwargs"), "must be an object.")
        return
    known = types[kind]
    for argument, value in kwargs.items():
        where = (*at, "kwargs", argument)
        if known is not None and argument not in known:
            yield document.problem(where, f"is not an argument of {kind}.{_meant(argument, known)}")
        elif argument == "mostly" and not (
            isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
        ):
            yield document.problem(where, f"{value!r} is not a share of rows between 0 and 1.")
        elif argument in ("column", "column_A", "column_B") and not isinstance(value, str):
            yield document.problem(where, "must be the name of a column.")
        elif argument == "column_list" and not (
            isinstance(value, list) and len(value) > 1 and all(isinstance(item, str) for item in value)
        ):
            yield document.problem(where, "must be a list of at least two names of columns.")
        elif argument in ("min_value", "max_value") and _without_zone(value):
            yield document.problem(where, f"{value!r} needs its zone: write {value}Z if it is UTC.")
        elif columns is not None and argument in _NAMES_OF_COLUMNS and value is not None:
            if kind == "expect_column_to_exist":
                continue
            for column in value if isinstance(value, list) else [value]:
                if column.split(".")[0] not in columns:
                    yield document.problem(where, f"the table has no column {column!r}.{_meant(column, columns)}")
    yield from _missing_arguments(document, at, kind, kwargs)


def _missing_arguments(
    document: _Document, at: tuple[str | int, ...], kind: str, kwargs: Mapping[str, Any]
) -> Iterator[Problem]:
    """Arguments without which a row rule has no meaning; GX checks all others."""
    if kind not in rules.ROW_RULES:
        return
    needed: tuple[str, ...]
    if kind.startswith("expect_column_pair_"):
        needed = ("column_A", "column_B")
    elif kind in (rules.COMPOUND_UNIQUE, rules.UNIQUE_WITHIN_RECORD):
        needed = ("column_list",)
    else:
        needed = ("column",)
    if kind.endswith("_in_set"):
        needed = (*needed, "value_set")
    elif kind.endswith("_regex"):
        needed = (*needed, "regex")
    elif kind.endswith("_to_equal"):
        needed = (*needed, "value")
    elif kind.endswith("_strftime_format"):
        needed = (*needed, "strftime_format")
    for argument in needed:
        if argument not in kwargs:
            yield document.problem((*at, "kwargs", argument), f"is missing; {kind} needs it.")
    if kind.endswith("_to_be_between") and kwargs.get("min_value") is None and kwargs.get("max_value") is None:
        yield document.problem((*at, "kwargs", "min_value"), "is missing, and so is max_value; give one of them.")


def _without_zone(value: Any) -> bool:
    if not isinstance(value, str) or len(value) <= len("2013-01-01"):
        return False
    try:
        return dt.datetime.fromisoformat(value).tzinfo is None
    except ValueError:
        return False


def _meant(word: Any, known: Collection[str]) -> str:
    return did_you_mean(str(word), sorted(known))
