"""What can go wrong with the platform, in words for the person who runs it."""


class PlatformError(RuntimeError):
    """A part of the platform cannot be set up, started or reached; the message says what to do."""
