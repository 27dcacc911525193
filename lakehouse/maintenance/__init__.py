"""Maintenance: what is kept, put together and removed, and whether all that is pinned is still there."""
