"""The JARs that the engine needs beside Spark's own: an exact list, fetched once, checked by checksum."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lakehouse.platform.errors import PlatformError
from lakehouse.settings import PROJECT_DIR, settings

LOCK_FILE = PROJECT_DIR / "infra" / "jars.lock"
DOWNLOAD_TIMEOUT_SECONDS = 60
DOWNLOAD_ATTEMPTS = 3


@dataclass(frozen=True)
class Jar:
    """One line of the lock file.

    Attributes:
        coordinate: ``group:artifact:version``.
        sha256: Checksum of the file, in hexadecimal digits.
    """

    coordinate: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where the file lies once it is fetched."""
        _, artifact, version = self.coordinate.split(":")
        return settings().jars_folder / f"{artifact}-{version}.jar"

    def is_present(self) -> bool:
        """Whether the file is there and is the one that was locked."""
        return self.path.is_file() and _sha256(self.path) == self.sha256


def locked() -> list[Jar]:
    """The JARs of the lock file, in its order."""
    return list(_parse(LOCK_FILE))


def missing() -> list[Jar]:
    """Those of the lock file that are not there, or are there with another content."""
    return [jar for jar in locked() if not jar.is_present()]


def fetch() -> list[Path]:
    """Fetch what is missing from Maven Central.

    Returns:
        The files of the whole list, in the order of the lock file.

    Raises:
        PlatformError: A file cannot be fetched, or is not the one that was locked.
    """
    wanted = missing()
    if wanted:
        folder = settings().jars_folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PlatformError(
                f"The folder of JARs {folder} cannot be made: {error.strerror}. Choose another one with LAKE_JARS."
            ) from error
        # A fresh folder for each call: what an interrupted download leaves is never taken for a whole file.
        with (
            tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as staging,
            ThreadPoolExecutor(len(wanted)) as pool,
        ):
            for download in [pool.submit(_download, jar, Path(staging)) for jar in wanted]:
                download.result()
    return [jar.path for jar in locked()]


def _download(jar: Jar, staging: Path) -> None:
    # Imported late: only the first start downloads.
    import requests
    from jgo.maven import MavenContext

    for attempt in range(1, DOWNLOAD_ATTEMPTS + 1):
        context = MavenContext(repo_cache=staging / str(attempt), timeout=DOWNLOAD_TIMEOUT_SECONDS)
        group, artifact, version = jar.coordinate.split(":")
        try:
            file = context.project(group, artifact).at_version(version).artifact().resolve()
            break
        except (requests.RequestException, RuntimeError, OSError) as error:
            if attempt == DOWNLOAD_ATTEMPTS:
                raise PlatformError(
                    f"The JAR {jar.coordinate} could not be fetched from Maven Central: {error}. "
                    "Check the network (HTTPS_PROXY and REQUESTS_CA_BUNDLE are honoured) and run it again."
                ) from error
    found = _sha256(file)
    if found != jar.sha256:
        raise PlatformError(
            f"The JAR {jar.coordinate} is not the one that was locked: "
            f"{LOCK_FILE.name} has sha256:{jar.sha256}, the download has sha256:{found}. It was not installed."
        )
    file.replace(jar.path)


def _parse(path: Path) -> Iterator[Jar]:
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            coordinate, _, checksum = line.partition(" sha256:")
            yield Jar(coordinate, checksum.strip())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
