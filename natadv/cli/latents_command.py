"""`natadv latents ...`: what the latents of a sparse autoencoder do on datasets."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from natadv.cli import shared_options as opt
from natadv.errors import ModelError, counted
from natadv.evaluate.devices import usable_device
from natadv.explain.latents import LOW_ENTROPY, TOP

if TYPE_CHECKING:
    from natadv.evaluate.latents import DatasetLatents, LatentReader, RisingLatent, TwinLatents

_DATA = "of natadv data list; with commas, of several. An attack is compared with its clean dataset"
_JUDGE = "says how alike pictures are, for monosemanticity; default: the model itself"
_JSON = "gets the points of every latent, and the latents that appear under attack"
_PICTURES = "gets a contact sheet for each of the latents that an attack brings out most"
_SHOWN = 8
"""Latents of an attack that are printed, and that get a contact sheet."""

app = opt.command_group()


@app.command(
    cls=opt.Command,
    epilog=opt.example(
        "natadv latents --model mini-clip --sae fixtures/autoencoders/mini-clip "
        "--data mini,mini-typo"
    ),
)
def latents(
    model: opt.Model,
    sae: Annotated[Path, opt.path("of an autoencoder that natadv train sae has written")],
    data: Annotated[str, opt.text("D1[,D2...]", _DATA)],
    judge: Annotated[str | None, opt.text("MODEL", _JUDGE)] = None,
    limit: opt.Limit = None,
    json: Annotated[Path | None, opt.output(_JSON, metavar="FILE")] = None,
    pictures: Annotated[Path | None, opt.output(_PICTURES)] = None,
    device: opt.Device = "auto",
    threads: opt.Threads = opt.CPUS,
) -> None:
    """Show what the latents of a sparse autoencoder do on datasets.

    For each dataset: how often and how much they are active, for how many labels, and how alike
    the pictures are that share one; for an attack also which of them appear, beyond chance, where
    the clean twins do not activate them.
    """
    from natadv.evaluate.datasets import dataset_named
    from natadv.evaluate.latents import dataset_latents, paired, rising_latents

    root = Path.cwd()
    datasets = {name: dataset_named(name, root) for name in opt.split_names(data)}
    reader = _reader(model, sae, judge, device=usable_device(device), threads=threads)
    found = {
        name: dataset_latents(dataset, reader, limit=limit, stream=sys.stderr)
        for name, dataset in datasets.items()
    }
    config = reader.autoencoder.config
    opt.tell(
        f"{sae}: {config.kind}, {config.latents} latents, {config.tokens} of layer "
        f"{config.layer}; pictures are alike as {judge or model} sees them"
    )
    opt.tell(*_table(found))
    rising: dict[str, list[RisingLatent]] = {}
    for name, attack in found.items():
        clean = found.get(str(attack.dataset.card.twin_of))
        if clean is None:
            continue
        pairs = paired(attack, clean)
        rising[name] = rising_latents(pairs)
        opt.tell(*_appearing(name, pairs, rising[name]))
        if pictures is not None:
            _write_sheets(pictures, name, pairs, rising[name][:_SHOWN])
    if json is not None:
        _write_json(json, found, rising)


def _reader(model: str, sae: Path, judge: str | None, *, device: str, threads: int) -> LatentReader:
    """Load the model, its autoencoder and the judge. Raises ModelError if one does not fit."""
    from natadv.evaluate.latents import LatentReader
    from natadv.explain.autoencoder import Openable, load_autoencoder
    from natadv.models.loading import fingerprint, load
    from natadv.models.resolve import resolve_one
    from natadv.types import ZeroShotClassifier

    root = Path.cwd()
    spec = resolve_one(model, root=root, wanted="whose latents to show")
    weights = fingerprint(spec)
    autoencoder = load_autoencoder(sae, tower=weights, model=spec.name).to(device)
    opened = load(spec, device=device, dtype="float32", threads=threads)
    if not isinstance(opened, Openable):
        raise ModelError(f"{spec.name}: its adapter cannot open the layers of its picture tower")
    judging: Any = opened
    if judge is not None and judge != model:
        other = resolve_one(judge, root=root, wanted="to judge how alike pictures are")
        judging = load(other, device=device, dtype="float32", threads=threads)
    if not isinstance(judging, ZeroShotClassifier):
        raise ModelError(f"{judge or model} embeds no pictures; name another --judge")
    return LatentReader(opened, autoencoder, judging)


def _table(found: Mapping[str, DatasetLatents]) -> list[str]:
    """A line per dataset, below their headings."""
    width = max(len("dataset"), *map(len, found))
    lines = [
        f"{'dataset':{width}}  pictures  dead  active  frequency  activation  low entropy  "
        "by chance  MS eq. 6  MS weighted"
    ]
    for name, latents in found.items():
        points, scores = latents.points, latents.monosemanticity
        living = points.frequency > 0
        lines.append(
            f"{name:{width}}  {latents.found.n:8}  {points.dead:4}  "
            f"{points.frequency.sum():6.1f}  {_median(points.frequency[living]):9.4f}  "
            f"{_median(points.activation):10.3f}  {points.low_entropy:11.3f}  "
            f"{latents.by_chance:9.3f}  {_mean(scores.mean):8.6f}  {_mean(scores.weighted):11.4f}"
        )
    lines.append(
        "active: latents of a picture; frequency, activation: medians over living latents; low "
        f"entropy: share of them whose top {TOP} pictures have nearly one label (below "
        f"{LOW_ENTROPY} nats); by chance: the same with labels shuffled"
    )
    return lines


def _appearing(name: str, pairs: TwinLatents, rising: Sequence[RisingLatent]) -> list[str]:
    """What an attack brings out."""
    lines = [
        f"{name}: {counted(len(rising), 'latent')} appear under attack in "
        f"{counted(len(pairs.after), 'pair')} (Holm, 5%)"
    ]
    for row in rising[:_SHOWN]:
        difference = row.attacked - row.clean
        lines.append(
            f"  latent {row.latent}: active on {row.clean:.3f} of the clean twins, on "
            f"{row.attacked:.3f} under attack: {difference:+.3f} "
            f"({row.low:+.3f} to {row.high:+.3f})"
        )
    return lines


def _write_sheets(
    folder: Path, name: str, pairs: TwinLatents, rising: Sequence[RisingLatent]
) -> None:
    """A contact sheet for each latent: the pairs in which the attack adds most to it."""
    from natadv.data.reader import decode_image, read_rows
    from natadv.report.sheet import MOST_TILES, Panel, Tile, contact_sheet
    from natadv.storage.atomic import write_whole
    from natadv.tasks.task import Caption

    for row in rising:
        at = pairs.top(row.latent, most=MOST_TILES)
        shown: list[list[Any]] = []
        for side, rows in ((pairs.clean, pairs.before[at]), (pairs.attack, pairs.after[at])):
            order = sorted(set(rows.tolist()))
            samples = read_rows(side.dataset.folder, side.dataset.card, order)
            by_row = dict(zip(order, samples, strict=True))
            shown.append([by_row[i] for i in rows.tolist()])
        clean, attacked = (values[at] for values in pairs.values(row.latent))
        classes = pairs.attack.dataset.card.classes
        tiles = []
        for i, twins in enumerate(zip(*shown, strict=True)):
            images = (Panel(decode_image(s.image, where=s.id)) for s in twins)
            label = "" if twins[1].label is None else f", {classes[twins[1].label]}"
            decoy = f" (says {twins[1].decoy})" if twins[1].decoy else ""
            captions = (Caption(f"{clean[i]:.2f} -> {attacked[i]:.2f}{label}{decoy}"),)
            tiles.append(Tile(tuple(images), captions))
        title = (
            f"Latent {row.latent} on {name}: {row.clean:.3f} -> {row.attacked:.3f} of the pictures"
        )
        path = folder / f"{name}-latent-{row.latent}.png"
        write_whole(path, contact_sheet(tiles, title=title))
        print(f"wrote {path}")


def _write_json(
    path: Path,
    found: Mapping[str, DatasetLatents],
    rising: Mapping[str, Sequence[RisingLatent]],
) -> None:
    import json

    from natadv.storage.atomic import write_whole

    content = {
        name: {
            "pictures": latents.found.n,
            "revision": latents.dataset.card.revision,
            **{key: _plain(values) for key, values in asdict(latents.points).items()},
            "monosemanticity": _plain(latents.monosemanticity.mean),
            "monosemanticity_weighted": _plain(latents.monosemanticity.weighted),
            "rising": [row._asdict() for row in rising[name]] if name in rising else None,
        }
        for name, latents in found.items()
    }
    write_whole(path, f"{json.dumps(content, indent=1, allow_nan=False)}\n".encode())
    print(f"wrote {path}")


def _plain(values: np.ndarray) -> list[float | None]:
    """As JSON, which has no NaN."""
    return [None if np.isnan(value) else float(value) for value in values]


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
