"""An input that knows the outcome is refused by its name, and one that only helps is not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lakehouse.ml import leaks, model_folders, training
from tests.made_up_flights import SPEC, WINDOW, flights

MINUTES = model_folders.load("flight_delay_minutes")


def rows() -> pd.DataFrame:
    frame = training.training_frame(*flights(), SPEC).dropna(subset="label")
    return frame.assign(label=frame["label"].astype("float64"))


def test_what_helps_is_no_leak() -> None:
    leaks.check(rows(), "label", SPEC)
    strong = rows()
    noise = np.random.default_rng(1).normal(size=len(strong))
    leaks.check(strong.assign(distance_miles=strong["label"] + noise / 3), "label", SPEC)


@pytest.mark.parametrize(
    "leak",
    [
        lambda frame: frame["label"],
        lambda frame: -7 * frame["label"] + np.linspace(0, 1, len(frame)),
        lambda frame: (frame["label"] * 30).where(np.arange(len(frame)) % 3 > 0),
        lambda frame: frame["distance_miles"].where(frame["label"] > 0),
    ],
    ids=["equal", "monotone", "equal where it is not null", "null where it is not late"],
)
def test_a_number_that_knows_the_outcome_is_named(leak: object) -> None:
    frame = rows()
    frame["plane_seats"] = leak(frame)  # type: ignore[operator]
    with pytest.raises(leaks.LeakError, match=r"flight_delay: plane_seats tells the outcome by .* \(area under"):
        leaks.check(frame, "label", SPEC)


def test_a_name_that_knows_the_outcome_is_named_and_one_of_each_row_is_not() -> None:
    frame = rows()
    leaks.check(frame.assign(carrier=frame["flight_id"]), "label", SPEC)
    status = np.where(frame["label"] > 0, "late", "in time").astype(object)
    with pytest.raises(leaks.LeakError, match="carrier tells the outcome by its values"):
        leaks.check(frame.assign(carrier=status), "label", SPEC)


def test_of_a_regression_it_is_the_order() -> None:
    frame = rows()
    minutes = np.random.default_rng(2).gumbel(0, 20, len(frame))
    frame = frame.assign(label=minutes)
    leaks.check(
        frame.assign(distance_miles=minutes + np.random.default_rng(3).normal(0, 10, len(frame))), "label", MINUTES
    )
    with pytest.raises(leaks.LeakError, match=r"distance_miles tells the outcome by its values \(rank correlation 1"):
        leaks.check(frame.assign(distance_miles=np.exp(-minutes / 50)), "label", MINUTES)


def test_training_refuses_it() -> None:
    features, labels = flights()
    leaky = features.assign(plane_seats=labels["is_late"].astype("Float64"))
    frame = training.training_frame(leaky, labels, SPEC)
    with pytest.raises(leaks.LeakError, match="plane_seats"):
        training.train(frame, model_folders.candidates(SPEC), SPEC, WINDOW)
