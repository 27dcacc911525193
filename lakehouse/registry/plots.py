"""Plots of a training, as files: how the selected candidate does on the test days.

matplotlib is imported by the functions alone: it costs a second that only a training has to pay.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakehouse.ml.metrics import calibration_bins

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lakehouse.ml.importances import Importance

DPI, SIZE = 80, (9.0, 4.0)
SHOWN = 20


def draw(
    folder: Path,
    task: str,
    outcomes: Any,
    scores: Any,
    threshold: float | None,
    importances: dict[str, Importance],
) -> list[Path]:
    """Draw what fits a task: ROC and precision against recall, calibration, confusion, residuals, importances.

    Args:
        folder: Where the files go; it is there.
        task: ``classification`` or ``regression``.
        outcomes: Of the test rows, as floats.
        scores: Of the same rows.
        threshold: From this score on the decision is true; without it there is no confusion to show.
        importances: By input, the greatest first.

    Returns:
        The files, as PNG.
    """
    figures = {"calibration": _calibration(outcomes, scores), "importances": _importances(importances)}
    if task == "classification":
        figures["roc_and_precision_recall"] = _curves(outcomes, scores)
        if threshold is not None:
            figures["confusion"] = _confusion(outcomes, scores >= threshold)
    else:
        figures["residuals"] = _residuals(outcomes, scores)
    paths = []
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        # No version of a library inside: the same training draws the same bytes.
        figure.savefig(path, dpi=DPI, metadata={"Software": None})
        paths.append(path)
    return paths


def _figure(columns: int = 1) -> tuple[Figure, Any]:
    # Without pyplot's, which keeps every figure and may want a screen.
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    return figure, figure.subplots(1, columns)


def _curves(outcomes: Any, scores: Any) -> Figure:
    from sklearn.metrics import PrecisionRecallDisplay, RocCurveDisplay

    figure, (left, right) = _figure(2)
    RocCurveDisplay.from_predictions(outcomes, scores, ax=left, plot_chance_level=True)
    PrecisionRecallDisplay.from_predictions(outcomes, scores, ax=right, plot_chance_level=True)
    return figure


def _confusion(outcomes: Any, decisions: Any) -> Figure:
    from sklearn.metrics import ConfusionMatrixDisplay

    figure, axes = _figure()
    ConfusionMatrixDisplay.from_predictions(
        outcomes > 0, decisions, ax=axes, colorbar=False, cmap="Blues", values_format="d"
    )
    return figure


def _calibration(outcomes: Any, scores: Any) -> Figure:
    bins = calibration_bins(outcomes, scores)
    figure, axes = _figure()
    axes.plot([score for _, score, _ in bins], [outcome for *_, outcome in bins], "o-")
    axes.axline((bins[0][1], bins[0][1]), slope=1, linestyle=":", color="grey")
    axes.set(xlabel="mean score of a tenth of the rows", ylabel="mean outcome", title="Calibration")
    return figure


def _residuals(outcomes: Any, scores: Any) -> Figure:
    from sklearn.metrics import PredictionErrorDisplay

    figure, (left, right) = _figure(2)
    for axes, kind in ((left, "actual_vs_predicted"), (right, "residual_vs_predicted")):
        PredictionErrorDisplay.from_predictions(
            outcomes, scores, kind=kind, ax=axes, subsample=1000, random_state=0, scatter_kwargs={"s": 6}
        )
    return figure


def _importances(importances: dict[str, Importance]) -> Figure:
    shown = list(importances.items())[:SHOWN][::-1]
    figure, axes = _figure()
    axes.barh([name for name, _ in shown], [each.mean for _, each in shown], xerr=[each.deviation for _, each in shown])
    axes.tick_params(axis="y", labelsize="x-small")
    axes.set(xlabel="rise of the mean loss when it is shuffled", title="Importance of the inputs")
    return figure
