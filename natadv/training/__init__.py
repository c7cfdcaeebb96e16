"""Trains heads on a frozen tower, from packed data, to the same bytes each time."""
