from __future__ import annotations

import pytest

from natadv import cli


def output_of(capsys, *arguments: str) -> tuple[int, str]:
    """The exit code of `natadv train ARGUMENTS`, and all that it said."""
    code = cli.main(["train", *arguments])
    said = capsys.readouterr()
    return code, said.out + said.err


@pytest.fixture
def inside(root, monkeypatch):
    monkeypatch.chdir(root)
    return root


def test_help_names_every_setting(capsys):
    assert "warm_up" in output_of(capsys, "vqa", "--help")[1]


def test_a_training_from_the_command_line(inside, tmp_path, capsys):
    settings = ["steps=4", "batch=4", "reduce_width=8", "heads=2", "feed_forward=8"]
    arguments = ["--model", "mini-clip", "--data", "animals", "--out", str(tmp_path / "head")]
    more = ["--threads", "1", "--device", "cpu", "--limit", "20", "--set", *settings]

    code, said = output_of(capsys, "segmentation", *arguments, *more)

    assert code == 0
    assert f"{tmp_path / 'head'}: 4 steps in" in said
    assert (tmp_path / "head" / "curve.png").exists()
    assert output_of(capsys, "segmentation", *arguments, *more)[0] == 4


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["segmentation", "--set", "stepz=1"], "did you mean 'steps'"),
        (["segmentation", "--settings", "nothing"], "params.yaml"),
        (["segmentation", "--limit", "0"], "expected at least 1, got '0'"),
        (["segmentation", "--threads", "0"], "expected at least 1, got '0'"),
        (["segmentation", "--device", "gpu"], "expected auto, cpu, cuda or cuda:N, got 'gpu'"),
        (["classification"], "unknown natadv train command 'classification'"),
    ],
)
def test_mistakes_are_reported_in_one_line(inside, tmp_path, capsys, arguments, part):
    names = ["--model", "mini-clip", "--data", "animals", "--out", str(tmp_path / "head")]

    code, said = output_of(capsys, *arguments, *names)

    assert code == 4
    assert part in said
    assert "Traceback" not in said
