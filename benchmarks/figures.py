"""The page of figures, made from the raw results and from nothing else."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path

from benchmarks.harness import Result, Usage
from lakehouse.settings import PROJECT_DIR
from lakehouse.wording import counted

PAGE = PROJECT_DIR / "docs" / "reference" / "figures.md"
INTRODUCTION = """\
# Figures

What the platform costs, each time beside something that it can be compared with. The page is generated from the raw
results in `benchmarks/results/`; `./lake bench` runs the benchmarks and writes it again. Both sides of a ratio ran in
turn (ours, theirs, theirs, ours, …) on the same machine, in the same run. The ratio is the median of the pairs, with a
95 % bootstrap interval. A figure that is no ratio of times says how it was made. Where the two sides have not left the
same rows, the ratio is void. The other side is what a good engineer would write; it is in `benchmarks/comparators/`.
"""


def write(results: Path, page: Path) -> Path:
    """Write the page and its plots.

    Args:
        results: Folder of the raw results.
        page: The Markdown file; the plots go into the folder of its name beside it.
    """
    found = load(results)
    page.write_text(text(found, page.stem), "utf-8")
    folder = page.with_suffix("")
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    for result in found:
        plot(result, folder / f"{result.name}-{result.size}.svg")
    return page


def load(results: Path) -> list[Result]:
    """The raw results, in the order of their names.

    Args:
        results: Folder of JSON files.
    """
    return sorted((Result.load(path) for path in results.glob("*.json")), key=lambda r: (r.name, r.size))


def verdict(result: Result) -> str:
    """Whether a goal is met, in plain words.

    Args:
        result: What was measured.
    """
    if not result.valid:
        return "void: the two sides have not left the same"
    if result.met:
        return "met"
    return f"missed: {result.ratio:.2f} where {result.goal} was the goal"


def text(results: Iterable[Result], folder: str) -> str:
    """The page.

    Args:
        results: What was measured.
        folder: Of the plots, from the page's own.
    """
    results = list(results)
    lines = [INTRODUCTION, "| | ratio | size | goal | measured | 95 % interval | |", "|---|---|---|---|---|---|---|"]
    for result in results:
        between = f"{result.interval[0]:.2f} to {result.interval[1]:.2f}" if result.interval else "too few to tell"
        lines.append(
            f"| {result.name} | {result.title} | {result.size} | {result.goal} | {result.ratio:.2f} | {between} "
            f"| {verdict(result)} |"
        )
    missed = [result for result in results if not result.met]
    lines += ["", "## Missed goals", ""]
    lines += [f"- {result.name}, {result.title}, {result.size}: {verdict(result)}." for result in missed] or ["None."]
    for result in results:
        lines += _section(result, folder)
    return "\n".join(lines) + "\n"


def _section(result: Result, folder: str) -> list[str]:
    where = result.machine
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    count = counted(len(result.ours), "pair" if result.theirs else "run")
    lines = [
        "",
        f"## {result.name}: {result.title}, {result.size}",
        "",
        f"![Seconds of each pair]({folder}/{result.name}-{result.size}.svg)",
        "",
        "| side | seconds (median) | CPU seconds | peak memory |",
        "|---|---|---|---|",
        *(_row(name, usages) for name, usages in _sides(result)),
        "",
        *(f"{note}\n" for note in result.notes),
        *(f"{name}: {value}\n" for name, value in result.facts.items()),
        f"{count} on {where['date']}: {where['processor']}, {where['cores']} cores, "
        f"{where['memory_gib']} GiB; the machine's load was {where['load_before']:.1f} before and "
        f"{where['load_after']:.1f} after. Python {where['python']}, {versions}.",
    ]
    return lines


def _sides(result: Result) -> list[tuple[str, list[Usage]]]:
    return list(zip(result.sides, (result.ours, result.theirs), strict=False))


def _row(name: str, usages: list[Usage]) -> str:
    seconds, cpu = (statistics.median(getattr(u, n) for u in usages) for n in ("seconds", "cpu_seconds"))
    return f"| {name} | {seconds:.2f} | {cpu:.2f} | {max(u.peak_memory for u in usages) / 2**30:.1f} GiB |"


def plot(result: Result, path: Path) -> None:
    """Draw the seconds of each side, run by run.

    Args:
        result: What was measured.
        path: The SVG file.
    """
    import matplotlib

    matplotlib.use("svg")
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "lakehouse"}):
        figure = Figure(figsize=(6, 2.4), layout="constrained")
        axes = figure.subplots()
        for (name, usages), marker in zip(_sides(result), "os", strict=False):
            axes.plot(range(1, len(usages) + 1), [usage.seconds for usage in usages], marker=marker, label=name)
        axes.set(xlabel="pair" if result.theirs else "run", ylabel="seconds", xticks=range(1, len(result.ours) + 1))
        axes.set_ylim(bottom=0)
        axes.legend()
        figure.savefig(path, metadata={"Date": None})
