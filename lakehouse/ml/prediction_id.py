"""The id of a prediction: a stable hash of the model, the entity key and the day.

One definition in two forms: :func:`column` for the rows that Spark writes, and :func:`prediction_id` for one that a
person asks about. The text that is hashed joins the parts with ``|``; one that is in a part itself is escaped, so that
two different keys are two different texts.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column

SEPARATOR, ESCAPE = "|", "\\"
LENGTH = 32
"""Hexadecimal digits of the SHA-256 that are kept: 128 bits, so that two ids are the same by chance in no lake."""


def prediction_id(model: str, key: Sequence[str], day: dt.date) -> str:
    """The id of a prediction.

    Args:
        model: Name of the model.
        key: Values of the entity key, in the order of ``model.yaml``, as Spark writes them as text.
        day: The day.
    """
    parts = [
        part.replace(ESCAPE, ESCAPE * 2).replace(SEPARATOR, ESCAPE + SEPARATOR)
        for part in (model, *key, day.isoformat())
    ]
    return hashlib.sha256(SEPARATOR.join(parts).encode()).hexdigest()[:LENGTH]


def column(model: str, key: Sequence[str], day: str) -> Column:
    """The same as a column; null where a part of the key is.

    Args:
        model: Name of the model.
        key: Names of the columns of the entity key, in the order of ``model.yaml``.
        day: Name of the column of the day.
    """
    from pyspark.sql import functions as F

    separator, escape = F.lit(SEPARATOR), F.lit(ESCAPE)

    def text(part: Column) -> Column:
        doubled = F.replace(part.cast("string"), escape, F.lit(ESCAPE * 2))
        return F.replace(doubled, separator, F.lit(ESCAPE + SEPARATOR))

    joined = text(F.lit(model))
    for name in (*key, day):
        joined = F.concat(joined, separator, text(F.col(name)))
    return F.substring(F.sha2(joined, 256), 1, LENGTH)
