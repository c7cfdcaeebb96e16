"""Cards that lie beside evidence say what was to be measured, or why they cannot."""

from __future__ import annotations

import pytest

from natadv.gate.__main__ import main

WHOLE = b"rows: 200\nrevision: revision-1\n"


@pytest.fixture
def judged(evidence_root, thresholds_file, tmp_path, capsys):
    """What the gate says where the card of `mini` has this content."""

    def run(content):
        for name in ("mini", "mini-typo", "mini-natural"):
            card = tmp_path / "cards" / name / "card.yaml"
            card.parent.mkdir(parents=True, exist_ok=True)
            card.write_bytes(content if name == "mini" else WHOLE)
        places = {"evidence": evidence_root, "thresholds": thresholds_file}
        options = [text for name, path in places.items() for text in (f"--{name}", str(path))]
        code = main([*options, "--datasets", str(tmp_path / "cards"), "--tier", "mini"])
        return code, capsys.readouterr()

    return run


def test_a_whole_card_is_read(judged):
    code, told = judged(WHOLE)

    assert code in (0, 1)
    assert "card.yaml" not in told.out + told.err


def test_a_malformed_card_is_one_line(judged):
    for content, message in (
        (b"[1, 2]", "card.yaml: expected the card of a dataset, got [1, 2]"),
        (b"rows", "expected the card of a dataset, got 'rows'"),
        (b"~", "expected the card of a dataset, got None"),
        (b"", "empty file"),
        (b"rows: 7\n\xff", "cannot be read as UTF-8 text: line 2"),
        (b"rows: 7\nrevision: 2026-02-30", "card.yaml:2: revision: '2026-02-30' cannot be read"),
        (b"rows: 7\nrevision: ''", "expected revision and rows, got '' and 7"),
        (b"rows: true\nrevision: r1", "got 'r1' and True"),
        (b"rows: 0\nrevision: r1", "got 'r1' and 0"),
        (b"rows: 0x" + b"f" * 5000 + b"\nrevision: r1", "too long to show; import the dataset"),
        (b"rows: 7\nrevision: " + b"[" * 2000, "nest"),
    ):
        code, told = judged(content)

        assert code == 4, message
        assert told.out == ""
        assert message in told.err
        assert len(told.err.splitlines()) == 1, message
