"""Model cards: a half that people write (the README of the model's folder), and a half that a training generates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakehouse.ml.metrics import FEWEST_DAYS

if TYPE_CHECKING:
    from lakehouse.ml.model_spec import ModelSpec
    from lakehouse.ml.training import Figures, Trained

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
        f"Of {trained.selected} on the test days, with 95 % intervals by drawing whole days (none of fewer than "
        f"{FEWEST_DAYS} days):",
        "",
        *table(
            ["metric", "value", "from", "to"],
            [
                [name, f"{value:.4f}", *(f"{end:.4f}" if end is not None else "" for end in _interval(figures, name))]
                for name, value in figures.test.items()
            ],
        ),
        "",
        f"**Promotion.** {conditions(spec)}",
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


def conditions(spec: ModelSpec) -> str:
    """When a version becomes champion, in a few sentences.

    Args:
        spec: The model.
    """
    rules, loss = spec.promotion, spec.metrics.optimize
    least = f", and by {rules.min_effect:g} at least" if rules.min_effect else ""
    guards = [f"{name} is no more than {far:g} worse" for name, far in rules.guards.items()]
    guards += [
        f"in no {column} the {loss} is beyond doubt more than {rules.segment_tolerance:g} higher"
        for column in rules.segments
    ]
    more = f" Besides, {', '.join(guards)}." if guards else ""
    confirmed = " A person confirms it." if rules.policy == "approve" else ""
    return (
        f"A version becomes champion if on its test days, less those that the champion was fitted on, its {loss} is "
        f"lower than the champion's beyond doubt ({rules.confidence:.0%} interval of the difference, by drawing whole "
        f"days){least}; lower than that of the baseline beside it; and if its scores keep the critical rules of the "
        f"gate of `{spec.predictions_table}`.{more} Without a champion, the baseline beside it takes the champion's "
        f"place, and nothing else is compared.{confirmed}"
    )


def table(names: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a table.

    Args:
        names: Of the columns.
        rows: Cells.
    """
    return [f"| {' | '.join(row)} |" for row in (names, ["---"] * len(names), *rows)]


def _interval(figures: Figures, name: str) -> tuple[float | None, float | None]:
    return figures.intervals.get(name, (None, None))


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
