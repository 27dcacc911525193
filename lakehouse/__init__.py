"""Lakehouse and batch-ML platform: the library behind the DAGs, the jobs and the ``lake`` command."""
