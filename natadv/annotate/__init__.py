"""Masks and questions for datasets that have none, each for a person to review."""
