from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from natadv.annotate import job
from natadv.cli import main
from natadv.report.sheet import Tile

pytestmark = pytest.mark.usefixtures("one_line_each")

REPOSITORY = Path(__file__).resolve().parents[2]


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


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


def test_force_replaces(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("data", "import", "imagefolder", photos, "--name", "fish", "--root", tmp_path)
    run(*command)

    assert run(*command) == 4
    assert "replace it with --force" in capsys.readouterr().err
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
    assert run(*arguments) == 4


def test_status_shows_what_is_there_and_how_to_get_the_rest(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("data", "import", "imagefolder", photos, "--name", "fish", "--root", tmp_path)
    capsys.readouterr()

    code = run("data", "status", "--root", tmp_path)

    lines = capsys.readouterr().out.splitlines()
    assert code == 0
    assert lines[0].split() == ["dataset", "there", "revision", "lock", "rows", "MB", "licence"]
    assert any(line.startswith("fish ") and " yes " in line for line in lines)
    place = lines.index("rta-100:")
    assert lines[place + 1].startswith("  dvc import-url https://github.com")


def test_status_of_a_broken_dataset_is_an_error(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("data", "import", "imagefolder", photos, "--name", "fish", "--root", tmp_path)
    (tmp_path / "fixtures/datasets/fish/shard-00000.parquet").unlink()

    assert run("data", "status", "--root", tmp_path) == 1
    assert "shard-00000.parquet: 0 bytes, the card says" in capsys.readouterr().out


def test_what_was_set_aside_is_told(
    tmp_path: Path, encode: Callable[..., bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("label=cat_text=dog.png", "other.png"):
        (tmp_path / "rta").mkdir(exist_ok=True)
        (tmp_path / "rta" / name).write_bytes(encode())

    code = run("data", "import", "rta-100", tmp_path / "rta", "--root", tmp_path)

    captured = capsys.readouterr()
    assert code == 0
    assert "1 set aside, first other.png: not named label=..._text=...; all are" in captured.out
    assert "rta-100: 2 of 2 pictures" in captured.err


def test_rows_are_imported_with_columns_of_other_names(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"file": f"photos/{path}", "animal": path[:9]}
        for path in ("n01440764/a.png", "n01443537/b.png")
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    command = ("data", "import", "jsonl", path, "--name", "fish", "--root", tmp_path)

    assert run(*command) == 4
    assert f"{path}: 2 of 2 rows cannot be used" in capsys.readouterr().err
    assert run(*command, "--column", "image=file", "label=animal", "--classes", "imagenet") == 0
    assert "2 samples, 1000 classes, clean, classification" in capsys.readouterr().out


@pytest.mark.parametrize("format", ["imagenet", "vqa-v2", "scam", "parquet", "jsonl", "gqa"])
def test_each_format_has_help(format: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", "import", format, "--help") == 0
    assert "--name" in capsys.readouterr().out


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> list[Tile]:
    """The tiles of the sheets that are drawn."""
    drawn: list[Tile] = []
    draw = job.contact_sheet

    def contact_sheet(part: Sequence[Tile], *, title: str) -> bytes:
        drawn.extend(part)
        return draw(part, title=title)

    monkeypatch.setattr(job, "contact_sheet", contact_sheet)
    return drawn


def test_show_draws_the_samples_with_all_that_they_have(
    tiles: list[Tile], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run(
        *("data", "show", "mini", "--pictures", 14, "--out", tmp_path, "--root", REPOSITORY)
    )

    assert shown == 0
    assert f"{tmp_path / 'mini' / 'sheets'}: 2 sheets of 14 samples" in capsys.readouterr().out
    pages = sorted((tmp_path / "mini" / "sheets").iterdir())
    assert [page.name for page in pages] == ["0001.png", "0002.png"]
    assert len(tiles) == 14
    for tile in tiles:
        kinds = [caption.text.partition(":")[0] for caption in tile.captions]
        assert kinds[:2] == ["class", "phrase"], kinds
        assert kinds[3] == "people"
        assert len(tile.panels[0].outlines) == 1
    assert len({tile.captions[0].text for tile in tiles}) > 3


def test_show_draws_overlays_on_their_clean_pictures(tiles: list[Tile], tmp_path: Path) -> None:
    command = ("data", "show", "mini-counterexamples", "--out", tmp_path, "--root", REPOSITORY)

    assert run(*command, "--pictures", 2) == 0
    for tile in tiles:
        assert any(caption.text.startswith("word: ") for caption in tile.captions)
        assert tile.panels[0].outlines[0].mask.size == tile.panels[0].image.size


def test_an_unknown_dataset_names_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("data", "show", "minni", "--out", tmp_path, "--root", REPOSITORY) == 4
    assert "did you mean 'mini'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
