"""Airflow's REST API: trigger a DAG, follow its run, backfill, and say what went wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import date
from types import TracebackType
from typing import Any, Self

import httpx

from lakehouse.errors import LakeError
from lakehouse.settings import settings

PAGE = 100
POLL_SECONDS = 0.7


class AirflowError(LakeError):
    """Airflow refused a request, or a run failed; the message is Airflow's own.

    Attributes:
        status: HTTP status of the refusal; None if it was a run that failed, or Airflow did not answer.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class RunFailedError(AirflowError):
    """A run ended in another state than success."""


class AirflowClient:
    """A client of the REST API, logged in as one user.

    Args:
        url: Airflow's base URL; the platform's own without it.
        username: Who logs in; the setting ``airflow_user`` without it.
        password: The user's password; the setting ``airflow_password`` without it.
    """

    def __init__(self, url: str | None = None, username: str | None = None, password: str | None = None) -> None:
        lake = settings()
        self.url = (url or lake.airflow_base_url).rstrip("/")
        if password is None:
            given = lake.airflow_password
            password = given.get_secret_value() if given else lake.secret("airflow_admin_password")
        self._credentials = {"username": username or lake.airflow_user, "password": password}
        self._http = httpx.Client(base_url=self.url, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def login(self) -> None:
        """Get a token; every request does it by itself when it has none, or when it has expired.

        Raises:
            AirflowError: The user or the password is wrong.
        """
        response = self._send("POST", "/auth/token", json=self._credentials)
        self._check(response)
        self._http.headers["Authorization"] = f"Bearer {response.json()['access_token']}"

    def request(self, method: str, path: str, **options: Any) -> Any:
        """Send a request to the API, and return its answer as Python objects.

        Args:
            method: HTTP method.
            path: Path below ``/api/v2``.
            options: Arguments of ``httpx.Client.request``.

        Raises:
            AirflowError: Airflow refused it, or does not answer.
        """
        if "Authorization" not in self._http.headers:
            self.login()
        response = self._send(method, f"/api/v2{path}", **options)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            self.login()
            response = self._send(method, f"/api/v2{path}", **options)
        self._check(response)
        return response.json() if response.content else None

    def trigger(
        self,
        dag_id: str,
        partition_key: str | None = None,
        conf: dict[str, Any] | None = None,
        run_id: str | None = None,
        note: str | None = None,
    ) -> str:
        """Start a run.

        Args:
            dag_id: The DAG.
            partition_key: The days that the run is about: ``2013-03-01`` or ``2013-01-01/2013-02-28``.
            conf: Values of the DAG's parameters.
            run_id: Name of the run; Airflow finds one without it.
            note: Remark that is shown with the run.

        Returns:
            The run's id.
        """
        body: dict[str, Any] = {"logical_date": None, "conf": conf or {}}
        optional = {"partition_key": partition_key, "dag_run_id": run_id, "note": note}
        body |= {name: value for name, value in optional.items() if value is not None}
        answer = self.request("POST", f"/dags/{dag_id}/dagRuns", json=body)
        return str(answer["dag_run_id"])

    def wait(
        self,
        dag_id: str,
        run_id: str,
        timeout: float = 3600,
        on_task: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Follow a run to its end.

        Args:
            dag_id: The DAG.
            run_id: The run.
            timeout: Seconds after which to give up.
            on_task: Called with each task instance whenever its state has changed.

        Returns:
            The run.

        Raises:
            RunFailedError: It failed; the message holds the end of the failed tasks' logs.
            AirflowError: It has not ended in time.
        """
        [run] = self.wait_all({dag_id: run_id}, timeout, on_task)
        return run

    def wait_all(
        self, run_ids: dict[str, str], timeout: float = 3600, on_task: Callable[[dict[str, Any]], None] | None = None
    ) -> list[dict[str, Any]]:
        """Follow runs of several DAGs, which go on side by side, to their ends.

        Args:
            run_ids: DAG to run.
            timeout: Seconds after which to give up.
            on_task: Called with each task instance whenever its state has changed.

        Returns:
            The runs, in the order in which they were given.

        Raises:
            RunFailedError: One failed; the message holds the end of the failed tasks' logs. The others go on.
            AirflowError: They have not ended in time.
        """
        deadline = time.monotonic() + timeout
        seen: dict[str, str | None] = {}
        ended: dict[str, dict[str, Any]] = {}
        while len(ended) < len(run_ids):
            if time.monotonic() > deadline:
                late = ", ".join(f"{dag_id} {run_id}" for dag_id, run_id in run_ids.items() if dag_id not in ended)
                raise AirflowError(f"After {timeout:.0f} s this has not ended, and goes on in Airflow: {late}.")
            pending = {dag_id: run_id for dag_id, run_id in run_ids.items() if dag_id not in ended}
            try:
                # The runs before their tasks: no task of a run that has ended is missed then.
                runs = self._runs_of(pending)
                tasks = self._tasks_of(pending) if on_task else []
            except AirflowError as error:
                if error.status is not None and error.status < httpx.codes.INTERNAL_SERVER_ERROR:
                    raise
                time.sleep(POLL_SECONDS)  # the API server or its database is restarting
                continue
            for task in tasks:
                if on_task and seen.get(task["id"]) != task["state"]:
                    seen[task["id"]] = task["state"]
                    on_task(task)
            for dag_id, run in runs.items():
                if run["state"] == "failed":
                    raise RunFailedError(self._story(dag_id, run["dag_run_id"], run))
                if run["state"] == "success":
                    ended[dag_id] = run
            if len(ended) < len(run_ids):
                time.sleep(POLL_SECONDS)
        return [ended[dag_id] for dag_id in run_ids]

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """One run.

        Args:
            dag_id: The DAG.
            run_id: The run.
        """
        found: dict[str, Any] = self.request("GET", f"/dags/{dag_id}/dagRuns/{run_id}")
        return found

    def runs(self, dag_id: str = "~", **filters: Any) -> list[dict[str, Any]]:
        """Runs, the newest first.

        Args:
            dag_id: The DAG; every DAG without it.
            filters: Query parameters of the API, such as ``state="failed"``.
        """
        return self._pages(f"/dags/{dag_id}/dagRuns", "dag_runs", {"order_by": "-id", **filters})

    def find_run(
        self, dag_id: str, partition_key: str, timeout: float = 0, newer_than: str | None = None
    ) -> dict[str, Any] | None:
        """The newest run of a DAG for some days, such as the one that a release upstream leads to.

        Args:
            dag_id: The DAG.
            partition_key: The days.
            timeout: Seconds to wait for it.
            newer_than: Only a run that was queued after this time, as the API writes times.
        """
        deadline = time.monotonic() + timeout
        while True:
            for run in self.runs(dag_id, partition_key_prefix_pattern=partition_key):
                late_enough = newer_than is None or (run["queued_at"] or run["run_after"]) > newer_than
                if run["partition_key"] == partition_key and late_enough:
                    return run
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.5)

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The task instances of a run.

        Args:
            dag_id: The DAG.
            run_id: The run.
        """
        return self._pages(f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", "task_instances", {})

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1) -> list[str]:
        """The log of a task, line by line, without what Airflow says of itself before and after it.

        Args:
            dag_id: The DAG.
            run_id: The run.
            task_id: The task.
            try_number: Which try of it.
        """
        answer = self.request(
            "GET",
            f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}",
            headers={"Accept": "application/json"},
        )
        return list(_lines(answer["content"]))

    def result(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """What a task returned.

        Args:
            dag_id: The DAG.
            run_id: The run.
            task_id: The task.
        """
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        return self.request("GET", path)["value"]

    def backfill(
        self,
        dag_id: str,
        first: date,
        last: date,
        conf: dict[str, Any] | None = None,
        reprocess: str = "none",
        max_active_runs: int = 1,
    ) -> int:
        """Start a run for each day.

        Args:
            dag_id: The DAG.
            first: First day.
            last: Last day, included.
            conf: Values of the DAG's parameters.
            reprocess: What to do with days that have a run: ``none``, ``failed`` or ``completed``.
            max_active_runs: How many days at the same time.

        Returns:
            The backfill's id.
        """
        body = {
            "dag_id": dag_id,
            "from_date": f"{first}T00:00:00Z",
            "to_date": f"{last}T00:00:00Z",
            "dag_run_conf": conf or {},
            "reprocess_behavior": reprocess,
            "max_active_runs": max_active_runs,
        }
        return int(self.request("POST", "/backfills", json=body)["id"])

    def backfills(self, dag_id: str) -> list[dict[str, Any]]:
        """The backfills of a DAG.

        Args:
            dag_id: The DAG.
        """
        return self._pages("/backfills", "backfills", {"dag_id": dag_id})

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler start a DAG's runs.

        Args:
            dag_id: The DAG.
        """
        self.request("PATCH", f"/dags/{dag_id}", json={"is_paused": False})

    def runnable(self, dag_id: str) -> bool:
        """Whether a DAG can be triggered: Airflow lists one a moment before it has stored what is in it.

        Args:
            dag_id: The DAG.
        """
        try:
            self.request("GET", f"/dags/{dag_id}/details")
        except AirflowError as error:
            if error.status == httpx.codes.NOT_FOUND:
                return False
            raise
        return True

    def import_errors(self) -> dict[str, str]:
        """Files in which Airflow could not read a DAG, and why."""
        found = self._pages("/importErrors", "import_errors", {})
        return {error["filename"]: error["stack_trace"] for error in found}

    def _runs_of(self, run_ids: dict[str, str]) -> dict[str, dict[str, Any]]:
        body = {"dag_ids": list(run_ids), "order_by": "-id", "page_limit": PAGE}
        newest = self.request("POST", "/dags/~/dagRuns/list", json=body)["dag_runs"]
        found = {run["dag_id"]: run for run in newest if run_ids.get(run["dag_id"]) == run["dag_run_id"]}
        return {dag_id: found.get(dag_id) or self.run(dag_id, run_id) for dag_id, run_id in run_ids.items()}

    def _tasks_of(self, run_ids: dict[str, str]) -> list[dict[str, Any]]:
        body = {"dag_ids": list(run_ids), "dag_run_ids": list(run_ids.values()), "page_limit": PAGE}
        found: list[dict[str, Any]] = []
        while True:
            path = "/dags/~/dagRuns/~/taskInstances/list"
            page = self.request("POST", path, json={**body, "page_offset": len(found)})["task_instances"]
            found += page
            if len(page) < PAGE:
                # Two DAGs may have a run of the same name.
                return [task for task in found if run_ids.get(task["dag_id"]) == task["dag_run_id"]]

    def _story(self, dag_id: str, run_id: str, run: dict[str, Any]) -> str:
        failed = [task for task in self.tasks(dag_id, run_id) if task["state"] == "failed"]
        lines = [f"{dag_id} {run['partition_key'] or run_id} {run['state']}."]
        for task in failed:
            log = self.log(dag_id, run_id, task["task_id"], task["try_number"])
            lines += [f"Task {task['task_id']}:", *(f"  {line}" for line in log[-15:])]
        lines.append(f"{self.url}/dags/{dag_id}/runs/{run_id}")
        return "\n".join(lines)

    def _pages(self, path: str, key: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            query = {**parameters, "limit": PAGE, "offset": len(found)}
            page = self.request("GET", path, params=query)[key]
            found += page
            if len(page) < PAGE:
                return found

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise AirflowError(
                f"Airflow does not answer at {self.url} ({error}). Is it running? `lake status` tells."
            ) from error

    @staticmethod
    def _check(response: httpx.Response) -> None:
        if response.is_success:
            return
        try:
            detail = response.json()["detail"]
        except (ValueError, KeyError, TypeError):
            detail = response.text
        if isinstance(detail, list):  # the body has not the right form: one entry for each field
            detail = "; ".join(f"{'.'.join(map(str, item['loc'][1:]))}: {item['msg']}" for item in detail)
        if isinstance(detail, dict):
            detail = detail.get("reason", detail)
        hint = {
            httpx.codes.UNAUTHORIZED: ". Check the user and the password.",
            httpx.codes.FORBIDDEN: ". The user's role does not allow it.",
            httpx.codes.CONFLICT: ". There is one already: choose another run id.",
        }.get(httpx.codes(response.status_code), "")
        raise AirflowError(
            f"Airflow refused {response.request.method} {response.request.url.path} "
            f"({response.status_code}): {detail}{hint}",
            response.status_code,
        )


def _lines(content: list[Any]) -> Iterator[str]:
    groups = 0  # that are open: Airflow folds up what is its own
    for entry in content:
        event = entry if isinstance(entry, str) else str(entry.get("event", ""))
        if event.startswith("::group::"):
            groups += 1
            continue
        if event.startswith("::endgroup::"):
            groups -= 1
            continue
        if isinstance(entry, str):
            if not groups:
                yield entry
            continue
        if not groups or entry.get("level") in ("error", "critical"):
            yield event
        for error in (entry.get("error_detail") or [])[:1]:  # the others are its causes
            yield f"{error.get('exc_type')}: {error.get('exc_value')}"
