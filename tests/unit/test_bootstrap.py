"""The wrapper script on a bare machine: which Python it takes, and where the installer comes from."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from infra import bootstrap
from infra.bootstrap import BootstrapError
from lakehouse.settings import PROJECT_DIR

NEEDED = ("bash", "env", "dirname", "readlink", "cat", "sha256sum", "cut")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout without an environment, and a folder of programs that has no Python."""
    for name in ("lake", "uv.lock", "pyproject.toml"):
        shutil.copy(PROJECT_DIR / name, tmp_path / name)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in NEEDED:
        (programs / name).symlink_to(shutil.which(name) or name)
    return tmp_path


def python(checkout: Path, name: str, fits: bool) -> None:
    """A program by the name of a Python, which says what it is asked to do."""
    program = checkout / "programs" / name
    program.write_text(
        f'#!/usr/bin/env bash\nif [[ "$1" == -c ]]; then exit {0 if fits else 1}; fi\necho "{name} $*"\n'
    )
    program.chmod(0o755)


def lake(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(checkout / "programs"), "HOME": str(checkout)}
    return subprocess.run([checkout / "lake", *arguments], env=environment, capture_output=True, text=True, check=False)


def test_without_a_python_that_fits_it_says_which_are_needed_and_how_to_get_one(checkout: Path) -> None:
    python(checkout, "python3", fits=False)
    done = lake(checkout, "demo")
    assert done.returncode == 1
    assert "needs Python 3.11, 3.12 or 3.13" in done.stderr and "apt install python3" in done.stderr


@pytest.mark.parametrize(("command", "tools"), [("demo", "run"), ("test", "dev"), ("bench", "dev")])
def test_the_newest_python_that_fits_makes_the_environment(checkout: Path, command: str, tools: str) -> None:
    python(checkout, "python3", fits=False)
    python(checkout, "python3.11", fits=True)
    python(checkout, "python3.12", fits=True)
    done = lake(checkout, command)
    assert done.stderr.startswith(f"python3.12 {checkout}/infra/bootstrap.py ")
    assert done.stderr.splitlines()[0].endswith(f" {tools}")


def test_an_environment_that_is_the_locked_one_is_used_as_it_is(checkout: Path) -> None:
    python(checkout, "python3", fits=True)
    lock = lake(checkout, "demo").stderr.split()[2]
    own = checkout / ".venv" / "bin" / "lake"
    own.parent.mkdir(parents=True)
    own.write_text('#!/usr/bin/env bash\necho "the command: $*"\n')
    own.chmod(0o755)
    (checkout / ".venv" / "lake-stamp").write_text(f"{lock} run\n")
    done = lake(checkout, "demo", "now")
    assert (done.returncode, done.stdout, done.stderr) == (0, "the command: demo now\n", "")
    assert "bootstrap" in lake(checkout, "test").stderr  # which needs more than what is there


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(bootstrap, "TOOLS", tmp_path)
    return tmp_path


def test_the_pinned_installer_is_fetched_once_by_the_pip_that_there_is(
    tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def pip(command: list[str], **_: object) -> SimpleNamespace:
        asked.append([*map(str, command)])
        target = Path(command[command.index("--target") + 1])
        (target / "bin").mkdir(parents=True)
        (target / "bin" / "uv").touch()
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", pip)
    own = str(tools / bootstrap.UV_VERSION / "bin" / "uv")
    assert bootstrap.find_uv() == bootstrap.find_uv() == own
    [command] = asked
    assert command[-1] == f"uv=={bootstrap.UV_VERSION}" and "pip" in command[1]


def test_without_pip_another_installer_will_do_and_without_any_it_says_what_to_install(
    tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1))
    monkeypatch.setattr(shutil, "which", lambda _name: "/usr/bin/uv")
    assert bootstrap.find_uv() == "/usr/bin/uv"
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(BootstrapError, match="apt install python3-venv"):
        bootstrap.find_uv()


def test_a_lock_file_that_cannot_be_installed_leaves_no_stamp(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamp = tools / "stamp"
    stamp.write_text("of before")
    monkeypatch.setattr(bootstrap, "STAMP", stamp)
    monkeypatch.setattr(bootstrap, "find_uv", lambda: "uv")
    monkeypatch.setattr(bootstrap, "can_write", lambda _folder: False)
    asked: dict[str, str] = {}

    def uv(_command: list[str], env: dict[str, str], **_: object) -> SimpleNamespace:
        asked.update(env)
        return SimpleNamespace(returncode=2)

    monkeypatch.setattr(subprocess, "run", uv)
    with pytest.raises(BootstrapError, match="could not be made"):
        bootstrap.install("run")
    assert not stamp.exists()
    assert asked["UV_CACHE_DIR"] == str(tools / "cache") and asked["UV_PYTHON_DOWNLOADS"] == "never"
    assert os.environ.get("UV_CACHE_DIR") != asked["UV_CACHE_DIR"]
