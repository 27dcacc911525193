"""What the readers of files share: listing, hashing, and where a record stands in its file."""

from __future__ import annotations

import codecs
import datetime as dt
import difflib
import hashlib
import posixpath
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from lakehouse.engine import spark
from lakehouse.readers.batch import SourceError
from lakehouse.settings import settings

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from lakehouse.contracts import Contract
    from lakehouse.interval import Interval

MAX_RECORD = 16 << 20
"""Characters that one record may have: Spark holds each of them in memory as a whole."""

BOMB_BYTES, BOMB_RATIO = 100 << 20, 200
"""A file is a decompression bomb when it has more bytes than the one, and grows by more than the other."""

LARGE_FILE = 8 << 20
"""From so many bytes a file on average, another look is worth it, so that more than one task numbers their lines."""

_CHUNK = 1 << 20
_NUMBER_IN_TASK = (1 << 33) - 1
"""Of an id that Spark gives a row: the bits that count within a task. Those above name the task."""
_SCHEME = r"^([A-Za-z][A-Za-z0-9+.-]*:)?/*"
COPIES_KEPT = 24 * 60 * 60  # seconds; longer than any landing takes


def delivered(contract: Contract, interval: Interval) -> dict[str, dt.date]:
    """The path of each file that an interval consists of, and its day.

    Args:
        contract: Contract of a source of files.
        interval: The days wanted.

    Returns:
        Path or URL to day; whether the files exist is not looked at.
    """
    return {path: day for day, path in contract.locations(interval, settings().drop_url).items()}


def missing(contract: Contract, interval: Interval) -> list[str]:
    """The files of an interval that have not arrived.

    Args:
        contract: Contract of a source of files.
        interval: The days wanted.
    """
    return [path for path in delivered(contract, interval) if not fsspec.url_to_fs(path)[0].exists(path)]


def fingerprints(paths: Mapping[str, dt.date]) -> dict[str, dict[str, str | int]]:
    """Day, size in bytes and SHA-256 of each file.

    Args:
        paths: Files that exist, each with the day that it is about.

    Raises:
        SourceError: A file is not there, or has no bytes at all.
    """
    found: dict[str, dict[str, str | int]] = {}
    absent = [path for path in paths if not fsspec.url_to_fs(path)[0].exists(path)]
    if absent:
        shown = ", ".join(path + _similar(path) for path in absent[:5])
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        raise SourceError(f"{len(absent)} of {len(paths)} files have not arrived: {shown}{more}.", "not_arrived")
    for path, day in paths.items():
        _check_inside(path)
        digest, size = hashlib.sha256(), 0
        with fsspec.open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
        if size == 0:
            raise SourceError(
                f"{path} is empty (0 bytes). Ask its sender to deliver it again, then run this again.", "empty_file"
            )
        found[relative(path)] = {"day": day.isoformat(), "bytes": size, "sha256": digest.hexdigest()}
    return found


def readable(paths: Iterable[str]) -> list[str]:
    """Where Spark reads files: those of an object store as copies in the state folder, unless Spark knows the store.

    Spark needs the store's JARs, which are not part of the installation, and says with a property
    ``spark.hadoop.fs.…`` that it has them.

    Args:
        paths: Files that exist.
    """
    return list(map(_readable, paths))


def _readable(path: str) -> str:
    fs, inner = fsspec.url_to_fs(path)
    scheme = path.partition("://")[0]
    if isinstance(fs, LocalFileSystem) or any(
        name.startswith(f"spark.hadoop.fs.{scheme}") for name in settings().spark_conf
    ):
        return path
    folder = hashlib.sha256(path.rpartition("/")[0].encode()).hexdigest()[:16]
    copies = fsspec.filesystem(
        "filecache",
        fs=fs,
        cache_storage=str(settings().home / "copies" / folder),
        same_names=True,
        check_files=True,
        expiry_time=COPIES_KEPT,
    )
    copies.clear_expired_cache()
    with copies.open(inner) as copy:
        return str(copy.name)


