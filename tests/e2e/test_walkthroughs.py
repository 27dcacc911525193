"""The commands of the documentation, run as they stand against the platform that the demo has left."""

from __future__ import annotations

import subprocess

import pytest

from tests.docs.blocks import runnable_blocks, script
from tests.e2e.conftest import PROJECT, Platform

PAGES = (
    "README.md",
    "docs/explanation/how-data-becomes-visible.md",
    "docs/explanation/lineage.md",
    "docs/how-to/backfill.md",
    "docs/how-to/monitor.md",
    "docs/how-to/promote.md",
    "docs/how-to/query.md",
    "docs/how-to/score.md",
    "docs/how-to/trigger-by-rest.md",
    "docs/tutorial.md",
    "docs/reference/ops-tables.md",
)


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_work(platform: Platform, page: str) -> None:
    done = subprocess.run(
        # Not by standard input: a program of the page that reads it would swallow the rest of the script.
        ["bash", "-c", script(runnable_blocks(PROJECT / page))],
        stdin=subprocess.DEVNULL,
        env=platform.environment,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
