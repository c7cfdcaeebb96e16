"""Floors for models that nobody has measured here."""

from __future__ import annotations

from natadv.gate.starters import (
    Origin,
    PublishedNumber,
    above_chance,
    from_published,
    starter_rules,
)
from natadv.types import Case


def test_a_starter_lies_two_half_widths_below_a_published_number():
    rule = from_published("classification/clean/d/m", "top1", 0.8, n=1000, source="a paper")

    # 0.8 - 2 * 1.96 * sqrt(0.8 * 0.2 / 1000) = 0.7504, rounded down.
    assert (rule.side, rule.bound, rule.min_n, rule.starter) == ("floor", 0.75, 800, "published")
    assert rule.source == "published 0.800, a paper"
    # The interval of 50,000 samples is narrow: 0.02 is left for what protocols leave open.
    close = from_published("classification/clean/d/m", "top1", 0.8, n=50_000, source="a paper")
    assert close.bound == 0.78


def test_a_starter_without_a_number_lies_above_chance():
    rule = above_chance("classification/clean/d/m", "top1", 0.1, n=1000)

    # 0.1 + 5 * sqrt(0.1 * 0.9 / 1000) = 0.14743, rounded up.
    assert (rule.bound, rule.min_n, rule.starter) == (0.148, 800, "chance")
    assert above_chance("vqa/clean/d/m", "vqa_accuracy", 0.0, n=100).bound == 0.02


def test_each_case_gets_the_floor_of_the_same_pictures_or_one_above_chance():
    cases = [
        Case("classification", "clean", name, "m")
        for name in ("imagenet", "imagenet-pr", "imagenet-typo", "elsewhere")
    ]
    origins = {
        "imagenet": Origin("imagenet", "imagenet", 50_000),
        "imagenet-pr": Origin("imagenet", "imagenet", 1000),
        # Something is written on the pictures: the published number is of others.
        "imagenet-typo": Origin("imagenet", "", 1000),
    }
    numbers = {("m", "imagenet", "top1"): PublishedNumber(0.8, "a paper")}

    rules = list(starter_rules(cases, origins=origins, numbers=numbers))

    # 0.8 - 2 * 1.96 * 0.4 / sqrt(1000) = 0.7504; chance is 1 in 1000, and at least 0.02.
    assert [(rule.starter, rule.bound, rule.min_n) for rule in rules] == [
        ("published", 0.78, 40_000),
        ("published", 0.75, 800),
        ("chance", 0.02, 800),
        ("chance", 0.02, 80),
    ]
