"""The parts of the platform: what each needs, how it is started, and how one sees that it works."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NoReturn

from lakehouse.platform import airflow, engine, mlflow_server, postgres
from lakehouse.platform.errors import PlatformError
from lakehouse.settings import settings


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Part:
    """A process that the supervisor keeps running.

    Attributes:
        name: What users call it.
        run: Replaces the calling process by the part.
        check: Raises when the part does not work; takes the moment it was started.
        needs: Parts that must work before this one is started.
        fetch: Makes ready what depends on no other part.
        prepare: Makes ready what depends on the parts that it needs.
        finish: Makes ready what takes the running part itself.
        warm_up: Spares the first user the wait for what is loaded on first use; nobody waits for it.
        ports: Names of its ports in the settings.
        address: Where a user finds it.
        stop_signal: What asks it to end in good order.
        stop_whole_group: Whether its children want that signal too.
        stop_seconds: After which it is killed.
        start_seconds: Within which it must work.
    """

    name: str
    run: Callable[[], NoReturn]
    check: Callable[[datetime | None], None]
    needs: tuple[str, ...] = ()
    fetch: Callable[[], object] = _nothing
    prepare: Callable[[], object] = _nothing
    finish: Callable[[], object] = _nothing
    warm_up: Callable[[], object] = _nothing
    ports: tuple[str, ...] = ()
    address: str = ""
    stop_signal: signal.Signals = signal.SIGTERM
    stop_whole_group: bool = False
    stop_seconds: int = 30
    start_seconds: int = 180
    groups: tuple[str, ...] = field(default=())

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return settings().home / "logs" / f"{self.name}.log"

    def port_numbers(self) -> dict[str, int]:
        """The ports that it listens on, by name."""
        return {name: getattr(settings().ports, name) for name in self.ports}


def _without_start(check: Callable[[], None]) -> Callable[[datetime | None], None]:
    return lambda started: check()


def parts() -> dict[str, Part]:
    """The parts that run here, in the order in which they are started.

    A part that a setting replaces by a server elsewhere is not among them.
    """
    s = settings()
    ports = s.ports
    found: list[Part] = []
    if s.database_url is None:
        found.append(
            Part(
                "postgres",
                run=postgres.run,
                check=_without_start(postgres.check),
                fetch=postgres.initialise,
                ports=("postgres",),
                address=f"postgresql://lake@127.0.0.1:{ports.postgres}",
                # Closes the connections and ends; SIGTERM would wait until the last client is gone.
                stop_signal=signal.SIGINT,
            )
        )
    if s.spark_remote is None:
        found.append(
            Part(
                "engine",
                run=engine.run,
                check=_without_start(engine.check),
                needs=("postgres",),
                fetch=engine.fetch,
                prepare=engine.prepare,
                finish=engine.create_schemas,
                warm_up=engine.warm_up,
                # The first time it writes the archive of its classes when it ends.
                stop_seconds=90,
                ports=("connect", "thrift"),
                address=f"jdbc:hive2://127.0.0.1:{ports.thrift} and sc://localhost:{ports.connect}",
            )
        )
    if s.mlflow_tracking_uri is None:
        found.append(
            Part(
                "mlflow",
                run=mlflow_server.run,
                check=_without_start(mlflow_server.check),
                needs=("postgres",),
                prepare=mlflow_server.prepare,
                ports=("mlflow",),
                address=s.mlflow_uri,
            )
        )
    if s.airflow_url is None:
        found.append(
            Part(
                "api-server",
                run=partial(airflow.run, "api-server"),
                check=_without_start(airflow.check_api_server),
                needs=("postgres",),
                prepare=airflow.prepare,
                ports=("airflow",),
                address=s.airflow_base_url,
                groups=("airflow",),
            )
        )
        for name in ("dag-processor", "scheduler", "triggerer"):
            # A scheduler that is up before the API server fails its first tasks; the files are read without it.
            alone = name == "dag-processor"
            found.append(
                Part(
                    name,
                    run=partial(airflow.run, name),
                    check=partial(airflow.check_heartbeat, name),
                    needs=("postgres",) if alone else ("api-server",),
                    prepare=airflow.prepare if alone else _nothing,
                    # The scheduler's workers and their tasks end with it; their runs are taken up again.
                    stop_whole_group=True,
                    groups=("airflow",),
                )
            )
    here = {part.name for part in found}
    return {
        part.name: Part(**{**vars(part), "needs": tuple(name for name in part.needs if name in here)}) for part in found
    }


def select(names: Iterable[str]) -> dict[str, Part]:
    """Some parts and everything that they need, in the order in which they are started.

    Args:
        names: Parts, or the group ``airflow``; none means all.

    Raises:
        PlatformError: There is no such part here.
    """
    known = parts()
    wanted: set[str] = set()
    names = list(names)

    def want(name: str) -> None:
        if name not in wanted:
            wanted.add(name)
            for needed in known[name].needs:
                want(needed)

    for name in names:
        matching = [part.name for part in known.values() if name in (part.name, *part.groups)]
        if not matching:
            raise PlatformError(f"There is no part {name!r} here. The parts are: {', '.join(known)} (or: airflow).")
        for match in matching:
            want(match)
    return {name: part for name, part in known.items() if not names or name in wanted}


def environment() -> dict[str, str]:
    """The environment of every part: ours, less what would slow a part down or make it call home."""
    variables = dict(os.environ)
    # With it set, every process would compile every library again.
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    variables.update(
        PYTHONUNBUFFERED="1",
        LAKE_HOME=str(settings().home),
        DO_NOT_TRACK="1",
        SCARF_ANALYTICS="false",
        MLFLOW_DISABLE_TELEMETRY="true",
        GX_ANALYTICS_ENABLED="false",
        DBT_SEND_ANONYMOUS_USAGE_STATS="false",
        GIT_PYTHON_REFRESH="quiet",
    )
    for name in ("NO_PROXY", "no_proxy"):
        variables[name] = ",".join(filter(None, ["127.0.0.1,localhost", os.environ.get(name)]))
    return variables
