"""Tiny archives in the layout of each published dataset, of the animals of the mini world.

An animal is shown under the name of a class of ImageNet that it could be. The files are not the
published ones, so they must not have the names of the published ones either: an importer compares
a file of such a name with the published hash.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import contourpy
import numpy as np
from PIL import Image

from natadv.data.card import DATASETS_FOLDER, Card, load_card
from natadv.data.classes import ilsvrc2012_wnids
from natadv.data.reader import iter_samples
from natadv.types import Sample
from tests.data.importers.conftest import write_folder, write_parquet, write_tar, write_zip

ROOT = Path(__file__).resolve().parents[2]

IMAGENET = {
    "butterfly": "n02279972",  # monarch butterfly
    "cat": "n02123045",  # tabby cat
    "chicken": "n01514859",  # hen
    "cow": "n02403003",  # ox
    "dog": "n02099601",  # Golden Retriever
    "elephant": "n02504458",  # African bush elephant
    "horse": "n02389026",  # common sorrel horse
    "sheep": "n02412080",  # ram
    "spider": "n01773157",  # yellow garden spider
    "squirrel": "n02356798",  # fox squirrel
}
"""Animal of the mini world -> a class of ImageNet that it could be."""

IMAGENET_A = {
    "butterfly": "n02279972",  # monarch butterfly
    "cat": "n02123394",  # Persian cat
    "cow": "n02410509",  # bison
    "dog": "n02099601",  # Golden Retriever
    "elephant": "n02504458",  # African bush elephant
    "spider": "n01774750",  # tarantula
    "squirrel": "n02356798",  # fox squirrel
}
"""The same among the 200 classes of ImageNet-A, which have neither poultry nor horses nor sheep."""

PER_CLASS = 4
"""Pictures of an animal in an archive."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A sample of the mini world and the name of its animal."""

    sample: Sample
    animal: str

    @property
    def jpeg(self) -> bytes:
        """The picture as the published sets store theirs."""
        out = io.BytesIO()
        Image.open(io.BytesIO(self.sample.image)).convert("RGB").save(out, "JPEG", quality=95)
        return out.getvalue()


def shown(
    dataset: str, *, animals: Iterable[str] = IMAGENET, per_class: int = PER_CLASS
) -> list[Shown]:
    """The first pictures of each of the animals, in the order of the dataset."""
    card = _card(dataset)
    counts = dict.fromkeys(animals, 0)
    found: list[Shown] = []
    for sample in iter_samples(_folder(dataset), card):
        animal = card.classes[sample.label or 0]
        if counts.get(animal, per_class) < per_class:
            counts[animal] += 1
            found.append(Shown(sample, animal))
    return found


def write_archives(folder: Path) -> None:
    """Write all of them: about 1 MB."""
    _write_imagenet(folder / "imagenet", shown("mini"))
    # Enough that a broken model fails after the correction for all rules of the tier.
    hard = shown("mini-natural", animals=IMAGENET_A, per_class=12)
    _write_imagenet_a(folder / "imagenet-a", hard)
    _write_rta_100(folder / "rta-100")
    _write_phrasecut(folder / "VGPhraseCut_v0", shown("mini"))
    _write_vqa_v2(folder / "vqa-v2", shown("mini"))
    _write_scam(folder / "scam", shown("mini"))


def _write_imagenet(folder: Path, pictures: Sequence[Shown]) -> None:
    """The flat tar, and the devkit, whose ids of classes are not in the order of WordNet's."""
    ids = {wnid: number for number, wnid in ilsvrc2012_wnids().items()}
    truth = "".join(f"{ids[IMAGENET[picture.animal]]}\n" for picture in pictures)
    names = (f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, len(pictures) + 1))
    folder.mkdir(parents=True)
    files = {name: picture.jpeg for name, picture in zip(names, pictures, strict=True)}
    write_tar(folder / "tiny_img_val.tar", files)
    data = "ILSVRC2012_devkit_t12/data"
    write_tar(
        folder / "tiny_devkit_t12.tar.gz",
        {f"{data}/ILSVRC2012_validation_ground_truth.txt": truth.encode()},
    )


def _write_imagenet_a(folder: Path, pictures: Sequence[Shown]) -> None:
    folder.mkdir(parents=True)
    files = {
        f"imagenet-a/{IMAGENET_A[p.animal]}/0.{number:06d}_{p.animal} _ desktop_0.9.jpg": p.jpeg
        for number, p in enumerate(pictures)
    }
    write_tar(folder / "tiny-imagenet-a.tar", {"imagenet-a/README.txt": b"wnids", **files})


