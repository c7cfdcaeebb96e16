from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from natadv.data.commands import add_data_parser, progress_printer
from natadv.data.importers.progress import Progress
from natadv.errors import ConfigError


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser("natadv")
    add_data_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(list(map(str, arguments)))
    code: int = args.handler(args)
    return code


@pytest.fixture
def photos(tmp_path: Path, encode: Callable[..., bytes]) -> Path:
    for name in ("photos/n01440764/a.png", "photos/n01443537/b.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(encode())
    return tmp_path / "photos"


def test_import_makes_a_dataset_that_list_shows(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imported = run(
        *("data", "import", "imagefolder", photos, "--name", "fish", "--root", tmp_path),
        *("--classes", "imagenet", "--licence", "CC0-1.0"),
    )
    listed = run("data", "list", "--root", tmp_path)

    first, second = capsys.readouterr().out.splitlines()
    assert (imported, listed) == (0, 0)
    assert "2 samples, 1000 classes, clean, classification" in first
    assert second.startswith("fish ")
    assert "licence: CC0-1.0" in (tmp_path / "fixtures/datasets/fish/card.yaml").read_text()


def test_force_replaces(photos: Path, tmp_path: Path) -> None:
    command = ("data", "import", "imagefolder", photos, "--name", "fish", "--root", tmp_path)
    run(*command)

    with pytest.raises(ConfigError, match="--force"):
        run(*command)
    assert run(*command, "--force") == 0


def test_list_without_datasets_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "list", "--root", tmp_path) == 0
    assert "no datasets under" in capsys.readouterr().out


def test_list_names_a_broken_card_and_shows_the_others(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("good", "bad"):
        run("data", "import", "imagefolder", photos, "--name", name, "--root", tmp_path)
    (tmp_path / "fixtures/datasets/bad/card.yaml").write_text("name: bad\n")
    capsys.readouterr()

    code = run("data", "list", "--root", tmp_path)

    captured = capsys.readouterr()
    assert code == 1
    assert captured.out.startswith("good ")
    assert "bad/card.yaml" in captured.err


@pytest.mark.parametrize("arguments", [["data"], ["data", "import"], ["data", "import", "zip"]])
def test_half_a_command_is_a_usage_error(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)

    assert caught.value.code == 2


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_in_a_pipe_the_last_state_is_a_line() -> None:
    stream = io.StringIO()
    show = progress_printer(stream)

    for done in range(1, 101):
        show(Progress(done, 100, wall_s=done / 50))

    assert stream.getvalue() == "100/100 pictures, 50/s, ETA 0 s\n"


def test_on_a_terminal_the_line_is_rewritten_and_ended_once() -> None:
    stream = Terminal()
    show = progress_printer(stream)

    show(Progress(2, 2, wall_s=1))

    assert stream.getvalue() == "\r\x1b[K2/2 pictures, 2/s, ETA 0 s\n"


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress(0, 10, 0.0), "0/10 pictures, 0/s, ETA ?"),
        (Progress(5, 10, 2.5), "5/10 pictures, 2/s, ETA 2 s"),
        (Progress(10, 10, 1.0), "10/10 pictures, 10/s, ETA 0 s"),
    ],
)
def test_progress_tells_rate_and_time_left(progress: Progress, text: str) -> None:
    assert str(progress) == text
