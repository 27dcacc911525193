"""Drift: how far the values of today are from those that a model was trained on, by counts in fixed bins.

Everything here is arithmetic on counts, so it costs the same however many rows were counted. The counts come from
:mod:`lakehouse.monitoring.histograms`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

NUMERIC, CATEGORICAL = "numeric", "categorical"
GREEN, YELLOW, RED = "green", "yellow", "red"


@dataclass(frozen=True)
class Bins:
    """How the values of a column are cut, and how many rows fall where.

    Attributes:
        kind: ``numeric`` or ``categorical``.
        edges: Of numbers: upper ends of all bins but the last, rising; a value that equals an edge is below it.
        values: Of names: those with a bin of their own; the last bin is for any other.
        counts: Rows per bin, one more than there are edges or values.
        nulls: Rows without a value.
    """

    kind: str
    edges: tuple[float, ...] = ()
    values: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    nulls: int = 0

    @property
    def rows(self) -> int:
        """All rows, those without a value too."""
        return sum(self.counts) + self.nulls

    @property
    def null_share(self) -> float:
        """Share of the rows without a value; 0 where there are no rows."""
        return self.nulls / self.rows if self.rows else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in vars(self).items()}

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> Bins:
        """Inverse of :meth:`as_dict`.

        Args:
            kept: What was kept.
        """
        lists = {name: tuple(kept[name]) for name in ("edges", "values", "counts")}
        return cls(kept["kind"], nulls=kept["nulls"], **lists)


@dataclass(frozen=True)
class Drift:
    """How far a column is from what it was.

    Attributes:
        psi: Population stability index, nulls counted as a bin.
        test: ``ks`` or ``chi_squared``.
        statistic: Of the test; without nulls.
        p_value: Of the test, before any correction.
        q_value: After correction for all columns of the comparison.
        verdict: ``green``, ``yellow``, or ``red``: it has drifted.
    """

    psi: float
    test: str
    statistic: float
    p_value: float
    q_value: float
    verdict: str


def psi(reference: Sequence[int], current: Sequence[int]) -> float:
    """The population stability index of two lots of counts in the same bins.

    The sum of (c - r) ln(c / r) over the shares of the bins (Siddiqi, 2006, "Credit risk scorecards", chapter 9).
    Half a row is added to each bin, so that an empty one does not make it infinite.

    Args:
        reference: Rows per bin.
        current: Rows per bin.
    """
    r, c = (np.asarray(counts, "float64") + 0.5 for counts in (reference, current))
    r, c = r / r.sum(), c / c.sum()
    return float(((c - r) * np.log(c / r)).sum())


def kolmogorov_smirnov(reference: Sequence[int], current: Sequence[int]) -> tuple[float, float]:
    """The two-sample test of Kolmogorov and Smirnov on counts: the greatest distance of the distribution functions.

    They are looked at where the bins end and nowhere else, so the distance is at most that of the rows themselves, and
    the p-value (of the limiting distribution) at least as great: the test errs on the side of no drift.

    Args:
        reference: Rows per bin, in the order of the values.
        current: Rows per bin.

    Returns:
        The distance and the p-value; 0 and 1 where one of the two has no rows.
    """
    n, m = sum(reference), sum(current)
    if not (n and m):
        return 0.0, 1.0
    ours, theirs = (np.fromiter(accumulate(counts), "float64") for counts in (reference, current))
    distance = float(np.abs(ours / n - theirs / m).max())
    return distance, float(stats.kstwobign.sf(distance * np.sqrt(n * m / (n + m))))


def chi_squared(reference: Sequence[int], current: Sequence[int]) -> tuple[float, float]:
    """Pearson's test that two lots of counts come from one distribution.

    Args:
        reference: Rows per bin.
        current: Rows per bin.

    Returns:
        The statistic and the p-value; 0 and 1 where there is nothing to tell apart.
    """
    table = np.array([reference, current])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2 or not table.sum(axis=1).all():
        return 0.0, 1.0
    found = stats.chi2_contingency(table, correction=False)
    return float(found.statistic), float(found.pvalue)


def compare(
    reference: Mapping[str, Bins], current: Mapping[str, Bins], *, warning: float, limit: float, significance: float
) -> dict[str, Drift]:
    """Compare columns with what they were, all of them at once.

    A column has drifted when its index reaches the limit and its test says so, too, after the correction of Benjamini
    and Hochberg (1995): with few rows the index is large by chance, with many rows every test is significant.

    Args:
        reference: Column to its counts in the training snapshot.
        current: Column to its counts now, in the same bins.
        warning: Index from which on there is a warning.
        limit: Index from which on it has drifted.
        significance: Greatest false discovery rate.
    """
    raw: dict[str, tuple[float, str, float, float]] = {}
    for name, bins in reference.items():
        now = current[name]
        index = psi([*bins.counts, bins.nulls], [*now.counts, now.nulls])
        test, of = ("ks", kolmogorov_smirnov) if bins.kind == NUMERIC else ("chi_squared", chi_squared)
        raw[name] = (index, test, *of(bins.counts, now.counts))
    if not raw:
        return {}
    corrected = stats.false_discovery_control([p for *_, p in raw.values()], method="bh")
    found = {}
    for (name, (index, test, statistic, p)), q in zip(raw.items(), corrected, strict=True):
        sure = bool(q < significance)
        verdict = RED if sure and index >= limit else YELLOW if sure and index >= warning else GREEN
        found[name] = Drift(index, test, statistic, p, float(q), verdict)
    return found
