"""The id that Spark writes is the one that a person's question is turned into, and no two keys share one."""

from __future__ import annotations

import datetime as dt
import random

from lakehouse.engine import spark
from lakehouse.ml.prediction_id import column, prediction_id

PIECES = ["|", "\\", "\\|", "a", "B6", "ü", "漢", "", " ", "\n", "'", "%", "2013-03-01"]


def test_both_forms_give_the_same_id_whatever_the_key_holds() -> None:
    chance = random.Random(5)
    texts = ["".join(chance.choices(PIECES, k=chance.randint(0, 4))) for _ in range(400)]
    numbers = [chance.choice([0, -1, 2**31, 10**15, chance.randint(-999, 999)]) for _ in texts]
    days = [dt.date(1999, 12, 31) + dt.timedelta(chance.randint(0, 9999)) for _ in texts]
    rows = list(zip(texts, numbers, days, strict=True))
    made = spark().createDataFrame(rows, "name string, number bigint, day date")
    found = made.select("*", column("late", ["name", "number"], "day").alias("id")).collect()
    assert len(found) == len(rows)
    for row in found:
        assert row["id"] == prediction_id("late", [row["name"], str(row["number"])], row["day"]), row
    assert len({row["id"] for row in found}) == len(set(rows))


def test_where_one_part_ends_and_the_next_begins_makes_a_difference() -> None:
    day = dt.date(2013, 3, 1)
    keys = [("a|b", "c"), ("a", "b|c"), ("a\\", "|b|c"), ("a\\|b", "c"), ("a|b|c", ""), ("", "a|b|c")]
    assert len({prediction_id("late", key, day) for key in keys}) == len(keys)
    made = spark().createDataFrame([(*key, day) for key in keys], "one string, two string, day date")
    assert len({row[0] for row in made.select(column("late", ["one", "two"], "day")).collect()}) == len(keys)


def test_a_key_that_is_not_known_has_no_id() -> None:
    made = spark().createDataFrame([(None, dt.date(2013, 3, 1))], "name string, day date")
    assert made.select(column("late", ["name"], "day")).collect()[0][0] is None
