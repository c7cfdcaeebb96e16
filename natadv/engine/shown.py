"""Pictures of an attack with what was said of them, to be looked at without the model."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from natadv.data.reader import decode_image, read_by_id
from natadv.engine.answered import Answer
from natadv.engine.datasets import Dataset
from natadv.engine.laying import laid, row_of
from natadv.scenarios.typographic.attack import Attack
from natadv.types import Sample


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture that was shown twice."""

    clean: Sample
    attacked: Sample
    """Holds no picture of its own: it is drawn on the clean one."""
    before: Answer
    after: Answer


def shown_json(shown: Sequence[Shown]) -> list[dict[str, Any]]:
    """What was said, as JSON values; the pictures stay in their dataset."""
    return [
        {"id": one.clean.id, "before": _json(one.before), "after": _json(one.after)}
        for one in shown
    ]


def shown_from(
    raw: Sequence[Mapping[str, Any]], attack: Attack, dataset: Dataset
) -> tuple[Shown, ...]:
    """Of what `shown_json` gave. Raises DataError if the dataset has not all of the pictures."""
    samples = read_by_id(dataset.folder, dataset.card, {one["id"] for one in raw})
    clean = {sample.id: sample for sample in samples}
    return tuple(_shown(one, attack, clean[one["id"]]) for one in raw)


def _shown(raw: Mapping[str, Any], attack: Attack, clean: Sample) -> Shown:
    size = decode_image(clean.image, where=clean.id).size
    overlay = laid(attack.drawn, attack.text, clean, size=size)
    attacked = row_of(overlay, clean, decoy=attack.decoy, size=size)
    return Shown(clean, attacked, _answer(raw["before"]), _answer(raw["after"]))


def _json(answer: Answer) -> dict[str, Any]:
    mask = {} if answer.mask is None else {"mask": base64.b64encode(answer.mask).decode()}
    return {
        "said": answer.said,
        "right": answer.right,
        "values": dict(answer.values),
        **mask,
    }


def _answer(raw: Mapping[str, Any]) -> Answer:
    mask = base64.b64decode(raw["mask"]) if "mask" in raw else None
    return Answer(raw["said"], raw["right"], raw["values"], mask)
