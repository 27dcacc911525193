"""The root of the errors that the platform expects: their message is all that a user needs."""

from __future__ import annotations


class LakeError(Exception):
    """Something a person can put right; the message says what it is, where, and the way out."""
