"""Which points are tried, which of them in one run, and what counts as a difference."""

from __future__ import annotations

import pytest

from tests.faults.daily import Outcome
from tests.faults.harness import choose, differences, in_runs, is_subsequence
from tests.faults.points import HARMS, KILLS, POINTS


@pytest.mark.parametrize("seed", range(5))
def test_every_victim_and_every_dag_is_among_the_first_eight(seed: int) -> None:
    chosen = choose(8, seed, KILLS)
    assert len(set(chosen)) == 8
    assert {point.victim for point in chosen[:6]} == {point.victim for point in KILLS}
    assert {point.dag for point in chosen} == {point.dag for point in KILLS}
    assert chosen == choose(8, seed, KILLS) != choose(8, seed + 1, KILLS)
    assert set(choose(1000, seed)) == set(POINTS)


def test_what_shares_a_run_are_kills_in_different_dags() -> None:
    runs = in_runs(POINTS)
    assert sorted(point.name for run in runs for point in run) == sorted(point.name for point in POINTS)
    for run in runs:
        assert len({point.dag for point in run}) == len(run)
        assert len(run) == 1 or all(point in KILLS and point.dag != "train" for point in run)
    assert {len(run) for run in runs} == {1, 2, 3}
    assert in_runs(HARMS) == [[point] for point in HARMS]


def test_readers_may_see_the_old_and_then_the_new() -> None:
    for right in ([], ["old"], ["new"], ["old", "new"]):
        assert is_subsequence(right, ["old", "new"])
    for wrong in (["new", "old"], ["other"], ["old", "other", "new"], ["old", "new", "old"]):
        assert not is_subsequence(wrong, ["old", "new"])


def test_a_table_with_other_rows_or_none_is_a_difference_and_another_model_is() -> None:
    expected = Outcome({"bronze.a": "1", "bronze.b": "2"}, [("version", 1)])
    assert differences(expected, expected) == []
    said = differences(expected, Outcome({"bronze.a": "1", "bronze.c": "2"}, [("version", 2)]))
    assert [each.partition(" holds")[0] for each in said] == ["bronze.b", "bronze.c", "the registry"]
