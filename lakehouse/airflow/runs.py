"""Runs: what those of all DAGs have in common; their days, their conf, and what is tried again."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow.exceptions import InvalidPartitionKeyError
from airflow.sdk.exceptions import AirflowFailException

from lakehouse.airflow.partitions import parse_key
from lakehouse.errors import LakeError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from lakehouse.interval import Interval

ENGINE_POOL = "engine"
"""Pool of the tasks that make the Spark engine work; one slot is one task."""

START = dt.datetime(2013, 1, 1, tzinfo=dt.UTC)
"""Of all DAGs that have one. Nothing is caught up from here by itself."""

RETRIES = {
    "retries": 3,
    "retry_delay": dt.timedelta(seconds=10),
    "retry_exponential_backoff": True,
    "max_retry_delay": dt.timedelta(minutes=5),
    "execution_timeout": dt.timedelta(hours=1),
}
"""Arguments of every task: a part of the platform that fails is back within a minute or so."""

HOW_TO_RUN = """
**By hand:** *Trigger* with the *Partition Key* (under the advanced options) set to a day, `2013-03-01`, or to a
range, `2013-01-01/2013-02-28`, which is one run; by REST the same goes into the field `partition_key`. A key that is
neither is refused with status 400, and so is a run without one.
"""


def run_interval(context: Context) -> Interval:
    """The interval of a run, which is its partition key.

    Args:
        context: The task's context.

    Raises:
        AirflowFailException: The run has no such key, or its conf has a key that the DAG does not know.
    """
    check_conf(context)
    key = context.get("partition_key")
    if not key:
        raise AirflowFailException(
            "This run has no partition key, so it is not known which days it is about. Trigger the DAG again with "
            "the partition key set to a day (2013-03-01) or a range of days (2013-01-01/2013-02-28)."
        )
    try:
        return parse_key(key)
    except InvalidPartitionKeyError as error:
        raise AirflowFailException(str(error)) from error


def check_conf(context: Context) -> None:
    """Refuse keys of a run's conf that are not parameters of its DAG; Airflow itself lets them pass.

    Args:
        context: The task's context.

    Raises:
        AirflowFailException: There is such a key.
    """
    known = sorted(context["dag"].params)
    unknown = sorted(set(context["dag_run"].conf or {}) - set(known))
    if unknown:
        hint = " Days are given as the run's partition key." if "interval" in unknown else ""
        raise AirflowFailException(
            f"The conf of this run has {', '.join(unknown)}, which {context['dag'].dag_id} does not know; "
            f"it takes {', '.join(known) or 'no parameters'}.{hint}"
        )


@contextmanager
def no_retry() -> Iterator[None]:
    """Fail for good on an error that only a person can put right; anything else is retried."""
    from lakehouse.engine import EngineLostError
    from lakehouse.locks import StaleWriterError, TableLockedError
    from lakehouse.readers.batch import UnfinishedError
    from lakehouse.releases.unreleased import UnfinishedWriteError

    try:
        yield
    except (EngineLostError, StaleWriterError, TableLockedError, UnfinishedError, UnfinishedWriteError):
        raise
    except LakeError as error:
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error
