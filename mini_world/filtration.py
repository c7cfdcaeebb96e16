"""Hard scenes that fool an ensemble of small classifiers, and that a person still recognises."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from mini_world.ensemble import Member, load_ensemble, probabilities
from mini_world.pool import seen_by_model
from mini_world.render import masks, render
from mini_world.sampling import STYLES, draw_scene
from mini_world.scene import Scene, main_thing
from mini_world.sprites import Split
from mini_world.view import view_of
from mini_world.vocabulary import EVALUATED
from natadv.pipelines.filtering import ensemble_predictions, fools_all
from natadv.rng import rng_for

Settings = dict[str, Any]
_NAMES = tuple(EVALUATED)
_ROUND = 500


def filtered_scenes(settings: Settings) -> Iterator[tuple[Scene, Split]]:
    """The same number per class and part, class after class in turn."""
    members = load_ensemble()
    kept: dict[tuple[str, Split], list[Scene]] = {}
    parts: tuple[tuple[Split, int], ...] = (
        ("seen", settings["per_class_seen"]),
        ("held-out", settings["per_class_held_out"]),
    )
    for name in _NAMES:
        for part, wanted in parts:
            kept[name, part] = _fooling(name, part, wanted, members, settings)
    for part, wanted in parts:
        for place in range(wanted):
            for name in _NAMES:
                yield kept[name, part][place], part


def _fooling(
    name: str, part: Split, wanted: int, members: dict[str, Member], settings: Settings
) -> list[Scene]:
    """The first scenes of the class and part that pass."""
    found: list[Scene] = []
    tried = 0
    while len(found) < wanted:
        scenes = [
            scene
            for number in range(tried, tried + _ROUND)
            if recognisable(scene := _scene(name, part, number, settings), settings)
        ]
        tried += _ROUND
        pixels = np.stack([seen_by_model(render(scene)) for scene in scenes])
        truth = np.full(len(scenes), _NAMES.index(name))
        predictions = ensemble_predictions(probabilities(members, pixels), truth)
        fooled = fools_all(predictions, threshold=settings["threshold"])
        found += [scene for scene, keep in zip(scenes, fooled, strict=True) if keep]
    print(f"{name}, {part}: {len(found)} of {tried} hard scenes pass", flush=True)
    return found[:wanted]


def _scene(name: str, part: Split, number: int, settings: Settings) -> Scene:
    rng = rng_for(settings["seed"], "hard", name, part, number)
    return draw_scene(name, STYLES["hard"], split=part, rng=rng)


def recognisable(scene: Scene, settings: Settings) -> bool:
    """Enough of the animal is in view, nobody would call it by another name, and it stands out
    from what is behind it."""
    main = main_thing(scene)
    assert main is not None
    if main.name not in view_of(scene).kinds:
        return False
    place = scene.things.index(main)
    in_view = masks(scene)[place]
    # Alone and in the middle it could show this much.
    alone = masks(Scene(0, "plain", (replace(main, x=0.5, y=0.5),)))[0]
    if in_view.sum() < settings["least_px"]:
        return False
    if in_view.sum() < settings["least_share"] * alone.sum():
        return False
    without = replace(scene, things=scene.things[:place] + scene.things[place + 1 :])
    shown, hidden = (np.asarray(render(s), np.float64) for s in (scene, without))
    contrast = np.abs(shown - hidden).mean(axis=2)[in_view].mean()
    return bool(contrast >= settings["least_contrast"])
