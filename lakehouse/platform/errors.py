"""What can go wrong with the platform, in words for the person who runs it."""

from __future__ import annotations

from lakehouse.errors import LakeError


class PlatformError(LakeError):
    """A part of the platform cannot be set up, started or reached; the message says what to do."""
