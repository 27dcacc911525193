"""Links from Airflow's tasks to the platform's own pages."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

PREFIX = "/lakehouse"
"""Where Airflow's API server shows the pages of :mod:`lakehouse.airflow.pages`."""


class DataDocsLink(BaseOperatorLink):
    """From a gate to Great Expectations' pages about what it found."""

    name = "Data Docs"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The page that lists the verdicts of a task.

        Args:
            operator: The gate.
            ti_key: Its run.
        """
        return "/".join([PREFIX, "data-docs", "task", *map(_part, (ti_key.dag_id, ti_key.run_id, ti_key.task_id))])


class MonitoringLink(BaseOperatorLink):
    """From the task that monitors a model to the report of its interval."""

    name = "Report"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The page of what a task has measured.

        Args:
            operator: The task.
            ti_key: Its run.
        """
        return "/".join([PREFIX, "monitoring", "task", *map(_part, (ti_key.dag_id, ti_key.run_id, ti_key.task_id))])


def linked_to(link: BaseOperatorLink) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give tasks a link, which is there when the task has failed, too.

    Args:
        link: The link.
    """

    def decorate(make: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(make)
        def linked(*arguments: Any) -> Any:
            made = make(*arguments)
            made.operator.operator_extra_links = (link,)
            return made

        return linked

    return decorate


def _part(text: Any) -> str:
    return quote(str(text), safe="")
