"""Cost: what the steps of ``ops.runs`` have used, by table, model, owner or step, and what that is in money.

The engine is shared. What it used while a step was under way is the step's own as far as no other step was under way
at the same time; of n at the same time each has a share of 1/n.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow.compute as pc

from lakehouse import contracts, dbt_project, ops
from lakehouse.alerts import Cause, report
from lakehouse.errors import LakeError
from lakehouse.interval import Interval
from lakehouse.ml import model_folders
from lakehouse.settings import Settings, settings

By = Literal["table", "model", "owner", "step"]
BUDGET_DAYS = 30
COLUMNS = [
    "run_id", "step", "dataset", "started_at", "ended_at", "seconds", "cpu_seconds", "engine_cpu_seconds",
    "engine_peak_memory", "status", "rows_out", "bytes_in", "details",
]  # fmt: skip
_MODEL = re.compile(r"^(?:models\.|ml\.predictions_)(.+)$")
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


class UnknownOwnerError(LakeError, ValueError):
    """A budget is for somebody who owns nothing."""


@dataclass(frozen=True)
class Charge:
    """What one run has used for one table.

    Attributes:
        run_id: The run in ``ops.runs``.
        step: What it did.
        table: The table, as readers name it; ``models.<name>`` for a model.
        seconds: How long it took.
        cpu_seconds: Processor time of its own process.
        engine_cpu_seconds: Processor time of the engine; 0 where it is not known.
        bytes_in: Size of the source files that it read.
        predictions: Rows that it scored.
        owner: Who answers for the table.
    """

    run_id: str
    step: str
    table: str
    seconds: float
    cpu_seconds: float
    engine_cpu_seconds: float
    bytes_in: int
    predictions: int
    owner: str | None = None

    @property
    def model(self) -> str | None:
        """The model whose table it is, if it is one's."""
        found = _MODEL.match(self.table)
        return found[1] if found else None


@dataclass(frozen=True)
class Total:
    """What several charges add up to.

    Attributes:
        name: What they have in common; None for those that belong to none.
        runs: Number of runs that had a part in it.
        seconds: How long they took.
        cpu_seconds: Processor time of the steps' own processes.
        engine_cpu_seconds: Processor time of the engine.
        bytes_in: Size of the source files that were read.
        predictions: Rows that were scored.
        cost: Amount of money, at the rates of the settings.
    """

    name: str | None
    runs: int
    seconds: float
    cpu_seconds: float
    engine_cpu_seconds: float
    bytes_in: int
    predictions: int
    cost: float

    @property
    def cores(self) -> float:
        """How many cores were busy on average."""
        return (self.cpu_seconds + self.engine_cpu_seconds) / self.seconds if self.seconds else 0.0

    @property
    def per_1000_predictions(self) -> float | None:
        """Amount of money for a thousand scored rows, training included; None without any."""
        return 1000 * self.cost / self.predictions if self.predictions else None


def charges(runs: Sequence[Mapping[str, Any]]) -> list[Charge]:
    """What each table is charged with.

    A run about several tables is charged to them in equal parts, and a build by the time that each of its tables took.

    Args:
        runs: Rows of ``ops.runs``.
    """
    parts: dict[str, dict[str, float | None]] = {}
    for run in runs:
        if build := _build_of(run):
            parts.setdefault(build, {})[run["dataset"]] = run["seconds"]
    whole = [run for run in runs if _build_of(run) is None]
    found = []
    for run, alone in zip(whole, _shares(whole), strict=True):
        weights = parts.get(run["run_id"]) or dict.fromkeys(map(_table, run["dataset"].split(", ")))
        known = [seconds for seconds in weights.values() if seconds is not None]
        timed = len(known) == len(weights) and sum(known) > 0
        for table, seconds in weights.items():
            share = seconds / sum(known) if timed and seconds is not None else 1 / len(weights)
            found.append(
                Charge(
                    run_id=run["run_id"],
                    step=run["step"],
                    table=table,
                    seconds=run["seconds"] * share,
                    cpu_seconds=(run["cpu_seconds"] or 0) * share,
                    engine_cpu_seconds=(run["engine_cpu_seconds"] or 0) * alone * share,
                    bytes_in=run["bytes_in"] or 0,
                    predictions=run["rows_out"] or 0 if run["step"] == "score" and run["status"] == "success" else 0,
                )
            )
    return found


