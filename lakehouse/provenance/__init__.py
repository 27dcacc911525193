"""Provenance, lineage as it happened: what rows were made from, and what was made from them."""
