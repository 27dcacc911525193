"""Which errors are told in one clear message, and what that says."""

from __future__ import annotations

import re
import sys

from lakehouse.errors import LakeError
from lakehouse.wording import first_line

DAMAGE = re.compile(
    r"\[(FAILED_READ_FILE|DELTA_(VERSIONS_NOT_CONTIGUOUS|LOG_FILE_NOT_FOUND|TRUNCATED_TRANSACTION_LOG|FILE_NOT_FOUND"
    r"|STATE_RECOVER_ERROR|TXN_LOG_FAILED_INTEGRITY|CHECKPOINT_SNAPSHOT_MISMATCH|MISSING_PART_FILES"
    r"|FAILED_READ_FILE_FOOTER))\b"
)
"""How the engine's errors begin that tell of a file which is damaged or missing."""


def expected() -> tuple[type[Exception], ...]:
    """Errors whose message is enough: the platform's own, and those of Delta's logs, engine, MLflow and PostgreSQL."""
    engine, mlflow = sys.modules.get("pyspark.errors"), sys.modules.get("mlflow.exceptions")
    own: tuple[type[Exception], ...] = (LakeError, *_of_delta())
    others = (engine.PySparkException,) if engine else ()
    return own + others + ((mlflow.MlflowException,) if mlflow else ()) + _of_postgres()


def _of_postgres() -> tuple[type[Exception], ...]:
    psycopg = sys.modules.get("psycopg")
    return (psycopg.OperationalError,) if psycopg else ()


def _of_delta() -> tuple[type[Exception], ...]:
    delta = sys.modules.get("deltalake.exceptions")
    return (delta.DeltaError,) if delta else ()


def first_lines(error: BaseException) -> str:
    """What an error says, without the query's plan and the stacks of two languages."""
    if "pyspark" in sys.modules:
        from lakehouse.engine import GONE, lost, spark

        if lost(error):
            spark.cache_clear()  # whoever asks again gets a session of the new engine
            return f"{GONE} Ask again; `lake status` shows whether it is back."
    if isinstance(error, _of_delta()):
        notes: list[str] = getattr(error, "__notes__", [])
        if not notes:  # of a write
            return first_line(error)
        what = first_line(Exception(str(error).partition(": ParsedLogPath")[0]))
        said = f"The Delta log of {', '.join(notes)} cannot be read: {what}"
        return said if notes[0].startswith("ops.") else f"{said} `lake verify` names what is damaged or missing."
    if isinstance(error, _of_postgres()) and getattr(error, "sqlstate", None) is None:
        return (
            f"The database of the platform cannot be reached: {first_line(error)} `lake up` starts the platform, and "
            "`lake status` shows what runs."
        )
    text = str(error).split("\n\nJVM stacktrace")[0]
    text = re.sub(r"^\([\w.$]+\) (?=\[)", "", text)  # the class of an error that has a name of its own
    if DAMAGE.match(text):
        text = f"{text.rstrip()} `lake verify` names what is damaged or missing."
    if text.startswith("[DELTA_VERSION_NOT_FOUND]"):
        text = f"{text.rstrip()} If it has been there, `lake verify` names what is missing."
    return re.sub(r"(; line \d+ pos \d+|SQLSTATE: \w+);\n.*", r"\1", text, flags=re.DOTALL).strip()
