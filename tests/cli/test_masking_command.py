"""`natadv heads mask` on the mini models: its table, its store, its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from natadv.cli import main

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def mask(tmp_path, capsys):
    """What the command prints, its exit code, and its complaint, with the datasets of this
    repository."""

    def run(*options, model="mini-clip"):
        kept = ("--root", str(REPOSITORY), "--store", str(tmp_path / "store"), "--device", "cpu")
        code = main(["heads", "mask", "--model", model, *kept, "--batch-size", "2", *options])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_each_dataset_gets_a_grid_and_nothing_is_computed_twice(mask, tmp_path, monkeypatch):
    file = tmp_path / "heads.json"
    options = ("--dataset", "mini,mini-typo", "--limit", "2", "--json", str(file))
    code, first, _ = mask(*options)
    found = json.loads(file.read_text())
    # A model that cannot be loaded any more shows that nothing is computed again.
    monkeypatch.setattr("natadv.models.loading.load_hashed", None)

    assert code == 0
    assert [line for line in first.splitlines() if "accuracy" in line and "on 2 samples" in line]
    assert first.count("layer 6 ") >= 2
    assert first.count("head 4") >= 2
    assert (found["model"], found["tokens"]) == ("mini-clip", "all")
    assert list(found["datasets"]) == ["mini", "mini-typo"]
    for numbers in found["datasets"].values():
        change = np.array(numbers["change"])
        assert change.shape == (6, 4)
        assert numbers["n"] == 2
        # Of two samples, accuracy moves by halves.
        assert np.isin(change, [-1, -0.5, 0, 0.5, 1]).all()
        assert numbers["critical"] == (np.argwhere(np.abs(change) > 0.15) + 1).tolist()
    assert mask(*options)[:2] == (0, first)


@pytest.mark.parametrize(
    ("model", "options", "complaint"),
    [
        ("mini-siglip", ("--tokens", "class"), "has no class token; mask the heads for all tokens"),
        ("mini-clip", ("--dataset", "mini-typos"), "'mini-typos', did you mean 'mini-typo'"),
    ],
)
def test_what_cannot_be_measured_is_one_line(mask, model, options, complaint):
    given = options if "--dataset" in options else ("--dataset", "mini", *options)
    code, printed, told = mask(*given, "--limit", "2", model=model)

    assert code == 4
    assert not printed
    assert complaint in told
    assert told.count("natadv: ") == 1
    assert "Traceback" not in told
