"""The year 2013 again, week by week: what the retraining policy does, against never and against every week.

    python -m benchmarks.year            the whole year; about an hour
    python -m benchmarks.year --weeks 4  its first weeks

Starts an engine of its own, in a folder of its own (``--home``), and goes on where it stopped when it was cut off. The
lake is loaded once for the whole year, since a row of features looks only at days before its own.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lakehouse.interval import Interval

YEAR = Interval.parse("2013-01-01/2013-12-31")
SOURCES = ("airlines", "airports", "planes", "flight_schedule", "flight_actuals", "weather")


def say(message: str) -> None:
    """Print a line of progress, with the time.

    Args:
        message: The line.
    """
    print(f"[{time.strftime('%H:%M:%S')}] {message}", file=sys.stderr, flush=True)


def load() -> None:
    """Land, gate and release the year of every source, and build the warehouse of it; once."""
    from infra.demo.upstream import deliver
    from lakehouse import contracts, warehouse
    from lakehouse.audit import gate
    from lakehouse.release import release, released
    from lakehouse.settings import settings
    from lakehouse.steps import job

    deliver(settings().drop_url)
    for source in SOURCES:
        contract = contracts.load(source)
        interval = Interval(YEAR.start, min(YEAR.end, contract.history_end or YEAR.end))
        if contract.table not in released():
            say(f"land {source} {interval}")
            job("land")(source, interval)
            gate([contract.table], interval)
            release([contract.table], interval)
    gold = warehouse.stored_models()
    if not set(gold) <= set(released()):
        say("build the warehouse")
        warehouse.build(YEAR)
        gate(gold, YEAR)
        release(gold, YEAR)


def main() -> None:
    """Replay the year and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "lakehouse-year")
    parser.add_argument("--weeks", type=int, help="only the first weeks that are scored")
    arguments = parser.parse_args()
    from tests.conftest import free_ports

    os.environ.update({"LAKE_HOME": str(arguments.home), **free_ports()})
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{arguments.home}/mlflow.sqlite"
    arguments.home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "lakehouse.platform"]
    try:
        subprocess.run([*command, "up", "engine"], check=True, stdout=sys.stderr)
        load()
    finally:
        subprocess.run([*command, "down"], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
