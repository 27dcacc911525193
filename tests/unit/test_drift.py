"""Drift from counts, against scipy and pandas on the rows themselves."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lakehouse.monitoring.drift import CATEGORICAL, NUMERIC, Bins, chi_squared, compare, kolmogorov_smirnov, psi

COUNTS = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)), min_size=2, max_size=30)
LIMITS = {"warning": 0.1, "limit": 0.25, "significance": 0.01}


@given(COUNTS)
def test_the_index_is_that_of_the_shares_and_does_not_care_which_is_first(pairs: list[tuple[int, int]]) -> None:
    before, now = (list(each) for each in zip(*pairs, strict=True))
    table = pd.DataFrame({"r": before, "c": now}) + 0.5
    table = table / table.sum()
    expected = stats.entropy(table["c"], table["r"]) + stats.entropy(table["r"], table["c"])
    assert psi(before, now) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert psi(now, before) == pytest.approx(psi(before, now), rel=1e-9, abs=1e-12)
    assert psi(before, before) == pytest.approx(0)


def test_the_index_by_hand() -> None:
    """Worked on paper; with half a row added to each bin the counts are 20, 30 and 50 of 100, then 50, 30 and 20.

    (0.5 - 0.2) ln(0.5 / 0.2) + 0 + (0.2 - 0.5) ln(0.2 / 0.5) = 0.6 ln 2.5 = 0.6 * 0.916291 = 0.549774
    """
    assert psi([19.5, 29.5, 49.5], [49.5, 29.5, 19.5]) == pytest.approx(0.549774, abs=1e-6)  # type: ignore[list-item]
    # 0 and 1 row become 0.25 and 0.75 of 2, and the other way round: 2 * 0.5 ln 3.
    assert psi([0, 1], [1, 0]) == pytest.approx(1.098612, abs=1e-6)


VALUES = st.lists(st.integers(-20, 20), min_size=5, max_size=200)


@given(VALUES, VALUES)
def test_with_a_bin_for_each_value_the_distance_is_that_of_the_rows(before: list[int], now: list[int]) -> None:
    edges = range(-20, 21)
    counts = [[values.count(edge) for edge in edges] for values in (before, now)]
    distance, p = kolmogorov_smirnov(*counts)
    exact = stats.ks_2samp(before, now, method="asymp")
    assert distance == pytest.approx(exact.statistic)
    assert p == pytest.approx(
        stats.kstwobign.sf(exact.statistic * (len(before) * len(now) / (len(before) + len(now))) ** 0.5)
    )


@given(VALUES, VALUES, st.lists(st.integers(-20, 20), min_size=1, max_size=9, unique=True))
def test_with_fewer_bins_the_test_is_the_milder(before: list[int], now: list[int], edges: list[int]) -> None:
    cuts = [-np.inf, *sorted(edges), np.inf]
    counts = [list(pd.cut(pd.Series(values), cuts).value_counts(sort=False)) for values in (before, now)]
    distance, p = kolmogorov_smirnov(*counts)
    exact, sure = kolmogorov_smirnov(*[[values.count(edge) for edge in range(-20, 21)] for values in (before, now)])
    assert distance <= exact + 1e-12 and p >= sure - 1e-12


@given(COUNTS)
def test_names_are_compared_by_pearsons_test(pairs: list[tuple[int, int]]) -> None:
    before, now = (list(each) for each in zip(*pairs, strict=True))
    statistic, p = chi_squared(before, now)
    kept = [pair for pair in pairs if sum(pair)]
    if len(kept) < 2 or not (sum(before) and sum(now)):
        assert (statistic, p) == (0, 1)
        return
    r, c = (np.array(each, float) for each in zip(*kept, strict=True))
    expected = np.outer([r.sum(), c.sum()], r + c) / (r + c).sum()
    assert statistic == pytest.approx(((np.array([r, c]) - expected) ** 2 / expected).sum(), rel=1e-6, abs=1e-6)
    assert p == pytest.approx(stats.chi2.sf(statistic, len(kept) - 1), abs=1e-9)


def test_no_rows_are_no_drift() -> None:
    assert kolmogorov_smirnov([0, 0], [3, 4]) == (0.0, 1.0)
    assert chi_squared([0, 0], [3, 4]) == (0.0, 1.0)


def numbers(values: np.ndarray, edges: tuple[float, ...]) -> Bins:
    known = values[~np.isnan(values)]
    counts = np.bincount(np.searchsorted(edges, known, side="left"), minlength=len(edges) + 1)
    return Bins(NUMERIC, edges=edges, counts=tuple(map(int, counts)), nulls=int(np.isnan(values).sum()))


def test_among_many_columns_only_the_one_that_moved_has_drifted() -> None:
    random = np.random.default_rng(2013)
    before = {f"x{n}": random.normal(size=4000) for n in range(40)}
    now = {name: random.normal(size=1000) for name in before}
    now["x7"] = now["x7"] + 1
    edges = tuple(float(edge) for edge in stats.norm.ppf(np.linspace(0.1, 0.9, 9)))
    found = compare(
        {name: numbers(values, edges) for name, values in before.items()},
        {name: numbers(values, edges) for name, values in now.items()},
        **LIMITS,
    )
    assert [name for name, drift in found.items() if drift.verdict == "red"] == ["x7"]
    by_hand = stats.false_discovery_control([drift.p_value for drift in found.values()])
    assert [drift.q_value for drift in found.values()] == pytest.approx(list(by_hand))
    assert any(drift.p_value < 0.2 <= drift.q_value for drift in found.values())


def test_few_rows_that_happen_to_look_otherwise_have_not_drifted() -> None:
    before, now = Bins(CATEGORICAL, values=("a",), counts=(500, 500)), Bins(CATEGORICAL, values=("a",), counts=(4, 1))
    found = compare({"x": before}, {"x": now}, **LIMITS)["x"]
    assert found.psi > 0.25 and found.verdict == "green"


def test_many_rows_that_hardly_differ_have_not_drifted() -> None:
    before, now = (
        Bins(CATEGORICAL, values=("a",), counts=(500_000, 500_000)),
        Bins(CATEGORICAL, values=("a",), counts=(505_000, 495_000)),
    )
    found = compare({"x": before}, {"x": now}, **LIMITS)["x"]
    assert found.q_value < 1e-6 and found.verdict == "green"


def test_missing_values_count_in_the_index() -> None:
    before, now = (
        Bins(NUMERIC, edges=(0.0,), counts=(500, 500)),
        Bins(NUMERIC, edges=(0.0,), counts=(200, 200), nulls=600),
    )
    assert compare({"x": before}, {"x": now}, **LIMITS)["x"].psi > 1
    assert now.null_share == 0.6


def test_bins_are_kept_as_json() -> None:
    for bins in (
        Bins(NUMERIC, edges=(0.1, 0.25), counts=(1, 2, 3), nulls=4),
        Bins(CATEGORICAL, values=("a",), counts=(1, 2)),
    ):
        assert Bins.from_dict(json.loads(json.dumps(bins.as_dict()))) == bins
