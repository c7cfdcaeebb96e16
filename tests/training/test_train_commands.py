from __future__ import annotations

import pytest

from natadv import cli


def output_of(capsys, *arguments: str) -> tuple[int, str]:
    """The exit code of `natadv train ARGUMENTS`, and all that it said."""
    try:
        code = cli.main(["train", *arguments])
    except SystemExit as end:
        code = int(end.code or 0)
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
    assert output_of(capsys, "segmentation", *arguments, *more)[0] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["segmentation", "--set", "stepz=1"], 1, "did you mean 'steps'"),
        (["segmentation", "--settings", "nothing"], 1, "params.yaml"),
        (["segmentation", "--limit", "0"], 2, "greater than or equal to 1"),
        (["segmentation", "--threads", "0"], 2, "greater than or equal to 1"),
        (["segmentation", "--device", "gpu"], 1, "unknown device 'gpu'"),
        (["classification"], 2, "No such command 'classification'"),
    ],
)
def test_mistakes_are_reported_in_one_line(inside, tmp_path, capsys, arguments, code, part):
    names = ["--model", "mini-clip", "--data", "animals", "--out", str(tmp_path / "head")]

    found, said = output_of(capsys, *arguments, *names)

    assert found == code
    assert part in said
    assert "Traceback" not in said
