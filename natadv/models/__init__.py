"""Models by name: the zoo, and loading that refuses a model that it cannot feed as in training."""
