"""A robustness gate for vision-language models under natural adversarial scenarios."""

__version__ = "0.1.0"
