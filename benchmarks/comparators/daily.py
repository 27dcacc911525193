"""A day's run with DuckDB, delta-rs and scikit-learn: land, check, build, score, and say what readers may see.

One script, run once a day, as one would write it for these sources, tables and this model. Tables are Delta tables in
``<root>/<layer>/<name>``; the rules are read from the suites of JSON that the platform has, too.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from deltalake import DeltaTable

from benchmarks.comparators import landing, rules

FLIGHT = {
    "flight_date": "date",
    "carrier": "varchar",
    "flight_number": "integer",
    "tail_number": "varchar",
    "origin": "varchar",
    "destination": "varchar",
    "scheduled_departure": "timestamptz",
}
MEASURED = [
    "temperature_f",
    "dew_point_f",
    "humidity_percent",
    "wind_direction_degrees",
    "wind_speed_mph",
    "wind_gust_mph",
    "precipitation_inches",
    "pressure_millibars",
    "visibility_miles",
]
AIRPORT = {
    "airport_code": "varchar",
    "name": "varchar",
    "latitude": "double",
    "longitude": "double",
    "altitude_feet": "integer",
    "utc_offset_hours": "integer",
    "dst": "varchar",
    "timezone": "varchar",
}
PLANE = {
    "tail_number": "varchar",
    "year_built": "integer",
    "type": "varchar",
    "manufacturer": "varchar",
    "model": "varchar",
    "engines": "integer",
    "seats": "integer",
    "cruising_speed_mph": "integer",
    "engine": "varchar",
}


@dataclass(frozen=True)
class Source:
    """What is delivered.

    Attributes:
        suffix: Of its files.
        types: Its columns.
        optional: Those that may be empty.
        days: From the day of the run to the day that its file is about.
    """

    suffix: str
    types: dict[str, str]
    optional: list[str]
    days: int = 0


SOURCES = {
    "flight_schedule": Source(
        "csv",
        FLIGHT | dict.fromkeys(["scheduled_departure_time", "scheduled_arrival_time", "distance_miles"], "integer"),
        ["tail_number"],
    ),
    "flight_actuals": Source(
        "csv", landing.TYPES, ["tail_number", *(name for name in landing.TYPES if name not in FLIGHT)], days=-1
    ),
    "weather": Source(
        "jsonl",
        {"observation_date": "date", "origin": "varchar", "observed_at": "timestamptz"}
        | dict.fromkeys(MEASURED, "double"),
        MEASURED,
        days=-1,
    ),
    "planes": Source("csv", PLANE, ["year_built", "cruising_speed_mph"]),
    "airlines": Source("csv", {"carrier": "varchar", "name": "varchar"}, []),
    "airports": Source("parquet", AIRPORT, ["timezone"]),
}

FLIGHT_ID = (
    "concat_ws('_', s.flight_date, carrier, flight_number, s.origin, lpad(scheduled_departure_time::text, 4, '0'))"
)
LATE = "arrival_delay_minutes > 15"
PLANE_ATTRIBUTES = ["year_built", "type", "manufacturer", "model", "engines", "seats", "cruising_speed_mph", "engine"]

PLANES = f"""
with snapshots as (
    select _interval, lag(_interval) over (order by _interval) as previous, lead(_interval) over (order by _interval) as
        next
    from (select distinct _interval from bronze.planes)
),
compared as (
    select *,
        row({", ".join(PLANE_ATTRIBUTES)}) is distinct from lag(row({", ".join(PLANE_ATTRIBUTES)})) over by_day
            or previous is distinct from lag(_interval) over by_day as starts
    from bronze.planes join snapshots using (_interval)
    window by_day as (partition by tail_number order by _interval)
),
numbered as (
    select *, count(*) filter (starts) over (partition by tail_number order by _interval) as version from compared
)
select
    tail_number, year_built, type as plane_type, manufacturer, model, engines, seats, cruising_speed_mph,
    engine as engine_type, min(_interval) as valid_from, last(next order by _interval) as valid_to,
    last(next order by _interval) is null as is_current
