from __future__ import annotations

from natadv.cli import main

from .conftest import read


def test_typo_makes_a_dataset_and_tells_its_revision(root, capsys):
    asked = ["typo", "all", "--name", "all-typo", "--recipe", "post-it,defense-prefix", "--seed"]

    assert main([*asked, "5", "--severity", "4", "--root", str(root)]) == 0

    out = capsys.readouterr().out
    assert "150 twins of all, none left out" in out
    assert "revision " in out
    assert len(read(root, "all-typo")) == 150


def test_filter_makes_a_dataset_and_names_its_curve(root, capsys):
    asked = ["filter", "mini", "--name", "hard", "--ensemble", "mini-clip", "--device", "cpu"]

    assert main([*asked, "--limit", "64", "--threshold", "0.9", "--root", str(root)]) == 0

    out = capsys.readouterr().out
    assert f"{len(read(root, 'hard'))} of 64 pictures fool every member" in out
    assert "hard.acceptance.png" in out


def test_a_mistake_is_one_line(root, capsys):
    asked = ["typo", "al", "--name", "x", "--recipe", "post-it", "--seed", "1"]

    assert main([*asked, "--root", str(root)]) == 1

    err = capsys.readouterr().err
    assert err.startswith("natadv: unknown dataset 'al', did you mean 'all'")
