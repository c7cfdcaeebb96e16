"""Searches for the smallest typographic attack, replays it on any model, and freezes it."""
