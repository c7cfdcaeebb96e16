"""`natadv bless` and `natadv compare`, on two checkpoints of which the second reads words."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from natadv import cli
from natadv.data.card import load_card
from natadv.data.reader import decode_image, read_samples
from natadv.evidence import Manifest, write_evidence
from natadv.report.sheet import GAP, LINE, PICTURE
from natadv.tasks.task import outcomes_for
from natadv.types import Case

pytestmark = pytest.mark.usefixtures("one_line_each")

ROOT = Path(__file__).resolve().parents[2]
DATASETS = ROOT / "fixtures" / "datasets"
LOST = 15


def answered(name, *, wrong=()):
    """Rows of the first 100 samples of a dataset; those in `wrong` are answered by the decoy."""
    card = load_card(DATASETS / name)
    samples = read_samples(DATASETS / name, card, start=0, stop=100)
    right = np.array([i not in wrong for i in range(len(samples))], dtype=np.float64)
    truth = [card.classes[s.label] for s in samples]
    said = [
        s.decoy if i in wrong else t for i, (s, t) in enumerate(zip(samples, truth, strict=True))
    ]
    values = {
        "correct": right,
        "said_decoy": 1 - right,
        "rank": 1 - right,
        "score": np.full(len(samples), 0.75),
        "true_score": right,
        "margin": np.where(right == 1, 1.0, -np.arange(1, len(samples) + 1)),
    }
    rows = outcomes_for(samples, truth=truth, prediction=map(str, said), values=values, errors=None)
    return rows, card.revision


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Folders of evidence; `b` loses fifteen typographic samples and nothing else."""
    root = tmp_path_factory.mktemp("runs")
    for name, wrong in (("a", ()), ("b", range(LOST))):
        for scenario, dataset, lost in (("clean", "mini", ()), ("typographic", "mini-typo", wrong)):
            rows, revision = answered(dataset, wrong=lost)
            case = Case("classification", scenario, dataset, f"step-{name}")
            facts = (len(rows.id), revision, name * 64, "zero-shot-1")
            twins = {"twin_of": "mini"} if dataset == "mini-typo" else {}
            write_evidence(
                root / name, Manifest(case, "mini-clip", *facts, **twins), {"attack": rows}
            )
    return root


@pytest.fixture
def compare(checkpoints, capsys):
    def run(*options, sides=("a", "b"), root=ROOT):
        folders = [str(checkpoints / side) for side in sides]
        code = cli.main(["compare", *folders, "--root", str(root), *options])
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


def test_compare_names_the_case_the_samples_and_the_corrected_p(compare):
    code, text, _ = compare("--model", "step-a=step-b")

    assert code == 1
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0] == "classification, step-a -> step-b"
    # The worst first. Holm: the smaller of two p-values counts twice, 2 * 0.5 ** 15.
    assert lines[2].split()[:5] == ["FAIL", "typographic/mini-typo", "100", "15", "0"]
    assert lines[2].split()[-1] == "6.1e-05"
    assert lines[3].split()[:2] == ["PASS", "clean/mini"]
    assert "classification/typographic/mini-typo/step-b: 15 samples are newly failing" in text
    rows, _ = answered("mini-typo")
    assert [rows.id[0], rows.truth[0], rows.truth[0], rows.decoy[0]] in list(map(str.split, lines))
    assert "and 5 more (--all)" in lines
    assert lines[-1].startswith("FAIL: of 2 cases 1 got worse")


def test_all_shows_every_sample(compare):
    rows, _ = answered("mini-typo")
    _, text, _ = compare("--all")

    assert all(f"\n{name} " in text for name in rows.id[:LOST])
    assert "more (--all)" not in text


def test_a_candidate_that_is_better_exits_0(compare):
    code, text, _ = compare(sides=("b", "a"))

    assert code == 0
    assert text.splitlines()[-1].startswith("PASS: of 2 cases none got worse")