def check_text(path: str, encoding: str, *, quoted: bool) -> bool:
    """Refuse a file of text that is not what it should be, in bounded memory and before Spark has to hold any of it.

    Args:
        path: A file, compressed if its name says so.
        encoding: Character encoding that it should have.
        quoted: Whether a line end within double quotes belongs to the record.

    Returns:
        Whether each line is a record: no line end is within quotes.

    Raises:
        SourceError: It is cut off, a decompression bomb, not in that encoding, or has NUL characters or a record
            that is too long.
    """
    decoder = codecs.getincrementaldecoder(python_encoding(encoding))()
    size = int(fsspec.url_to_fs(path)[0].size(path))
    unpacked, line, length, inside, one_each = 0, 1, 0, False, True
    with fsspec.open(path, "rb", compression="infer") as file:
        while True:
            try:
                chunk = file.read(_CHUNK)
                text = decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                at = line + bytes(error.object)[: error.start].count(b"\n")
                raise SourceError(
                    f"{path}, line {at} is not {encoding} ({error.reason}). Convert the file, or change the contract.",
                    "encoding",
                ) from error
            except (EOFError, zlib.error, OSError) as error:
                raise SourceError(
                    f"{path} cannot be decompressed, near line {line}: {error}. It may be half an upload; ask its "
                    "sender to deliver it again.",
                    "compression",
                ) from error
            unpacked += len(chunk)
            if unpacked > BOMB_BYTES and unpacked > BOMB_RATIO * size:
                raise SourceError(
                    f"{path} has {size} bytes and grows to more than {unpacked} of them: that is no data, and "
                    "it is not unpacked any further.",
                    "decompression_bomb",
                )
            if "\0" in text:
                at = line + text[: text.index("\0")].count("\n")
                raise SourceError(
                    f"{path}, line {at}: there is a NUL character. The file is damaged, or not {encoding}.", "nul"
                )
            for part in text.splitlines(keepends=True):
                length += len(part)
                inside ^= quoted and part.count('"') % 2 == 1
                if length > MAX_RECORD:
                    raise SourceError(
                        f"{path}, line {line}: a record has more than {MAX_RECORD} characters. A quote may have been "
                        "left open before it.",
                        "record_too_long",
                    )
                if part.endswith("\n"):
                    line += 1
                    length = length if inside else 0
                    one_each &= not inside
            if not chunk:
                return one_each and not inside


def stamp(path: str) -> tuple[object, ...]:
    """What tells a file from a later one of the same name, as far as its file system knows.

    Args:
        path: A file that exists.
    """
    info: dict[str, Any] = fsspec.url_to_fs(path)[0].info(path)
    return tuple(info.get(name) for name in ("size", "mtime", "ino", "ETag", "LastModified"))


def stamps(paths: Iterable[str]) -> dict[str, tuple[object, ...]]:
    """The stamp of each file that exists.

    Args:
        paths: Files.
    """
    return {path: stamp(path) for path in paths if fsspec.url_to_fs(path)[0].exists(path)}


def python_encoding(encoding: str) -> str:
    """Python's name for an encoding, which for UTF-8 passes over a byte-order mark, as Spark does.

    Args:
        encoding: As a contract names it.
    """
    return "utf-8-sig" if encoding.upper() == "UTF-8" else encoding


def relative(path: str) -> str:
    """A path as seen from the drop folder, or as it is when it lies elsewhere."""
    return path.removeprefix(settings().drop_url.rstrip("/") + "/")


