"""Lineage as it is declared: which columns and tables are made of which others, and how OpenLineage is told."""
