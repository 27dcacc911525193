"""Templates of the files that ``lake new`` makes."""