def test_the_markdown_shows_the_newly_failing_pictures(compare, tmp_path):
    page, numbers = tmp_path / "report.md", tmp_path / "report.json"
    code, text, _ = compare("--markdown", str(page), "--json", str(numbers))

    assert code == 1
    name = "report-classification__typographic__mini-typo__step-b.png"
    assert f"![newly failing samples](<{name}>)" in page.read_text()
    assert (
        "| FAIL | classification/typographic/mini-typo/step-b | 100 | 15 | 0 |" in page.read_text()
    )
    assert str(tmp_path / name) in text
    failing = {c["case"]: c["newly_failing"] for c in json.loads(numbers.read_text())["cases"]}
    assert len(failing["classification/typographic/mini-typo/step-b"]) == LOST
    # The first tile is the worst of the lost samples, its clean twin on the left.
    sheet = Image.open(io.BytesIO((tmp_path / name).read_bytes())).convert("RGB")
    (worst,) = read_samples(
        DATASETS / "mini-typo", load_card(DATASETS / "mini-typo"), start=14, stop=15
    )
    shown = decode_image(worst.image, where="it").convert("RGB").resize((PICTURE, PICTURE))
    left = 2 * GAP + PICTURE
    tile = sheet.crop((left, 2 * LINE, left + PICTURE, 2 * LINE + PICTURE))
    assert np.abs(np.asarray(tile, float) - np.asarray(shown, float)).mean() < 3


def test_pictures_of_another_revision_are_not_shown(compare, tmp_path):
    code, text, _ = compare("--markdown", str(tmp_path / "r.md"), root=tmp_path)

    assert code == 1
    assert "no pictures: mini-typo: the pictures that were measured are of revision" in text
    assert "No pictures: mini-typo" in (tmp_path / "r.md").read_text()
    assert not list(tmp_path.glob("*.png"))


def test_names_that_look_like_markdown_are_shown_as_they_are():
    from natadv.cli.baseline_commands import _escaped

    assert _escaped("a|b\n<img> @you [x](y)") == ("a&#124;b &#60;img&#62; &#64;you &#91;x&#93;(y)")


@pytest.mark.parametrize(
    ("options", "sides", "message"),
    [
        (["--model", "step-a"], ("a", "b"), "takes OLD=NEW, each model once, got 'step-a'"),
        (["--model", "a=c", "--model", "b=c"], ("a", "b"), "each model once, got 'b=c'"),
        (["--model", "stp-a=step-b"], ("a", "b"), "did you mean 'step-a'"),
        ([], ("a", "a"), "would be compared with itself"),
        ([], ("a", "absent"), "absent: no such folder of evidence"),
    ],
)
def test_bad_input_is_one_line_and_exits_4(compare, options, sides, message):
    code, text, error = compare(*options, sides=sides)

    assert (code, text) == (4, "")
    assert message in error
    assert error.count("\n") == 1


def test_the_table_needs_no_torch_and_no_pictures(checkpoints):
    script = (
        "import sys; from natadv import cli; "
        f"code = cli.main(['compare', {str(checkpoints / 'a')!r}, {str(checkpoints / 'b')!r}]); "
        "print(code, sorted({'torch', 'PIL', 'transformers', 'pytest'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)

    assert done.stdout.splitlines()[-1] == "1 []", done.stderr


def test_a_run_without_a_verdict_is_not_blessed(checkpoints, tmp_path, capsys):
    run = ["bless", str(checkpoints / "a"), "--as", "main", "--root", str(tmp_path)]
    missing = ["--gate-json", str(tmp_path / "gate.json")]

    assert cli.main([*run, *missing]) == 4
    assert "name the verdict by --gate-json FILE" in capsys.readouterr().err
    assert cli.main([*run[:2], "--as", "../main", *missing]) == 4
    assert "expected a name of letters" in capsys.readouterr().err
    assert not (tmp_path / "baselines").exists()
