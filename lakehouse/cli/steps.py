"""``lake land``, ``gate``, ``release``, ``build`` and the other steps: what the DAG tasks run, run by hand."""

from __future__ import annotations

from typing import Annotated

import typer

from lakehouse.cli.arguments import (
    IntervalOption,
    ModelName,
    SourceName,
    TableNames,
    check_tables,
    days_option,
    parse_interval,
    parse_version,
)
from lakehouse.cli.printing import print_table, report
from lakehouse.errors import LakeError
from lakehouse.interval import Interval
from lakehouse.wording import counted

PANEL = "Steps (what the DAG tasks run)"


def land(source: SourceName, interval: IntervalOption) -> None:
    """Land an interval of a source in bronze; bad rows go to quarantine."""
    from lakehouse.steps import job

    report(job("land")(source, interval))


def replay(
    source: SourceName,
    interval: IntervalOption,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how many rows would pass, and what is wrong with the others.")
    ] = False,
) -> None:
    """Take quarantined rows through the contract and suite as they are now; gate and release what passes."""
    from lakehouse import contracts
    from lakehouse.steps import job

    outcome = job("replay")(source, interval, dry_run)
    report(outcome)
    if dry_run or not outcome["unreleased"]:
        return
    from lakehouse.releases.audit import gate as check
    from lakehouse.releases.release import release as publish

    table = contracts.load(source).table
    report(check([table], interval))
    report({"release_id": publish([table], interval)})


def gate(names: TableNames, interval: IntervalOption) -> None:
    """Check what was written to tables, as one set; withdraw it if it does not pass."""
    from lakehouse.releases.audit import gate as run

    check_tables(names)
    report(run(names, interval))


