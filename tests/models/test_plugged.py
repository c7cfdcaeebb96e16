"""A model that is none of the known kinds, plugged in by a factory."""

from __future__ import annotations

import io
import re
import sys
import uuid
from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from natadv import factories
from natadv.data.card import CardDraft
from natadv.data.packing import write_dataset
from natadv.errors import ChangedError, ModelError
from natadv.evaluate.compute import compute
from natadv.evaluate.datasets import Dataset
from natadv.evaluate.embeddings import EmbeddingCache
from natadv.evaluate.loaded_model import LoadedModel
from natadv.evaluate.outcomes_json import outcomes_of
from natadv.evaluate.plan import dataset_units
from natadv.evaluate.units import Numerics
from natadv.models import plugged
from natadv.models.doctor import LOGIT_CHECKS, Patient, examine
from natadv.models.loading import fingerprint, load
from natadv.models.resolve import resolve
from natadv.rng import rng_for
from natadv.types import Case, ModelSpec, Sample

FACTORY = """
import numpy as np
from natadv.models.plugged import Plug

class Scoring:
    scale, bias, activation = 20.0, 0.0, "softmax"

class Colours:
    scoring = Scoring()
    def __init__(self, path):
        self.weights = np.load(path)
    def prepare(self, images):
        small = [np.asarray(i.resize((8, 8)), np.float32) for i in images]
        return np.stack(small).mean(axis=(1, 2))
    def embed_images(self, prepared):
        rows = prepared @ self.weights
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)
    def embed_texts(self, texts):
        return np.eye(3, dtype=np.float32)[[len(text) % 3 for text in texts]]

def colours():
    return Plug(load=lambda device, dtype: Colours("FOLDER/w.npy"), files=["w.npy"])
"""


@pytest.fixture
def plug(tmp_path):
    """Writes a module of a fresh name into the folder; `MODULE:colours` and the folder."""
    np.save(tmp_path / "w.npy", np.eye(3, dtype=np.float32))

    def write(text=FACTORY, *, factory="colours"):
        name = f"plug_{uuid.uuid4().hex}"
        (tmp_path / f"{name}.py").write_text(text.replace("FOLDER", str(tmp_path)))
        return f"{name}:{factory}"

    return write


def spec_of(reference, folder):
    (found,) = resolve(reference, root=folder / "elsewhere", base=folder)
    return found


def test_factory_of_twenty_lines_plugs_a_model_in(plug, tmp_path, photographs, embedded):
    spec = spec_of(plug(), tmp_path)
    model = load(spec, device="cpu", dtype="float32", threads=1)

    assert spec.tasks == ("classification",)
    assert spec.name == spec.lineage
    assert embedded(model, photographs).shape == (len(photographs), 3)


def test_the_search_path_is_left_as_it_was(plug, tmp_path):
    before = list(sys.path)
    spec_of(plug(), tmp_path)

    assert sys.path == before


def test_new_weights_are_another_model(plug, tmp_path):
    spec = spec_of(plug(), tmp_path)
    before = fingerprint(spec)
    np.save(tmp_path / "w.npy", 2 * np.eye(3, dtype=np.float64))

    assert fingerprint(spec) != before


def test_new_code_is_another_model(plug, tmp_path):
    one, other = (spec_of(plug(text), tmp_path) for text in (FACTORY, FACTORY + "\n# changed\n"))

    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise KeyError('no weights')", r"it raised KeyError: 'no weights'"),
        ("return 7", r"expected it to return natadv\.models\.plugged\.Plug, got int"),
        ("return Plug(load=print, files=[])", r"names at least one file"),
        ("return Plug(load=print, files=['w.npy'], tasks=('poetry',))", r"tasks=\('poetry',\)"),
    ],
)
def test_factory_that_fails_is_reported_in_one_line(plug, tmp_path, body, message):
    reference = plug(f"from natadv.models.plugged import Plug\ndef colours():\n    {body}\n")

    with pytest.raises(ModelError, match=message) as caught:
        spec_of(reference, tmp_path)
    assert reference in str(caught.value)
    assert "\n" not in str(caught.value)


