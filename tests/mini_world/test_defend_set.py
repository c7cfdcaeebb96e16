from __future__ import annotations

import json
from itertools import islice

from mini_world.datasets import NAMES as EVALUATED
from mini_world.defend_set import NAMES, samples
from mini_world.scene import from_json
from mini_world.sprites import sprites


def test_defences_meet_no_class_of_the_gate_and_no_drawing_that_is_held_out():
    some = list(islice(samples(), 40))

    assert set(NAMES).isdisjoint(EVALUATED)
    assert some == list(islice(samples(), 40))
    assert len({sample.group for sample in some}) == 40
    for sample in some:
        scene = from_json(json.dumps(json.loads(sample.facts)["scene"]))
        assert scene.main == NAMES[sample.label or 0]
        assert all(sprites()[thing.drawing].split == "seen" for thing in scene.things)
