"""The JARs of the engine: only the files whose checksums are locked."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lakehouse.platform import jars
from lakehouse.platform.errors import PlatformError
from lakehouse.platform.jars import Jar

RIGHT = b"what was locked"


@pytest.fixture
def jar(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Jar:
    """The only line of a lock file, for a state folder in which nothing is."""
    monkeypatch.setattr(jars, "settings", lambda: SimpleNamespace(jars_folder=tmp_path / "jars"))
    jar = Jar("org.example:engine:1.0", hashlib.sha256(RIGHT).hexdigest())
    monkeypatch.setattr(jars, "locked", lambda: [jar])
    return jar


@pytest.fixture
def maven(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The edge: a repository that has the file, and counts how often it is asked."""
    import jgo.maven

    edge: dict[str, Any] = {"content": RIGHT, "asked": 0}

    class Context:
        def __init__(self, repo_cache: Path, timeout: int) -> None:
            self.file = repo_cache / "download.jar"

        def project(self, group: str, artifact: str) -> Context:
            assert (group, artifact) == ("org.example", "engine")
            return self

        def at_version(self, version: str) -> Context:
            assert version == "1.0"
            return self

        def artifact(self) -> Context:
            return self

        def resolve(self) -> Path:
            edge["asked"] += 1
            self.file.parent.mkdir(parents=True)
            self.file.write_bytes(edge["content"])
            return self.file

    monkeypatch.setattr(jgo.maven, "MavenContext", Context)
    return edge


def test_a_file_that_was_spoilt_is_fetched_again(jar: Jar, maven: dict[str, Any]) -> None:
    jar.path.parent.mkdir()
    jar.path.write_bytes(RIGHT[:-1])
    assert jars.missing() == [jar]
    assert jars.fetch() == [jar.path]
    assert jar.path.read_bytes() == RIGHT and jars.missing() == []
    jars.fetch()
    assert maven["asked"] == 1
    assert list(jar.path.parent.iterdir()) == [jar.path]  # nothing of the download is left


def test_a_download_that_is_not_what_was_locked_is_not_installed(jar: Jar, maven: dict[str, Any]) -> None:
    maven["content"] = b"something else"
    with pytest.raises(PlatformError, match=rf"org\.example:engine:1\.0 is not the one that was locked.*{jar.sha256}"):
        jars.fetch()
    assert not jar.path.exists()


def test_a_folder_that_cannot_be_made_is_said(jar: Jar, tmp_path: Path) -> None:
    (tmp_path / "jars").write_text("not a folder")
    with pytest.raises(PlatformError, match=r"jars cannot be made: File exists.*LAKE_JARS"):
        jars.fetch()


def test_every_line_of_the_lock_file_has_a_checksum() -> None:
    locked = jars.locked()
    assert len(locked) >= 9
    assert all(len(jar.sha256) == 64 and jar.coordinate.count(":") == 2 for jar in locked)
