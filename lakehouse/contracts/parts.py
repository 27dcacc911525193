"""The parts of a contract: its columns, its server, its service levels, and how each is read from the document."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args
from urllib.parse import quote

from open_data_contract_standard.model import SchemaProperty

from lakehouse.contracts.document import Document, Properties, required_text

Format = Literal["csv", "jsonl", "parquet", "avro", "jdbc"]
Classification = Literal["public", "internal", "confidential", "restricted"]

SOURCE_NAME = COLUMN_NAME = re.compile(r"[a-z][a-z0-9_]*")
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

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
_DECIMAL = re.compile(r"(?:DECIMAL|NUMERIC)\(\s*(\d+)\s*,\s*(\d+)\s*\)", re.IGNORECASE)
_CRON_FIELD = re.compile(r"[\d*/,\-A-Za-z]+")


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
class ServiceLevels:
    """When the data arrives, and how long it is kept.

    Attributes:
        lag_days: Days from the day that the data is about to the day on which it arrives.
        cron: When the source is ingested (UTC), on the day that the data arrives.
        retention_days: How long the rows are kept.
    """

    lag_days: int
    cron: str
    retention_days: int


def read_columns(document: Document, properties: Sequence[SchemaProperty] | None) -> Iterator[Column]:
    """The columns of the document's table, each checked."""
    base: tuple[str | int, ...] = ("schema", 0, "properties")
    if not properties:
        document.fail(base, "is missing. List the source's columns.")
    seen: set[str] = set()
    for index, column in enumerate(properties):
        path = (*base, index)
        name = required_text(document, (*path, "name"), column.name, "Give the column a name.")
        if not COLUMN_NAME.fullmatch(name):
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
            description=required_text(
                document, (*path, "description"), column.description, f"Say what {name} means, with its unit."
            ),
            required=bool(column.required),
            key_position=column.primaryKeyPosition if column.primaryKey else None,
            classification=cast(Classification, column.classification),
            pii="pii" in (column.tags or ()),
            format=options.get("format") if column.logicalType in ("date", "timestamp") else None,
        )


def read_server(document: Document, table: str) -> Server:
    """The one server of the document, checked."""
    servers = document.odcs.servers or []
    if len(servers) != 1:
        document.fail(("servers",), f"has {len(servers)} entries. Name the one server that the source is read from.")
    server, path = servers[0], ("servers", 0)
    custom = Properties(document, (*path, "customProperties"), server.customProperties)
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
        if not VARIABLE.fullmatch(str(fields["password"])):
            document.fail(
                custom.place("password"),
                "password must not be written in a contract: use ${VARIABLE} for it.",
            )
        schema = required_text(document, (*path, "schema"), server.schema_, "Name the table's schema, such as public.")
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
    location = required_text(
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
        document.fail((*path, field), f"is {location!r}. Write it without '..'.", "outside_drop")
    return Server(cast(Format, server.format), location=location, encoding=server.encoding or "UTF-8")


def read_service_levels(document: Document) -> ServiceLevels:
    """The service levels of the document, in days."""
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
    return ServiceLevels(days["latency"], " ".join(fields), days["retention"])


def _spark_type(document: Document, path: tuple[str | int, ...], column: SchemaProperty) -> str:
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