def totals(charged: Iterable[Charge], by: By, rates: Settings) -> list[Total]:
    """What charges add up to, the dearest first.

    Args:
        charged: The charges.
        by: What to add up by; what belongs to no model is left out when that is asked for.
        rates: Settings with the rates.
    """
    groups: dict[str | None, list[Charge]] = {}
    for charge in charged:
        name: str | None = getattr(charge, by)
        if name is not None or by != "model":
            groups.setdefault(name, []).append(charge)
    found = [_total(name, group, rates) for name, group in groups.items()]
    return sorted(found, key=lambda total: (-total.cost, -total.cpu_seconds - total.engine_cpu_seconds))


def exceeded(charged: Iterable[Charge], rates: Settings) -> dict[str, str]:
    """The owners who have spent more than their budget, and a sentence about each.

    Args:
        charged: What was charged in 30 days.
        rates: Settings with rates and budgets.
    """
    spent = {total.name: total.cost for total in totals(charged, "owner", rates)}
    return {
        owner: f"{owner} has spent {spent[owner]:.2f} {rates.currency} in {BUDGET_DAYS} days: more than {budget:.2f}."
        for owner, budget in rates.budgets.items()
        if spent.get(owner, 0) > budget
    }


def advice(runs: Sequence[Mapping[str, Any]], cores: int, memory: int) -> list[str]:
    """What to give the engine more or less of, as far as that follows from what was measured.

    Args:
        runs: Rows of ``ops.runs``.
        cores: What the engine may use of the machine.
        memory: Bytes of the heap that it is granted.
    """
    measured = [run for run in runs if _build_of(run) is None and run["engine_cpu_seconds"] is not None]
    if not measured:
        return []
    cpu = sum(
        (run["cpu_seconds"] or 0) + run["engine_cpu_seconds"] * alone
        for run, alone in zip(measured, _shares(measured), strict=True)
    )
    busy = _busy_seconds(measured)
    used = cpu / (busy * cores) if busy else 0.0
    found = []
    if used > 0.9:
        found.append(f"While steps ran, {used:.0%} of {cores} cores were used: more cores would make them faster.")
    elif used < 0.5 and cores > 1:
        found.append(
            f"While steps ran, {used:.0%} of {cores} cores were used: {max(1, math.ceil(used * cores))} would do, "
            "or more steps at the same time."
        )
    peak = max((run["engine_peak_memory"] or 0 for run in measured), default=0)
    # The JVM takes memory as its heap fills, and has more than a heap: below it, part of the heap was never used.
    if 0 < peak < 0.75 * memory:
        found.append(
            f"The engine's heap may grow to {memory / 2**30:.1f} GiB (spark_memory), and its whole process never had "
            f"more than {peak / 2**30:.1f} GiB: that is enough for this load."
        )
    return found


def read(days: Interval) -> list[dict[str, Any]]:
    """The rows of ``ops.runs`` of steps that began on some days (UTC).

    Args:
        days: Which.
    """
    rows = ops.read("ops.runs", COLUMNS)
    began = pc.cast(rows["started_at"], "date32")
    found: list[dict[str, Any]] = rows.filter(
        pc.and_(pc.greater_equal(began, days.start), pc.less_equal(began, days.end))
    ).to_pylist()
    return found


def owned(charged: Iterable[Charge]) -> list[Charge]:
    """Charges with their owners: of the contract, the properties in dbt, or ``model.yaml``; None for what is gone.

    Args:
        charged: The charges.
    """
    known: dict[str, str | None] = {}
    found = []
    for charge in charged:
        if charge.table not in known:
            known[charge.table] = owner(charge.table)
        found.append(replace(charge, owner=known[charge.table]))
    return found


def owner(table: str) -> str | None:
    """Who answers for a table; None when nobody says so, what says it cannot be read, or it is no longer there.

    Args:
        table: As readers name it; ``models.<name>`` for a model.
    """
    layer, _, name = table.partition(".")
    if model := _MODEL.match(table):
        return next((spec.owner for spec in model_folders.readable() if spec.name == model[1]), None)
    if layer in ("bronze", "quarantine"):
        return next((contract.owner for contract in contracts.readable() if contract.name == name), None)
    return (dbt_project.meta(table) or {}).get("owner") if layer in ("silver", "gold") else None


def last_days(last: dt.date) -> Interval:
    """The days that a budget is about.

    Args:
        last: The last of them.
    """
    return Interval(last - dt.timedelta(days=BUDGET_DAYS - 1), last)


