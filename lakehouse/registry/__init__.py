"""Registry: the versions of a model, what they were made from, and which of them is in which role."""
