"""First-time set-up of Airflow in one process: tables, roles, pools, and the first user."""

from __future__ import annotations

import os

from lakehouse.platform.airflow import ADMIN_USER
from lakehouse.settings import settings

POOLS = {"engine": (len(os.sched_getaffinity(0)), "Steps that use the Spark engine")}


def main() -> None:
    """Bring the database to the head revision and fill it; safe to run again."""
    from airflow.utils import db

    db.upgradedb()

    from airflow.models.pool import Pool
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

    for name, (slots, description) in POOLS.items():
        Pool.create_or_update_pool(name, slots=slots, description=description, include_deferred=False)

    with get_application_builder() as builder:
        manager = builder.sm
        manager.sync_roles()
        password = settings().secret("airflow_admin_password")
        user = manager.find_user(ADMIN_USER)
        if user is None:
            manager.add_user(ADMIN_USER, "Lake", "Admin", "admin@localhost", manager.find_role("Admin"), password)
        else:
            # An external database may be older than this state folder and its password.
            manager.reset_password(user.id, password)


if __name__ == "__main__":
    main()
