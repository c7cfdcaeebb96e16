"""Cards say what was to be measured, and evidence is read case by case."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from dataclasses import replace

import pytest

from natadv.errors import ConfigError
from natadv.evidence import CaseFolder, folder_of, open_all, read_evidence, write_evidence
from natadv.gate.__main__ import main
from natadv.gate.cases import CasePlan, EvidenceReader, with_evidence

pytestmark = pytest.mark.usefixtures("one_line_each")

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


@pytest.fixture
def reads(monkeypatch):
    """How often the rows of each case are read."""
    counts: Counter[str] = Counter()
    read = CaseFolder.read

    def counted(self):
        counts[self.manifest.case.address] += 1
        return read(self)

    monkeypatch.setattr(CaseFolder, "read", counted)
    return counts


def test_each_case_is_read_once_though_others_need_it_as_twins(
    evidence_root, thresholds_file, reads, capsys
):
    assert main(["--evidence", str(evidence_root), "--thresholds", str(thresholds_file)]) == 0

    capsys.readouterr()
    assert len(reads) == 6
    assert set(reads.values()) == {1}


def test_a_case_that_nobody_asked_for_is_read_too(
    evidence_root, thresholds_file, reads, capsys, kit
):
    """What lies in the folder must be whole, though no rule covers it."""
    own = replace(kit.NATURAL, model="mine")
    stored = read_evidence(folder_of(evidence_root, kit.NATURAL))
    folder = write_evidence(evidence_root, replace(stored.manifest, case=own), stored.outcomes)
    options = ["--evidence", str(evidence_root), "--thresholds", str(thresholds_file)]
    assert main(options) == 0
    assert reads[own.address] == 1

    kit.rewrite_rows(folder, b"")
    assert main(options) == 1
    told = capsys.readouterr().out
    assert f"{folder / 'outcomes.parquet'}: not the Parquet of outcomes" in told
    assert "not judged, because it was not asked for: " in told


def test_only_the_clean_twins_of_one_model_are_kept(evidence_root, kit):
    reader = EvidenceReader(open_all(evidence_root)[0])
    clean = reader[kit.CLEAN].evidence.attack
    attacked = reader[kit.TYPO].evidence
    assert attacked.clean is clean

    rows = [weakref.ref(table) for table in (clean, attacked.attack, attacked.occlusion)]
    del clean, attacked
    gc.collect()
    assert [row() is None for row in rows] == [False, True, True]

    assert reader[replace(kit.NATURAL, model="mini-siglip")].evidence.attack.n == 200
    gc.collect()
    assert rows[0]() is None


def test_a_case_is_known_without_its_rows(evidence_root, reads, kit):
    reader = EvidenceReader(open_all(evidence_root)[0])

    assert kit.CLEAN in reader
    assert replace(kit.CLEAN, model="absent") not in reader
    assert (len(reader), len(list(reader)), reader.get("absent")) == (6, 6, None)
    assert not reads


@pytest.mark.parametrize("damaged", ["CLEAN", "TYPO"])
def test_damaged_rows_make_their_case_incomplete_and_what_rests_on_them(
    evidence_root, thresholds_file, kit, capsys, damaged
):
    folder = folder_of(evidence_root, getattr(kit, damaged))
    kit.rewrite_rows(folder, b"PAR1")
    code = main(["--evidence", str(evidence_root), "--thresholds", str(thresholds_file)])
    told = capsys.readouterr().out.splitlines()

    assert code == 1
    assert told[-1] == "INCOMPLETE: 6 cases of tier mini"
    verdicts = {line.split()[1]: line.split()[0] for line in told if not line.startswith(" ")}
    assert verdicts[kit.TYPO.address] == "INCOMPLETE"
    assert verdicts[kit.CLEAN.address] == ("INCOMPLETE" if damaged == "CLEAN" else "PASS")
    why = f"{folder / 'outcomes.parquet'}: not the Parquet of outcomes: "
    assert any(line.startswith(f"    {getattr(kit, damaged)}: {why}") for line in told)
    if damaged == "CLEAN":
        assert any(f"its clean twins, {kit.CLEAN}, {why}" in line for line in told)


def test_evidence_is_read_model_by_model_while_the_last_is_judged(kit):
    facts = (3, "revision", "weights", "protocol")
    cases = [replace(case, model=model) for case in (kit.CLEAN, kit.TYPO) for model in ("b", "a")]
    plans = [CasePlan(case, case.model, *facts) for case in cases]
    asked = []

    class Known(dict):
        def get(self, case):
            asked.append(case)
            if case.model == "c":
                raise ConfigError("card.yaml: no such card")
            return super().get(case)

    evidence = Known({case: object() for case in cases[1:]})
    order = [cases[1], cases[3], cases[0], cases[2]]
    for i, (plan, found) in enumerate(with_evidence(plans, evidence)):
        assert plan.case == order[i]
        assert found is evidence[plan.case] if plan.case in evidence else found is None
        assert asked[: i + 1] == order[: i + 1]
        assert len(asked) <= i + 2

    assert asked == order
    assert not list(with_evidence([], evidence))
    with pytest.raises(ConfigError, match="no such card"):
        list(with_evidence([replace(plans[0], case=replace(kit.CLEAN, model="c"))], evidence))


def test_rows_of_an_older_natadv_end_with_one_line(evidence_root, thresholds_file, kit, capsys):
    for manifest in evidence_root.glob("*/manifest.json"):
        kit.sign(manifest, format=2)
    code = main(["--evidence", str(evidence_root), "--thresholds", str(thresholds_file)])
    told = capsys.readouterr().out

    assert code == 1
    assert told.count("manifest.json: measured by an older natadv; measure again") == 6
    assert told.splitlines()[-1] == "INCOMPLETE: 6 cases of tier mini"
