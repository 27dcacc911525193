"""Source contracts: what an upstream promises to deliver, and from where the platform reads it.

A contract is an Open Data Contract Standard 3.x document, ``spark_jobs/sources/<source>.yaml``. The
Spark schema, the DAG of the source, the dbt sources and the documentation all follow from it. Rules about
values are refused here: their place is the suite of the table.
"""

from __future__ import annotations

import datetime as dt
import difflib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NoReturn, cast, get_args
from urllib.parse import quote

import yaml
from open_data_contract_standard.model import OpenDataContractStandard, SchemaProperty
from open_data_contract_standard.model import Server as ServerDocument
from pydantic import ValidationError

from lakehouse.errors import LakeError
from lakehouse.interval import Interval
from lakehouse.settings import PROJECT_DIR

SOURCES_DIR = PROJECT_DIR / "spark_jobs" / "sources"
SUITES_DIR = PROJECT_DIR / "expectations" / "bronze"

Format = Literal["csv", "jsonl", "parquet", "avro", "jdbc"]
Load = Literal["full", "incremental"]
Delivery = Literal["daily", "snapshot"]
WarehouseTrigger = Literal["identity", "next_day", "none"]
SchemaDrift = Literal["reject", "ignore", "evolve"]
Classification = Literal["public", "internal", "confidential", "restricted"]

TECHNICAL_COLUMNS = {
    "_interval": ("DATE", "Day that the row's file is about; landing replaces a table day by day."),
    "_source_file": ("STRING", "File or table that the row was read from."),
    "_source_row": ("BIGINT", "Place of the row in its file; the first row of data is 1."),
}

_FILE_FORMATS = ("csv", "jsonl", "parquet", "avro")
_FILE_SERVERS = {"local": "path", "s3": "location", "azure": "location", "custom": "location"}
_DATABASE_SERVERS = ("postgres", "postgresql")
_SPARK_TYPES = {
    ("string", None): "STRING",
    ("boolean", None): "BOOLEAN",
    ("date", None): "DATE",
    ("timestamp", None): "TIMESTAMP",
    ("integer", None): "INT",
    ("integer", "i8"): "TINYINT",
    ("integer", "i16"): "SMALLINT",
    ("integer", "i32"): "INT",
    ("integer", "i64"): "BIGINT",
    ("number", None): "DOUBLE",
    ("number", "f32"): "FLOAT",
    ("number", "f64"): "DOUBLE",
}
_LOGICAL_TYPES = tuple(dict.fromkeys(logical for logical, _ in _SPARK_TYPES))
_DAYS = {"d": 1, "day": 1, "days": 1, "w": 7, "week": 7, "weeks": 7, "y": 365, "yr": 365, "years": 365}
COLUMN_NAME = _NAME = re.compile(r"[a-z][a-z0-9_]*")
_DECIMAL = re.compile(r"(?:DECIMAL|NUMERIC)\(\s*(\d+)\s*,\s*(\d+)\s*\)", re.IGNORECASE)
_CRON_FIELD = re.compile(r"[\d*/,\-A-Za-z]+")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


class ContractError(LakeError, ValueError):
    """A contract is wrong; the message names the file, the line, the field and the way out."""


@dataclass(frozen=True)
class Column:
    """A column of a source.

    Attributes:
        name: Its name, in the file and in the bronze table.
        spark_type: Its type in Spark SQL, such as ``INT``.
        description: What it means, with its unit.
        required: Whether every row has a value.
        key_position: Place in the primary key, from 1; None outside of the key.
        classification: Who may see it.
        pii: Whether it is personal data (tag ``pii``).
        format: How a file writes a date or timestamp, as a pattern of Java's DateTimeFormatter; None is ISO 8601.
    """

    name: str
    spark_type: str
    description: str
    required: bool
    key_position: int | None
    classification: Classification
    pii: bool
    format: str | None

    @property
    def hidden(self) -> bool:
        """Whether its values must not be shown where the table's readers are not the only ones to look."""
        return self.pii or self.classification in ("confidential", "restricted")