from numbered
group by tail_number, version, {", ".join(PLANE_ATTRIBUTES)}
"""

FLIGHTS = f"""
select
    {FLIGHT_ID} as flight_id,
    s.flight_date, scheduled_departure, carrier, flight_number, coalesce(a.tail_number, s.tail_number) as tail_number,
    s.origin, s.destination, distance_miles, scheduled_departure_time, scheduled_arrival_time,
    departure_time, departure_delay_minutes, arrival_time, arrival_delay_minutes, air_time_minutes,
    a.flight_date is not null as is_reported,
    case when a.flight_date is not null then departure_time is null end as is_cancelled,
    case when a.flight_date is not null then departure_time is not null and arrival_delay_minutes is null end
        as is_diverted,
    {LATE} as is_late,
    {", ".join(MEASURED)}
from bronze.flight_schedule as s
left join bronze.flight_actuals as a using (flight_date, carrier, flight_number, scheduled_departure)
left join bronze.weather as w
    on w.observation_date = s.flight_date and w.origin = s.origin
    and w.observed_at = date_trunc('hour', scheduled_departure)
where s.flight_date between $day - 1 and $day
"""

DELAYS = """
select
    flight_date, {by},
    count(*)::int as flights,
    count(*) filter (is_cancelled)::int as cancelled_flights,
    count(*) filter (is_diverted)::int as diverted_flights,
    count(arrival_delay_minutes)::int as arrived_flights,
    count(*) filter (is_late)::int as late_flights,
    coalesce(sum(departure_delay_minutes), 0)::bigint as departure_delay_minutes_total,
    coalesce(sum(arrival_delay_minutes), 0)::bigint as arrival_delay_minutes_total,
    sum(departure_delay_minutes) / nullif(count(departure_delay_minutes), 0) as mean_departure_delay_minutes,
    sum(arrival_delay_minutes) / nullif(count(arrival_delay_minutes), 0) as mean_arrival_delay_minutes,
    quantile_disc(arrival_delay_minutes, 0.5) as median_arrival_delay_minutes,
    quantile_disc(arrival_delay_minutes, 0.9) as p90_arrival_delay_minutes,
    count(*) filter (is_late) / nullif(count(arrival_delay_minutes), 0) as late_rate
from gold.fct_flights
where is_reported and flight_date between $day - 1 and $day
group by all
"""

LEAGUE = """
with months as (
    select
        date_trunc('month', flight_date)::date as month, carrier,
        sum(flights)::int as flights,
        sum(arrived_flights - late_flights)::int as on_time_flights,
        sum(late_flights)::int as late_flights,
        sum(cancelled_flights)::int as cancelled_flights,
        sum(diverted_flights)::int as diverted_flights,
        sum(arrived_flights - late_flights) / sum(flights) as on_time_rate,
        sum(cancelled_flights) / sum(flights) as cancellation_rate,
        sum(arrival_delay_minutes_total) / nullif(sum(arrived_flights), 0) as mean_arrival_delay_minutes
    from gold.daily_delays_by_carrier
    group by all
),
airlines as (
    select carrier, name from bronze.airlines where _interval = (select max(_interval) from bronze.airlines)
)
select
    month, (rank() over (partition by month order by on_time_rate desc))::int as league_rank, carrier,
    name as carrier_name, flights, on_time_flights, late_flights, cancelled_flights, diverted_flights, on_time_rate,
    cancellation_rate, mean_arrival_delay_minutes
