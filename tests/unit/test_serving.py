"""Which entities are the challenger's, and which versions a day may be scored with."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lakehouse import release_log
from lakehouse.interval import Interval
from lakehouse.ml import routing, scoring
from lakehouse.ml.model_spec import Serving
from lakehouse.ml.scoring import ModelFailedError, ServedModel
from lakehouse.registry import registry, roles, serving
from lakehouse.registry.registry import ModelVersion
from lakehouse.registry.serving import Crew, Shift
from tests.made_up_flights import SPEC

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


def kept_out(evidence: str | None) -> list[dict[str, Any]]:
    [promoted, kept] = log((1, "promoted", "2013-03-01", None), (2, "kept out", "2013-03-08", 1))
    return [promoted, kept | {"evidence": evidence}]


@pytest.mark.parametrize(
    ("events", "routed"),
    [
        (kept_out(json.dumps({"gate": {"scores": True, "spread": False}, "gate_open": True})), True),
        (kept_out(json.dumps({"gate": {"scores": False}, "gate_open": False})), False),
        (kept_out(json.dumps({"gate": {"scores": False}})), False),  # of before it was said
        (kept_out(json.dumps({"gate": {"scores": True}})), True),
        (kept_out(None), False),
        (log((1, "promoted", "2013-03-01", None), (2, "registered", "2013-03-08", 1)), True),
        # What is known of it now counts for the days before, too.
        ([*log((1, "promoted", "2013-03-01", None), (2, "registered", "2013-03-08", 1)),
          {**kept_out(None)[1], "serves_from": dt.date(2013, 3, 20)}], False),
    ],
    ids=["kept out by its loss", "by its gate", "by its gate, long ago", "by its loss, long ago", "not compared",
         "waits", "not compared after it waited"],
)  # fmt: skip
def test_a_challenger_that_readers_must_not_see_scores_in_the_shadow_alone(
    events: list[dict[str, Any]], routed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roles, "events", lambda _: events)
    monkeypatch.setattr(registry, "version", lambda name, number: ModelVersion(name, number, "run"))
    monkeypatch.setattr(registry, "fetch", lambda version, *, baseline=False: served(version.version))
    shifts = serving.shifts("flight_delay", Interval.parse("2013-03-08"))
    assert [each.challenger and each.challenger.version for each in shifts] == [2]
    parts = Crew(with_serving(canary="10%"), set(COLUMNS)).parts(shifts)
    assert [(part.role, part.served.version, part.drawn) for part in parts] == (
        [("champion", 1, False), ("challenger", 2, True)] if routed else [("champion", 1, None)]
    )


COLUMNS = ("distance_miles", "carrier")


def with_serving(**values: Any) -> Any:
    return SPEC.model_copy(update={"serving": Serving(**values)})


def served(number: int, numeric: tuple[str, ...] = ("distance_miles",)) -> ServedModel:
    return ServedModel("flight_delay", number, numeric, ("carrier",), 0.3, b"")


def test_a_version_that_needs_a_column_that_is_gone_is_replaced_as_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(version: ModelVersion, *, baseline: bool = False) -> ServedModel:
        number = version.version
        return ServedModel("flight_delay", number, (), (), 0.3, b"") if baseline else served(
            number, ("distance_miles",) if number == 1 else ("plane_seats",)
        )  # fmt: skip

    monkeypatch.setattr(registry, "fetch", fetch)
    old, new, other = (ModelVersion("flight_delay", number, "run") for number in (1, 2, 3))
    day = Interval.parse("2013-03-08")

    def crew(shift: Shift, **serving: Any) -> tuple[list[tuple[str, int]], list[str]]:
        found = Crew(with_serving(**serving), set(COLUMNS))
        return [(part.role, part.served.version) for part in found.parts([shift])], [str(e) for e in found.failures]

    missing = "flight_delay version 2 needs plane_seats, which gold.flight_delay_features does not have"
    parts, failures = crew(Shift(day, new, previous=old), fallback="previous_version")
    assert parts == [("fallback", 1)]
    assert failures == [f"champion version 2 failed ({missing}.); version 1 has scored in its place"]
    parts, failures = crew(Shift(day, new), fallback="baseline")
    assert parts == [("fallback_baseline", 2)] and "its baseline has scored in its place" in failures[0]
    parts, failures = crew(Shift(day, old, challenger=new), canary="10%")
    assert parts == [("champion", 1), ("fallback", 1)] and missing in failures[0]
    with pytest.raises(ModelFailedError, match=rf"version 2, failed: {missing}.*`serving\.fallback`"):
        crew(Shift(day, new, previous=old))
    with pytest.raises(ModelFailedError, match=r"So did version 3, before it: .*plane_seats"):
        crew(Shift(day, new, previous=other), fallback="previous_version")


def test_a_model_without_inputs_scores_every_row() -> None:
    import pyarrow as pa
    from sklearn.dummy import DummyClassifier
    from sklearn.pipeline import make_pipeline
    from skops import io

    constant = make_pipeline(DummyClassifier(strategy="prior")).fit([[0]] * 4, [0, 0, 0, 1])
    model = ServedModel("flight_delay", 1, (), (), 0.3, io.dumps(constant))
    batch = pa.RecordBatch.from_pydict({"flight_id": ["a", "b", "c"]})
    [out] = scoring.score_batches(iter([batch]), model, ["flight_id"])
    assert out.to_pydict() == {"flight_id": ["a", "b", "c"], "score": [0.25] * 3}


def test_scores_that_are_no_numbers_are_a_failure_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa

    batch = pa.RecordBatch.from_pydict({"distance_miles": [1.0] * 3, "carrier": ["UA"] * 3})
    for said, wrong in (([0.5, float("nan"), float("inf")], 2), ([float("nan")] * 3, 3)):
        monkeypatch.setattr(scoring, "score", lambda *_, said=said: said)
        with pytest.raises(ModelFailedError) as failed:
            list(scoring.score_batches(iter([batch]), served(1), []))
        [*blame] = serving.blamed(Exception(f"ModelFailedError: {failed.value}"), "flight_delay") or ()
        assert blame == [1, f"ValueError: {wrong} of 3 scores are no numbers"]


@pytest.mark.parametrize(
    ("before", "shown", "day"),
    [
        (1, ["2013-03-10", "2013-03-05"], "2013-03-11"),
        (1, ["2013-03-02"], "2013-03-04"),  # the version has seen the outcomes up to 3 March
        (1, [], "2013-03-04"),
        (None, ["2013-03-10"], "2013-03-04"),  # whoever served then is forgotten
    ],
)
def test_a_version_does_not_serve_days_that_were_served_when_it_was_decided_about(
    before: int | None, shown: list[str], day: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[dict[str, Any]] = []
    released = [
        {"table_name": SPEC.predictions_table, "release_id": number, "rollback_to": None,
         "interval_end": dt.date.fromisoformat(end)} for number, end in enumerate(shown)
    ]  # fmt: skip
    monkeypatch.setattr(release_log, "history", lambda: released)
    monkeypatch.setattr(roles, "events", lambda _: log((1, "promoted", "2013-03-01", None)) if before else [])
    monkeypatch.setattr(roles.ops, "append", lambda _, rows: kept.extend(rows))
    monkeypatch.setattr(roles, "show", lambda _: None)
    monkeypatch.setattr(registry, "set_reason", lambda *_: None)
    tags = {"training_window": "2013-01-01/2013-03-03", "release_id": "7"}
    version, run = ModelVersion("flight_delay", 2, "run", tags=tags), Stub()
    roles.appoint(SPEC, version, roles.PROMOTED, "it is better", "ada", run)  # type: ignore[arg-type]
    roles.register(SPEC, version, "ada", run)  # type: ignore[arg-type]
    roles.keep_out(SPEC, version, "no suite", "ada", run)  # type: ignore[arg-type]
    assert [str(row["serves_from"]) for row in kept] == [day] * 3
    kept.clear()
    # Going back is about the days that were served, and a person may say which.
    roles.appoint(SPEC, version, roles.ROLLED_BACK, "it was right", "ada", run)  # type: ignore[arg-type]
    since = dt.date(2013, 3, 6)
    roles.appoint(SPEC, version, roles.PROMOTED, "it was right", "ada", run, since)  # type: ignore[arg-type]
    assert [row["serves_from"] for row in kept] == [dt.date(2013, 3, 4), since]


class Stub:
    """A step that only says its name."""

    run_id = "run"

    def check_lock(self) -> None:
        pass

    def say(self, *_: Any) -> None:
        pass
