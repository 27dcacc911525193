"""Airflow: its whole configuration as environment variables, its database, and its four processes."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import psycopg
from psycopg import sql

from lakehouse import dbt_project, locks
from lakehouse.airflow.quiet import LEVELS
from lakehouse.lineage import openlineage
from lakehouse.platform import http, postgres, processes
from lakehouse.platform.errors import PlatformError
from lakehouse.settings import PROJECT_DIR, settings

ADMIN_USER = "admin"
JOB_TYPES = {"scheduler": "SchedulerJob", "dag-processor": "DagProcessorJob", "triggerer": "TriggererJob"}
SILENT_AFTER = timedelta(seconds=60)
VERSION_TABLES = ("alembic_version", "alembic_version_fab")


def folder() -> Path:
    """``AIRFLOW_HOME``."""
    return settings().home / "airflow"


def airflow_environment() -> dict[str, str]:
    """Airflow's configuration: every process that imports Airflow against this platform needs these variables."""
    s = settings()
    home = folder()
    database = s.postgres_url("airflow").partition("://")[2]
    options: dict[str, dict[str, object]] = {
        "core": {
            "dags_folder": PROJECT_DIR / "dags",
            "load_examples": False,
            "executor": "lakehouse.airflow.executor.WarmLocalExecutor",
            # The libraries that the executor has loaded reach the workers by fork alone.
            "mp_start_method": "fork",
            "parallelism": 8,
            "dags_are_paused_at_creation": False,
            "auth_manager": "lakehouse.airflow.auth.LakeFabAuthManager",
            "fernet_key": _key("airflow_fernet_key"),
            "execution_api_server_url": f"http://127.0.0.1:{s.ports.airflow}/execution/",
            # A machine's name need not resolve to an address that we listen on.
            "hostname_callable": "lakehouse.platform.airflow.hostname",
            "min_serialized_dag_update_interval": 5,
            # A DAG file that is not read in time takes its DAG away; that of the warehouse reads a changed dbt project.
            "dagbag_import_timeout": 180,
        },
        "database": {
            "sql_alchemy_conn": f"postgresql+psycopg2://{database}",
            "sql_alchemy_conn_async": f"postgresql+psycopg_async://{database}",
            "load_default_connections": False,
        },
        "api": {
            "host": "127.0.0.1",
            "port": s.ports.airflow,
            "base_url": s.airflow_base_url,
            "workers": 1,
            "secret_key": s.secret("airflow_api_secret_key"),
        },
        "api_auth": {"jwt_secret": s.secret("airflow_jwt_secret")},
        "scheduler": {
            # A tenth of a core for idling, against most of a second at each hop.
            "scheduler_idle_sleep_time": 0.25,
            "enable_health_check": False,
            # After a crash, the tasks that it took with it are found soon and tried again.
            "orphaned_tasks_check_interval": 30,
            "task_instance_heartbeat_timeout": locks.SILENCE_SECONDS,
            "task_queued_timeout": 120,
            "task_queued_timeout_check_interval": 30,
        },
        "workers": {"min_heartbeat_interval": 1, "execution_api_timeout": 30},
        "dag_processor": {
            # A file that has changed is read at once; what it is made from, such as contracts, within a minute.
            "refresh_interval": 30,
            "min_file_process_interval": 60,
            "parsing_processes": 1,
            "dag_file_processor_timeout": 240,
        },
        "logging": {
            "base_log_folder": home / "logs",
            "dag_processor_child_process_log_directory": home / "logs" / "dag_processor",
            "colored_console_log": False,
            "namespace_levels": " ".join(f"{name}={level}" for name, level in LEVELS.items()),
        },
        "usage_data_collection": {"enabled": False},
        "openlineage": {
            "transport": json.dumps(s.openlineage_transport),
            "namespace": s.openlineage_namespace,
            # The code is in the repository; a process forked for each event costs more than the event.
            "emission_policy": json.dumps([{"scope": {}, "controls": {"include_source_code": False}}]),
            "execute_in_thread": True,
        },
        "cosmos": {
            "enable_telemetry": False,
            "cache_dir": home / "cosmos",
            # dbt is handed what it has parsed for the manifest, which is never older than the project.
            "enable_cache_partial_parse": False,
            # A copy of all states after each of them; without it, models whose state is lost are built once more.
            "enable_watcher_reliable_retry": False,
        },
    }
    variables = {
        f"AIRFLOW__{section}__{name}".upper(): str(value)
        for section, names in options.items()
        for name, value in names.items()
    }
    # dbt leaves semaphores behind, of which another process of Python tells at the end of a task, as an error.
    ignored = "ignore::UserWarning:multiprocessing.resource_tracker"
    variables["PYTHONWARNINGS"] = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), ignored]))
    return {"AIRFLOW_HOME": str(home), **dbt_project.environment(), **variables}


