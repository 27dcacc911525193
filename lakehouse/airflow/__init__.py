"""What Airflow loads of the platform: executor, plugin, and the tasks (``*_tasks``) that the DAG files are made of.

A task runs the same function as the ``lake`` command of its name. The libraries of the steps are imported inside the
tasks, so that a DAG file is parsed in milliseconds.
"""
