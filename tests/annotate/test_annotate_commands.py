from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from natadv.cli import main
from natadv.data.card import DATASETS_FOLDER, load_card

from ..tiny_grounding import save_dino, save_sam
from .conftest import Fault


@pytest.fixture
def run(pack, capsys):
    root = pack()

    def ran(*arguments):
        code = main(["annotate", *arguments, "--root", str(root)])
        return code, capsys.readouterr()

    return ran


def test_masks_by_the_real_architectures(run, tmp_path):
    dino, sam = save_dino(tmp_path / "tiny-dino"), save_sam(tmp_path / "tiny-sam")
    command = ("masks", "pets", "--name", "pets-masks", "--boxes", str(dino), "--masks", str(sam))
    settings = ("--device", "cpu", "--threads", "1", "--box-threshold", "0.001")

    code, said = run(*command, *settings)

    card = load_card(tmp_path / DATASETS_FOLDER / "pets-masks")
    assert code == 0, said.err
    assert card.tasks == ("segmentation",)
    assert f"{card.rows} samples" in said.out
    assert "review.jsonl" in said.out
    review = (tmp_path / "fixtures/annotations/pets-masks/review.jsonl").read_text()
    assert set(json.loads(review.splitlines()[0])["about"]["models"]) == {"tiny-dino", "tiny-sam"}
    again, _ = run(*command, *settings, "--force")
    assert again == 0
    assert load_card(tmp_path / DATASETS_FOLDER / "pets-masks").revision == card.revision


def test_masks_say_how_to_get_the_models(run):
    code, said = run("masks", "pets", "--name", "pets-masks")

    assert code == 4
    assert "natadv models fetch IDEA-Research/grounding-dino-tiny" in said.err


def test_questions_by_templates_need_nothing(run, tmp_path, monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    code, said = run("questions", "pets", "--name", "pets-asked", "--per-picture", "2")

    assert code == 0, said.err
    assert "10 samples, 0 pictures left out" in said.out
    assert load_card(tmp_path / DATASETS_FOLDER / "pets-asked").tasks == ("vqa",)


def test_questions_by_an_endpoint(run, fake_endpoint, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_BASE_URL", fake_endpoint.url)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    prices = ("--price-in", "2", "--price-out", "10")

    code, said = run(
        *("questions", "pets", "--name", "pets-asked", "--model", "seer", "--per-picture", "2"),
        *prices,
    )

    assert code == 0, said.err
    assert "spent so far: 5 replies, 500 tokens in, 100 tokens out, cost 0.0020" in said.err
    assert len(fake_endpoint.asked) == 5


def test_a_budget_stops_the_run_and_more_of_it_goes_on(run, fake_endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", fake_endpoint.url)
    command = (
        *("questions", "pets", "--name", "pets-asked", "--model", "seer", "--per-picture", "2"),
        *("--price-in", "2", "--price-out", "10", "--at-once", "1", "--budget"),
    )

    stopped, said = run(*command, "0.0007")
    assert (stopped, len(fake_endpoint.asked)) == (4, 2)
    assert "raise --budget" in said.err

    assert run(*command, "1")[0] == 0
    assert len(fake_endpoint.asked) == 5


def test_a_name_that_no_dataset_can_have_is_refused_first(
    run, fake_endpoint, monkeypatch, tmp_path
):
    monkeypatch.setenv("OPENAI_BASE_URL", fake_endpoint.url)
    before = sorted(tmp_path.rglob("*"))
    kinds = [("questions", "--model", "seer", "--per-picture", "2"), ("questions",), ("masks",)]
    for name in ("../../evil", "/dev/null/evil", "..", "Pets", "a b", "a\n"):
        for kind, *options in kinds:
            spent = tmp_path / "fixtures/annotations" / name / "spent.jsonl"

            code, said = run(kind, "pets", "--name", name, *options)

            assert code == 4, (name, kind)
            assert f"--name {name!r} cannot be the name of a dataset" in said.err
            assert fake_endpoint.asked == [], (name, kind)
            assert sorted(tmp_path.rglob("*")) == before, (name, kind)
            assert not spent.exists(), (name, kind)


def test_without_an_endpoint_it_is_told_what_to_set(run, monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    code, said = run("questions", "pets", "--name", "pets-asked", "--model", "seer")

    assert code == 4
    assert "OPENAI_API_KEY" in said.err


def test_a_budget_without_prices_is_refused(run):
    code, said = run(
        *("questions", "pets", "--name", "pets-asked", "--model", "seer", "--budget", "1")
    )

    assert code == 4
    assert "--price-in" in said.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("masks", "pets"), "missing option '--name'"),
        (
            ("questions", "pets", "--name", "x", "--per-picture", "0"),
            "expected at least 1, got '0'",
        ),
        (
            ("masks", "pets", "--name", "x", "--box-threshold", "1.5"),
            ": expected a number from 0",
        ),
        (
            ("masks", "pets", "--name", "x", "--box-threshold", "nan"),
            ": expected a number from 0",
        ),
        (
            ("questions", "pets", "--name", "x", "--per-minute", "a"),
            ": expected a number above 0",
        ),
    ],
)
def test_a_wrong_option_is_a_usage_error(run, arguments, message):
    code, told = run(*arguments)

    error = told.err
    assert code == 4
    assert message in error
    assert "Value error" not in error


def test_an_unknown_dataset_is_told_with_the_nearest(run):
    code, said = run("questions", "pet", "--name", "x")

    assert code == 4
    assert "did you mean 'pets'" in said.err


def test_a_run_that_was_killed_outright_goes_on(run, fake_endpoint, monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_BASE_URL", fake_endpoint.url)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    command = [
        *("questions", "pets", "--name", "pets-asked", "--model", "seer", "--per-picture", "2"),
        *("--at-once", "1"),
    ]
    fake_endpoint.faults = [None, None, Fault(late=True)]
    code = "import sys; from natadv.cli import main; sys.exit(main())"
    arguments = [sys.executable, "-c", code, "annotate", *command, "--root", str(tmp_path)]
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as victim:
        deadline = time.monotonic() + 60
        while len(fake_endpoint.asked) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        victim.kill()
    assert not (tmp_path / DATASETS_FOLDER / "pets-asked").exists()

    exit_code, said = run(*command)

    assert exit_code == 0, said.err
    assert "10 samples" in said.out
    assert len(fake_endpoint.asked) == 3 + 3
