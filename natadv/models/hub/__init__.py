"""Checkpoints of the Hugging Face hub: the lock file, and how they are fetched."""
