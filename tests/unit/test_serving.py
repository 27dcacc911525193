"""Which entities are the challenger's, and which versions a day may be scored with."""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lakehouse import registry, roles, routing, serving
from lakehouse.interval import Interval
from lakehouse.model_spec import Serving
from lakehouse.registry import ModelVersion

words = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=12)
keys = st.lists(words, min_size=1, max_size=3)


@given(words, words, keys)
def test_an_entity_lies_where_the_documented_formula_says(salt: str, model: str, key: list[str]) -> None:
    digest = hashlib.sha256("|".join([salt, model, *key]).encode()).digest()
    place = routing.place(salt, model, key)
    assert place == int.from_bytes(digest[:4], "big") / 4294967296
    assert 0 <= place < 1 and place == routing.place(salt, model, list(key))


@given(st.floats(0.02, 0.98), words)
def test_the_share_of_many_entities_is_what_was_asked_for(share: float, salt: str) -> None:
    number = 4000
    drawn = sum(routing.place(salt, "flight_delay", [f"2013-03-01_{n}"]) < share for n in range(number))
    # Six standard deviations of the binomial.
    assert abs(drawn / number - share) < 6 * (share * (1 - share) / number) ** 0.5 + 1e-9


@given(st.floats(0, 1), st.floats(0, 1), st.lists(keys, max_size=50))
def test_nobody_leaves_when_the_share_rises(one: float, other: float, entities: list[list[str]]) -> None:
    low, high = sorted((one, other))
    places = [routing.place("canary", "flight_delay", key) for key in entities]
    assert {at for at in places if at < low} <= {at for at in places if at < high}


def test_another_experiment_draws_others() -> None:
    both = [[routing.place(salt, "flight_delay", [str(n)]) < 0.5 for n in range(4000)] for salt in ("spring", "autumn")]
    together = sum(one and other for one, other in zip(*both, strict=True)) / 4000
    assert 0.2 < together < 0.3  # independent: a half of a half


def test_a_share_is_written_in_per_cent() -> None:
    assert Serving(canary="10%").route == ("canary", 0.1)
    assert Serving(ab={"experiment": "spring", "share": "50 %"}).route == ("spring", 0.5)
    assert Serving().route is None
    for wrong in (10, 0.1, "10", "ten%", "0%", "100%"):
        with pytest.raises(ValidationError):
            Serving(canary=wrong)
    with pytest.raises(ValidationError, match="give canary or ab"):
        Serving(canary="10%", ab={"experiment": "spring", "share": "50%"})


def log(*events: tuple[int, str, str, int | None]) -> list[dict[str, Any]]:
    return [
        {"model_version": number, "event": event, "serves_from": dt.date.fromisoformat(day), "champion_before": before}
        for number, event, day, before in events
    ]


LIFE = log(
    (1, "promoted", "2013-03-01", None),
    (2, "kept out", "2013-03-08", 1),
    (3, "promoted", "2013-03-15", 1),
    (4, "registered", "2013-03-22", 3),
    (4, "promoted", "2013-03-22", 3),
    (5, "registered", "2013-03-29", 4),
    (3, "rolled back", "2013-04-01", 4),
)


@pytest.mark.parametrize(
    ("day", "line", "challenger"),
    [
        ("2013-02-28", [], None),
        ("2013-03-01", [1], None),
        ("2013-03-08", [1], 2),
        ("2013-03-15", [1, 3], None),
        ("2013-03-22", [1, 3, 4], None),
        ("2013-03-29", [1, 3, 4], 5),
        ("2013-04-01", [1, 3], 5),  # 4 was taken back, and nobody falls back to it; 5 still waits
    ],
)
def test_who_scores_a_day(day: str, line: list[int], challenger: int | None) -> None:
    at = dt.date.fromisoformat(day)
    assert roles.succession(LIFE, at) == line
    assert roles.challenging(LIFE, at) == challenger
    office = roles.in_office(LIFE, at)
    assert (office and office["model_version"]) == (line[-1] if line else None)


def test_who_is_turned_down_challenges_nobody() -> None:
    waiting = log((1, "promoted", "2013-03-01", None), (2, "registered", "2013-03-08", 1))
    assert roles.challenging(waiting) == 2
    assert roles.challenging([*waiting, *log((2, "rejected", "2013-03-08", 1))]) is None


def test_who_waits_is_not_forgotten_when_another_is_decided_about() -> None:
    both = log((1, "registered", "2013-03-01", None), (2, "registered", "2013-03-08", None))
    first = [*both, *log((1, "promoted", "2013-03-01", None))]
    assert roles.waiting(both) == roles.waiting(first) == roles.challenging(first) == 2
    assert roles.waiting([*first, *log((2, "kept out", "2013-03-08", 1))]) is None
    # One that is older than the champion is not asked about any more.
    assert roles.waiting([*both, *log((2, "promoted", "2013-03-08", None))]) is None


def test_a_range_is_cut_where_its_versions_change_and_the_roles_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(roles, "events", lambda name: asked.append(name) or LIFE)
    monkeypatch.setattr(registry, "version", lambda name, number: ModelVersion(name, number, "run"))
    found = serving.shifts("flight_delay", Interval.parse("2013-03-05/2013-04-02"))
    numbers = [
        (str(one.days), *(each and each.version for each in (one.champion, one.challenger, one.previous)))
        for one in found
    ]
    assert numbers == [
        ("2013-03-05/2013-03-07", 1, None, None),
        ("2013-03-08/2013-03-14", 1, 2, None),
        ("2013-03-15/2013-03-21", 3, None, 1),
        ("2013-03-22/2013-03-28", 4, None, 3),
        ("2013-03-29/2013-03-31", 4, 5, 3),
        ("2013-04-01/2013-04-02", 3, 5, 1),
    ]
    assert asked == ["flight_delay"]
    with pytest.raises(roles.NoChampionError, match="may score 2013-02-28"):
        serving.shifts("flight_delay", Interval.parse("2013-02-28/2013-03-01"))
