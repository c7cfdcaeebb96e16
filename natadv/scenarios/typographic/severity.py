"""How strong a typographic attack is: what its letters are, against the recipe's own."""

from __future__ import annotations

from natadv.errors import ConfigError

# Size and opacity decide most of the effect (TypoDeceptions, Cheng et al. 2024); a recipe fixes its
# opacity, so that a step is one of size: a factor of the square root of two.
SEVERITIES: dict[int, float] = {1: 0.5, 2: 0.707, 3: 1.0, 4: 1.414, 5: 2.0}
"""Severity -> size of the letters as a factor; 3 is as published."""
PUBLISHED = 3


def letters_at(severity: int) -> float:
    if severity not in SEVERITIES:
        raise ConfigError(
            f"severity must be one of {', '.join(map(str, SEVERITIES))} "
            f"({PUBLISHED} is as published), came {severity!r}"
        )
    return SEVERITIES[severity]
