"""Models by name: the zoo, and loading that refuses what it cannot feed as it was trained."""
