"""When a batch is rejected whole: each of its days is judged as it would be alone."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

from lakehouse.landing.batches import rejection
from lakehouse.quality.expectation import Expectation
from lakehouse.quality.suites import Suite

RULE = Expectation("expect_column_values_to_be_between", {"column": "pressure", "min_value": 1, "mostly": 0.95})
SUITE = Suite("bronze.weather", (RULE,))
FIRST = dt.date(2013, 1, 1)


def of_a_day(rows: int, broken: int = 0, **more: Any) -> dict[str, Any]:
    facts = {"rows": rows, "bad": broken, "broken": {RULE.label: broken}, "considered": {RULE.label: rows}}
    return facts | {"lost": {RULE.label: 0}} | more


def counted(*days: dict[str, Any]) -> dict[str, Any]:
    return {"days": {FIRST + dt.timedelta(number): day for number, day in enumerate(days)}}


def test_a_wrong_day_among_many_good_ones_is_found_and_named() -> None:
    found = rejection(counted(*[of_a_day(70)] * 20, of_a_day(70, 60), *[of_a_day(70)] * 38), SUITE)
    assert found is not None
    assert (found.code, found.days) == ("below_mostly", (dt.date(2013, 1, 21),))
    assert found.why == f"of 2013-01-21, 60 of 70 rows break {RULE.label}; at least 95.0000% must keep it."
    assert rejection(counted(*[of_a_day(70, 3)] * 59), SUITE) is None


def test_the_other_wrong_days_are_named_too() -> None:
    found = rejection(counted(of_a_day(70, 70), of_a_day(70), *[of_a_day(70, 60)] * 7), SUITE)
    assert found is not None and found.code == "all_rows_bad" and len(found.days) == 8
    assert found.why == (
        "of 2013-01-01, not one row keeps the contract. 7 more of its days are to be rejected: 2013-01-03, 2013-01-04, "
        "2013-01-05, 2013-01-06, 2013-01-07, …"
    )


def test_a_value_that_cannot_be_read_does_not_keep_a_rule() -> None:
    assert rejection(counted(of_a_day(70, 2, bad=3, lost={RULE.label: 1})), SUITE) is None
    found = rejection(counted(of_a_day(70, 2, bad=4, lost={RULE.label: 2})), SUITE)
    assert found is not None
    assert found.why.startswith(
        f"4 of 70 rows break {RULE.label}, 2 of them because there is no value that can be taken;"
    )


def test_rows_that_a_rule_is_not_about_are_told_beside_those_that_break_it() -> None:
    found = rejection(counted(of_a_day(72, 70, considered={RULE.label: 70}, bad=71)), SUITE)
    assert found is not None and found.why.startswith(f"70 of 70 rows break {RULE.label};")
    assert found.why.endswith(" must keep it. It is not about 2 other rows.")


def test_only_the_days_that_are_asked_for_are_judged() -> None:
    counts = counted(of_a_day(70, 60), of_a_day(70))
    assert rejection(counts, SUITE, {dt.date(2013, 1, 2)}) is None
    assert rejection(counts, SUITE, ()) is None


def test_a_day_by_itself_is_not_named() -> None:
    found = rejection(counted(of_a_day(70, 60)), SUITE)
    assert found is not None and found.why.startswith("60 of 70 rows break")


def test_a_rule_is_counted_by_what_it_says_and_not_by_the_name_that_its_author_gives_it() -> None:
    named = Suite("bronze.weather", (replace(RULE, meta={"label": "the pressure of air"}),))
    found = rejection(counted(of_a_day(70, 60)), named)
    assert found is not None and found.why.startswith(f"60 of 70 rows break {RULE.label};")
