"""Copies of the dbt project, for tests that change it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lakehouse import dbt_project


def project_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the dbt project, which builds use until the test ends, and where it is.

    What dbt has parsed of the project comes along, so that it parses what the test changes and nothing else.
    """
    project, target = folder / "project", folder / "target"
    dbt_project.ensure_manifest()
    shutil.copytree(dbt_project.PROJECT, project)
    target.mkdir()
    shutil.copy(dbt_project.parsed_path(), target)
    monkeypatch.setattr(dbt_project, "PROJECT", project)
    monkeypatch.setattr(dbt_project, "SOURCES", project / "models" / "sources.yml")
    monkeypatch.setattr(dbt_project, "manifest_path", lambda: target / "manifest.json")
    return project
