"""``./lake faults``: harms at each point of the daily job, on a platform of its own; goes on where it stopped."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lakehouse.airflow_client import AirflowClient, AirflowError
from lakehouse.settings import settings
from tests.faults.harness import Harness, Result, choose, in_runs
from tests.faults.points import POINTS
from tests.platforms import PROJECT, Platform, free_ports

INJECTED = Path(__file__).parent / "inject"


@contextmanager
def platform(home: Path) -> Iterator[Platform]:
    """A platform on which the demo has run, with the means to do harm in it; stopped at the end.

    Args:
        home: Its state folder; what is there already is gone on with.
    """
    kept = home.with_name("ports.json")
    home.parent.mkdir(parents=True, exist_ok=True)
    if not kept.exists():
        kept.write_text(json.dumps(free_ports()))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LAKE_")}
    environment |= {"LAKE_HOME": str(home), "PYTHONPATH": str(INJECTED), **json.loads(kept.read_text())}
    started = Platform(home, environment, "")
    try:
        # One that runs already may have been started without the means.
        started.lake("down", check=False)
        # A point that was not come to would be come to by the demo.
        for armed in (home / "faults").glob("*.armed"):
            armed.unlink()
        subprocess.run([PROJECT / "lake", "demo"], env=environment, cwd=PROJECT, check=True)
        yield started
    finally:
        started.lake("down", check=False)


def main(
    points: Annotated[int, typer.Option(help="How many points; every victim comes before any a second time.")] = len(
        POINTS
    ),
    seed: Annotated[int, typer.Option(help="Of the choice and the order.")] = 0,
    only: Annotated[
        str | None, typer.Option(help="Only points in whose name this regular expression is found.")
    ] = None,
    schedules: Annotated[int, typer.Option(help="How many made-up schedules to run instead of the points.")] = 0,
    writers: Annotated[int, typer.Option(help="How many writers of one table to have at once instead.")] = 0,
    together: Annotated[
        bool, typer.Option("--together", help="Kill at several points in one run, one for each of its DAGs: quicker.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Forget what an earlier run has found.")] = False,
) -> None:
    """Kill, stop or starve a part, a task or a worker at points of the daily job, and compare with undisturbed runs.

    Each outcome is kept in the state folder, and a point that has passed is not tried again. Exit code 1 when one
    fails.
    """
    if counts := {name: count for name, count in (("schedules", schedules), ("writers", writers)) if count}:
        variables = {f"LAKEHOUSE_TEST_{name.upper()}": str(count) for name, count in counts.items()}
        command = [sys.executable, "-m", "pytest", *(f"tests/faults/test_{name}.py" for name in counts)]
        environment = {**os.environ, **variables, "LAKEHOUSE_TEST_SEED": str(seed)}
        sys.exit(subprocess.call(command, cwd=PROJECT, env=environment))
    folder = settings().home / "faults"
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"seed-{seed}.jsonl"
    if again:
        log.unlink(missing_ok=True)
    known = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    passed = {result["point"] for result in known if result["passed"]}
    chosen = choose(points, seed, [point for point in POINTS if only is None or re.search(only, point.name)])
    tried = {result["point"] for result in known}
    # Those that have failed come last: what does not end would keep the others from being tried.
    left = sorted((point for point in chosen if point.name not in passed), key=lambda point: point.name in tried)
    # What has failed is tried alone: of those that share a run nobody knows which was to blame.
    shared = in_runs([point for point in left if point.name not in tried]) if together else []
    runs = shared + [[point] for point in left if not any(point in run for run in shared)]
    if runs:
        with platform(folder / "lake") as lake:
            url = f"http://127.0.0.1:{lake.port('airflow')}"
            with AirflowClient(url, password=lake.secret("airflow_admin_password")) as airflow:
                harness = Harness(lake, airflow)
                harness.undisturbed()  # a failure here is none of a point
                for run in runs:
                    unended: AirflowError | None = None
                    try:
                        results = harness.try_points(run)
                    except AirflowError as error:
                        unended = error
                        results = [Result(point.name, False, [str(error)], 0, 0, 0, 0) for point in run]
                    with log.open("a") as file:
                        file.writelines(json.dumps(asdict(result)) + "\n" for result in results)
                    said = results[0]
                    verdict = "passed" if said.passed else "FAILED: " + "; ".join(said.faults)
                    typer.echo(
                        f"{', '.join(point.name for point in run)}: {verdict} ({said.seconds:.0f} s, {said.restarted} "
                        f"runs started again, {said.polls} answers to the reader, {said.unanswered} times none)"
                    )
                    passed |= {result.point for result in results if result.passed}
                    if unended:  # and would disturb the next point
                        raise unended
    typer.echo(f"{len(passed & {point.name for point in chosen})} of {len(chosen)} points passed; {log}")
    sys.exit(len(passed & {point.name for point in chosen}) != len(chosen))


if __name__ == "__main__":
    typer.run(main)
