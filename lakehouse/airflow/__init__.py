"""What Airflow loads of the platform: executor, plugin, and the tasks that the DAG files are made of."""
