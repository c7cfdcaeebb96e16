"""`natadv overlays`: a population is drawn, frozen and looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from natadv import cli
from natadv.scenarios.typographic.population import read_population

ROOT = Path(__file__).resolve().parents[2]
BOUNDS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())["overlays"]
COMMITTED = ROOT / "fixtures" / "populations" / "mini-overlays.json"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    bounds = {"overlays": BOUNDS, "large": {**BOUNDS, "size": [0.3, 0.4]}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(bounds))
    return tmp_path


def draw(root: Path, *arguments: str, name: str = "few", count: int = 5) -> int:
    usual = ("--name", name, "--count", str(count), "--root", str(root))
    return cli.main(["overlays", "draw", *usual, *arguments])


def drawn(root: Path, name: str = "few") -> Path:
    return root / "fixtures" / "populations" / f"{name}.json"


def test_what_is_drawn_is_frozen_and_told(root, capsys):
    assert draw(root) == 0

    assert capsys.readouterr().out == f"{drawn(root)}: 5 overlays\n"
    found = read_population(drawn(root))
    assert (found.name, found.seed, len(found.overlays)) == ("few", 1, 5)
    assert found.bounds.model_dump() == BOUNDS
    assert [path.name for path in root.iterdir() if path.name.startswith(".")] == []


def test_the_same_settings_give_the_same_bytes(root):
    draw(root)
    before = drawn(root).read_bytes()

    assert draw(root) == 0
    assert drawn(root).read_bytes() == before


def test_more_overlays_begin_with_fewer(root):
    draw(root)
    draw(root, name="more", count=9)

    more = read_population(drawn(root, "more"))
    assert more.overlays[:5] == read_population(drawn(root)).overlays


def test_a_section_has_its_own_bounds(root):
    draw(root, "--settings", "large")

    sizes = [one.overlay.size for one in read_population(drawn(root)).overlays]
    assert min(sizes) >= 0.3


def test_a_frozen_population_is_only_replaced_by_force(root, capsys):
    draw(root)
    before = drawn(root).read_bytes()

    assert draw(root, "--seed", "2") == 4
    assert "is frozen" in capsys.readouterr().err
    assert drawn(root).read_bytes() == before
    assert draw(root, "--seed", "2", "--force") == 0
    assert read_population(drawn(root)).seed == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--settings", "overlay"), "did you mean 'overlays'?"),
        (("--count", "0"), "at least one overlay, got 0"),
        (("--name", "../few"), "is named with small letters"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(root, capsys, arguments, message):
    assert draw(root, *arguments) == 4

    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1
    assert not (root / "fixtures").exists()


def test_bounds_that_are_wrong_are_told_with_their_file(root, capsys):
    path = root / "params.yaml"
    for params, message in [
        ("overlays: 3\n", "section 'overlays' must hold settings, got int"),
        (
            yaml.safe_dump({"overlays": {**BOUNDS, "size": [0.4, 0.1]}}),
            "size: expected [least, most], got [0.4, 0.1]",
        ),
        (yaml.safe_dump({"overlays": {**BOUNDS, "seize": 1}}), "seize: Extra inputs"),
        ("a: [\n", "not valid YAML"),
        ("", "expected sections, got NoneType"),
        ("- a\n", "expected sections, got list"),
        (None, "cannot be read"),
    ]:
        path.unlink() if params is None else path.write_text(params)

        assert draw(root) == 4
        error = capsys.readouterr().err
        assert str(path) in error
        assert message in error
        assert not (root / "fixtures").exists()


def test_the_committed_population_is_what_any_process_draws(tmp_path):
    """With constants of a local module in memory, which Hypothesis by itself would mix in."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "unrelated.py").write_text("SIZES = [17, 23, 31337]\nNAMES = ['squirrel']\n")
    code = (
        "import sys, unrelated; from natadv.cli import main; "
        "sys.exit(main(['overlays', 'draw', '--name', 'mini-overlays', '--count', '40', "
        "'--seed', '1', '--settings', 'mini-overlays']))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)

    made = tmp_path / "fixtures" / "populations" / "mini-overlays.json"
    assert made.read_bytes() == COMMITTED.read_bytes()


def test_the_committed_population_is_large_enough_for_mini_models():
    found = read_population(COMMITTED)

    assert len(found.overlays) == 40
    # Of a picture that is 64 px high.
    assert min(one.overlay.size for one in found.overlays) * 64 > 6
    assert {one.kind for one in found.overlays} == set(found.bounds.kinds)


def test_every_overlay_is_shown_on_a_picture(root, tmp_path, capsys):
    draw(root, count=14)
    (root / "fixtures" / "datasets").symlink_to(ROOT / "fixtures" / "datasets")

    assert cli.main(["overlays", "show", "few", "--data", "mini", "--root", str(root)]) == 0
    sheets = root / ".natadv" / "overlays" / "few" / "sheets"
    assert f"{sheets}: 2 pages" in capsys.readouterr().out
    pages = sorted(sheets.iterdir())
    assert [page.name for page in pages] == ["0001.png", "0002.png"]
    with Image.open(pages[0]) as first, Image.open(pages[1]) as second:
        assert first.height > 2 * second.height


def test_what_cannot_be_shown_is_told(root, capsys):
    show = ["overlays", "show", "few", "--data", "mini", "--root", str(root)]

    assert cli.main(show) == 4
    assert "natadv overlays draw" in capsys.readouterr().err
    draw(root)
    assert cli.main(show) == 4
    assert "mini" in capsys.readouterr().err


def test_the_stage_draws_what_is_committed():
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["population"]

    assert json.loads(COMMITTED.read_text())["seed"] == 1
    assert "--name mini-overlays --count 40 --seed 1 --settings mini-overlays" in stage["cmd"]
    assert [dep for dep in stage["deps"] if not (ROOT / dep).exists()] == []
