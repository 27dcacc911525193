"""Monitoring: whether a model is given, says and achieves what it did when it was trained."""
