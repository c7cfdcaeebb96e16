"""Published beside measured: what compares, what must not, and the whole way from files to it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import binomtest

from natadv.cli import main
from natadv.data.card import CardDraft, load_card
from natadv.data.packing import write_dataset
from natadv.data.reader import decode_image, read_samples
from natadv.evidence import Manifest, folder_of, read_evidence, write_evidence
from natadv.models.listing import published
from natadv.scenarios.typographic.twins import typographic_twin
from natadv.types import Case, Outcomes, Sample
from tests.metrics.conftest import make_outcomes

pytestmark = pytest.mark.usefixtures("one_line_each")

REPOSITORY = Path(__file__).resolve().parents[2]
ROWS = 24
THRESHOLDS = """\
version: 1
default_tier: mini
tiers:
  mini: {models: [mini-clip], cases: [classification/clean/scam-clean]}
rules:
  - {case: classification/clean/scam-clean/*, metric: top1, floor: 0.5, source: by design}
"""
SCAM = [n for n in published() if n.dataset in ("scam-clean", "scam", "scam-synth")]


def answers(right: int, n: int, *, choices: int | None = 2) -> Outcomes:
    """`n` samples, the first of which are right; `choices` are their candidates, if any."""
    said = ["mug" if i < right else "taxi" for i in range(n)]
    rows = make_outcomes(["mug"] * n, said)
    two_way = {} if choices is None else {"choices": np.full(n, float(choices))}
    return replace(rows, values={**rows.values, **two_way})


@pytest.fixture
def measured(tmp_path: Path) -> Any:
    """Writes evidence, and returns what `reproduce` prints about it and its exit code."""
    root = tmp_path / "evidence"

    class Measured:
        """Evidence that was put together by hand."""

        def write(self, model: str, dataset: str, rows: Outcomes, **changes: Any) -> Path:
            scenario = "clean" if dataset in ("imagenet", "scam-clean") else "natural"
            case = Case("classification", scenario, dataset, model)
            facts = {"lineage": model, "planned_n": rows.n, "data_revision": "r" * 64}
            values = {**facts, "weights": "w" * 64, "protocol": "zero-shot-1", **changes}
            return write_evidence(root, Manifest(case, **values), {"attack": rows})

        def run(self, study: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
            capsys.readouterr()
            there = ["--evidence", str(root), "--root", str(tmp_path)]
            code = main(["reproduce", study, "--json", *there])
            record = json.loads(capsys.readouterr().out)
            assert main(["reproduce", study, *there]) == code
            return code, {**record, "text": capsys.readouterr().out}

    root.mkdir()
    return Measured()


def write_scam(path: Path) -> Path:
    """A Parquet file as the hub has it, of pictures of the mini world; returns the folder above."""
    folder = REPOSITORY / "fixtures/datasets/mini"
    card, rows = load_card(folder), []
    for i, sample in enumerate(read_samples(folder, card, start=0, stop=ROWS)):
        picture = decode_image(sample.image, where=sample.id)
        twin = typographic_twin(sample, picture, card.classes, recipe="defense-prefix", seed=1)
        for variant in ("SCAM", "NoSCAM", "SynthSCAM"):
            image = sample.image if variant == "NoSCAM" else twin.image
            values = {"object_label": card.classes[sample.label or 0], "attack_word": twin.decoy}
            identity = {"type": variant, "id": f"{variant}_img_{i:04d}", "postit_area_pct": 2.5}
            rows.append({"image": {"bytes": image, "path": f"{i}.webp"}, **values, **identity})
    features = {"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})}
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows).replace_schema_metadata(features), path)
    return path.parents[2]


def pretend(evidence: Path, dataset: str) -> Outcomes:
    """Gives the evidence of mini-clip the name of a model with published numbers."""
    scenario = "clean" if dataset == "scam-clean" else "typographic"
    case = Case("classification", scenario, dataset, "mini-clip")
    stored = read_evidence(folder_of(evidence, case))
    other = replace(case, model="clip-rn50")
    manifest = replace(stored.manifest, case=other, lineage="clip-rn50")
    write_evidence(evidence, manifest, stored.outcomes)
    return stored.outcomes["attack"]


def row_of(record: dict[str, Any], model: str, dataset: str) -> dict[str, Any]:
    (row,) = (r for r in record["rows"] if (r["model"], r["dataset"]) == (model, dataset))
    return row


def clopper_pearson(hits: int, n: int) -> tuple[float, float]:
    found = binomtest(hits, n).proportion_ci(method="exact")
    return float(found.low), float(found.high)


def test_a_number_stands_beside_what_was_measured_with_interval_and_difference(measured, capsys):
    measured.write("clip-rn50", "scam", answers(40, 100))
    measured.write("clip-vit-l14", "scam", answers(70, 100))

    code, record = measured.run("scam", capsys)

    assert code == 0
    rn50, l14 = (row_of(record, model, "scam") for model in ("clip-rn50", "clip-vit-l14"))
    assert (rn50["value"], rn50["source"]) == (0.3661, "README of Bliss-e-V/SCAM, results table")
    assert rn50["difference"] == pytest.approx(0.4 - 0.3661)
    assert (rn50["measured"]["low"], rn50["measured"]["high"]) == pytest.approx(
        clopper_pearson(40, 100), abs=1e-3
    )
    assert (rn50["inside"], l14["inside"], rn50["measured"]["n"]) == (True, False, 100)
    lines = record["text"].splitlines()
    (line,) = (line for line in lines if line.startswith("clip-rn50 "))
    assert line.split()[:6] == ["clip-rn50", "scam", "36.61", "%", "40.00", "%"]
    assert "+3.39  inside; prompts unknown, its dataset is not here; publ" in line
    assert "2 of 5 published numbers compared, 1 of them inside the interval" in lines
    assert not any(word.startswith("unreadable") for word in lines)


def test_what_is_missing_is_told_with_one_command_that_keeps_the_rest(measured, capsys):
    measured.write("clip-rn50", "scam", answers(40, 100))

    _, record = measured.run("scam", capsys)

    printed = record["text"].split("not measured: 4 published numbers; to measure them\n")[1]
    fetch, *imports, run = printed.splitlines()
    assert fetch.split()[:3] == ["natadv", "models", "fetch"]
    assert [line.split()[3] for line in imports] == ["scam-clean", "scam", "scam-synth"]
    assert "--model clip-rn50,clip-vit-l14 --dataset scam,scam-clean,scam-synth " in run
    assert row_of(record, "clip-vit-l14", "scam")["measured"] is None


def test_models_of_the_mini_world_are_measured_again_beside_others(measured, capsys):
    measured.write("clip-rn50", "scam", answers(40, 100))
    measured.write("mini-clip", "scam", answers(40, 100))

    _, record = measured.run("scam", capsys)

    run = record["text"].splitlines()[-1]
    assert " --tier release --model clip-rn50,mini-clip,clip-vit-l14 --dataset scam,scam-c" in run


def test_protocols_are_never_mixed(measured, capsys):
    measured.write("clip-rn50", "imagenet", answers(600, 1000, choices=None))
    measured.write("clip-rn50@paper", "imagenet", answers(540, 1000, choices=None))

    _, trained = measured.run("imagenet", capsys)
    _, paper = measured.run("paper", capsys)

    own = row_of(trained, "clip-rn50", "imagenet")
    assert (own["value"], own["measured"]["value"]) == (0.5982, 0.6)
    theirs = row_of(paper, "clip-rn50@paper", "imagenet")
    assert (theirs["value"], theirs["measured"]["value"]) == (0.54, 0.54)
    assert {row["protocol"] for row in trained["rows"]} == {"as-trained"}
    assert {row["protocol"] for row in paper["rows"]} == {"paper"}
    assert "@paper" not in trained["text"]
    assert all(row["model"].endswith("@paper") for row in paper["rows"])
    appendix = [number for number in published() if number.protocol == "paper"]
    assert len(paper["rows"]) == len(appendix)


@pytest.mark.parametrize(
    ("rows", "changes", "why"),
    [
        (answers(9, 20, choices=None), {}, "measured among all classes: import the dataset again"),
        (answers(9, 20), {"lineage": "mini-clip"}, "a checkpoint of this name, but of the lineage"),
        (answers(9, 20), {"problems": ("a worker died",)}, "a worker died"),
        (replace(answers(9, 20), values={}), {}, "expected a value 'correct'"),
    ],
    ids=["all classes", "other weights", "incomplete", "no metric"],
)
def test_what_is_not_the_published_measurement_is_shown_and_not_compared(
    measured, capsys, rows, changes, why
):
    measured.write("clip-rn50", "scam", rows, **changes)

    code, record = measured.run("scam", capsys)

    row = row_of(record, "clip-rn50", "scam")
    assert code == 1
    assert "difference" not in row
    assert why in row["problems"][0]
    assert f"not comparable; {why}" in record["text"]
    assert "0 of 5 published numbers compared" in record["text"]


def test_other_prompts_than_the_published_ones_do_not_compare(measured, capsys, tmp_path):
    few, many = (pack(tmp_path, name, prompts) for name, prompts in PROMPTS.items())
    rows = answers(30, 100, choices=None)
    measured.write("clip-rn50", "imagenet-a", rows, data_revision=few)
    measured.write("clip-rn50", "imagenet", rows, data_revision=many)

    _, record = measured.run("imagenet", capsys)

    shifted, clean = (row_of(record, "clip-rn50", name) for name in PROMPTS)
    assert (shifted["measured_prompts"], shifted["prompts"]) == (1, 80)
    assert shifted["problems"] == [
        "prompts per class: 1, published with 80; import it with other --templates"
    ]
    assert (clean["measured_prompts"], clean["problems"]) == (80, [])
    assert clean["difference"] == pytest.approx(0.3 - 0.5982)


PROMPTS = {"imagenet-a": 1, "imagenet": 80}


def pack(root: Path, name: str, prompts: int) -> str:
    """The revision of a dataset of this name with so many templates."""
    draft = CardDraft(
        name=name,
        tasks=("classification",),
        scenario="clean",
        classes=("mug", "taxi"),
        templates=tuple(f"photo {i} of a {{}}." for i in range(prompts)),
        licence="CC0-1.0",
        source="noise",
        description="nothing",
    )
    sample = Sample("s", "s", b"no picture is read", label=0)
    return write_dataset(root / "fixtures/datasets" / name, draft, [sample]).revision


def test_effective_robustness_is_given_with_its_band_where_both_were_measured(measured, capsys):
    for dataset, right in {"imagenet": 700, "imagenet-a": 505, "imagenet-r": 995}.items():
        measured.write("mini-clip", dataset, answers(right, 1000, choices=None))
    measured.write("mini-siglip", "imagenet-a", answers(505, 1000, choices=None))
    for dataset, right in {"imagenet": 800, "imagenet-v2": 735}.items():
        rows = answers(right, 1000, choices=None)
        measured.write("my-checkpoint", dataset, rows, lineage="clip-vit-l14")

    code, record = measured.run("imagenet", capsys)

    assert code == 0
    usual, odd, own = record["effective_robustness"]
    assert (own["model"], own["dataset"], own["usual"]) == ("my-checkpoint", "imagenet-v2", True)
    assert (usual["model"], usual["dataset"], odd["dataset"]) == (
        "mini-clip",
        "imagenet-a",
        "imagenet-r",
    )
    # 70 % is 0.52440 probits: 2.1100 * 0.52440 - 1.2597 = -0.1532 is 43.91 %.
    assert usual["expected"] == pytest.approx(0.4391, abs=2e-4)
    assert usual["value"] == pytest.approx(0.505 - 0.4391, abs=2e-4)
    assert usual["band"]["low"] < 0.505 < usual["band"]["high"]
    assert (usual["usual"], odd["usual"]) == (True, False)
    assert usual["line"]["n"] == 93
    text = record["text"]
    assert "imagenet-a: probit(accuracy) = 2.110 probit(imagenet) -1.260, R2 0.818, 93 mo" in text
    last = text.split(" models\n\n")[1]
    (line,) = (one for one in last.splitlines() if one.split()[:2] == ["mini-clip", "imagenet-a"])
    assert line.split()[2:4] == ["70.00", "%"]
    assert "+6.59  inside the band; the line is of models with 80 prompts" in line
    assert "outside the band" in text


def test_a_model_without_a_published_number_is_listed_and_compared_with_nothing(measured, capsys):
    measured.write("mini-clip", "scam", answers(7, 20))

    code, record = measured.run("scam", capsys)

    assert code == 1
    (line,) = (one for one in record["text"].splitlines() if one.startswith("mini-clip"))
    assert line.split()[:4] == ["mini-clip", "scam", "-", "35.00"]
    assert "not published" in line
    (other,) = record["not_published"]
    assert (other["model"], other["measured"]["value"]) == ("mini-clip", 0.35)


def test_evidence_that_was_changed_is_named_and_not_compared(measured, capsys):
    folder = measured.write("clip-rn50", "scam", answers(9, 20))
    path = folder / "outcomes.parquet"
    path.write_bytes(path.read_bytes()[:-1])

    code, record = measured.run("scam", capsys)

    assert code == 1
    assert "outcomes.parquet" in next(iter(record["unreadable"].values()))
    assert f"unreadable: {folder}" in record["text"]
    assert row_of(record, "clip-rn50", "scam")["measured"] is None


def test_without_evidence_it_says_how_to_measure(tmp_path, capsys):
    code = main(["reproduce", "paper", "--evidence", str(tmp_path / "x"), "--root", str(tmp_path)])

    printed = capsys.readouterr().out
    assert code == 1
    assert f"{tmp_path / 'x'}: no such folder" in printed
    assert "pytest suites/ --no-assert --model clip-vit-b32@paper,clip-vit-b16@paper," in printed
    assert "--dataset imagenet,rta-100,imagenet-a --evidence" in printed
    lines = [line.split() for line in printed.splitlines()]
    assert ["natadv", "data", "import", "imagenet", "PATH", "#"] in [line[:6] for line in lines]
    assert ["#", "langadv:", "its", "pictures", "are", "not"] in [line[:6] for line in lines]
    main(["reproduce", "imagenet", "--evidence", str(tmp_path / "x"), "--root", str(tmp_path)])
    printed = capsys.readouterr().out
    for name in ("imagenet", "imagenet-a"):
        assert f"natadv data import {name} PATH    # PATH:" in printed


def test_scam_from_its_files_to_the_comparison(tmp_path, capsys):
    shutil.copytree(REPOSITORY / "suites", tmp_path / "suites")
    (tmp_path / "fixtures").mkdir()
    (tmp_path / "fixtures/models").symlink_to(REPOSITORY / "fixtures/models")
    (tmp_path / "thresholds.yaml").write_text(THRESHOLDS)
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["natadv.pytest_plugin"]\n')
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    files = write_scam(tmp_path / "scam/default/train/0000.parquet")
    names = ("scam-clean", "scam", "scam-synth")
    for name in names:
        assert main(["data", "import", name, str(files), "--root", str(tmp_path)]) == 0
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    run = f"--model mini-clip --dataset {','.join(names)} --no-assert --device cpu --evidence ev"

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "suites/", *run.split(), "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=inherited,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert "MEASURED: " in done.stdout
    evidence = tmp_path / "ev"
    arguments = ["reproduce", "scam", "--evidence", str(evidence), "--root", str(tmp_path)]
    assert main(arguments) == 1
    assert f"0 of {len(SCAM)} published numbers compared" in capsys.readouterr().out
    # The same rows, as if a model with published numbers had given them.
    clean, attacked = (pretend(evidence, name) for name in names[:2])
    assert main([*arguments, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    for name, outcomes in {"scam-clean": clean, "scam": attacked}.items():
        row = row_of(record, "clip-rn50", name)
        assert outcomes.values["choices"].tolist() == [2.0] * ROWS
        right = np.mean([t == p for t, p in zip(outcomes.truth, outcomes.prediction, strict=True)])
        assert (row["measured"]["value"], row["measured"]["n"]) == (pytest.approx(right), ROWS)
        assert row["difference"] == pytest.approx(right - row["value"])
        assert (row["measured_prompts"], row["problems"]) == (32, [])
    # The words lead the model astray, and it cannot answer with anything else.
    wrong = np.array(attacked.prediction) != np.array(attacked.truth)
    assert clean.values["correct"].mean() > attacked.values["correct"].mean()
    assert (attacked.values["said_decoy"] == wrong).all()
