"""Registry: the versions of a model, what they are made from, which one scores a day, and how one follows another."""
