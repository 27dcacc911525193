"""``lake alerts``: what the platform has told people about."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from lakehouse.cli.printing import print_table
from lakehouse.cli.queries import PANEL

alerts = typer.Typer(
    help="What the platform has told people about, and whether they have seen it.", no_args_is_help=True
)


@alerts.command("list")
def list_alerts(
    all_: Annotated[bool, typer.Option("--all", help="Also those that are acknowledged or over.")] = False,
) -> None:
    """List the alerts that wait for somebody, the newest first."""
    from lakehouse.alerts import read
    from lakehouse.settings import settings

    if not settings().alerts:
        print("Nobody is told of anything: no route is set (`alerts` in lake.toml).", file=sys.stderr)
    print_table(
        ["alert", "raised_at", "severity", "table", "days", "message", "sent", "acknowledged_by", "over_since"],
        [
            {
                "alert": alert.alert_id,
                "raised_at": f"{alert.raised_at:%Y-%m-%d %H:%M}",
                "severity": alert.cause.severity,
                "table": alert.cause.table,
                "days": alert.cause.interval,
                "message": alert.cause.message,
                "sent": ", ".join(sorted(alert.sent)),
                "acknowledged_by": alert.acknowledged_by,
                "over_since": alert.resolved_at and f"{alert.resolved_at:%Y-%m-%d %H:%M}",
            }
            for alert in reversed(read())
            if all_ or alert.unanswered
        ],
    )


@alerts.command("ack")
def acknowledge_alert(
    alert_id: Annotated[int, typer.Argument(metavar="ID", help="Number of the alert.")],
    by: Annotated[str | None, typer.Option(help="Who has seen it; you without it.")] = None,
) -> None:
    """Say that you look after an alert, so that it is sent to nobody else."""
    from lakehouse.alerts import acknowledge

    alert = acknowledge(alert_id, by)
    print(f"{alert}\nacknowledged by {alert.acknowledged_by}")


def register(app: typer.Typer) -> None:
    """Add the commands to the command line, among those that look at data.

    Args:
        app: The ``lake`` command.
    """
    app.add_typer(alerts, name="alerts", rich_help_panel=PANEL)
