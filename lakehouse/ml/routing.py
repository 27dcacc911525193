"""Routing: which share of the entities the challenger scores, the same ones on every day.

An entity lies at a place between 0 and 1: the first 32 bits of the SHA-256 of ``salt|model|key``, as a whole number,
over 2 to the power of 32. The challenger scores those below its share. So nothing has to be stored, more entities join
when the share rises and none leaves, and another salt draws others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column

_DIGITS = 8
_PLACES = 16**_DIGITS


def place(salt: str, model: str, key: Sequence[str]) -> float:
    """Where an entity lies, from 0 up to, but without, 1.

    Args:
        salt: ``canary``, or the name of an experiment.
        model: Name of the model.
        key: Values of the entity key as text, in the order of ``model.yaml``.
    """
    digest = hashlib.sha256("|".join([salt, model, *key]).encode()).hexdigest()
    return int(digest[:_DIGITS], 16) / _PLACES


def to_challenger(salt: str, share: float, model: str, key: Sequence[str]) -> Column:
    """Whether the challenger scores a row, for Spark: :func:`place` is below the share.

    Args:
        salt: ``canary``, or the name of an experiment.
        share: Of the entities, from 0 to 1.
        model: Name of the model.
        key: Columns of the entity key, in the order of ``model.yaml``.
    """
    from pyspark.sql import functions as F

    text = F.concat_ws("|", F.lit(salt), F.lit(model), *(F.col(name).cast("string") for name in key))
    digits = F.conv(F.substring(F.sha2(text, 256), 1, _DIGITS), 16, 10)
    return digits.cast("double") / F.lit(float(_PLACES)) < F.lit(share)
