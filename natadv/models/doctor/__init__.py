"""Checks that a model is whole, safe, and fed as it was trained."""
