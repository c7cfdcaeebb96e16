"""Attacks that work: found, shown to any model, and frozen into a dataset of the gate."""
