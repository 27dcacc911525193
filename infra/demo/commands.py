"""``lake demo`` and ``lake demo-source``."""

from __future__ import annotations

import datetime as dt
import time

import typer

from infra.demo.upstream import deliver, demo_source
from lakehouse.settings import settings

CLOCK = dt.date(2013, 3, 3)
PANEL = "Demo"


def demo() -> None:
    """Start the platform and run the main job on real flights data, through Airflow.

    Run again, it goes on where it stopped.
    """
    from infra.demo import main_job
    from lakehouse.airflow_client import AirflowClient
    from lakehouse.cli.printing import print_rows
    from lakehouse.cli.queries import explain
    from lakehouse.engine import sql
    from lakehouse.platform import lifecycle

    started = time.monotonic()

    def say(line: str) -> None:
        typer.echo(f"[{time.monotonic() - started:4.0f} s] {line}")

    with main_job.stage(f"The upstream drops its files into {settings().drop_url}", say):
        deliver(settings().drop_url, until=CLOCK)
    with main_job.stage("Start the platform", say):
        lifecycle.up((), say=lambda line: say(f"    {line}"))
    with AirflowClient() as client:
        main_job.wait_for_dags(client)
        main_job.main_job(client, say)
    typer.echo("\n" + main_job.QUERY + "\n")
    print_rows(main_job.QUERY)
    typer.echo("\nThe late flight that was given the highest probability, explained (./lake explain):\n")
    explain(str(sql(main_job.EXPLAINED).collect()[0]["prediction_id"]))
    typer.echo()
    main_job.farewell(typer.echo)


def register(app: typer.Typer) -> None:
    """Add the demo's commands to the command line.

    Args:
        app: The ``lake`` command.
    """
    app.command(rich_help_panel=PANEL)(demo)
    app.command("demo-source", rich_help_panel=PANEL)(demo_source)
