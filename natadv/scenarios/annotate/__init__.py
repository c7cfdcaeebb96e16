"""Truth for pictures that have none yet: what is asked of them, and what a person says of it."""
