"""Quality: what a table is expected to be, and whether a version of it is."""
