"""A platform for a benchmark: in a folder of its own, on ports of its own, gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def engine(**environment: str) -> Iterator[Path]:
    """An engine that knows nothing yet; gives its state folder.

    Call it before anything has read the settings: a process reads them once.

    Args:
        **environment: Further variables, such as ``LAKE_SPARK_MASTER``.
    """
    from tests.conftest import free_ports

    home = tempfile.mkdtemp(prefix="lake-benchmark-")
    os.environ.update({"LAKE_HOME": home, **free_ports(), **environment})
    command = [sys.executable, "-m", "lakehouse.platform"]
    try:
        subprocess.run([*command, "up", "engine"], check=True, stdout=sys.stderr)
        yield Path(home)
    finally:
        subprocess.run([*command, "down"], check=True, stdout=sys.stderr)
        shutil.rmtree(home, ignore_errors=True)
