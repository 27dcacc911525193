"""Metrics from sums, against those of the rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lakehouse.ml import model_folders
from lakehouse.ml.metrics import metric
from lakehouse.monitoring.performance import BINS, bin_of, figures

SPEC = model_folders.load("flight_delay")


def rows(size: int = 5000, seed: int = 1) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    score = random.beta(2, 6, size)
    return pd.DataFrame({"score": score, "outcome": (random.random(size) < score**1.3).astype(float)})


def groups(frame: pd.DataFrame, constant: float = 0.2) -> pd.DataFrame:
    edges = np.quantile(frame["score"], np.linspace(0, 1, BINS + 1)[1:-1])
    loss = metric("log_loss").loss_per_row
    assert loss is not None
    wide = frame.assign(
        bin=np.searchsorted(edges, frame["score"]),
        decision=frame["score"] >= SPEC.decision_threshold,
        positive=frame["outcome"] > 0,
        rows=1,
        scores=frame["score"],
        outcomes=frame["outcome"],
        brier=(frame["score"] - frame["outcome"]) ** 2,
        log_loss=loss(frame["outcome"].to_numpy(), frame["score"].to_numpy()),
        baseline=loss(frame["outcome"].to_numpy(), np.full(len(frame), constant)),
    )
    return wide.drop(columns=["score", "outcome"]).groupby(["bin", "decision", "positive"], as_index=False).sum()


def test_metrics_of_the_groups_are_those_of_the_rows() -> None:
    frame = rows()
    found = figures(groups(frame), SPEC)
    y, p = frame["outcome"].to_numpy(), frame["score"].to_numpy()
    for name in ("log_loss", "brier", "precision", "recall", "calibration_error"):
        assert found[name] == pytest.approx(metric(name).of(y, p, SPEC.decision_threshold), rel=1e-9), name
    assert found["auc"] == pytest.approx(metric("auc").of(y, p, None), abs=0.002)
    assert found["skill"] == pytest.approx(1 - found["log_loss"] / found["baseline"])
    assert found["mean_outcome"] == pytest.approx(y.mean())


def test_the_baseline_itself_has_no_skill() -> None:
    frame = rows().assign(score=0.2)
    assert figures(groups(frame), SPEC)["skill"] == pytest.approx(0)


def test_what_cannot_be_told_is_left_out() -> None:
    found = figures(groups(rows().assign(outcome=0.0)), SPEC)
    assert {"auc", "recall"}.isdisjoint(found) and found["precision"] == 0


def test_the_search_for_a_bin_finds_it() -> None:
    import duckdb

    edges = [0.1, 0.2, 0.35, 0.7]
    scores = [0.0, 0.1, 0.15, 0.2, 0.36, 0.7, 0.71]
    values = ", ".join(f"({score})" for score in scores)
    query = bin_of(edges).replace("D,", "::double,")
    found = duckdb.sql(f"select {query} from (values {values}) t(score)").fetchall()
    assert [row[0] for row in found] == list(np.searchsorted(edges, scores))
