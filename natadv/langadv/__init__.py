"""Prompts that make a generator's pictures fool classifiers while the pictures still show their
class (Zhu et al. 2024): the search, and the dataset of what it accepts."""
