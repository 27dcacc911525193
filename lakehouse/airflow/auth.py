"""Who may do what in Airflow: FAB's users and roles, by which approvals can be assigned too."""

from __future__ import annotations

from airflow.providers.fab.auth_manager.fab_auth_manager import FabAuthManager
from airflow.providers.fab.auth_manager.models import User

ROLE = "role:"
"""What an assigned user's id begins with that stands for everybody who has a role."""


class LakeFabAuthManager(FabAuthManager):
    """FAB's auth manager; it takes ``role:NAME`` among the users that an approval is assigned to."""

    def is_authorized_hitl_task(self, *, assigned_users: set[str], user: User) -> bool:
        """Whether a user may answer a task that waits for a person.

        Args:
            assigned_users: Ids of users, or ``role:NAME``.
            user: Who is about to answer.
        """
        roles = {f"{ROLE}{role.name}" for role in user.roles}
        return bool(roles & assigned_users) or super().is_authorized_hitl_task(assigned_users=assigned_users, user=user)
