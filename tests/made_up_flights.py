"""Made-up flights in the columns of the features table, whose delays follow a known rule."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lakehouse.interval import Interval
from lakehouse.ml import model_folders, training

SPEC = model_folders.load("flight_delay")
WINDOW = Interval.parse("2013-01-01/2013-02-28")


def flights(
    window: Interval = WINDOW, per_day: int = 60, seed: int = 1, signal: float = 1.5
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Features with everything that real ones can hold, and outcomes.

    Args:
        window: Days.
        per_day: Flights per day.
        seed: Seed of everything random.
        signal: How much the outcome depends on the features.
    """
    random = np.random.default_rng(seed)
    days = list(window.days())
    rows = len(days) * per_day
    features = pd.DataFrame({name: random.normal(size=rows) for name in SPEC.features.numeric})
    features["departure_minute_of_day"] = random.integers(300, 1380, rows)
    for column in SPEC.features.numeric[2:]:
        features.loc[random.random(rows) < 0.1, column] = np.nan
    features["carrier"] = random.choice(["UA", "AA", "B6", "EV"], rows)
    features["origin"] = random.choice(["EWR", "JFK", "LGA"], rows)
    features["destination"] = random.choice(np.array(["IAH", "MIA", "BQN", None], object), rows)
    features["flight_date"] = [day for day in days for _ in range(per_day)]
    features["flight_id"] = [f"{day}_{number}" for day in days for number in range(per_day)]
    features["scheduled_departure"] = pd.Timestamp("2013-01-01", tz="UTC")
    features["flight_number"] = 1
    risk = signal * (features["carrier_late_rate_28d"].fillna(0) + (features["carrier"] == "EV")) - 1.5
    late = random.random(rows) < 1 / (1 + np.exp(-risk))
    labels = features[["flight_id", "flight_date"]].assign(is_late=pd.array(late, "boolean"), is_reported=True)
    labels.loc[random.random(rows) < 0.03, "is_late"] = pd.NA
    return features, labels


def train(features: pd.DataFrame, labels: pd.DataFrame, window: Interval = WINDOW) -> training.Trained:
    """Train flight_delay on made-up flights."""
    frame = training.training_frame(features, labels, SPEC)
    return training.train(frame, model_folders.candidates(SPEC), SPEC, window)
