from __future__ import annotations

from dataclasses import replace

from natadv.cli import main

from .conftest import CLASSES, REPOSITORY, read


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

    assert main([*asked, "--root", str(root)]) == 4

    err = capsys.readouterr().err
    assert err.startswith("natadv: unknown dataset 'al', did you mean 'all'")


def test_what_would_change_the_question_refuses_samples_with_candidates(root, packed, bare, capsys):
    rows = [replace(s, candidates=CLASSES[:2] if s.label < 2 else CLASSES) for s in bare(6)]
    packed("pairs", rows, "classification", candidates=True)
    population = REPOSITORY / "fixtures/populations"
    (root / "fixtures/populations").symlink_to(population)
    shown = ["--model", "mini-clip", "--population", "mini-overlays"]
    for command in (
        ["typo", "pairs", "--name", "x", "--recipe", "post-it", "--seed", "1"],
        ["filter", "pairs", "--name", "x", "--ensemble", "mini-clip", "--device", "cpu"],
        ["overlays", "pack", "mini-overlays", "--data", "pairs", "--name", "x", "--pictures", "2"],
        ["search", *shown, "--data", "pairs", "--subject", "cat"],
    ):
        capsys.readouterr()

        assert main([*command, "--root", str(root)]) == 4, command

        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("natadv: pairs asks each sample to choose among candidates of its")
    assert not (root / "fixtures/datasets/x").exists()