def warnings(last: dt.date) -> dict[str, str]:
    """The owners who have spent more than their budget in the 30 days that end with a day.

    Args:
        last: The day.

    Raises:
        UnknownOwnerError: A budget is for somebody who owns nothing.
    """
    if not settings().budgets:
        return {}
    owners = {*map(owner, _tables())} - {None}
    if unknown := sorted(settings().budgets.keys() - owners):
        raise UnknownOwnerError(
            f"The setting budgets names {', '.join(unknown)}. The owners are: {', '.join(sorted(map(str, owners)))}."
        )
    return exceeded(owned(charges(read(last_days(last)))), settings())


def alert() -> None:
    """Raise an alert for each owner who has spent more than the budget, and end those that are over."""
    if settings().budgets:
        found = warnings(dt.datetime.now(dt.UTC).date())
        causes = [Cause(f"owner {name}", None, "budget", "warning", text) for name, text in found.items()]
        report(causes, {(f"owner {name}", None) for name in settings().budgets})


def granted() -> tuple[int, int]:
    """Cores and bytes of heap that the engine on this machine may use."""
    size = re.fullmatch(r"(\d+)([kmgt]?)b?", settings().spark_memory.lower())
    limit = re.fullmatch(r"local\[(\d+)\]", settings().spark_master)
    cores = int(limit[1]) if limit else len(os.sched_getaffinity(0))
    return cores, int(size[1]) * _UNITS[size[2]] if size else 0


def _total(name: str | None, group: Sequence[Charge], rates: Settings) -> Total:
    def add(of: Callable[[Charge], float]) -> float:
        return sum(map(of, group))

    cpu = add(lambda charge: charge.cpu_seconds)
    engine = add(lambda charge: charge.engine_cpu_seconds)
    size = int(add(lambda charge: charge.bytes_in))
    return Total(
        name=name,
        runs=len({charge.run_id for charge in group}),
        seconds=add(lambda charge: charge.seconds),
        cpu_seconds=cpu,
        engine_cpu_seconds=engine,
        bytes_in=size,
        predictions=int(add(lambda charge: charge.predictions)),
        cost=(cpu + engine) / 3600 * rates.cost_per_cpu_hour + size / 2**30 * rates.cost_per_gib,
    )


def _tables() -> list[str]:
    return [
        *(f"bronze.{name}" for name in contracts.sources()),
        *dbt_project.stored_models(),
        *(f"models.{name}" for name in model_folders.models()),
    ]


def _table(name: str) -> str:
    """The table of an entry of ``dataset``: a model stands there by its name, or with a version."""
    return name if "." in name or name in ("warehouse", "the lake", "nothing") else f"models.{name.partition('@')[0]}"


def _build_of(run: Mapping[str, Any]) -> str | None:
    """The build that a row is only a part of."""
    if run["step"] != "build" or run["dataset"] == "warehouse":
        return None
    build: str | None = json.loads(run["details"] or "{}").get("build_run_id")
    return build


def _clock(runs: Sequence[Mapping[str, Any]], rate: Callable[[int], float]) -> dict[dt.datetime, float]:
    """At each moment that a run began or ended, the seconds until then, each counted by how many runs it was in."""
    moments = [(run["started_at"], 1) for run in runs] + [(run["ended_at"], -1) for run in runs]
    passed: dict[dt.datetime, float] = {}
    active, counted, before = 0, 0.0, None
    for moment, change in sorted(moments):
        if active and before is not None:
            counted += (moment - before).total_seconds() * rate(active)
        passed[moment] = counted
        active, before = active + change, moment
    return passed


def _shares(runs: Sequence[Mapping[str, Any]]) -> list[float]:
    """The part of each run's time that is its own, when n runs at the same time have 1/n each."""
    passed = _clock(runs, lambda active: 1 / active)
    lengths = [(run["ended_at"] - run["started_at"]).total_seconds() for run in runs]
    return [
        (passed[run["ended_at"]] - passed[run["started_at"]]) / length if length > 0 else 1.0
        for run, length in zip(runs, lengths, strict=True)
    ]


def _busy_seconds(runs: Sequence[Mapping[str, Any]]) -> float:
    """How long at least one of the runs was under way."""
    return max(_clock(runs, lambda active: 1.0).values(), default=0.0)