def hostname() -> str:
    """The name of this machine for Airflow: everything is on loopback."""
    return "127.0.0.1"


def prepare() -> None:
    """Bring Airflow's database to the installed version, with its roles, pools and first user.

    That takes seconds of imports, so it is left out when the database says that nothing has changed. More than one
    part asks for it.
    """
    with (settings().home / "airflow-setup.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        _set_up()


def _set_up() -> None:
    postgres.ensure_database("airflow")
    openlineage.prepare()
    wanted = {package: version(package) for package in ("apache-airflow", "apache-airflow-providers-fab")}
    record = folder() / "setup.json"
    revisions = _revisions() if record.exists() else None
    if revisions and json.loads(record.read_text()) == {**wanted, **revisions}:
        return
    folder().mkdir(parents=True, exist_ok=True)
    log = settings().home / "logs" / "airflow-setup.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        result = subprocess.run(
            [sys.executable, "-m", "lakehouse.platform.airflow_setup"],
            env={**os.environ, **airflow_environment()},
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder(),
            check=False,
        )
    if result.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise PlatformError(f"The set-up of Airflow's database failed; the end of {log}:\n{tail}")
    record.write_text(json.dumps({**wanted, **(_revisions() or {})}))


def run(component: str) -> NoReturn:
    """Become one of Airflow's processes: replaces this process.

    Args:
        component: Name of Airflow's sub-command.
    """
    os.environ.update(airflow_environment())
    arguments = ["airflow", component]
    if component == "dag-processor":
        arguments = ["lakehouse.airflow.dag_processor"]
    if component in ("scheduler", "triggerer"):
        # The API server reads the log files themselves; a log server would listen on every interface.
        arguments.append("--skip-serve-logs")
    os.chdir(folder())
    processes.become(sys.executable, "-m", *arguments)


def command(arguments: list[str]) -> NoReturn:
    """Become Airflow's command line: replaces this process.

    Args:
        arguments: Its arguments, such as ``users list``.
    """
    os.environ.update(airflow_environment())
    processes.become(sys.executable, "-m", "airflow", *arguments)


def check_api_server() -> None:
    """Ask the API server for something that it must look up.

    Raises:
        OSError: It does not answer, or not well.
    """
    http.get(f"{settings().airflow_base_url}/api/v2/version")


def check_heartbeat(component: str, started: datetime | None) -> None:
    """Look for a recent heartbeat of a process that has no port.

    Args:
        component: Name of Airflow's sub-command.
        started: When the process was started; an older heartbeat is not its own.

    Raises:
        PlatformError: There is none.
    """
    with psycopg.connect(settings().postgres_url("airflow"), connect_timeout=5) as connection:
        row = connection.execute(
            "select max(latest_heartbeat) from job where job_type = %s and start_date >= %s",
            [JOB_TYPES[component], started or datetime.fromtimestamp(0, UTC)],
        ).fetchone()
    latest: datetime | None = row[0] if row else None
    if latest is None:
        raise PlatformError(f"The {component} has not reported yet.")
    if datetime.now(UTC) - latest > SILENT_AFTER:
        raise PlatformError(f"The {component} has been silent since {latest:%H:%M:%S}.")


def _revisions() -> dict[str, str] | None:
    found = {}
    with psycopg.connect(settings().postgres_url("airflow"), connect_timeout=10) as connection:
        for table in VERSION_TABLES:
            if not connection.execute("select 1 from pg_tables where tablename = %s", [table]).fetchone():
                return None
            row = connection.execute(sql.SQL("select version_num from {}").format(sql.Identifier(table)))
            found[table] = str(row.fetchone())
    return found


def _key(name: str) -> str:
    # Fernet takes exactly 32 bytes in URL-safe base64.
    return base64.urlsafe_b64encode(hashlib.sha256(settings().secret(name).encode()).digest()).decode()
