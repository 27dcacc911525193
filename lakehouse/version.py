"""Which code this is."""

from __future__ import annotations

import subprocess
from functools import cache

from lakehouse.settings import PROJECT_DIR


@cache
def code_version() -> str:
    """The commit that the code is at, with ``+changed`` when files differ from it; else the package's version."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changed"],
            cwd=PROJECT_DIR,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        from importlib.metadata import version

        return version("lakehouse")
    return described.stdout.strip()
