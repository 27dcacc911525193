"""Lineage as declared: which columns and tables are made of which others; what OpenLineage is told of each step."""
