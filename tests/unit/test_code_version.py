"""The version of the code tells two states of a checkout apart, also where neither is committed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lakehouse import steps
from lakehouse.registry.reproduction import changed


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one commit."""
    monkeypatch.setattr(steps, "PROJECT_DIR", tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "late.py").write_text("late = 15\n")
    (tmp_path / ".gitignore").write_text("*.pyc\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=ada", "-c", "user.email=ada@example.com", "commit", "--quiet", "--message", "first")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def version() -> str:
    """As a new process finds it."""
    return steps.code_version.__wrapped__()


def test_a_checkout_as_it_was_committed_is_its_commit(checkout: Path) -> None:
    (checkout / "models" / "late.pyc").write_text("made")
    (checkout / "notes.txt").write_text("no code")
    (checkout / "models" / "late.py").touch()
    assert version() == git(checkout, "rev-parse", "HEAD")


def test_each_state_of_files_that_are_not_committed_is_a_version_of_its_own(checkout: Path) -> None:
    code, new = checkout / "models" / "late.py", checkout / "models" / "later.py"
    found = [version()]
    for text in ("late = 20\n", "late = 30\n"):
        code.write_text(text)
        found.append(version())
    new.write_text("later = 1\n")
    found.append(version())
    new.write_text("later = 2\n")
    found.append(version())
    code.unlink()
    found.append(version())
    commit = found[0]
    assert len(set(found)) == len(found)
    assert all(each.startswith(f"{commit}+changed.") for each in found[1:])
    assert version() == found[-1]  # until something is changed again
    git(checkout, "add", ".")
    assert version() == found[-1]  # wherever git keeps it
    new.unlink()
    git(checkout, "reset", "--quiet", "--hard")
    assert version() == commit


def test_without_a_repository_it_is_the_version_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "PROJECT_DIR", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert version()[0].isdigit() and "+changed" not in version()


def test_changes_that_were_not_told_apart_then_do_not_pass_for_the_same_code() -> None:
    one, other = {"code_version": "24b366f+changed"}, {"code_version": "24b366f+changed.0123456789ab"}
    assert [each.what for each in changed(one, other)] == ["the code (code_version)"]
    assert changed(other, other) == []
