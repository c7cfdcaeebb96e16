"""A healthy checkpoint passes; each planted fault is found, and the line says how to mend it."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from natadv.errors import ModelError
from natadv.models import doctor
from natadv.models.doctor import CHECKS, Patient, examine
from natadv.models.resolve import resolve
from natadv.tasks import ASKED
from natadv.types import ModelSpec


def lines_of(folder, **options):
    (spec,) = resolve(str(folder), root=folder.parent)
    return list(examine(spec, device="cpu", dtype="float32", **options))


def failures(lines):
    return {line.check: line.text for line in lines if not line.ok}


def test_healthy_checkpoint_passes_every_check(tiny):
    lines = lines_of(tiny)

    assert failures(lines) == {}
    assert {line.check for line in lines} == {"files", "loading", *CHECKS["classification"]}


def test_every_task_has_checks():
    assert set(CHECKS) == set(ASKED)
    assert all(CHECKS.values())


def test_pictures_that_were_not_scaled_are_found(tiny_siglip, copied, edited):
    folder = copied(tiny_siglip)
    edited(folder / "preprocessor_config.json", {"do_rescale": False})

    found = failures(lines_of(folder))
    assert "set do_rescale" in found["image range"]


@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_pictures_around_another_mean_are_found(tiny_siglip, copied, edited, mean):
    folder = copied(tiny_siglip)
    edited(folder / "preprocessor_config.json", {"image_mean": [mean] * 3})

    assert "image_mean" in failures(lines_of(folder))["image range"]


def test_scale_that_is_no_logarithm_is_found(tiny_siglip, copied):
    from safetensors.torch import load_file, save_file

    folder = copied(tiny_siglip)
    weights = load_file(folder / "model.safetensors")
    weights["logit_scale"].fill_(50.0)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    assert "store logit_scale as a logarithm" in failures(lines_of(folder))["scale and bias"]


def test_untrained_weights_are_found(tiny_siglip, copied):
    from safetensors.torch import load_file, save_file

    folder = copied(tiny_siglip)
    weights = load_file(folder / "model.safetensors")
    for name, tensor in weights.items():
        if "patch_embedding" in name:
            tensor.zero_()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    assert "different inputs give one embedding" in failures(lines_of(folder))["discernment"]


def test_a_model_that_cannot_be_loaded_is_reported_and_not_examined_further(tiny_clip, copied):
    folder = copied(tiny_clip)
    (spec,) = resolve(str(folder), root=folder.parent)
    (folder / "preprocessor_config.json").unlink()

    lines = list(examine(spec, device="cpu", dtype="float32"))
    assert [line.check for line in lines] == ["files", "loading"]
    assert "copy it from the checkpoint" in failures(lines)["loading"]


def test_known_pictures_must_be_recognised(tiny_clip, tmp_path):
    for name in ("cat", "dog"):
        Image.new("RGB", (32, 32), "red").save(tmp_path / f"{name}.png")

    found = failures(lines_of(tiny_clip, known=tmp_path))
    assert "1 of 2 pictures not recognised" in found["known answers"]


def test_folder_without_known_pictures_is_an_error(tiny_clip, tmp_path):
    found = failures(lines_of(tiny_clip, known=tmp_path))

    assert "expected at least two pictures called CLASS.png" in found["known answers"]


class Sick:
    """A classifier that does what it should, but for what a test changes."""

    scoring = SimpleNamespace(scale=10.0, bias=0.0, activation="softmax")

    def prepare(self, images):
        return np.array([np.asarray(i.resize((4, 4)), float).ravel()[:16] for i in images])

    def embed_images(self, prepared):
        return self.unit(prepared - 128.0)

    def embed_texts(self, texts):
        return self.unit(
            [[1, *(text.lower().count(c) for c in "abcdefghijklmno")] for text in texts]
        )

    @staticmethod
    def unit(rows):
        rows = np.asarray(rows, np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Dropping(Sick):
    def __init__(self):
        self.calls = 0

    def embed_images(self, prepared):
        self.calls += 1
        return self.unit(prepared - 128.0 + self.calls)


class Mixing(Sick):
    def embed_images(self, prepared):
        return self.unit(prepared - prepared.mean())


class PaddingShort(Sick):
    def embed_texts(self, texts):
        longest = max(map(len, texts))
        return self.unit(
            [[longest, *(t.lower().count(c) for c in "abcdefghijklmno")] for t in texts]
        )


class CaseKeeping(Sick):
    def embed_texts(self, texts):
        return self.unit([[1, *(text.count(c) for c in "abcdefghijklmno")] for text in texts])


class Long(Sick):
    def embed_images(self, prepared):
        return 3 * super().embed_images(prepared)


def patient(model, tmp_path, loader="transformers-clip", **other):
    spec = ModelSpec("sick", "sick", "clip", tmp_path, loader, ("classification",), **other)
    return Patient(spec, model, "float32")


def test_a_well_one_passes(tmp_path):
    for name, check in CHECKS["classification"].items():
        assert check(patient(Sick(), tmp_path)), name


@pytest.mark.parametrize(
    ("model", "check", "advice"),
    [
        (Dropping(), "same twice", "switch dropout off"),
        (Mixing(), "batch size", "the pictures of a batch interact"),
        (PaddingShort(), "text padding", "pad every text to the full context"),
        (CaseKeeping(), "spelling", "prompts have to be lower-cased"),
        (Long(), "embeddings", "expected 1"),
    ],
)
def test_each_fault_is_found_by_its_check(tmp_path, model, check, advice):
    with pytest.raises(ModelError, match=re.escape(advice)):
        CHECKS["classification"][check](patient(model, tmp_path))


def test_spelling_of_the_paper_is_no_fault_where_it_was_asked_for(tmp_path):
    asked = patient(CaseKeeping(), tmp_path, feeding="paper")

    assert "as in the paper" in CHECKS["classification"]["spelling"](asked)


class Parrot:
    """Answers with a number that depends on what a test changes."""

    def __init__(self, *, prompt=False, batch=False, sampling=False):
        self.prompt, self.batch, self.sampling = prompt, batch, sampling
        self.calls = 0

    def answer(self, images, questions):
        self.calls += self.sampling
        said = self.calls + self.batch * len(images)
        return tuple(f"{q} {said}" if self.prompt else f"{said}" for q in questions)


@pytest.mark.parametrize(
    ("fault", "check", "advice"),
    [
        ("sampling", "same twice", "generate without sampling"),
        ("batch", "batch size", "pad on the left"),
        ("prompt", "prompt", "decode the new tokens only"),
    ],
)
def test_faults_of_an_answerer_are_found(tmp_path, fault, check, advice):
    for healthy in CHECKS["vqa"].values():
        healthy(patient(Parrot(), tmp_path))

    with pytest.raises(ModelError, match=re.escape(advice)):
        CHECKS["vqa"][check](patient(Parrot(**{fault: True}), tmp_path))


class Painter:
    def __init__(self, *, logits=False, batch=False, dropout=False):
        self.logits, self.batch, self.dropout = logits, batch, dropout
        self.calls = 0

    def segment(self, images, phrases):
        self.calls += self.dropout
        value = 0.2 + 0.1 * self.calls + 0.05 * self.batch * len(images) + 3 * self.logits
        return np.full((len(images), 4, 4), value, np.float32)


@pytest.mark.parametrize(
    ("fault", "check", "advice"),
    [
        ("logits", "masks", "apply the sigmoid"),
        ("dropout", "same twice", "switch dropout off"),
        ("batch", "batch size", "pad phrases"),
    ],
)
def test_faults_of_a_segmenter_are_found(tmp_path, fault, check, advice):
    for healthy in CHECKS["segmentation"].values():
        healthy(patient(Painter(), tmp_path))

    with pytest.raises(ModelError, match=re.escape(advice)):
        CHECKS["segmentation"][check](patient(Painter(**{fault: True}), tmp_path))


def test_any_exception_of_a_model_is_a_finding(tiny_clip, monkeypatch):
    def explode(*_, **__):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(doctor, "load", explode)

    assert failures(lines_of(tiny_clip))["loading"] == "ZeroDivisionError: planted"
