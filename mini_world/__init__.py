"""The embedded world: its pictures, what is asked about them, and the training of its models."""
