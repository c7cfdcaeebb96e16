from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from natadv.cli import main
from natadv.explain.autoencoder import AutoencoderConfig, save_autoencoder
from natadv.models.loading import fingerprint
from natadv.models.resolve import resolve_one
from natadv.rng import rng_for
from natadv.training.sae_training import initial

pytestmark = pytest.mark.usefixtures("one_line_each")

ROOT = Path(__file__).resolve().parents[2]
LATENTS = 64


@pytest.fixture
def sae(tmp_path, monkeypatch):
    """An untrained autoencoder of mini-clip, in whose k largest latents an attack shows too."""
    monkeypatch.chdir(ROOT)
    config = AutoencoderConfig(
        kind="topk", layer=5, tokens="class", width=128, latents=LATENTS, k=8
    )
    some = rng_for("some").standard_normal((30, 128)).astype(np.float32)
    spec = resolve_one("mini-clip", root=ROOT, wanted="")
    save_autoencoder(
        tmp_path / "sae", initial(config, some, seed=3), tower=fingerprint(spec), facts={}
    )
    return tmp_path / "sae"


def run(capsys, sae, *arguments):
    names = ["--sae", str(sae), "--device", "cpu", "--threads", "1"]
    code = main(["latents", *names, *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_table_the_points_and_the_pictures(sae, tmp_path, capsys):
    code, out, _ = run(
        capsys, sae, "--model", "mini-clip", "--data", "mini,mini-typo", "--limit", "64",
        "--json", str(tmp_path / "points.json"), "--pictures", str(tmp_path / "sheets"),
    )  # fmt: skip

    assert code == 0
    points = json.loads((tmp_path / "points.json").read_text())
    lines = out.splitlines()
    assert "topk, 64 latents, class of layer 5; pictures are alike as mini-clip sees them" in out
    for name in ("mini", "mini-typo"):
        (line,) = [line for line in lines if line.split()[0] == name]
        told = dict(zip(("n", "dead", "active"), line.split()[1:4], strict=True))
        frequency = points[name]["frequency"]
        assert told == {
            "n": "64",
            "dead": str(frequency.count(0)),
            "active": f"{sum(frequency):.1f}",
        }
        assert sum(frequency) == pytest.approx(8)
        assert len(points[name]["monosemanticity_weighted"]) == LATENTS
    assert points["mini"]["rising"] is None
    rising = points["mini-typo"]["rising"]
    assert f"mini-typo: {len(rising)} latent" in out
    assert "in 64 pairs" in out
    assert rising
    sheets = sorted(path.name for path in (tmp_path / "sheets").iterdir())
    assert sheets == sorted(f"mini-typo-latent-{row['latent']}.png" for row in rising[:8])
    with Image.open(tmp_path / "sheets" / sheets[0]) as sheet:
        assert sheet.width > 600


def test_another_judge_and_what_cannot_be_read(sae, capsys, tmp_path):
    few = ("--data", "mini", "--limit", "9")
    own, other = (
        run(capsys, sae, "--model", "mini-clip", *few, *judge)[1]
        for judge in ((), ("--judge", "mini-siglip"))
    )
    assert "as mini-siglip sees them" in other
    # Only the scores of likeness depend on the judge: the last two columns.
    mine, theirs = (
        next(line.split() for line in out.splitlines() if line.startswith("mini "))
        for out in (own, other)
    )
    assert mine[:-2] == theirs[:-2]
    assert mine[-1] != theirs[-1]
    for arguments, part in (
        (("--model", "mini-siglip", *few), "was trained on a tower with hash"),
        (("--model", "mini-clip", "--data", "minni"), "did you mean 'mini'"),
    ):
        code, _, said = run(capsys, sae, *arguments)
        assert code == 4
        assert part in said
        assert "Traceback" not in said
    code, _, said = run(capsys, tmp_path, "--model", "mini-clip", *few)
    assert (code, "no config.json" in said) == (4, True)
