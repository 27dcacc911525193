"""The daily job of a running platform, with inputs that change from run to run, and what its tables hold."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import time
from dataclasses import dataclass
from typing import Any

from infra.demo.upstream import deliver
from lakehouse.airflow_client import AirflowClient, RunFailedError
from tests.platforms import Platform

DAY = dt.date(2013, 3, 3)
BEFORE = DAY - dt.timedelta(days=1)
INGEST = {
    "ingest_flight_schedule": DAY,
    "ingest_flight_actuals": BEFORE,
    "ingest_weather": BEFORE,
}
MODEL = "flight_delay"
# Made anew by each run: what names the run itself and not its data.
OF_THE_RUN = {"_batch", "_landed_at", "run_id", "release_id", "scored_at", "ingested_at", "_run_id"}
TRIES = 4
SECONDS = 900


@dataclass(frozen=True)
class Outcome:
    """What all tables hold after a run.

    Attributes:
        hashes: Table to a hash of its rows that does not depend on their order.
        models: Versions in the registry by what they were made from, and who is champion.
    """

    hashes: dict[str, str]
    models: list[tuple[Any, ...]]


class Job:
    """The daily job.

    Args:
        platform: The platform; the demo has run on it.
        airflow: A client of its REST API.

    Attributes:
        reasons: Why runs have failed that had to be started again, in Airflow's words.
    """

    def __init__(self, platform: Platform, airflow: AirflowClient) -> None:
        self.platform, self.airflow = platform, airflow
        self.reasons: list[str] = []
        folder = platform.home / "drop"
        self._actuals = folder / "flight_actuals" / f"flight_actuals_{BEFORE}.csv"
        self._weather = folder / "weather" / f"weather_{BEFORE}.jsonl"
        # An earlier run may have been ended in the middle of a point.
        deliver(str(folder), since=BEFORE, until=DAY, sources=["flight_actuals", "weather"])
        self._original = self._actuals.read_text(), self._weather.read_text()

    def deliver(self, variant: int) -> None:
        """Have the upstream deliver the outcomes of the day before: variant 0 is true, each other one differs.

        Args:
            variant: By how many minutes and degrees.
        """
        actuals, weather = self._original
        rows = list(csv.DictReader(io.StringIO(actuals)))
        for row in rows:
            if row["arrival_delay_minutes"]:
                row["arrival_delay_minutes"] = str(int(row["arrival_delay_minutes"]) + 10 * variant)
        out = io.StringIO()
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        readings = [json.loads(line) for line in weather.splitlines()]
        for reading in readings:
            reading["temperature_f"] = round(reading["temperature_f"] + variant, 2)
        self._actuals.write_text(out.getvalue() if variant else actuals)
        self._weather.write_text("".join(json.dumps(each) + "\n" for each in readings) if variant else weather)

    def run(self) -> int:
        """Run the day: load what has arrived, build, and score; tasks are retried by Airflow, failed runs by us.

        Returns:
            How many runs had to be started again.
        """
        began = self._now()
        again = self._all({dag_id: str(day) for dag_id, day in INGEST.items()})
        for dag_id in ("build_warehouse", f"score_{MODEL}"):
            again += self._led_to(dag_id, began)
        return again

    def train(self, window: str) -> int:
        """Train the model.

        Args:
            window: First and last day.

        Returns:
            How many runs had to be started again.
        """
        return self._all({f"train_{MODEL}": None}, {"window": window})

    def outcome(self) -> Outcome:
        """What all tables hold now."""
        names = [
            f"{schema}.{row[1]}"
            for schema in ("bronze", "gold", "ml", "quarantine")
            for row in self.platform.sql(f"show tables in {schema}")
        ]
        return Outcome({name: self.content(name) for name in sorted(names)}, self.models())

    def content(self, table: str) -> str:
        """A hash of the rows of a table, without what names the run that made them.

        Args:
            table: By the name that readers use.
        """
        columns = [row[0] for row in self.platform.sql(f"show columns in {table}") if row[0] not in OF_THE_RUN]
        return hashed(self.platform.sql(query_of(table, columns)))

    def models(self) -> list[tuple[Any, ...]]:
        """Versions in the registry by what they were made from, and who is champion."""
        versions = self.platform.sql(
            "select 'version', model_name, window_start, window_end, count(*) from ops.models group by all order by all"
        )
        champions = self.platform.sql(
            "select 'champion', model_name, max_by(model_version, at) from ops.model_events "
            "where event in ('promoted', 'rolled back') group by all order by all"
        )
        return [*versions, *champions]

    def _all(self, keys: dict[str, str | None], conf: dict[str, Any] | None = None) -> int:
        started = {dag_id: patiently(self.airflow.trigger, dag_id, key, conf) for dag_id, key in keys.items()}
        again = 0
        for dag_id, run_id in started.items():
            for attempt in range(TRIES):
                try:
                    self.airflow.wait(dag_id, run_id, timeout=SECONDS)
                    break
                except RunFailedError as error:
                    self.reasons.append(str(error))
                    if attempt == TRIES - 1:
                        raise
                    again += 1
                    run_id = patiently(self.airflow.trigger, dag_id, keys[dag_id], conf)
        return again

    def _led_to(self, dag_id: str, began: str) -> int:
        key = str(DAY)
        run = patiently(self.airflow.find_run, dag_id, key, 120, began)
        if run is None or run["state"] == "failed":
            return 1 + self._all({dag_id: key})
        try:
            self.airflow.wait(dag_id, run["dag_run_id"], timeout=SECONDS)
        except RunFailedError as error:
            self.reasons.append(str(error))
            return 1 + self._all({dag_id: key})
        return 0

    def _now(self) -> str:
        return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def query_of(table: str, columns: list[str], where: str = "true") -> str:
    """SQL of one row that tells the content of a table apart from any other.

    Args:
        table: The table.
        columns: Those that count.
        where: Which rows.
    """
    names = ", ".join(f"`{name}`" for name in columns)
    row = f"xxhash64(to_json(struct({names})))"
    return f"select count(*), sum(cast({row} as decimal(38, 0))), bit_xor({row}) from {table} where {where}"


def hashed(rows: list[tuple[Any, ...]]) -> str:
    """The answer of such a query as a word."""
    return "/".join(str(value) for value in rows[0])


def patiently(call: Any, *arguments: Any, seconds: float = 180) -> Any:
    """Call the API, which may be restarting; what it refuses is refused.

    Args:
        call: A method of the client.
        arguments: Its arguments.
        seconds: How long to try.
    """
    from lakehouse.airflow_client import AirflowError

    end = time.monotonic() + seconds
    while True:
        try:
            return call(*arguments)
        except AirflowError as error:
            if (error.status is not None and error.status < 500) or time.monotonic() > end:
                raise
            time.sleep(1)
