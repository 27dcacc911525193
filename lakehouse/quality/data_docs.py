"""Data Docs: Great Expectations' own page for each verdict of a gate, and a list of them.

A gate writes the page of its verdict and nothing else; the list is made from ``ops.gate_results`` when somebody
asks for it, so that its length costs no gate any time.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from lakehouse import ops, pages
from lakehouse.settings import settings

if TYPE_CHECKING:
    from lakehouse.quality.gate import GateResult

LISTED = 500
"""How many verdicts the list shows, the newest first."""


@dataclass(frozen=True)
class Verdict:
    """A gate's verdict on one version of a table, as the list shows it.

    Attributes:
        table: The table, as readers name it.
        version: The version that was judged.
        verdict: ``passed`` or ``failed``.
        broken: How many expectations of any severity failed.
        checked_at: When.
        page: Its page, relative to :func:`folder`.
    """

    table: str
    version: int
    verdict: str
    broken: int
    checked_at: dt.datetime
    page: str


def folder() -> Path:
    """Where the pages are."""
    return settings().home / "data_docs"


def write(result: GateResult, run_id: str, checked_at: dt.datetime) -> str:
    """Write the page of a verdict.

    Args:
        result: The verdict.
        run_id: The gate's run; it tells apart two verdicts on one version.
        checked_at: When the table was judged.

    Returns:
        The page, relative to :func:`folder`.
    """
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    name = f"{result.suite.name.replace('.', '/')}/{result.version}-{run_id}.html"
    result.validation.meta["run_id"] = RunIdentifier(f"{result.suite.name} version {result.version}", checked_at)
    # It would ask whoever looks at the page to read GX's tutorial.
    html = DefaultJinjaPageView().render(
        ValidationResultsPageRenderer().render(result.validation), show_how_to_buttons=False
    )
    pages.write(folder() / name, html)
    return name


def verdicts(run_ids: list[str] | None = None) -> list[Verdict]:
    """The verdicts that have a page, the newest first.

    Args:
        run_ids: Only those of these runs.
    """
    log = ops.read("ops.gate_results")
    wanted = pc.is_valid(log["page"])
    if run_ids is not None:
        wanted = pc.and_(wanted, pc.is_in(log["run_id"], value_set=pc.cast(run_ids, log["run_id"].type)))
    rows: list[dict[str, Any]] = (
        log.filter(wanted)
        .append_column("broken", pc.cast(pc.invert(log.filter(wanted)["success"]), "int64"))
        .group_by(["table_name", "version", "verdict", "checked_at", "page"])
        .aggregate([("broken", "sum")])
        .sort_by([("checked_at", "descending"), ("table_name", "ascending")])
        .to_pylist()
    )
    return [
        Verdict(row["table_name"], row["version"], row["verdict"], row["broken_sum"], row["checked_at"], row["page"])
        for row in rows
    ]


def runs_of_task(dag_id: str, airflow_run_id: str, task_id: str) -> list[str]:
    """The gates that an Airflow task has run, one for each of its tries.

    Args:
        dag_id: The task's DAG.
        airflow_run_id: The run of the DAG.
        task_id: The task.
    """
    log = ops.read("ops.runs").select(["run_id", "step", "airflow_dag_id", "airflow_run_id", "airflow_task_id"])
    for column, value in {
        "step": "gate",
        "airflow_dag_id": dag_id,
        "airflow_run_id": airflow_run_id,
        "airflow_task_id": task_id,
    }.items():
        log = log.filter(pc.equal(log[column], value))
    run_ids: list[str] = log["run_id"].to_pylist()
    return run_ids


def index(found: list[Verdict], title: str, base: str = "") -> str:
    """A page that lists verdicts.

    Args:
        found: The verdicts.
        title: What they have in common.
        base: What the addresses of their pages start with.
    """
    return pages.render("verdicts.html", title=title, verdicts=found[:LISTED], more=len(found) - LISTED, base=base)


def write_index() -> Path:
    """Write the list of all verdicts next to their pages, and return where it is."""
    path = folder() / "index.html"
    pages.write(path, index(verdicts(), "Data Docs"))
    return path