def test_factory_that_is_not_there_is_reported(plug, tmp_path):
    with pytest.raises(ModelError, match="has no function 'shapes'"):
        spec_of(plug(factory="shapes"), tmp_path)


def test_module_that_cannot_be_imported_is_reported(plug, tmp_path):
    with pytest.raises(ModelError, match=r"cannot import 'no_such_module' \(looked in .*\)"):
        spec_of("no_such_module:colours", tmp_path)
    with pytest.raises(ModelError, match="ZeroDivisionError"):
        spec_of(plug("1 / 0"), tmp_path)


def test_file_that_is_not_there_is_reported(plug, tmp_path):
    spec = spec_of(plug(), tmp_path)
    (tmp_path / "w.npy").unlink()

    with pytest.raises(ModelError, match=r"no file .*w\.npy, though its Plug names it"):
        fingerprint(spec)


def test_model_without_what_its_task_needs_is_refused_on_loading(plug, tmp_path):
    spec = spec_of(plug(FACTORY.replace("def embed_texts", "def read")), tmp_path)

    with pytest.raises(ModelError, match="needs a ZeroShotClassifier or a Classifier, and Colours"):
        load(spec, device="cpu", dtype="float32", threads=1)


def test_loading_that_raises_is_reported(plug, tmp_path):
    spec = spec_of(plug(), tmp_path)
    (tmp_path / "w.npy").write_bytes(b"not numbers")

    with pytest.raises(ModelError, match=r"colours: loading raised \w+Error"):
        load(spec, device="cpu", dtype="float32", threads=1)


def test_entry_point_is_a_model_by_its_name(plug, tmp_path, monkeypatch):
    point = EntryPoint("our-colours", plug(), plugged.GROUP)
    found = EntryPoints([point])
    monkeypatch.setattr(factories.metadata, "entry_points", lambda group: found.select(group=group))
    factories.entry_points.cache_clear()

    try:
        assert spec_of("our-colours", tmp_path).name == "our-colours"
    finally:
        factories.entry_points.cache_clear()


def test_module_that_is_written_after_it_was_imported_is_refused(plug, tmp_path):
    spec = spec_of(plug(), tmp_path)
    spec.folder.write_text(spec.folder.read_text() + "\n# another\n")

    with pytest.raises(ChangedError, match="was written after it was imported; run again"):
        fingerprint(spec)


PAGE = Path(__file__).parents[2] / "docs" / "models.md"
NAMES = ("dog", "cat", "bird")


@pytest.fixture(scope="module")
def modules():
    """The Python of the page, by the name of the file that its block makes."""
    found = re.findall(r'```python title="(\w+)\.py"\n(.*?)```', PAGE.read_text(), re.S)
    return {f"{name}_{uuid.uuid4().hex}": code for name, code in found}


