"""Source contracts: what an upstream promises to deliver, and from where the platform reads it.

A contract is an Open Data Contract Standard 3.x document, ``spark_jobs/sources/<source>.yaml``. The
Spark schema, the DAG of the source, the dbt sources and the documentation all follow from it. Rules about
values are refused here: their place is the suite of the table.
"""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from lakehouse.contracts.document import ContractError, Document, Properties, required_text, shown
from lakehouse.contracts.parts import (
    SOURCE_NAME,
    VARIABLE,
    Column,
    Connection,
    Format,
    Server,
    read_columns,
    read_server,
    read_service_levels,
)
from lakehouse.interval import Interval
from lakehouse.settings import PROJECT_DIR
from lakehouse.wording import did_you_mean

SOURCES_DIR = PROJECT_DIR / "spark_jobs" / "sources"
SUITES_DIR = PROJECT_DIR / "expectations" / "bronze"

Load = Literal["full", "incremental"]
Delivery = Literal["daily", "snapshot"]
WarehouseTrigger = Literal["identity", "next_day", "none"]
SchemaDrift = Literal["reject", "ignore", "evolve"]

TECHNICAL_COLUMNS = {
    "_interval": ("DATE", "Day that the row's file is about; landing replaces a table day by day."),
    "_source_file": ("STRING", "File or table that the row was read from."),
    "_source_row": ("BIGINT", "Place of the row in its file; the first row of data is 1."),
}


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

    def location(self, day: dt.date, drop: str) -> str:
        """The file of a day.

        Args:
            day: The day that the data is about.
            drop: The drop folder.

        Raises:
            ContractError: The source is a database table.
        """
        if self.server.location is None:
            raise ContractError(f"{shown(self.path)}: {self.name} is a database table and has no files.")
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
            raise ContractError(f"{shown(self.path)}: {self.name} is read from files, not from a database.")
        values = {}
        for field, text in self.server.fields:
            for variable in VARIABLE.findall(text):
                if variable not in os.environ:
                    raise ContractError(
                        f"{shown(self.path)}, servers[0].{field}: the environment variable {variable} is not set."
                    )
            values[field] = VARIABLE.sub(lambda match: os.environ[match[1]], text)
        if not values["port"].isdigit():
            raise ContractError(f"{shown(self.path)}, servers[0].port: {values['port']!r} is not a port number.")
        return Connection(
            values["host"], int(values["port"]), values["database"], values["username"], values["password"]
        )

    def arrival(self, day: dt.date) -> dt.date:
        """The day on which the data about a day arrives.

        Args:
            day: The day that the data is about.
        """
        return day + dt.timedelta(days=self.lag_days)

    def check_days(self, interval: Interval) -> None:
        """Refuse days that the upstream has no data for.

        Args:
            interval: The days that the data is about.

        Raises:
            ContractError: One of them lies outside of the source's history.
        """
        for day in (interval.start, interval.end):
            if day < self.history_start or (self.history_end is not None and day > self.history_end):
                until = f"to {self.history_end}" if self.history_end else "on"
                raise ContractError(
                    f"{self.name} has no data about {day}: its history goes from {self.history_start} {until}."
                )


def read(path: Path) -> Contract:
    """Read and check a contract.

    Args:
        path: Its file; the source is called like it.

    Raises:
        ContractError: The contract is wrong.
    """
    document = Document(path)
    odcs, name = document.odcs, path.stem
    if odcs.kind != "DataContract":
        document.fail(("kind",), f"is {odcs.kind!r}. Set it to DataContract.")
    if not (odcs.apiVersion or "").startswith("v3."):
        document.fail(
            ("apiVersion",), f"is {odcs.apiVersion!r}. Set it to a version 3 of the standard, such as v3.1.0."
        )
    if not SOURCE_NAME.fullmatch(name):
        document.fail((), f"is called {path.name}. Use lower-case letters, digits and _, a letter first.")
    if odcs.name != name:
        document.fail(("name",), f"is {odcs.name!r}. Set it to {name}, as the file is called.")
    required_text(document, ("id",), odcs.id, "Give the contract an id that no other has.")
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
    columns = tuple(read_columns(document, tables[0].properties))
    positions = sorted(column.key_position for column in columns if column.key_position is not None)
    if not positions or positions != list(range(1, len(positions) + 1)):
        document.fail(
            ("schema", 0, "properties"),
            f"have the key positions {positions}. Mark the key's columns with primaryKey and number them 1, 2, ….",
        )
    server = read_server(document, tables[0].physicalName or name)
    levels = read_service_levels(document)
    custom = Properties(document, ("customProperties",), odcs.customProperties)
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
        version=required_text(document, ("version",), odcs.version, "Write the contract's version, such as 1.0.0."),
        description=required_text(
            document,
            ("description", "purpose"),
            odcs.description.purpose if odcs.description else None,
            "Say what the data is and what it is for.",
        ),
        limitations=((odcs.description.limitations if odcs.description else None) or "").strip(),
        owner=required_text(document, ("team", "name"), owner, "Name the team that owns the source."),
        grain=required_text(
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
        raise ContractError(f"{shown(path)}: {name} has no expectations. Write its suite as {shown(contract.suite)}.")
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
        hint = did_you_mean(source, known, f"There are: {', '.join(known) or 'none'}.")
        raise ContractError(f"Unknown source {source!r}.{hint} A source is a contract in {shown(SOURCES_DIR)}/.")
    return read(SOURCES_DIR / f"{source}.yaml")


def readable() -> list[Contract]:
    """The contracts that can be read, in alphabetical order: one that is wrong is in the way of its source alone."""
    return _all()[0]


def problems() -> dict[str, ContractError]:
    """The sources whose contract is wrong, each with what is wrong with it."""
    return _all()[1]


def _all() -> tuple[list[Contract], dict[str, ContractError]]:
    good, wrong = [], {}
    for source in sources():
        try:
            good.append(load(source))
        except ContractError as error:
            wrong[source] = error
    return good, wrong


def personal_columns(table: str) -> frozenset[str]:
    """Columns whose values are shown to nobody: on pages, in messages, in profiles.

    Those of a source are the personal and confidential ones of its contract; while that cannot be read, all that its
    bronze table has. What is built from sources carries their columns on by name, so that elsewhere every name counts
    that is such a column of any source.

    Args:
        table: ``layer.table``, as readers name it.
    """
    layer, _, name = table.partition(".")
    chosen = [name] if layer == "bronze" and name in sources() else sources()
    return frozenset().union(*map(_personal, chosen))


def _personal(source: str) -> frozenset[str]:
    try:
        return frozenset(column.name for column in load(source).columns if column.hidden)
    except ContractError:
        from lakehouse import tables

        return tables.columns(f"bronze_next.{source}") - TECHNICAL_COLUMNS.keys()
