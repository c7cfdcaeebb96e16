"""`natadv langadv`: a small search of real models from end to end, and its usage errors."""

from __future__ import annotations

import json

import pytest

from natadv.cli import main

from .conftest import ROOT

TINY = ["generations=1", "population=2", "pictures=2", "random=1", "accept=0.0"]
MODELS = ["--target", "mini-clip", "--consistency", "mini-siglip"]


@pytest.fixture(autouse=True)
def checkout(monkeypatch, installed):
    monkeypatch.chdir(ROOT)


def search(out, *more: str) -> int:
    return main(
        ["langadv", "search", "--generator", "mini", "--out", str(out), "--device", "cpu", *more]
    )


def test_searches_against_models_and_tells_what_came_of_it(tmp_path, capsys):
    code = search(tmp_path / "s", *MODELS, "--classes", "cat,dog", "--set", *TINY)

    told = capsys.readouterr()
    identity = json.loads((tmp_path / "s" / "search.json").read_text())
    assert code == 0
    assert "| all |" in told.out
    assert "prompts accepted" in told.out
    assert "dog: " in told.err
    assert identity["classes"] == ["cat", "dog"]
    assert identity["target"].startswith("mini-clip ")
    assert (tmp_path / "s" / "history.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--classes", "cat,cat"], "expected at least two classes"),
        (["--classes", "dog,cat"], "just these classes, in this order"),
        (["--words", "animal"], "did you mean 'animals'"),
        (["--target", "mini-clip"], "needs --consistency"),
        (["--target", "mini-clop", "--consistency", "mini-siglip"], "did you mean 'mini-clip'"),
        (["--set", "mutation=nan"], "mutation"),
        (["--settings", "mini-langad"], "did you mean 'mini-langadv'"),
    ],
)
def test_mistakes_cost_one_message_and_leave_nothing(tmp_path, capsys, more, message):
    code = search(tmp_path / "s", *more)

    assert code == 4
    assert message in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_what_has_not_been_searched_cannot_be_packed(tmp_path, capsys):
    code = main(["langadv", "pack", str(tmp_path), "--name", "x", "--root", str(tmp_path)])

    assert code == 4
    assert "run natadv langadv search" in capsys.readouterr().err