@pytest.fixture
def network(tmp_path):
    """A ResNet that would say one class for all pictures, were it not for its bias."""
    import torch
    from torchvision import models

    torch.manual_seed(5)
    net = models.resnet18(num_classes=len(NAMES)).eval()
    with torch.no_grad():
        net.fc.bias.zero_()
        coarse = torch.rand(64, 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
        net.fc.bias.copy_(-net(coarse).mean(dim=0))
    torch.save(net.state_dict(), tmp_path / "net.pt")
    return net


@pytest.fixture
def plugged_network(modules, tmp_path, network, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (name,) = (name for name in modules if name.startswith("net_"))
    (tmp_path / f"{name}.py").write_text(modules[name])
    return spec_of(f"{name}:net", tmp_path)


def test_the_page_plugs_a_network_in_with_ten_lines_and_its_imports(modules):
    (code,) = (code for name, code in modules.items() if name.startswith("net_"))
    lines = [line for line in code.splitlines() if line and "import" not in line]

    assert len(lines) <= 10


def test_a_fixed_head_answers_what_its_own_argmax_says(plugged_network, network, pack_coloured):
    """The dataset has its classes in another order than the network."""
    import torch

    dataset, samples = pack_coloured(("bird", "cat", "dog"), 70)
    model = load(plugged_network, device="cpu", dtype="float32", threads=1)
    pixels = [np.asarray(image.resize((64, 64), 3), np.float32) / 255 for image, _ in samples]
    with torch.inference_mode():
        logits = network(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)).numpy()

    rows = measured(model, dataset)

    own = [NAMES[i] for i in logits.argmax(axis=1)]
    assert rows.prediction == tuple(own)
    without = (logits - network.fc.bias.detach().numpy()).argmax(axis=1)
    assert len(set(own)) == 3
    assert len(set(without)) < 3
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(rows.values["score"], shares.max(axis=1), rtol=1e-4)
    truths = [NAMES.index(name) for _, name in samples]
    np.testing.assert_array_equal(rows.values["correct"], logits.argmax(axis=1) == truths)


def test_class_names_that_a_model_lacks_are_named(plugged_network, monkeypatch):
    with pytest.raises(ModelError, match=r"knows 3 class names, but 'cow', 'ant' of the dataset's"):
        plugged.check_classes(plugged_network, ["cow", "cat", "ant", "cow"])
    monkeypatch.setattr("natadv.models.plugged.LISTED", 1)
    with pytest.raises(ModelError, match=r"but 'cow' and 1 more of the dataset's 3 are not"):
        plugged.check_classes(plugged_network, ["cow", "cat", "ant"])
    plugged.check_classes(replace(plugged_network, classes=()), ["cow"])


def test_doctor_examines_a_closed_vocabulary(plugged_network):
    lines = {line.check: line for line in examine(plugged_network, device="cpu", dtype="float32")}
    asked = {
        line.check: line
        for line in examine(
            plugged_network, device="cpu", dtype="float32", classes=("cat", "cow", "dog")
        )
    }

    assert all(line.ok for line in lines.values()), [str(line) for line in lines.values()]
    assert "knows 3 class names only" in lines["class names"].text
    assert "text padding, spelling, scale and bias" in lines["not checked"].text
    assert [line.check for line in asked.values() if not line.ok] == ["class names"]
    assert "'cow' of the dataset's 3 are not" in asked["class names"].text


class Sick:
    """Gives logits, with a planted fault."""

    def __init__(self, fault):
        self.fault, self.calls = fault, 0

    def classify(self, images, classes):
        self.calls += 1
        light = np.array([np.asarray(image, np.float64).mean() for image in images])
        table = np.sin(np.arange(1, len(classes) + 1) * light[:, None])
        match self.fault:
            case "unknown":
                raise KeyError(classes[0])
            case "column":
                return table[:, :-1]
            case "nan":
                return table * np.nan
            case "order":
                return table
            case "twice":
                return table + self.calls
            case "batch":
                return table - table.mean()
            case "blind":
                return table * 0
        return np.array([[np.sin(sum(map(ord, n)) * x) for n in classes] for x in light])


def test_doctor_finds_each_fault_of_a_classifier(tmp_path):
    spec = ModelSpec("sick", "sick", "plugged", tmp_path, "plugged", ("classification",))
    finds = {
        "unknown": ("class names", r"by the names 'cat', 'dog', 'bird': KeyError: 'cat'"),
        "column": ("logits", r"shape \(8, 2\) for 8 pictures and 3 class names"),
        "nan": ("logits", "logits are not finite"),
        "order": ("class order", "in the order of the names"),
        "twice": ("same twice", "switch dropout off"),
        "batch": ("batch size", "the pictures of a batch interact"),
        "blind": ("discernment", "different pictures give the same logits"),
    }

    for fault, (check, message) in finds.items():
        with pytest.raises(ModelError, match=message):
            LOGIT_CHECKS[check](Patient(spec, Sick(fault), "float32"))
    for check in LOGIT_CHECKS.values():
        check(Patient(spec, Sick(""), "float32"))


def test_logits_of_another_shape_or_without_numbers_are_refused(pack_coloured):
    dataset, _ = pack_coloured(NAMES, 5)
    for fault, message in {
        "column": r"my-net: expected classify to return logits of shape \(4, 3\)",
        "nan": "my-net: logits are not finite",
    }.items():
        with pytest.raises(ModelError, match=message):
            measured(Sick(fault), dataset)


def test_the_other_model_of_the_page_runs(modules, tmp_path, photographs, embedded):
    (name,) = (name for name in modules if name.startswith("mine_"))
    (tmp_path / f"{name}.py").write_text(modules[name])
    np.save(tmp_path / "w.npy", np.eye(3, dtype=np.float32))
    model = load(spec_of(f"{name}:colours", tmp_path), device="cpu", dtype="float32", threads=1)

    np.testing.assert_allclose(np.linalg.norm(embedded(model, photographs), axis=1), 1, rtol=1e-6)


def test_classes_belong_to_a_model_that_classifies_by_names(plug, tmp_path):
    named = FACTORY.replace('files=["w.npy"]', 'files=["w.npy"], classes=["cat"]')
    with pytest.raises(ModelError, match="Colours has none; leave classes out"):
        load(spec_of(plug(named), tmp_path), device="cpu", dtype="float32", threads=1)
    with pytest.raises(ModelError, match="classes of a Plug to be a list of names, got 'cat'"):
        spec_of(plug(named.replace('["cat"]', '"cat"')), tmp_path)


@pytest.fixture
def pack_coloured(tmp_path):
    """Pictures of random colours as a dataset; each with the name of its class."""

    def pack(classes, count, *, candidates=False):
        rng = rng_for("coloured")
        rows = []
        for index in range(count):
            pixels = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
            image = Image.fromarray(pixels).resize((70, 50), Image.Resampling.NEAREST)
            content = io.BytesIO()
            image.save(content, "PNG")
            own = (classes[index % 3], classes[(index + 1) % 3]) if candidates else ()
            sample = Sample(
                f"s{index:03}", f"g{index}", content.getvalue(), index % 3, candidates=own
            )
            rows.append((image, sample))
        draft = CardDraft(
            name="coloured",
            tasks=("classification",),
            scenario="clean",
            classes=tuple(classes),
            templates=("{}",),
            licence="CC0-1.0",
            source="made by the tests",
            description="random colours",
            candidates=candidates,
        )
        folder = tmp_path / "fixtures" / "datasets" / "coloured"
        card = write_dataset(folder, draft, [sample for _, sample in rows])
        named = [(image, classes[sample.label]) for image, sample in rows]
        return Dataset("coloured", folder, card), named

    return pack


def measured(model, dataset):
    """The rows of a unit, computed in batches of four."""
    cache = EmbeddingCache(dataset.folder.parent / "cache", "space")
    numerics = Numerics("cpu", "float32", 4, 1)
    (unit,) = dataset_units(
        Case("classification", "clean", dataset.name, "my-net"),
        dataset,
        variant="attack",
        weights="w",
        rows=dataset.card.rows,
        numerics=numerics,
    )
    loaded = LoadedModel(model, cache, 4, name="my-net")
    return outcomes_of([compute([unit], dataset, clean=None, loaded=loaded)[unit.key]])


def test_rows_with_candidates_choose_among_their_own(pack_coloured, tmp_path):
    dataset, samples = pack_coloured(NAMES, 9, candidates=True)

    rows = measured(Sick(""), dataset)

    for (image, own), said, margin in zip(
        samples, rows.prediction, rows.values["margin"], strict=True
    ):
        other = NAMES[(NAMES.index(own) + 1) % 3]
        (logits,) = Sick("").classify([image], [own, other])
        assert margin == pytest.approx(logits[0] - logits[1])
        assert said == (own if logits[0] > logits[1] else other)
    with pytest.raises(ModelError, match=r"my-net: classify raised KeyError: 'bird'; if the model"):
        measured(Sick("unknown"), dataset)


def test_the_order_of_the_names_tells_no_truth(pack_coloured):
    """A model that never looks and prefers the first name: here each truth is the later one."""

    class Blind:
        def classify(self, images, names):
            return np.tile(-np.arange(len(names), dtype=np.float32), (len(images), 1))

    dataset, _ = pack_coloured(["zebra", "yak", "ant"], 1, candidates=True)

    rows = measured(Blind(), dataset)

    assert (rows.truth, rows.prediction) == (("zebra",), ("yak",))