from months left join airlines using (carrier)
"""

MEMBERS = {"carrier": "carrier", "origin": "origin", "route": "origin || '-' || destination", "tail": "tail_number"}
WINDOWS = (1, 7, 28)
LAST_WEATHER = ["temperature_f", "humidity_percent", "wind_speed_mph", "pressure_millibars", "visibility_miles"]


def _rates(dimension: str) -> str:
    """A table expression: for each carrier (…), flights and late ones of the days before."""
    counts = ", ".join(
        f"(count(*) filter (flight_date >= $day - {days}))::int as {dimension}_flights_{days}d, "
        f"count(*) filter ({LATE} and flight_date >= $day - {days}) as {dimension}_late_{days}d"
        for days in WINDOWS
    )
    return f"{dimension}_rates as (select {MEMBERS[dimension]} as member, {counts} from arrivals group by 1)"


FEATURES = f"""
with arrivals as (
    select * from bronze.flight_actuals
    where arrival_delay_minutes is not null and flight_date >= $day - 28 and flight_date < $day
),
{", ".join(map(_rates, MEMBERS))},
last_weather as (
    select
        origin,
        {", ".join(f"arg_max({name}, observed_at) as weather_{name}" for name in LAST_WEATHER)},
        sum(precipitation_inches::decimal(10, 4))::double as weather_precipitation_inches_24h
    from bronze.weather where observation_date = $day - 1
    group by origin
),
scheduled as (select *, origin || '-' || destination as route from bronze.flight_schedule where flight_date = $day)
select
    {FLIGHT_ID} as flight_id,
    flight_date, scheduled_departure, carrier, flight_number, s.tail_number, s.origin, destination,
    distance_miles,
    scheduled_departure_time // 100 * 60 + scheduled_departure_time % 100 as departure_minute_of_day,
    month(flight_date)::int as month,
    isodow(flight_date)::int as day_of_week,
    isodow(flight_date) >= 6 as is_weekend,
    $next_holiday = $day as is_holiday,
    ($next_holiday - $day)::int as days_to_holiday,
    ($day - $last_holiday)::int as days_since_holiday,
    {
    ", ".join(
        f"coalesce({name}_flights_{days}d, 0) as {name}_flights_{days}d, "
        f"{name}_late_{days}d / nullif({name}_flights_{days}d, 0) as {name}_late_rate_{days}d"
        for name in MEMBERS
        for days in WINDOWS
    )
},
    last_weather.* exclude (origin),
    year(flight_date)::int - year_built as plane_age_years,
    seats as plane_seats
from scheduled as s
left join carrier_rates on carrier_rates.member = carrier
left join origin_rates on origin_rates.member = s.origin
left join route_rates on route_rates.member = route
left join tail_rates on tail_rates.member = s.tail_number
left join last_weather on last_weather.origin = s.origin
left join gold.dim_planes as planes
    on planes.tail_number = s.tail_number and $day > valid_from and (valid_to is null or $day <= valid_to)