def release(
    names: Annotated[list[str] | None, typer.Argument(metavar="TABLE", help="Such as gold.fct_flights.")] = None,
    interval: Annotated[
        Interval | None,
        days_option("Day, or range of days."),
    ] = None,
    override: Annotated[
        str | None,
        typer.Option(metavar="RUN_ID", help="Publish what this gate (run_id in ops.gate_results) has turned down."),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why; an override needs it.")] = None,
) -> None:
    """Make the audited versions of tables visible, as one set; or override a gate's verdict."""
    if override is not None:
        from lakehouse.releases.override import override as publish

        if names or interval:
            raise typer.BadParameter(
                "--override publishes the tables of that gate: give it no TABLE and no --interval."
            )
        if not reason:
            raise typer.BadParameter("--override needs a --reason.")
        report({"release_id": publish(override, reason)})
        return
    if not names or interval is None or reason:
        raise typer.BadParameter("Give one TABLE or more and an --interval; --reason goes with --override.")
    from lakehouse.releases.release import release as run

    check_tables(names)
    report({"release_id": run(names, interval)})


def rollback(
    what: Annotated[str, typer.Argument(metavar="RELEASE|TABLE", help="Number of a release, or gold.fct_flights.")],
    to: Annotated[
        int | None, typer.Option(metavar="RELEASE", help="Go back to the state right after this release.")
    ] = None,
) -> None:
    """Make what readers saw before a release visible again: all tables of the release, or one table."""
    from lakehouse.releases.rollback import rollback as run

    report(run(what, to))


def build(
    interval: IntervalOption,
    select: Annotated[str | None, typer.Option(help="dbt's selection of models; all without it.")] = None,
    full_refresh: Annotated[
        bool, typer.Option("--full-refresh", help="Create the tables anew, with these days only.")
    ] = False,
) -> None:
    """Build the warehouse with dbt: the silver views and the next versions of the gold tables.

    What another build has written and not yet released is withdrawn first, be it one of Airflow that still runs.
    """
    from lakehouse import warehouse

    report(warehouse.build(interval, select, full_refresh=full_refresh))


def train(
    model: ModelName,
    interval: Annotated[
        Interval | None,
        typer.Option(
            "--interval",
            "-i",
            "--window",
            parser=parse_interval,
            metavar="FIRST/LAST",
            help="Training window; without it, the last days with outcomes, as many as model.yaml says.",
        ),
    ] = None,
) -> None:
    """Train a model on the released features of a window, and register it."""
    from lakehouse.steps import job

    report(job("train")(model, interval))


def score(
    model: ModelName,
    interval: IntervalOption,
    model_version: Annotated[
        int | None, typer.Option(min=1, metavar="VERSION", help="Refuse when another version is the champion.")
    ] = None,
    what_if: Annotated[
        int | None,
        typer.Option(min=1, metavar="VERSION", help="This version scores, apart from the predictions, any days."),
    ] = None,
) -> None:
    """Score an interval, each day with the version of a model that was its champion."""
    from lakehouse.steps import job

    if what_if is None:
        report(job("score")(model, interval, model_version))
        return
    if model_version is not None:
        raise typer.BadParameter("--what-if says which version scores: give no --model-version beside it.")
    report(job("what_if")(model, interval, what_if))


def monitor(model: Annotated[str, typer.Argument(help="Name of a model folder.")], interval: IntervalOption) -> None:
    """Measure drift, data and performance of an interval that was scored; again when its outcomes are known."""
    from lakehouse.steps import job

    report(job("monitor")(model, interval))


def retrain(
    model: Annotated[str, typer.Argument(help="Name of a model folder.")],
    interval: Annotated[
        Interval | None,
        days_option("Monitored days; the newest without it."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only say what would be decided, and why.")] = False,
) -> None:
    """Train a model again if its policy finds a cause; the decision is kept with its evidence."""
    from lakehouse.steps import job

    decided = job("retrain")(model, interval, check=check)
    report(decided)
    if decided["decision"] == "retrain" and not check:
        report(job("train")(model, Interval.parse(decided["window"]), None, decided["reason"]))


def promote(
    what: Annotated[str, typer.Argument(metavar="MODEL[@VERSION]", help="A version; the newest one without a number.")],
    reason: Annotated[
        str | None, typer.Option(help="Make it champion by your word, without a comparison; this is kept with it.")
    ] = None,
) -> None:
    """Compare a version with the champion on the same frozen rows, and make it champion if it wins."""
    from lakehouse.steps import job

    model, version = parse_version(what)
    report(job("promote")(model, version, reason))


def rollback_model(
    model: ModelName,
    reason: Annotated[str, typer.Option(help="Why; it is kept with the model's history.")],
    to: Annotated[
        int | None, typer.Option(metavar="VERSION", help="One that was champion; without it, the one before this one.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="DAY", help="Champion of this day and later ones; without it, of all it may.")
    ] = None,
    rescore: Annotated[
        bool, typer.Option("--rescore", help="Score, gate and release again what the withdrawn version has scored.")
    ] = False,
) -> None:
    """Make an earlier champion score again."""
    from lakehouse.steps import job

    first = parse_interval(since).start if since else None
    report(job("rollback_model")(model, reason, to, first, rescore))


def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="TABLE", help="Such as gold.fct_flights; all without it.")
    ] = None,
    release: Annotated[
        int | None, typer.Option(metavar="RELEASE", help="The versions that readers saw right after this release.")
    ] = None,
    kept: Annotated[
        bool,
        typer.Option("--kept", help="Also earlier versions that models and predictions were made from."),
    ] = False,
) -> None:
    """Read every byte of the released tables, and compare it with what was recorded when they were released."""
    if kept and release is not None:
        raise typer.BadParameter("--kept is about all versions that are kept: give no --release beside it.")
    from lakehouse.maintenance.verify import verify as run

    report(run(names, release, kept=kept))


def reproduce(
    what: Annotated[
        str, typer.Argument(metavar="MODEL[@VERSION]", help="A registered version; all of the model's without one.")
    ],
    predictions: Annotated[
        bool, typer.Option("--predictions", help="Score past predictions again, instead of training.")
    ] = False,
    interval: Annotated[
        Interval | None,
        days_option("Days of the predictions."),
    ] = None,
    release: Annotated[
        int | None, typer.Option(metavar="RELEASE", help="The predictions that readers saw right after this release.")
    ] = None,
) -> None:
    """Train a model version, or score past predictions, again from what they were made from, and compare."""
    from lakehouse.steps import job

    model, at, version = what.partition("@")
    if predictions:
        if at or interval is None:
            raise typer.BadParameter("--predictions needs MODEL, without a version, and an --interval.")
        report(job("reproduce_predictions")(model, interval, release))
        return
    if interval is not None or release is not None or (at and not version.isdigit()):
        raise typer.BadParameter(
            "Give MODEL@VERSION, or MODEL for all; --interval and --release go with --predictions."
        )
    from lakehouse.ml import model_folders
    from lakehouse.registry import registry
    from lakehouse.registry.reproduction import NotReproducedError

    if at:
        report(job("reproduce_training")(model, int(version)))
        return
    differ: list[int] = []
    lost: list[int] = []
    versions = registry.versions(model_folders.load(model).name)
    if not versions:
        raise registry.UnknownVersionError(f"{model} has no version yet: `lake train {model}` makes the first.")
    for each in versions:
        try:
            outcome = job("reproduce_training")(model, each.version)
        except NotReproducedError as error:
            differ.append(each.version)
            outcome = {"equal": False, "because": str(error)}
        except LakeError as error:
            lost.append(each.version)
            outcome = {"equal": None, "because": str(error)}
        report({"model_version": each.version, **outcome})
    said = {"come out otherwise": differ, "cannot be made again": lost}
    if differ or lost:
        raise NotReproducedError(
            f"Of the versions of {model}, "
            + "; ".join(f"these {what}: {', '.join(map(str, found))}" for what, found in said.items() if found)
            + "."
        )


def maintain(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would go, what is kept, by what, and how many bytes.")
    ] = False,
    keep_days: Annotated[
        int | None,
        typer.Option(min=0, help="Keep what was replaced so many days ago; without it, the setting keep_days."),
    ] = None,
) -> None:
    """Delete what contracts no longer keep, put small files together, and remove files that nothing needs."""
    from lakehouse.maintenance import maintain as maintenance

    if not dry_run:
        report(maintenance.maintain(keep_days))
        return
    work = [vars(each) for each in (*maintenance.upcoming(), *maintenance.upcoming_ops())]
    if work:
        print_table(["table", "what", "days", "files", "bytes"], work)
    plans = maintenance.plan(keep_days)
    shown = [
        {
            "table": plan.table,
            "version": pin.version,
            "kept for": "\n".join(pin.why),
            "bytes beside the newest version": pin.bytes,
        }
        for plan in plans
        for pin in plan.pinned
    ]
    print_table(["table", "version", "kept for", "bytes beside the newest version"], shown)
    going = [{"table": plan.table, "files": len(plan.files), "bytes": plan.bytes} for plan in plans if plan.files]
    if going:
        print_table(["table", "files", "bytes"], going)
    files, size = sum(len(plan.files) for plan in plans), sum(plan.bytes for plan in plans)
    print(f"{counted(files, 'file')} of {counted(size, 'byte')} would go.")


def register(app: typer.Typer) -> None:
    """Add the commands to the command line, in the order in which its help lists them.

    Args:
        app: The ``lake`` command.
    """
    steps = (
        land,
        replay,
        gate,
        release,
        rollback,
        build,
        train,
        score,
        monitor,
        retrain,
        promote,
        rollback_model,
        verify,
        reproduce,
        maintain,
    )
    for step in steps:
        app.command(rich_help_panel=PANEL)(step)