@dataclass(frozen=True)
class Connection:
    """How to reach a PostgreSQL database.

    Attributes:
        host: Host name.
        port: TCP port.
        database: Name of the database.
        user: Who logs in.
        password: The password; never written in a contract.
    """

    host: str
    port: int
    database: str
    user: str
    password: str

    @property
    def jdbc_url(self) -> str:
        """URL for JDBC, without the credentials."""
        return f"jdbc:postgresql://{self.host}:{self.port}/{self.database}"

    @property
    def url(self) -> str:
        """URL for libpq, with the credentials."""
        return f"postgresql://{quote(self.user, '')}:{quote(self.password, '')}@{self.host}:{self.port}/{self.database}"


@dataclass(frozen=True)
class Server:
    """Where a source is read from.

    Attributes:
        format: The reader: ``csv``, ``jsonl``, ``parquet``, ``avro`` or ``jdbc``.
        location: Path or URL of a day's file with the placeholders ``{drop}`` (the drop folder) and ``{interval}``
            (the day); None for a database.
        encoding: Character encoding of a text file.
        table: Schema and table in the database, such as ``public.orders``; None for files.
        fields: Host, port, database, user name and password as the contract writes them, ``${VARIABLE}``
            standing for an environment variable; None for files.
    """

    format: Format
    location: str | None = None
    encoding: str = "UTF-8"
    table: str | None = None
    fields: tuple[tuple[str, str], ...] | None = None


@dataclass(frozen=True)
class Contract:
    """A source as the platform sees it.

    Attributes:
        name: The source, which is also its bronze table.
        version: Version of the contract.
        description: What the data is.
        limitations: What the data is not; may be empty.
        owner: The team that answers for it.
        grain: What one row is.
        columns: The columns in their order.
        server: Where it is read from.
        delivery: ``daily``: the rows of a day; ``snapshot``: everything as it is on that day.
        load: ``full``: all of a database table; ``incremental``: the rows whose watermark falls into the interval.
        watermark: The column that an incremental load goes by.
        lag_days: Days from the day that the data is about to the day on which it arrives; -1 is the day before.
        cron: When the source is ingested (UTC), on the day that the data arrives.
        wait: How long to wait for data that is late.
        poke: How often to look for it meanwhile.
        history_start: First day that the upstream has data for.
        history_end: Last day that it has data for; None while it goes on.
        retention_days: How long the rows are kept.
        warehouse_trigger: Which build of the warehouse a new day leads to: of the same day, of the next, or none.
        allow_empty: Whether a delivery without a row is good.
        schema_drift: What to do with a delivery whose columns are not the contract's.
        path: The contract's file.
    """

    name: str
    version: str
    description: str
    limitations: str
    owner: str
    grain: str
    columns: tuple[Column, ...]
    server: Server
    delivery: Delivery
    load: Load
    watermark: str | None
    lag_days: int
    cron: str
    wait: dt.timedelta
    poke: dt.timedelta
    history_start: dt.date
    history_end: dt.date | None
    retention_days: int
    warehouse_trigger: WarehouseTrigger
    allow_empty: bool
    schema_drift: SchemaDrift
    path: Path

    @property
    def format(self) -> Format:
        """The reader: ``csv``, ``jsonl``, ``parquet``, ``avro`` or ``jdbc``."""
        return self.server.format

    @property
    def keys(self) -> tuple[str, ...]:
        """The primary key's columns in their order."""
        keyed = [column for column in self.columns if column.key_position is not None]
        return tuple(column.name for column in sorted(keyed, key=lambda column: column.key_position or 0))

    @property
    def table(self) -> str:
        """The released table, such as ``bronze.weather``."""
        return f"bronze.{self.name}"

    @property
    def suite(self) -> Path:
        """The expectations that its rows must meet."""
        return SUITES_DIR / f"{self.name}.json"

    def ddl(self, *, technical: bool = False) -> str:
        """The columns as a Spark DDL string, which ``spark.read.schema`` and ``create table`` take.

        Args:
            technical: Also the columns that landing adds.
        """
        types = {column.name: column.spark_type for column in self.columns}
        if technical:
            types |= {name: spark_type for name, (spark_type, _) in TECHNICAL_COLUMNS.items()}
        return ", ".join(f"`{name}` {spark_type}" for name, spark_type in types.items())

    def location(self, day: dt.date, drop: str) -> str:
        """The file of a day.

        Args:
            day: The day that the data is about.
            drop: The drop folder.

        Raises:
            ContractError: The source is a database table.
        """
        if self.server.location is None:
            raise ContractError(f"{_shown(self.path)}: {self.name} is a database table and has no files.")
        return self.server.location.replace("{drop}", drop.rstrip("/")).replace("{interval}", day.isoformat())

    def locations(self, interval: Interval, drop: str) -> dict[dt.date, str]:
        """The files of an interval, by day.

        Args:
            interval: The days that the data is about.
            drop: The drop folder.
        """
        return {day: self.location(day, drop) for day in interval.days()}

    def connection(self) -> Connection:
        """How to reach the database, with the environment variables that the contract names filled in.

        Raises:
            ContractError: The source is no database table, or a variable is not set.
        """
        if self.server.fields is None:
            raise ContractError(f"{_shown(self.path)}: {self.name} is read from files, not from a database.")
        values = {}
        for field, text in self.server.fields:
            for variable in _VARIABLE.findall(text):
                if variable not in os.environ:
                    raise ContractError(
                        f"{_shown(self.path)}, servers[0].{field}: the environment variable {variable} is not set."
                    )
            values[field] = _VARIABLE.sub(lambda match: os.environ[match[1]], text)
        if not values["port"].isdigit():
            raise ContractError(f"{_shown(self.path)}, servers[0].port: {values['port']!r} is not a port number.")
        return Connection(
            values["host"], int(values["port"]), values["database"], values["username"], values["password"]
        )

    def arrival(self, day: dt.date) -> dt.date:
        """The day on which the data about a day arrives.

        Args:
            day: The day that the data is about.
        """
        return day + dt.timedelta(days=self.lag_days)

    def check_day(self, day: dt.date) -> None:
        """Refuse a day that the upstream has no data for.

        Args:
            day: The day that the data is about.

        Raises:
            ContractError: The day lies outside of the source's history.
        """
        if day < self.history_start or (self.history_end is not None and day > self.history_end):
            until = f"to {self.history_end}" if self.history_end else "on"
            raise ContractError(
                f"{self.name} has no data about {day}: its history goes from {self.history_start} {until}."
            )