def lines(local: list[str], *, blank: bool) -> DataFrame:
    """The lines of text files in UTF-8: ``_line``, ``_path``, and ``_number``, which counts from 1 in each file.

    Args:
        local: Files that Spark can read.
        blank: Whether empty lines count; they are left out otherwise.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    found = spark().read.option("lineSep", "\n").text(local)
    placed = (found if blank else found.where(F.rtrim("value", F.lit("\r")) != "")).select(
        F.col("value").alias("_line"),
        F.col("_metadata.file_path").alias("_path"),
        F.col("_metadata.file_block_start").alias("_block"),
        F.monotonically_increasing_id().bitwiseAND(_NUMBER_IN_TASK).alias("_order"),
    )
    sizes = [int(fsspec.url_to_fs(path)[0].size(path)) for path in local]
    if sum(sizes) < LARGE_FILE * len(sizes):
        number: Column = F.row_number().over(Window.partitionBy("_path").orderBy("_block", "_order"))
    else:
        number = _number_before(placed) + F.col("_order")
    return placed.withColumn("_number", number.cast("bigint")).drop("_block", "_order")


def _number_before(placed: DataFrame) -> Column:
    """What a line's ``_order`` lacks to its number: Spark reads a large file in blocks, and counts within a task."""
    from pyspark.sql import functions as F

    blocks = placed.groupBy("_path", "_block").agg(F.min("_order").alias("first"), F.count(F.lit(1)).alias("lines"))
    before: Counter[str] = Counter()
    lacks: dict[str, int] = {}
    for block in sorted(blocks.collect()):
        lacks[f"{block['_path']}\n{block['_block']}"] = before[block["_path"]] - block["first"] + 1
        before[block["_path"]] += block["lines"]
    known = F.create_map(*(F.lit(item) for pair in lacks.items() for item in pair))
    moved = F.raise_error(F.lit("Spark reads a file in other blocks than those whose lines were counted."))
    return F.coalesce(known[F.concat_ws("\n", "_path", "_block")], moved.cast("bigint"))


def with_position(df: DataFrame, paths: dict[str, dt.date], row: Column, local: Iterable[str]) -> DataFrame:
    """Add ``_source_file``, ``_source_row`` and ``_interval`` to records that carry ``_path``.

    Args:
        df: Records with ``_path``, the URL that Spark read them from.
        paths: Path to day of each file that was delivered.
        row: Where a record stands in its file, from 1.
        local: What Spark read in place of each of them, in the same order.
    """
    from pyspark.sql import functions as F

    # By the whole path: files of two days may have one name, in a folder for each day.
    known = F.create_map(
        *(
            F.lit(item)
            for (path, day), read in zip(paths.items(), local, strict=True)
            for item in (_place(read), f"{relative(path)}\n{day.isoformat()}")
        )
    )
    # Spark leaves a plus sign as it is, which stands for a blank elsewhere.
    decoded = F.url_decode(F.replace(F.col("_path"), F.lit("+"), F.lit("%2B")))
    found = F.split(known[F.regexp_replace(decoded, _SCHEME, "")], "\n")
    return (
        df.withColumn("_source_file", found[0])
        .withColumn("_interval", found[1].cast("date"))
        .withColumn("_source_row", row.cast("bigint"))
        .drop("_path")
    )


def _place(path: str) -> str:
    """A path or URL without its scheme and the slashes before it, as Spark writes what comes after them."""
    return posixpath.normpath(re.sub(_SCHEME, "", path))


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _check_inside(path: str) -> None:
    """Refuse a file of the drop folder that is a link to somewhere else."""
    fs, file = fsspec.url_to_fs(path)
    drop = fsspec.url_to_fs(settings().drop_url)[1]
    if not isinstance(fs, LocalFileSystem) or not file.startswith(drop.rstrip("/") + "/"):
        return
    if not Path(file).resolve().is_relative_to(Path(drop).resolve()):
        raise SourceError(
            f"{path} is a link to a place outside of the drop folder. Put the file itself there.", "outside_drop"
        )


def _similar(path: str) -> str:
    """A hint at a file whose name only looks like the one that is waited for."""
    folder, _, name = path.rpartition("/")
    fs = fsspec.url_to_fs(path)[0]
    if not fs.isdir(folder):
        return ""
    present = [_name(str(entry)) for entry in fs.ls(folder, detail=False)]
    strange = [other for other in difflib.get_close_matches(name, present, n=5, cutoff=0.8) if not other.isascii()]
    return f" (but there is {strange[0]!a}, whose name only looks like it)" if strange else ""
