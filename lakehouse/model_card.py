"""Model cards: a half that people write (the README of the model's folder), and a half that a training generates."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lakehouse.model_spec import ModelSpec
    from lakehouse.training import Trained

SHOWN_TRIALS = 5


def card(spec: ModelSpec, trained: Trained, pins: dict[str, str], written: str | None = None) -> str:
    """A version's model card, as Markdown.

    Args:
        spec: The model.
        trained: Its training.
        pins: What it was made from.
        written: The half that people wrote, as it was at the training.
    """
    head = written if written is not None else f"# {spec.name}\n\n{spec.description}"
    return f"{head.rstrip()}\n\n" + "\n".join(generated(spec, trained, pins)) + "\n"


def generated(spec: ModelSpec, trained: Trained, pins: dict[str, str]) -> list[str]:
    """The half that is generated: figures of all candidates on the untouched test days, and pins; its lines.

    Args:
        spec: The model.
        trained: Its training.
        pins: What it was made from.
    """
    plan, figures = trained.split, trained.candidates[trained.selected]
    return [
        f"## {trained.selected}, trained on {plan.train}",
        "",
        f"**Intended use.** {spec.intended_use}",
        "",
        f"Selected: **{trained.selected}**, by mean {trained.optimize} over {len(plan.folds)} time-ordered folds. "
        f"Fitted on {plan.train} ({trained.rows['train']} rows, mean outcome {trained.mean_outcome:.4g}), measured on "
        f"the untouched days {plan.test} ({trained.rows['test']} rows).",
        "",
        *_candidates(trained),
        "",
        f"Of {trained.selected} on the test days, with 95 % intervals by drawing whole days:",
        "",
        *table(
            ["metric", "value", "from", "to"],
            [
                [name, *(f"{number:.4f}" for number in (value, *figures.intervals[name]))]
                for name, value in figures.test.items()
            ],
        ),
        "",
        *([f"Decisions are made at a score of {spec.decision_threshold}.", ""] if spec.decision_threshold else []),
        f"Calibration of {trained.selected} on the test days:",
        "",
        *table(
            ["rows", "mean score", "mean outcome"],
            [[str(rows), f"{score:.3f}", f"{outcome:.3f}"] for rows, score, outcome in figures.calibration],
        ),
        "",
        *_segments(trained),
        "By how much the mean loss rises when an input is shuffled:",
        "",
        *table(
            ["input", "rise", "deviation"],
            [[name, f"{each.mean:.5f}", f"{each.deviation:.5f}"] for name, each in trained.importances.items()],
        ),
        "",
        *_trials(trained),
        f"Compiled form: {trained.compiled_reason}.",
        "",
        *table(["pinned", "value"], [[name, value] for name, value in pins.items()]),
    ]


def table(names: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a table.

    Args:
        names: Of the columns.
        rows: Cells.
    """
    return [f"| {' | '.join(row)} |" for row in (names, ["---"] * len(names), *rows)]


def _candidates(trained: Trained) -> list[str]:
    measured = list(trained.candidates[trained.selected].test)
    return table(
        ["candidate", f"validation {trained.optimize}", *(f"test {name}" for name in measured)],
        [
            [name, *(f"{value:.4f}" for value in (each.validation, *each.test.values()))]
            for name, each in trained.candidates.items()
        ],
    )


def _segments(trained: Trained) -> list[str]:
    segments = trained.candidates[trained.selected].segments
    if not segments:
        return []
    rows = [[name, str(count), f"{value:.4f}"] for name, (count, value) in segments.items()]
    return [*table(["segment", "rows", trained.optimize], rows), ""]


def _trials(trained: Trained) -> list[str]:
    if not trained.trials:
        return []
    best = sorted(trained.trials, key=lambda each: each.validation)[:SHOWN_TRIALS]
    rows = [
        [each.candidate, ", ".join(f"{k}={v}" for k, v in each.parameters.items()), f"{each.validation:.4f}"]
        for each in best
    ]
    return [
        f"Of {len(trained.trials)} trials of the search the best, by mean {trained.optimize} over the folds:",
        "",
        *table(["candidate", "parameters", f"validation {trained.optimize}"], rows),
        "",
    ]