def _write_rta_100(folder: Path) -> None:
    """One picture for each pair of an animal and a wrong word that is written on one."""
    card = _card("mini-typo")
    files: dict[str, bytes] = {}
    for sample in iter_samples(_folder("mini-typo"), card):
        name = f"ours/data/label={card.classes[sample.label or 0]}_text={sample.decoy}.png"
        files.setdefault(name, sample.image)
    kept = dict(sorted(files.items())[:: len(files) // (PER_CLASS * len(card.classes))])
    folder.mkdir(parents=True)
    write_zip(folder / "tiny-rta100.zip", kept)


def _write_phrasecut(folder: Path, pictures: Sequence[Shown]) -> None:
    """As `download_dataset.py` leaves it."""
    tasks = [
        {
            "task_id": f"{number}__{number}",
            "image_id": number,
            "ann_ids": [number],
            "instance_boxes": [],
            "Polygons": [polygons(picture.sample.mask or b"")],
            "phrase": picture.sample.phrase,
            "phrase_structure": {"name": picture.animal, "type": "name"},
        }
        for number, picture in enumerate(pictures, start=1)
    ]
    files = {f"images/{number}.jpg": p.jpeg for number, p in enumerate(pictures, start=1)}
    write_folder(folder, {"refer_test.json": json.dumps(tasks).encode(), **files})


def polygons(mask: bytes) -> list[list[tuple[int, int]]]:
    """The outlines of a PNG mask, corners (x, y) in pixels; holes are filled."""
    inside = np.pad(np.asarray(Image.open(io.BytesIO(mask)).convert("L")) > 127, 1)
    # Just below 1, an outline runs through the outermost pixels inside.
    lines = contourpy.contour_generator(z=inside.astype(float)).lines(0.99)
    return [[(round(x) - 1, round(y) - 1) for x, y in line.tolist()] for line in lines]


def _write_vqa_v2(folder: Path, pictures: Sequence[Shown]) -> None:
    numbered = [(number, picture.sample) for number, picture in enumerate(pictures, start=1)]
    questions = [
        {"image_id": number, "question": sample.question, "question_id": number * 1000}
        for number, sample in numbered
    ]
    annotations = [
        {
            "question_type": "none of the above",
            "multiple_choice_answer": sample.answers[0],
            "answers": [
                {"answer": answer, "answer_confidence": "yes", "answer_id": index}
                for index, answer in enumerate(sample.answers, start=1)
            ],
            "image_id": number,
            "answer_type": sample.answer_type,
            "question_id": number * 1000,
        }
        for number, sample in numbered
    ]
    folder.mkdir(parents=True)
    _write_zipped_json(
        folder / "tiny_Questions_Val_mscoco.zip",
        "v2_OpenEnded_mscoco_val2014_questions.json",
        {"data_subtype": "val2014", "questions": questions},
    )
    _write_zipped_json(
        folder / "tiny_Annotations_Val_mscoco.zip",
        "v2_mscoco_val2014_annotations.json",
        {"data_subtype": "val2014", "annotations": annotations},
    )
    files = {
        f"val2014/COCO_val2014_{number:012d}.jpg": picture.jpeg
        for number, picture in enumerate(pictures, start=1)
    }
    write_zip(folder / "tiny_val2014.zip", files)


def _write_zipped_json(path: Path, name: str, content: Mapping[str, Any]) -> None:
    write_zip(path, {name: json.dumps(content).encode()})


def _write_scam(folder: Path, pictures: Sequence[Shown]) -> None:
    """All variants in one split, as on the hub: a clean picture, and its twins with a word."""
    attacked = {s.twin: s for s in iter_samples(_folder("mini-typo"), _card("mini-typo"))}
    rows = []
    for number, picture in enumerate(pictures):
        twin = attacked[picture.sample.id]
        images = {"SCAM": twin.image, "NoSCAM": picture.sample.image, "SynthSCAM": twin.image}
        rows += [
            {
                "image": {"bytes": image, "path": f"{variant}_{number:04d}.png"},
                "id": f"{variant}_{number:04d}",
                "object_label": picture.animal,
                "attack_word": twin.decoy,
                "postit_area_pct": 3.5,
                "type": variant,
            }
            for variant, image in images.items()
        ]
    write_parquet(folder / "data" / "train-00000-of-00001.parquet", rows)


def _folder(dataset: str) -> Path:
    return ROOT / DATASETS_FOLDER / dataset


def _card(dataset: str) -> Card:
    return load_card(_folder(dataset))
