"""``lake bench``: run benchmarks, keep what they say, and write the page of figures."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys

from benchmarks import daily, figures, gate, glue, history, landing, merge, orchestration, scaling, scoring, views
from benchmarks.figures import PAGE
from benchmarks.harness import RESULTS, Result

MODULES = (gate, landing, merge, views, scoring, scaling, history, orchestration, daily, glue)
BENCHMARKS = {module.__name__.rpartition(".")[2]: module for module in MODULES}
PAIRS = 5


def main() -> None:
    """Run what the command line asks for."""
    # Ended from outside, a benchmark still stops its engine.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if sys.argv[1:2] == ["year"]:  # a replay, which has nothing to time and options of its own
        sys.exit(subprocess.call([sys.executable, "-m", "benchmarks.year", *sys.argv[2:]]))
    parser = argparse.ArgumentParser(prog="lake bench", description=__doc__)
    parser.add_argument(
        "name", nargs="?", choices=[*BENCHMARKS, "figures", "year"], help="one of them; all but year without it"
    )
    parser.add_argument("--size", help="rows of the data, such as 1M, or files, such as 100MB; the goal's without it")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="how often each side is timed")
    parser.add_argument("--quick", action="store_true", help="one pair, of the small size")
    arguments = parser.parse_args()
    if arguments.name is None:
        # A process for each: it has an engine of its own, and settings are read once.
        calls = [[sys.executable, "-m", "benchmarks", name, *sys.argv[1:]] for name in BENCHMARKS]
        sys.exit(max(subprocess.call(call) for call in calls))
    if arguments.name != "figures":
        module = BENCHMARKS[arguments.name]
        size = arguments.size or (module.QUICK_SIZE if arguments.quick else module.SIZE)
        for result in module.run(size, 1 if arguments.quick else arguments.pairs):
            print(say(result))
            print(f"kept in {result.save()}")
    print(f"written: {figures.write(RESULTS, PAGE)}")


def say(result: Result) -> str:
    """A line for the terminal.

    Args:
        result: What was measured.
    """
    between = f", {result.interval[0]:.2f} to {result.interval[1]:.2f}" if result.interval else ""
    verdict = figures.verdict(result)
    return f"{result.name} {result.size}: {result.title} = {result.ratio:.2f}{between} ({result.goal}): {verdict}"


if __name__ == "__main__":
    main()
