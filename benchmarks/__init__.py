"""Timed runs, each side by side with what it is to be compared with."""