"""

OUTCOMES = "flight_date between date '{0}' - 1 and date '{0}'"
MODELS = {
    # What each table is made by, and which rows are replaced.
    "dim_planes": (PLANES, None),
    "fct_flights": (FLIGHTS, OUTCOMES),
    "daily_delays_by_carrier": (DELAYS.format(by="carrier"), OUTCOMES),
    "daily_delays_by_route": (DELAYS.format(by="origin, destination"), OUTCOMES),
    "daily_delays_by_airport": (DELAYS.format(by="origin as airport_code"), OUTCOMES),
    "on_time_league": (LEAGUE, None),
    "flight_delay_features": (FEATURES, "flight_date = date '{0}'"),
}
TESTS = {
    "a reported flight is counted once by carrier, by route and by airport": f"""
        select flight_date from (
            select 'flights' as counted_in, flight_date, count(*) as n from gold.fct_flights
            where is_reported and {OUTCOMES} group by all
            {
        " ".join(
            f"union all select '{name}', flight_date, sum(flights) from gold.daily_delays_by_{name} "
            f"where {OUTCOMES} group by all"
            for name in ("carrier", "route", "airport")
        )
    }
        ) group by flight_date having count(*) <> 4 or min(n) <> max(n)
    """,
    "a flight of the day is in the fact and among the features": """
        select * from (select flight_id from gold.fct_flights where flight_date = date '{0}') as f
        full join (select flight_id from gold.flight_delay_features where flight_date = date '{0}') as g
        using (flight_id) where f.flight_id is null or g.flight_id is null
    """,
    "a plane has one version on any day": """
        select * from (
            select *, lead(valid_from) over (partition by tail_number order by valid_from) as next_from
            from gold.dim_planes
        )
        where valid_to <= valid_from or (valid_to is null) <> is_current or next_from < valid_to
            or (next_from is not null and is_current)
    """,
}
PREDICTIONS = "predictions_flight_delay"
DUE = {
    "a flight of the day has a prediction": f"""
        select * from (select flight_id from gold.flight_delay_features where flight_date = date '{{0}}') as f
        full join (select flight_id from ml.{PREDICTIONS} where flight_date = date '{{0}}') as p
        using (flight_id) where f.flight_id is null or p.flight_id is null
    """
}
MODEL = "flight_delay"
CARRIED = ["flight_id", "flight_date", "scheduled_departure", "carrier", "flight_number", "origin", "destination"]
BATCH_ROWS = 200_000
TOO_MANY = 0.05
"""Share of bad rows from which on a file is refused."""


class CheckFailedError(Exception):
    """A table breaks a critical rule, or a test has found rows; what readers may see stays as it is."""


@dataclass(frozen=True)
class Verdict:
    """What came of an expectation.

    Attributes:
        type: Its name.
        kwargs: Its arguments, as JSON.
        severity: ``critical`` or ``warning``.
        success: Whether it holds.
        broken: How many rows break it; None where it is about the table as a whole.
    """

    type: str
    kwargs: str
    severity: str
    success: bool
    broken: int | None


@dataclass(frozen=True)
class Day:
    """One day's run.

    Attributes:
        day: The day.
        drop: Folder that the files are delivered to.
        suites: Folder of the expectations.
        root: Folder of the tables.
        model: URI of the version of the model in MLflow, such as ``models:/flight_delay/1``.
    """

    day: dt.date
    drop: Path
    suites: Path
    root: Path
    model: str

    def run(self) -> dict[str, list[Verdict]]:
        """Run the day.

        Returns:
            Table to what the rules say of it.

        Raises:
            CheckFailedError: What was written is not what it should be.
        """
        verdicts = {}
        for source in SOURCES:
            self.land(source)
            verdicts[f"bronze.{source}"] = self.check(f"bronze.{source}")
        self.build()
        verdicts |= {f"gold.{name}": self.check(f"gold.{name}") for name in MODELS}
        self.score()
        verdicts[f"ml.{PREDICTIONS}"] = self.check(f"ml.{PREDICTIONS}")
        self.release(list(verdicts))
        return verdicts

    def land(self, source: str) -> None:
        """Bring a file into its table, and the rows that break a rule into its quarantine.

        Args:
            source: Such as ``weather``.

        Raises:
            CheckFailedError: The file has too many of them.
        """
        kind = SOURCES[source]
        day = self.day + dt.timedelta(kind.days)
        name = f"{source}/{source}_{day}.{kind.suffix}"
        good, bad = (self.root / layer / source for layer in ("bronze", "quarantine"))
        kept, refused = landing.land(self.drop / name, day, good, bad, kind.types, reasons(self.suites, source), name)
        if refused > (kept + refused) * TOO_MANY:
            raise CheckFailedError(f"{name}: {refused} of {kept + refused} rows are bad; see {bad}")

    def build(self) -> None:
        """Build the tables of the day from those that have been landed, and test them.

        Raises:
            CheckFailedError: A test has found rows.
        """
        holidays = federal_holidays(self.day.year)
        facts = {
            "day": self.day,
            "next_holiday": min(each for each in holidays if each >= self.day),
            "last_holiday": max(each for each in holidays if each <= self.day),
        }
        with self._tables("bronze") as connection:
            connection.execute("create schema gold")
            for name, (query, where) in MODELS.items():
                found = connection.sql(query, params={key: facts[key] for key in facts if f"${key}" in query})
                folder = self.root / "gold" / name
                landing.replace(folder, found.to_arrow_reader(100_000), where and where.format(self.day))
                _show(connection, "gold", folder)
            _test(connection, TESTS, self.day)

    def score(self) -> None:
        """Score the flights of the day with the registered model, replacing what was scored for it before.

        Raises:
            CheckFailedError: A flight is missing.
        """
        import mlflow.sklearn

        pipeline = mlflow.sklearn.load_model(self.model)
        about = mlflow.models.get_model_info(self.model)
        inputs = about.metadata["numeric"] + about.metadata["categorical"]
        with self._tables("gold") as connection:
            columns = ", ".join(dict.fromkeys([*CARRIED, *inputs]))
            features = connection.sql(
                f"select sha256('{MODEL}|' || flight_id || '|' || flight_date)[:32] as prediction_id, {columns} "
                f"from gold.flight_delay_features where flight_date = date '{self.day}'"
            )
            kept = ["prediction_id", *CARRIED]
            lineage = {
                "model_name": pa.scalar(MODEL),
                "model_version": pa.scalar(int(self.model.rpartition("/")[2]), pa.int32()),
                "role": pa.scalar("champion"),
                "run_id": pa.scalar(str(uuid.uuid4())),
                # Nothing is numbered here but the versions of a table.
                "release_id": pa.scalar(DeltaTable(self.root / "gold" / "flight_delay_features").version(), pa.int64()),
                "scored_at": pa.scalar(dt.datetime.now(dt.UTC), pa.timestamp("us", "UTC")),
            }
            rows = features.to_arrow_reader(BATCH_ROWS)
            more = {"score": pa.float64(), "decision": pa.bool_()} | {key: each.type for key, each in lineage.items()}
            schema = pa.schema([*(rows.schema.field(name) for name in kept), *more.items()])

            def scored() -> Iterator[pa.RecordBatch]:
                for batch in rows:
                    frame = batch.select(inputs).to_pandas()
                    for name in about.metadata["categorical"]:
                        frame[name] = frame[name].astype(object).where(frame[name].notna(), np.nan)
                    frame[about.metadata["numeric"]] = frame[about.metadata["numeric"]].astype("float64")
                    score = pipeline.predict_proba(frame)[:, 1]
                    arrays = [*(batch.column(name) for name in kept), pa.array(score)]
                    arrays.append(pa.array(score >= about.metadata["decision_threshold"]))
                    arrays += [pa.repeat(value, batch.num_rows) for value in lineage.values()]
                    yield pa.RecordBatch.from_arrays(arrays, schema=schema)

            reader = pa.RecordBatchReader.from_batches(schema, scored())
            folder = self.root / "ml" / PREDICTIONS
            landing.replace(folder, reader, f"flight_date = '{self.day}'")
            connection.execute("create schema ml")
            _show(connection, "ml", folder)
            _test(connection, DUE, self.day)

    def check(self, table: str) -> list[Verdict]:
        """Ask the rules of a table about all of its rows, in one query.

        Args:
            table: Such as ``bronze.weather``.

        Returns:
            What came of each rule.

        Raises:
            CheckFailedError: A critical one does not hold.
        """
        layer, _, name = table.partition(".")
        expectations = rules.read(self.suites, table)
        with self._tables(layer, [name]) as connection:
            columns = connection.table(table).columns
            asked = ", ".join(f"{broken}, {considered}" for broken, considered in map(_question, expectations))
            repeated = [
                f"(select coalesce(sum(n), 0) from (select count(*) as n from {table} group by {', '.join(names)} "
                f"having count(*) > 1))"
                for expectation in expectations
                if (names := rules.unique(expectation))
            ]
            numbers = connection.execute(f"select {asked} from {table}").fetchall()[0]
            duplicates = iter(connection.execute(f"select {', '.join(repeated)}").fetchall()[0] if repeated else ())
        found = []
        for place, expectation in enumerate(expectations):
            broken, considered = numbers[2 * place : 2 * place + 2]
            if rules.unique(expectation):
                broken = int(next(duplicates))
            found.append(_verdict(expectation, broken, considered, columns))
        if failed := [each for each in found if not each.success and each.severity == "critical"]:
            raise CheckFailedError(f"{table}: {failed}")
        return found

    def release(self, names: list[str]) -> None:
        """Say which versions readers may see, all at once.

        Args:
            names: Tables that have passed.
        """
        versions = {name: DeltaTable(self.root / name.replace(".", "/")).version() for name in names}
        part = self.root / "released.json.part"
        part.write_text(json.dumps(versions, indent=1), "utf-8")
        part.replace(self.root / "released.json")

    def _tables(self, layer: str, names: list[str] | None = None) -> duckdb.DuckDBPyConnection:
        """A connection that sees the tables of a layer."""
        connection = duckdb.connect()
        connection.execute(f"set timezone = 'UTC'; create schema {layer}")
        for folder in sorted((self.root / layer).iterdir()):
            if names is None or folder.name in names:
                _show(connection, layer, folder)
        return connection


def _test(connection: duckdb.DuckDBPyConnection, tests: dict[str, str], day: dt.date) -> None:
    for name, query in tests.items():
        if rows := connection.execute(query.format(day)).fetchall():
            raise CheckFailedError(f"{name}: {len(rows)} rows say otherwise, such as {rows[0]}")


def reasons(suites: Path, source: str, raw: str = "raw", matches: str = rules.DUCKDB) -> dict[str, str]:
    """What keeps a row of a source out, to the condition.

    Args:
        suites: Folder of the expectations.
        source: Such as ``weather``.
        raw: The row as it stands in the file.
        matches: How a regular expression is asked.
    """
    kind = SOURCES[source]
    found = {f"{name} is missing": f"{raw}.{name} is null" for name in kind.types if name not in kind.optional}
    for expectation in rules.read(suites, f"bronze.{source}"):
        if expectation["severity"] != "critical" or expectation["type"] == "expect_column_values_to_not_be_null":
            continue
        label = f"{expectation['type']} {expectation['kwargs']}"
        if condition := rules.breaks(expectation, matches):
            found[label] = condition
        elif columns := rules.unique(expectation):
            found[label] = f"count(*) over (partition by {', '.join(columns)}) > 1"
    return found


def federal_holidays(year: int) -> list[dt.date]:
    """The federal holidays of the United States in a year and in those beside it, on their own days.

    Args:
        year: The year in the middle.
    """
    found = []
    for each in (year - 1, year, year + 1):
        found += [dt.date(each, month, day) for month, day in ((1, 1), (7, 4), (11, 11), (12, 25))]
        found += [dt.date(each, 6, 19)] if each >= 2021 else []
        # The nth weekday of a month, Monday being 0; Memorial Day is the last one of May.
        for month, weekday, nth in ((1, 0, 3), (2, 0, 3), (9, 0, 1), (10, 0, 2), (11, 3, 4)):
            first = dt.date(each, month, 1)
            found.append(first + dt.timedelta((weekday - first.weekday()) % 7 + 7 * (nth - 1)))
        last = dt.date(each, 5, 31)
        found.append(last - dt.timedelta(last.weekday()))
    return found


def _show(connection: duckdb.DuckDBPyConnection, layer: str, folder: Path) -> None:
    """Have the newest version of a table as a view."""
    files = ", ".join(f"'{file}'" for file in DeltaTable(folder).file_uris())
    connection.execute(f"create or replace view {layer}.{folder.name} as select * from read_parquet([{files}])")


def _question(expectation: rules.Expectation) -> tuple[str, str]:
    """What is counted for an expectation: rows that break it (or what it is about), and rows that it speaks of."""
    column = expectation["kwargs"].get("column")
    if condition := rules.breaks(expectation):
        return f"count(*) filter ({condition})", f"count(*) filter ({rules.considered(expectation)})"
    match expectation["type"]:
        case "expect_column_mean_to_be_between":
            return f"avg({column})", "count(*)"
        case "expect_column_unique_value_count_to_be_between":
            return f"count(distinct {column})", "count(*)"
    return "0", "count(*)"


def _verdict(expectation: rules.Expectation, found: Any, considered: int, columns: list[str]) -> Verdict:
    kwargs = expectation["kwargs"]
    text = json.dumps(kwargs, ensure_ascii=False, sort_keys=True)
    if rules.breaks(expectation) or rules.unique(expectation):
        success = found == 0 or (considered - found) / considered >= kwargs.get("mostly", 1)
        return Verdict(expectation["type"], text, expectation["severity"], success, found)
    if expectation["type"] == "expect_table_columns_to_match_set":
        success = set(columns) == set(kwargs["column_set"])
    else:
        value = considered if expectation["type"] == "expect_table_row_count_to_be_between" else found
        success = kwargs.get("min_value", value) <= value <= kwargs.get("max_value", value)
    return Verdict(expectation["type"], text, expectation["severity"], success, None)