def _shown(path: Path) -> str:
    return str(path.relative_to(PROJECT_DIR) if path.is_relative_to(PROJECT_DIR) else path)


def _dotted(path: Sequence[str | int]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "the document"


class _Loader(yaml.CSafeLoader):
    """Leaves dates as text, so that a day that does not exist is an error of its field."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML declares it
        letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for letter, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }


class _Document:
    """A parsed contract that knows the line of each of its fields."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_text(encoding="utf-8")
            raw = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader
            self._root = yaml.compose(text, Loader=_Loader)
        except UnicodeDecodeError as error:
            raise ContractError(f"{_shown(path)}: not UTF-8 ({error}). Save it as UTF-8.") from error
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ContractError(
                f"{_shown(path)}, line {line}: not YAML ({error.problem}). Correct the line; indent with spaces."
            ) from error
        self._refuse_duplicates(self._root, ())
        if not isinstance(raw, dict):
            self.fail((), "is empty or not a mapping. Start it with `apiVersion: v3.1.0` and `kind: DataContract`.")
        try:
            self.odcs = OpenDataContractStandard.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] == "extra_forbidden":
                self._refuse_key(first["loc"], list(OpenDataContractStandard.model_fields))
            self.fail(first["loc"], f"{first['msg']} (the value is {first['input']!r}).")
        self._refuse_unknown(raw, self.odcs.model_dump(by_alias=True, exclude_unset=True), ())

    def line(self, path: Sequence[str | int]) -> int:
        """Line of a field, or of the nearest field around it that the document has."""
        node, line = self._root, 1
        for part in path:
            if isinstance(node, yaml.MappingNode):
                for key, value in node.value:
                    if key.value == part:
                        node, line = value, key.start_mark.line + 1
                        break
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line + 1
        return line

    def fail(self, path: Sequence[str | int], problem: str) -> NoReturn:
        """Raise an error about one field."""
        raise ContractError(f"{_shown(self.path)}, line {self.line(path)}: {_dotted(path)} {problem}")

    def _refuse_key(self, path: Sequence[str | int], known: Sequence[str]) -> NoReturn:
        close = difflib.get_close_matches(str(path[-1]), known, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        self.fail(path, f"is not a field of the Open Data Contract Standard.{hint}")

    def _refuse_duplicates(self, node: yaml.Node | None, path: tuple[str | int, ...]) -> None:
        if isinstance(node, yaml.MappingNode):
            seen: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                if key.value in seen:
                    raise ContractError(
                        f"{_shown(self.path)}, line {line}: {_dotted((*path, key.value))} is there twice, "
                        f"first on line {seen[key.value]}. Keep one."
                    )
                seen[key.value] = line
                self._refuse_duplicates(value, (*path, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self._refuse_duplicates(item, (*path, index))

    def _refuse_unknown(self, raw: Any, model: Any, path: tuple[str | int, ...]) -> None:
        # The standard's pydantic model drops unknown keys inside the document in silence.
        if isinstance(raw, dict) and isinstance(model, dict):
            for key, value in raw.items():
                if key not in model:
                    fields = [field.alias or name for name, field in _FIELDS.get(_kind(path), {}).items()]
                    self._refuse_key((*path, key), fields)
                self._refuse_unknown(value, model[key], (*path, key))
        elif isinstance(raw, list) and isinstance(model, list):
            for index, (item, modelled) in enumerate(zip(raw, model, strict=True)):
                self._refuse_unknown(item, modelled, (*path, index))


_FIELDS: dict[str, dict[str, Any]] = {
    "servers": ServerDocument.model_fields,
    "properties": SchemaProperty.model_fields,
}


def _kind(path: Sequence[str | int]) -> str:
    return next((part for part in reversed(path) if isinstance(part, str)), "")


class _Properties:
    """Custom properties, read one by one; what is left over at the end is unknown and refused."""

    def __init__(self, document: _Document, path: tuple[str | int, ...], entries: Sequence[Any] | None) -> None:
        self._document, self._path = document, path
        self._known: list[str] = []
        self._entries: dict[str, tuple[int, Any]] = {}
        for index, entry in enumerate(entries or ()):
            if entry.property in self._entries:
                document.fail((*path, index, "property"), f"{entry.property} is there twice. Keep one.")
            self._entries[entry.property] = (index, entry.value)

    def place(self, name: str) -> tuple[str | int, ...]:
        """Where a property is, for an error about it."""
        return (*self._path, self._entries[name][0]) if name in self._entries else self._path

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a property."""
        self._known.append(name)
        return self._entries[name][1] if name in self._entries else default

    def one_of(self, name: str, choices: Any, default: str | None = None) -> Any:
        """A property that is one of the values of a Literal."""
        value = self.get(name, default)
        if value not in get_args(choices):
            said = f"is {value!r}" if value is not None else "is missing"
            self._document.fail(self.place(name), f"{name} {said}. Set it to one of: {', '.join(get_args(choices))}.")
        return value

    def whole_number(self, name: str, default: int, minimum: int) -> int:
        """A property that is a whole number."""
        value = self.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            self._document.fail(self.place(name), f"{name} is {value!r}. Write a whole number of at least {minimum}.")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """A property that is true or false."""
        value = self.get(name, default)
        if not isinstance(value, bool):
            self._document.fail(self.place(name), f"{name} is {value!r}. Write true or false.")
        return value

    def date(self, name: str) -> dt.date | None:
        """A property that is a day."""
        value = self.get(name)
        if value is None:
            return None
        try:
            return dt.date.fromisoformat(str(value))
        except ValueError:
            self._document.fail(self.place(name), f"{name} is {value!r}. Write a day as 2013-12-31.")

    def refuse_others(self) -> None:
        """Refuse properties that nobody has asked for."""
        for name, (index, _) in self._entries.items():
            if name not in self._known:
                close = difflib.get_close_matches(str(name), self._known, n=1)
                hint = f" Did you mean {close[0]}?" if close else f" Known are: {', '.join(self._known)}."
                self._document.fail((*self._path, index, "property"), f"{name} is not known to the platform.{hint}")


def _text(document: _Document, path: tuple[str | int, ...], value: str | None, way_out: str) -> str:
    if value is None or not value.strip():
        document.fail(path, f"is missing. {way_out}")
    return value.strip()


def _spark_type(document: _Document, path: tuple[str | int, ...], column: SchemaProperty) -> str:
    logical, options = column.logicalType, column.logicalTypeOptions or {}
    if logical not in _LOGICAL_TYPES:
        document.fail((*path, "logicalType"), f"is {logical!r}. Set it to one of: {', '.join(_LOGICAL_TYPES)}.")
    for option in options:
        if option != "format":
            document.fail(
                (*path, "logicalTypeOptions", option),
                "is a rule about values: write it as an expectation of the suite.",
            )
    if column.physicalType and (decimal := _DECIMAL.fullmatch(column.physicalType.strip())):
        if logical != "number":
            document.fail((*path, "physicalType"), f"is a decimal, but logicalType is {logical}. Set that to number.")
        return f"DECIMAL({decimal[1]},{decimal[2]})"
    width = options.get("format") if logical in ("integer", "number") else None
    if (logical, width) not in _SPARK_TYPES:
        known = [name for kind, name in _SPARK_TYPES if kind == logical and name]
        document.fail((*path, "logicalTypeOptions", "format"), f"is {width!r}. Set it to one of: {', '.join(known)}.")
    return _SPARK_TYPES[logical, width]


def _columns(document: _Document, properties: Sequence[SchemaProperty] | None) -> Iterator[Column]:
    base: tuple[str | int, ...] = ("schema", 0, "properties")
    if not properties:
        document.fail(base, "is missing. List the source's columns.")
    seen: set[str] = set()
    for index, column in enumerate(properties):
        path = (*base, index)
        name = _text(document, (*path, "name"), column.name, "Give the column a name.")
        if not _NAME.fullmatch(name):
            document.fail((*path, "name"), f"is {name!r}. Use lower-case letters, digits and _, a letter first.")
        if name in seen:
            document.fail((*path, "name"), f"{name} is there twice. Keep one.")
        seen.add(name)
        for field, instead in {
            "quality": "write it as an expectation of the suite",
            "unique": "name the key with primaryKey, or write an expectation of the suite",
            "properties": "nested columns are not supported; flatten them in the upstream",
            "items": "nested columns are not supported; flatten them in the upstream",
            "physicalName": "the column is called the same in the source and in bronze; rename it in silver",
        }.items():
            if getattr(column, field):
                document.fail((*path, field), f"is not supported here: {instead}.")
        if column.classification not in get_args(Classification):
            document.fail(
                (*path, "classification"),
                f"of {name} is {column.classification!r}. Set it to one of: {', '.join(get_args(Classification))}.",
            )
        if column.primaryKey and not column.required:
            document.fail((*path, "required"), f"of {name} must be true: it is part of the primary key.")
        if column.primaryKey and column.primaryKeyPosition is None:
            document.fail((*path, "primaryKeyPosition"), f"of {name} is missing. Number the key's columns from 1.")
        options = column.logicalTypeOptions or {}
        yield Column(
            name=name,
            spark_type=_spark_type(document, path, column),
            description=_text(
                document, (*path, "description"), column.description, f"Say what {name} means, with its unit."
            ),
            required=bool(column.required),
            key_position=column.primaryKeyPosition if column.primaryKey else None,
            classification=cast(Classification, column.classification),
            pii="pii" in (column.tags or ()),
            format=options.get("format") if column.logicalType in ("date", "timestamp") else None,
        )


def _server(document: _Document, table: str) -> Server:
    servers = document.odcs.servers or []
    if len(servers) != 1:
        document.fail(("servers",), f"has {len(servers)} entries. Name the one server that the source is read from.")
    server, path = servers[0], ("servers", 0)
    custom = _Properties(document, (*path, "customProperties"), server.customProperties)
    if server.type in _DATABASE_SERVERS:
        fields = {
            "host": server.host,
            "port": server.port,
            "database": server.database,
            "username": custom.get("username"),
            "password": custom.get("password"),
        }
        custom.refuse_others()
        for name, value in fields.items():
            if value in (None, ""):
                document.fail(
                    (*path, name),
                    f"{name} is missing. Write it, or ${{VARIABLE}} for an environment variable.",
                )
        if not _VARIABLE.fullmatch(str(fields["password"])):
            document.fail(
                custom.place("password"),
                "password must not be written in a contract: use ${VARIABLE} for it.",
            )
        schema = _text(document, (*path, "schema"), server.schema_, "Name the table's schema, such as public.")
        return Server(
            "jdbc",
            table=f"{schema}.{table}",
            fields=tuple((name, str(value)) for name, value in fields.items()),
        )
    if server.type not in _FILE_SERVERS:
        known = ", ".join([*_FILE_SERVERS, *_DATABASE_SERVERS])
        document.fail((*path, "type"), f"is {server.type!r}. Set it to one of: {known}.")
    custom.refuse_others()
    if server.format not in _FILE_FORMATS:
        document.fail((*path, "format"), f"is {server.format!r}. Set it to one of: {', '.join(_FILE_FORMATS)}.")
    if server.delimiter:
        document.fail((*path, "delimiter"), "is not supported: CSV files separate their columns by commas.")
    field = _FILE_SERVERS[server.type]
    location = _text(
        document,
        (*path, field),
        getattr(server, field),
        "Write where a day's file lies, with {interval} for the day.",
    )
    unknown = set(re.findall(r"\{.*?\}", location)) - {"{drop}", "{interval}"}
    if unknown or "{interval}" not in location:
        document.fail(
            (*path, field),
            f"is {location!r}. It must have the placeholder {{interval}} (the day), may have {{drop}} (the drop "
            "folder), and no other.",
        )
    if ".." in location.split("/"):
        document.fail((*path, field), f"is {location!r}. Write it without '..'.")
    return Server(cast(Format, server.format), location=location, encoding=server.encoding or "UTF-8")


@dataclass(frozen=True)
class _ServiceLevels:
    lag_days: int
    cron: str
    retention_days: int


def _service_levels(document: _Document) -> _ServiceLevels:
    found: dict[str, tuple[int, Any]] = {}
    for index, entry in enumerate(document.odcs.slaProperties or ()):
        if entry.property not in ("latency", "frequency", "retention"):
            document.fail(
                ("slaProperties", index, "property"),
                f"is {entry.property!r}. The platform keeps: latency, frequency, retention.",
            )
        if entry.property in found:
            document.fail(("slaProperties", index, "property"), f"{entry.property} is there twice. Keep one.")
        found[entry.property] = (index, entry)
    days = {}
    for name, example in {
        "latency": "-1, 0, 1, …: days until the data about a day arrives",
        "frequency": "1",
        "retention": "3 with unit y: how long the rows are kept",
    }.items():
        if name not in found:
            document.fail(("slaProperties",), f"has no entry {name}. Add it with a value ({example}) and a unit.")
        index, entry = found[name]
        if isinstance(entry.value, bool) or not isinstance(entry.value, int):
            document.fail(("slaProperties", index, "value"), f"of {name} is {entry.value!r}. Write a whole number.")
        if entry.unit not in _DAYS:
            document.fail(
                ("slaProperties", index, "unit"),
                f"of {name} is {entry.unit!r}. Set it to one of: {', '.join(_DAYS)}.",
            )
        days[name] = entry.value * _DAYS[entry.unit]
    index, frequency = found["frequency"]
    if days["frequency"] != 1:
        document.fail(
            ("slaProperties", index, "value"),
            "of frequency must be one day: sources are ingested day by day.",
        )
    fields = (frequency.schedule or "").split()
    if frequency.scheduler != "cron" or len(fields) != 5 or not all(map(_CRON_FIELD.fullmatch, fields)):
        document.fail(
            ("slaProperties", index, "schedule"),
            f"of frequency is {frequency.schedule!r}. Write scheduler: cron, and five fields such as 0 6 * * *.",
        )
    if days["retention"] < 1:
        document.fail(("slaProperties", found["retention"][0], "value"), "of retention must be at least one day.")
    return _ServiceLevels(days["latency"], " ".join(fields), days["retention"])


def read(path: Path) -> Contract:
    """Read and check a contract.

    Args:
        path: Its file; the source is called like it.

    Raises:
        ContractError: The contract is wrong.
    """
    document = _Document(path)
    odcs, name = document.odcs, path.stem
    if odcs.kind != "DataContract":
        document.fail(("kind",), f"is {odcs.kind!r}. Set it to DataContract.")
    if not (odcs.apiVersion or "").startswith("v3."):
        document.fail(
            ("apiVersion",), f"is {odcs.apiVersion!r}. Set it to a version 3 of the standard, such as v3.1.0."
        )
    if not _NAME.fullmatch(name):
        document.fail((), f"is called {path.name}. Use lower-case letters, digits and _, a letter first.")
    if odcs.name != name:
        document.fail(("name",), f"is {odcs.name!r}. Set it to {name}, as the file is called.")
    _text(document, ("id",), odcs.id, "Give the contract an id that no other has.")
    if not isinstance(odcs.team, list):
        owner = odcs.team.name if odcs.team else None
    else:
        document.fail(("team",), "is a list, which the standard has deprecated. Write a mapping with name and members.")
    tables = odcs.schema_ or []
    if len(tables) != 1:
        document.fail(("schema",), f"has {len(tables)} entries. A contract is about one table.")
    if tables[0].name != name:
        document.fail(("schema", 0, "name"), f"is {tables[0].name!r}. Set it to {name}, as the file is called.")
    if tables[0].quality:
        document.fail(("schema", 0, "quality"), "is not supported here: write the rules as expectations of the suite.")
    columns = tuple(_columns(document, tables[0].properties))
    positions = sorted(column.key_position for column in columns if column.key_position is not None)
    if not positions or positions != list(range(1, len(positions) + 1)):
        document.fail(
            ("schema", 0, "properties"),
            f"have the key positions {positions}. Mark the key's columns with primaryKey and number them 1, 2, ….",
        )
    server = _server(document, tables[0].physicalName or name)
    levels = _service_levels(document)
    custom = _Properties(document, ("customProperties",), odcs.customProperties)
    history_start, history_end = custom.date("historyStart"), custom.date("historyEnd")
    if history_start is None:
        document.fail(("customProperties",), "has no historyStart. Add the first day that the upstream has data for.")
    if history_end is not None and history_end < history_start:
        document.fail(custom.place("historyEnd"), f"historyEnd {history_end} is before historyStart {history_start}.")
    load_mode = custom.one_of("load", Load, "full")
    watermark = custom.get("watermark")
    if load_mode == "incremental":
        types = {column.name: column.spark_type for column in columns}
        if server.format != "jdbc":
            document.fail(custom.place("load"), "load incremental is for database tables: a file holds its interval.")
        if types.get(str(watermark)) not in ("DATE", "TIMESTAMP"):
            document.fail(
                custom.place("watermark"),
                f"watermark is {watermark!r}. Name a column of type date or timestamp.",
            )
    elif watermark is not None:
        document.fail(custom.place("watermark"), "watermark is only for load incremental.")
    contract = Contract(
        name=name,
        version=_text(document, ("version",), odcs.version, "Write the contract's version, such as 1.0.0."),
        description=_text(
            document,
            ("description", "purpose"),
            odcs.description.purpose if odcs.description else None,
            "Say what the data is and what it is for.",
        ),
        limitations=((odcs.description.limitations if odcs.description else None) or "").strip(),
        owner=_text(document, ("team", "name"), owner, "Name the team that owns the source."),
        grain=_text(
            document,
            ("schema", 0, "dataGranularityDescription"),
            tables[0].dataGranularityDescription,
            "Say what one row is.",
        ),
        columns=columns,
        server=server,
        delivery=custom.one_of("delivery", Delivery),
        load=load_mode,
        watermark=watermark,
        lag_days=levels.lag_days,
        cron=levels.cron,
        wait=dt.timedelta(minutes=custom.whole_number("waitMinutes", 360, minimum=0)),
        poke=dt.timedelta(seconds=custom.whole_number("pokeSeconds", 60, minimum=1)),
        history_start=history_start,
        history_end=history_end,
        retention_days=levels.retention_days,
        warehouse_trigger=custom.one_of("warehouseTrigger", WarehouseTrigger, "none"),
        allow_empty=custom.flag("allowEmpty", False),
        schema_drift=custom.one_of("schemaDrift", SchemaDrift, "reject"),
        path=path,
    )
    custom.refuse_others()
    if not contract.suite.is_file():
        raise ContractError(f"{_shown(path)}: {name} has no expectations. Write its suite as {_shown(contract.suite)}.")
    return contract


def sources() -> list[str]:
    """The names of all sources, in alphabetical order."""
    return sorted(path.stem for path in SOURCES_DIR.glob("*.yaml"))


@cache
def load(source: str) -> Contract:
    """The contract of a source, read once per process.

    Args:
        source: Name of the source.

    Raises:
        ContractError: There is no such source, or its contract is wrong.
    """
    known = sources()
    if source not in known:
        close = difflib.get_close_matches(source, known, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"There are: {', '.join(known) or 'none'}."
        raise ContractError(f"Unknown source {source!r}. {hint} A source is a contract in {_shown(SOURCES_DIR)}/.")
    return read(SOURCES_DIR / f"{source}.yaml")


def personal_columns(table: str) -> frozenset[str]:
    """Columns whose values are shown to nobody: on pages, in messages, in profiles.

    Those of a source are the personal and confidential ones of its contract. What is built from sources carries
    their columns on by name, so that elsewhere every name counts that is such a column of any source.

    Args:
        table: ``layer.table``, as readers name it.
    """
    layer, _, name = table.partition(".")
    chosen = [name] if layer == "bronze" and name in sources() else sources()
    return frozenset(column.name for source in chosen for column in load(source).columns if column.hidden)


def dbt_sources() -> dict[str, Any]:
    """The dbt source ``bronze``, as the content of a properties file.

    Returns:
        A mapping to be written as YAML or JSON.
    """
    tables = []
    for contract in map(load, sources()):
        columns: list[dict[str, Any]] = []
        for column in contract.columns:
            meta = {"classification": column.classification, "pii": column.pii}
            columns.append(
                {
                    "name": column.name,
                    "description": column.description,
                    "data_type": column.spark_type.lower(),
                    "config": {"meta": meta},
                }
                | ({"data_tests": ["not_null"]} if column.required else {})
            )
        columns += [
            {"name": name, "description": description, "data_type": spark_type.lower()}
            for name, (spark_type, description) in TECHNICAL_COLUMNS.items()
        ]
        tables.append(
            {
                "name": contract.name,
                "description": f"{contract.description} {contract.grain} {contract.limitations}".strip(),
                "config": {
                    "meta": {
                        "owner": contract.owner,
                        "contract_version": contract.version,
                        "primary_key": list(contract.keys),
                        "delivery": contract.delivery,
                    }
                },
                "columns": columns,
            }
        )
    return {
        "version": 2,
        "sources": [
            {
                "name": "bronze",
                "schema": "bronze",
                "description": "The released rows of every source, as its contract describes them.",
                "tables": tables,
            }
        ],
    }
