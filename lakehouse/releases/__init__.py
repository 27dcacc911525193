"""Releases: which versions of tables readers see, and how that changes."""
