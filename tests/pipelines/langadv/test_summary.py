"""The table compares like with like."""

from __future__ import annotations

from natadv.pipelines.langadv.summary import table


def history(noun: str, accepted: list[float], random: list[float]):
    def rows(values):
        return [{"prompt": "", "asr": value, "sem": 1.0, "fitness": value} for value in values]

    return {"class": noun, "fresh": {"accepted": rows(accepted), "random": rows(random)}}


def test_means_of_all_classes():
    text = table([history("cat", [1.0], [0.5]), history("dog", [0.9], [0.3])])

    assert text.splitlines()[-1] == "| all | 2 | 0.950 | 1.000 | 2 | 0.400 | 1.000 |"


def test_a_class_without_accepted_prompts_weighs_on_neither_side():
    text = table([history("cat", [1.0], [0.5]), history("spider", [], [0.1])])

    assert "| spider | 0 | none | none | 1 | 0.100 | 1.000 |" in text
    assert text.splitlines()[-1].startswith(
        "| 1 with accepted prompts | 1 | 1.000 | 1.000 | 1 | 0.5"
    )
