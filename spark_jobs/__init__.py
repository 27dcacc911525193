"""What Spark runs, one module per job."""
