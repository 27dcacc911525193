"""One folder per ML model."""
