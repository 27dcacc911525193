"""Questions to a person, in Airflow's web UI."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.execution_time.hitl import HITLUser


class AskedOnce(HITLOperator):
    """A question that is asked once: where nobody has answered in time, a retry does not ask again."""

    unanswered: str
    """What becomes of the matter then."""

    def process_trigger_event_error(self, event: dict[str, Any]) -> None:
        """Fail for good when the time is over.

        Args:
            event: What has ended the waiting.
        """
        if event["error_type"] == "timeout":
            raise AirflowFailException(f"Nobody has answered within {self.response_timeout}. {self.unanswered}")
        super().process_trigger_event_error(event)


def people(names: Iterable[str]) -> list[HITLUser]:
    """Those who may answer.

    Args:
        names: Users, and roles as ``role:Op``.
    """
    return [HITLUser(id=name, name=name.removeprefix("role:")) for name in names]
