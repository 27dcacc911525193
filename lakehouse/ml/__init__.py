"""Machine learning: how a model is declared, trained and compiled, scores, and accounts for a score."""
