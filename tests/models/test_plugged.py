"""A model that is none of the known kinds, plugged in by a factory."""

from __future__ import annotations

import sys
import uuid
from importlib.metadata import EntryPoint, EntryPoints

import numpy as np
import pytest

from natadv import factories
from natadv.errors import ChangedError, ModelError
from natadv.models import plugged
from natadv.models.loading import fingerprint, load
from natadv.models.resolve import resolve

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

    with pytest.raises(ModelError, match="needs a ZeroShotClassifier, and Colours lacks"):
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
