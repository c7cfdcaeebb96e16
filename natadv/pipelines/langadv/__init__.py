"""Searching for prompts whose pictures fool a classifier, and packing what was found."""
