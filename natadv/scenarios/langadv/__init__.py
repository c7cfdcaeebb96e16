"""Adversarial pictures from natural language: prompts that make a generator's pictures fool a
classifier while they still show what they are called (Zhu et al. 2024)."""
