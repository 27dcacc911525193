"""Makes the checkout's Python environment from its lock file.

Run by the wrapper script on a bare machine, so it uses the standard library alone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

UV_VERSION = "0.13.9"
PROJECT = Path(__file__).resolve().parent.parent
VENV = PROJECT / ".venv"
STAMP = VENV / "lake-stamp"
TOOLS = PROJECT / ".uv"


class BootstrapError(Exception):
    """The environment cannot be made; the message says what to do."""


def main() -> None:
    """Install, unless another process has done so in the meantime."""
    digest, tools = sys.argv[1:]
    TOOLS.mkdir(exist_ok=True)
    (TOOLS / ".gitignore").write_text("*\n")
    with (TOOLS / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another process that makes the Python environment")
            fcntl.flock(lock, fcntl.LOCK_EX)
        found = STAMP.read_text().split() if STAMP.exists() else []
        if found in ([digest, tools], [digest, "dev"]):
            return
        # Tools that are there stay, whoever put them there.
        if "dev" in found or (not found and (VENV / "bin" / "ruff").exists()):
            tools = "dev"
        install(tools)
        STAMP.write_text(f"{digest} {tools}\n")


def install(tools: str) -> None:
    """Make ``.venv`` what the lock file says.

    Args:
        tools: ``dev`` for the development tools too.
    """
    began = time.monotonic()
    say("makes the Python environment from uv.lock (once; a few minutes on a slow network)")
    command = [find_uv(), "sync", "--frozen", "--quiet", *([] if tools == "dev" else ["--no-dev"])]
    environment = {
        **os.environ,
        "UV_PROJECT_ENVIRONMENT": str(VENV),
        # Not the Python of an activated environment, which may be the one that is to be made.
        "UV_PYTHON": getattr(sys, "_base_executable", sys.executable),
        "UV_PYTHON_DOWNLOADS": "never",
        # Compiled on first import instead: less than half of what is installed is ever imported.
        "UV_COMPILE_BYTECODE": "0",
    }
    environment.pop("VIRTUAL_ENV", None)
    if not can_write(cache_folder(environment)):
        environment["UV_CACHE_DIR"] = str(TOOLS / "cache")
    STAMP.unlink(missing_ok=True)
    if subprocess.run(command, env=environment, cwd=PROJECT, check=False).returncode != 0:
        raise BootstrapError("the Python environment could not be made; the reason stands above")
    say(f"the Python environment is ready after {time.monotonic() - began:.0f} s")


def find_uv() -> str:
    """Path of the installer: the pinned version, fetched on first use; else the one on the PATH."""
    own = TOOLS / UV_VERSION / "bin" / "uv"
    if not own.exists():
        fetch_uv()
    if own.exists():
        return str(own)
    other = shutil.which("uv")
    if other is None:
        raise BootstrapError(
            f"uv {UV_VERSION} could not be installed with pip; what pip said stands above. If pip is missing, install "
            "Python's venv module (Debian, Ubuntu: apt install python3-venv). Or install uv yourself."
        )
    return other


def fetch_uv() -> None:
    """Install the pinned uv into a folder of its own, by any pip that there is."""
    pip = bundled_pip() or [sys.executable, "-m", "pip"]
    with tempfile.TemporaryDirectory(dir=TOOLS) as staging:
        target = Path(staging) / "uv"
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--root-user-action=ignore"]
        result = subprocess.run([*pip, "install", *options, "--target", target, f"uv=={UV_VERSION}"], check=False)
        if result.returncode == 0:
            target.rename(TOOLS / UV_VERSION)


def bundled_pip() -> list[str] | None:
    """The pip that comes with Python for making environments; it runs from its archive."""
    try:
        import ensurepip
    except ImportError:
        return None
    folders = [Path(ensurepip.__file__).parent / "_bundled", Path("/usr/share/python-wheels")]
    for folder in folders:
        for wheel in sorted(folder.glob("pip-*.whl")):
            return [sys.executable, f"{wheel}/pip"]
    return None


def cache_folder(environment: dict[str, str]) -> Path:
    """Where uv keeps its downloads, unless told otherwise.

    Args:
        environment: Its environment variables.
    """
    if own := environment.get("UV_CACHE_DIR"):
        return Path(own)
    if cache := environment.get("XDG_CACHE_HOME"):
        return Path(cache) / "uv"
    return Path("~/.cache/uv").expanduser()


def can_write(folder: Path) -> bool:
    """Whether files can be put into a folder that may have to be made.

    Args:
        folder: The folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError):
        return False
    return True


def say(text: str) -> None:
    """Show a line of progress.

    Args:
        text: What.
    """
    print(f"lake: {text}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except (BootstrapError, OSError) as error:
        say(str(error))
        sys.exit(1)
