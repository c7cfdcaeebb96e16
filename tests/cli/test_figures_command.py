"""`natadv figures` as a user calls it, from evidence alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from natadv.cli import main
from tests.figures.conftest import outcomes, share, write

TYPO = "classification/typographic/rta-100"
__all__ = ["write"]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_it_writes_each_figure_twice_and_the_same_bytes_again(write, tmp_path, capsys):
    evidence = write(f"{TYPO}/clip-vit-l14", outcomes(share(60)))
    write(f"{TYPO}/fare2-l14", outcomes(share(30)))
    paper = write(f"{TYPO}/clip-vit-l14@paper", outcomes(share(60)), root="paper")
    write(f"{TYPO}/fare2-l14@paper", outcomes(share(20)), root="paper")
    parts = "fig1,fig3,table,artefacts,claims"
    asked = ["figures", "--evidence", str(evidence), str(paper), "--only", parts]

    assert main([*asked, "--out", str(tmp_path / "a")]) == 0
    assert main([*asked, "--out", str(tmp_path / "b"), "--width", "7"]) == 0
    assert main([*asked, "--out", str(tmp_path / "b")]) == 0

    first = files(tmp_path / "a")
    assert list(first) == [
        "artefacts.md",
        "claims.md",
        "figure-1.png",
        "figure-1.svg",
        "figure-3.png",
        "figure-3.svg",
        "table.md",
    ]
    assert files(tmp_path / "b") == first
    assert capsys.readouterr().out.splitlines()[-1] == f"{tmp_path / 'b'}: 5 parts"
    assert b"clip-vit-l14 minus fare2-l14 | rta-100 | +10.4 | +40.0" in first["artefacts.md"]


def test_a_figure_without_evidence_is_named_and_the_others_are_drawn(write, tmp_path, capsys):
    evidence = write(f"{TYPO}/clip-vit-l14", outcomes(share(60)))
    out = tmp_path / "out"

    code = main(
        ["figures", "--evidence", str(evidence), "--only", "fig3,fig5,fig6", "--out", str(out),
         "--root", str(tmp_path)]
    )  # fmt: skip

    assert code == 1
    assert sorted(files(out)) == ["figure-3.png", "figure-3.svg"]
    lines = capsys.readouterr().out.splitlines()
    assert "not made: fig5: the evidence has no case of task 'vqa'" in lines
    assert any(line.startswith("figures 6 to 8 without clip-vit-l14: ") for line in lines)
    assert any(
        line.startswith("not made: fig6: no model of the evidence is here that") for line in lines
    )
    assert lines[-1] == f"{out}: 1 part"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--only", "fig9"], "unknown part 'fig9'"),
        (["--models", "clip-vit-l15"], "unknown model of the evidence 'clip-vit-l15'"),
        (["--data", "rta"], "unknown dataset of the evidence 'rta'"),
        (["--fed", "clip-vit-l14"], "--fed: expected NAME=..., got 'clip-vit-l14'"),
        (["--fed", "clip-vit-l14=other"], "unknown model of the evidence 'other'"),
        (["--robust", "mine=clip-vit-l14"], "unknown model of the evidence 'mine'"),
        (["--autoencoder", "mine=sae"], "unknown model of the evidence 'mine'"),
        (["--autoencoder", "clip-vit-l14=nowhere"], "--autoencoder: no config.json in nowhere"),
    ],
)
def test_a_name_that_is_wrong_is_one_clear_line(write, tmp_path, capsys, words, why):
    evidence = write(f"{TYPO}/clip-vit-l14", outcomes(share(60)))

    assert main(["figures", "--evidence", str(evidence), "--out", str(tmp_path / "o"), *words]) == 4
    error = capsys.readouterr().err.splitlines()
    assert [line for line in error if line.startswith("natadv: ")] == error
    assert why in error[0]
    assert not (tmp_path / "o").exists()


def test_real_models_are_asked_where_they_look(tmp_path, capsys):
    """On the datasets of the mini world, whose evidence says what the models answered."""
    from natadv.data.card import load_card
    from natadv.data.reader import read_samples
    from natadv.evidence import Manifest, write_evidence
    from natadv.types import Case
    from tests.metrics.conftest import make_outcomes

    root = Path(__file__).resolve().parents[2]
    folder = root / "fixtures/datasets/mini-typo"
    card = load_card(folder)
    samples = read_samples(folder, card, start=0, stop=card.rows)
    truth = [card.classes[sample.label or 0] for sample in samples]
    rows = make_outcomes(truth, truth, ids=[sample.id for sample in samples])
    case = Case("classification", "typographic", "mini-typo", "mini-clip")
    facts = {"lineage": "mini-clip", "planned_n": card.rows, "data_revision": card.revision}
    manifest = Manifest(case, **facts, weights="w" * 64, protocol="1")
    write_evidence(tmp_path / "evidence", manifest, {"attack": rows})
    # The cache of embeddings stays out of the repository.
    for name in ("fixtures", "natadv"):
        (tmp_path / name).symlink_to(root / name)
    asked = ["figures", "--only", "fig6", "--pictures", "1", "--device", "cpu", "--threads", "1"]
    there = ["--evidence", str(tmp_path / "evidence"), "--root", str(tmp_path)]

    assert main([*asked, *there, "--out", str(tmp_path / "out")]) == 0
    assert sorted(files(tmp_path / "out")) == ["figure-6.png", "figure-6.svg"]
    assert capsys.readouterr().out == f"{tmp_path / 'out'}: 1 part\n"
