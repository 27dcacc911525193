"""Serving: which versions of a model score the days of a run, and what takes their place when they fail.

The roles are read once per run, so a promotion meanwhile changes nothing of it. Who scored a row is on the row:
``role`` and ``model_version``.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from lakehouse.interval import Interval
from lakehouse.ml.model_spec import ModelSpec
from lakehouse.ml.scoring import ModelFailedError, ServedModel
from lakehouse.registry import model_versions, roles
from lakehouse.registry.model_versions import FALLBACK_BASELINE
from lakehouse.registry.registry import CHALLENGER, CHAMPION, ModelVersion

FALLBACK = "fallback"
"""Role of a row that another version had to score than the one that was due."""
SHADOW, WHAT_IF = "shadow", "what_if"

_FAILED = re.compile(r"ModelFailedError: (\S+) version (\d+) cannot score: ([^\n]*)")


@dataclass(frozen=True)
class Shift:
    """Days of a run that the same versions score.

    Attributes:
        days: Which.
        champion: The version that was champion of them.
        challenger: The version that challenged it, if any.
        previous: The champion before it, if there is one that was not taken back.
        routed: Whether the challenger has the share of the entities that ``serving`` gives it; in the shadow alone
            without it.
    """

    days: Interval
    champion: ModelVersion
    challenger: ModelVersion | None = None
    previous: ModelVersion | None = None
    routed: bool = True


def shifts(name: str, interval: Interval, expected: int | None = None) -> list[Shift]:
    """The versions that score an interval, day by day. Call once per run and keep the answer: it can change.

    Args:
        name: The model.
        interval: Day or range of days.
        expected: The version that the caller believes to be champion of all of them; any without it.

    Raises:
        lakehouse.registry.roles.NoChampionError: No version may score one of the days, or another than the expected one
            has to.
    """
    log = roles.events(name)

    def numbers(day: dt.date) -> tuple[int, int | None, int | None]:
        line = roles.succession(log, day)
        if not line:
            raise roles.no_champion(name, log, day)
        if expected not in (None, line[-1]):
            raise roles.another_champion(name, line[-1], day, expected)
        return line[-1], roles.challenging(log, day), line[-2] if len(line) > 1 else None

    found, known = [], {}
    for key, group in groupby(interval.days(), numbers):
        days = list(group)
        for number in key:
            if number is not None and number not in known:
                known[number] = model_versions.find_or_unknown(name, number)
        champion, challenger, previous = (None if number is None else known[number] for number in key)
        assert champion is not None
        routed = challenger is not None and roles.may_be_shown(log, challenger.version)
        found.append(Shift(Interval(days[0], days[-1]), champion, challenger, previous, routed))
    return found


@dataclass(frozen=True)
class Part:
    """Rows of a shift that one version scores.

    Attributes:
        shift: The days.
        role: What the rows say that it was.
        served: The version.
        drawn: Of a canary or an experiment: whether these are the entities that were drawn; None for all entities.
    """

    shift: Shift
    role: str
    served: ServedModel
    drawn: bool | None = None


@dataclass(frozen=True)
class Failure:
    """A version that was due and did not score.

    Attributes:
        version: Its number.
        role: What it was: ``champion`` or ``challenger``.
        days: The days that it was due for.
        error: Why.
        instead: What has scored in its place.
    """

    version: int
    role: str
    days: Interval
    error: str
    instead: str

    def __str__(self) -> str:
        return f"{self.role} version {self.version} failed ({self.error}); {self.instead} has scored in its place"


class Crew:
    """The versions that score a run, each brought here once, and what takes the place of those that fail.

    Args:
        spec: The model.
        columns: Columns of the features that are released.
    """

    def __init__(self, spec: ModelSpec, columns: set[str]) -> None:
        self._spec = spec
        self._columns = columns
        self._loaded: dict[tuple[int, bool], ServedModel] = {}
        self._failed: dict[int, str] = {}
        self.failures: list[Failure] = []

    def load(self, version: ModelVersion, *, baseline: bool = False) -> ServedModel:
        """Bring a version here.

        Args:
            version: Which.
            baseline: The baseline that was fitted beside it.

        Raises:
            ModelFailedError: It cannot be loaded, or needs a column that the features do not have.
        """
        key = version.version, baseline
        if key not in self._loaded:
            served = model_versions.fetch_to_score(version, baseline=baseline)
            if missing := [name for name in served.inputs if name not in self._columns]:
                raise ModelFailedError(
                    f"{version.name} version {version.version} needs {', '.join(missing)}, which "
                    f"{self._spec.features.table} does not have."
                )
            self._loaded[key] = served
        return self._loaded[key]

    def dismiss(self, version: int, error: str) -> bool:
        """Note that a version has failed: it does not score in this run any more.

        Args:
            version: Its number.
            error: Why.

        Returns:
            Whether it is news: something else can be tried.
        """
        news = version not in self._failed
        self._failed.setdefault(version, error)
        return news

    def parts(self, shifts: list[Shift]) -> list[Part]:
        """Who scores what, as ``serving`` of ``model.yaml`` says, with what takes the place of versions that failed.

        Args:
            shifts: Outcome of :func:`shifts`.

        Raises:
            ModelFailedError: A champion has failed, and there is nothing to fall back to.
        """
        self.failures = []
        return [part for shift in shifts for part in self._shift(shift)]

    def _shift(self, shift: Shift) -> Iterator[Part]:
        if shift.challenger is None or not shift.routed or self._spec.serving.route is None:
            yield self._champion(shift, None)
            return
        champion = self._champion(shift, False)
        yield champion
        served, error = self._try(shift.challenger)
        if served is not None:
            yield Part(shift, CHALLENGER, served, True)
            return
        role = FALLBACK if champion.role == CHAMPION else champion.role
        instead = f"version {champion.served.version}"
        self.failures.append(Failure(shift.challenger.version, CHALLENGER, shift.days, error, instead))
        yield Part(shift, role, champion.served, True)

    def _champion(self, shift: Shift, drawn: bool | None) -> Part:
        served, error = self._try(shift.champion)
        if served is not None:
            return Part(shift, CHAMPION, served, drawn)
        policy = self._spec.serving.fallback
        what = f"The champion of {shift.days}, version {shift.champion.version}, failed: {error}."
        if policy == "stop":
            raise ModelFailedError(f"{what} Nothing is scored in its place, as `serving.fallback` of model.yaml says.")
        if policy == "baseline":
            served, role, instead = self.load(shift.champion, baseline=True), FALLBACK_BASELINE, "its baseline"
        elif shift.previous is None:
            raise ModelFailedError(f"{what} There is no champion before it to fall back to.")
        else:
            served, also = self._try(shift.previous)
            if served is None:
                raise ModelFailedError(f"{what} So did version {shift.previous.version}, before it: {also}.")
            role, instead = FALLBACK, f"version {shift.previous.version}"
        self.failures.append(Failure(shift.champion.version, CHAMPION, shift.days, error, instead))
        return Part(shift, role, served, drawn)

    def _try(self, version: ModelVersion) -> tuple[ServedModel | None, str]:
        if version.version not in self._failed:
            try:
                return self.load(version), ""
            except ModelFailedError as error:
                self.dismiss(version.version, str(error))
        return None, self._failed[version.version]


def blamed(error: BaseException, name: str) -> tuple[int, str] | None:
    """The version that made a query of the engine fail, and why; None when it was something else.

    Args:
        error: What the engine raised: a worker's error is in its text.
        name: The model.
    """
    found = _FAILED.search(str(error))
    return (int(found[2]), found[3]) if found and found[1] == name else None
