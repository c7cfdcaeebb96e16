import threading

import pytest

from natadv.errors import ModelError
from natadv.evaluate.compute import compute
from natadv.evaluate.cores import CoreShare
from natadv.evaluate.embeddings import EmbeddingCache
from natadv.evaluate.loaded_model import LoadedModel
from natadv.tasks import classification
from natadv.tasks.classification import weights_of
from tests.evaluate.conftest import Eyes


class Watched(Eyes):
    """Notes which threads call what."""

    def __init__(self, concurrency):
        super().__init__()
        if concurrency:
            self.concurrency = concurrency
        self.callers = {"prepare": set(), "embed_images": set()}

    def prepare(self, images):
        self.callers["prepare"].add(threading.current_thread().name)
        return super().prepare(images)

    def embed_images(self, images):
        self.callers["embed_images"].add(threading.current_thread().name)
        return super().embed_images(images)


@pytest.fixture
def compute_with(tmp_path, make_unit, plain):
    """The rows of ten pictures, three batches, by a model on so many cores; and the model."""

    def computed(concurrency, cores, *, batch_size=4):
        model = Watched(concurrency)
        cache = EmbeddingCache(tmp_path / "embeddings", f"{concurrency}-{cores}-{batch_size}")
        share = CoreShare(cores, tmp_path / "cores")
        loaded = LoadedModel(model, cache, batch_size, cores=share)
        unit = make_unit()
        (result,) = compute([unit], plain, clean=None, loaded=loaded).values()
        return result["outcomes"], model

    return computed


@pytest.mark.parametrize("cores", [1, 2, 16])
@pytest.mark.parametrize("concurrency", [None, "nothing", "prepare", "all"])
def test_rows_do_not_depend_on_the_cores(compute_with, concurrency, cores):
    expected, _ = compute_with(None, 1)

    assert compute_with(concurrency, cores)[0] == expected


def test_a_model_that_says_nothing_is_called_by_two_threads_only(compute_with):
    _, model = compute_with(None, 16, batch_size=1)

    assert model.callers["embed_images"] == {"MainThread"}
    assert model.callers["prepare"] == {"in-order-0"}


def test_a_model_may_allow_the_preparation_of_several_batches_at_once(compute_with):
    _, model = compute_with("prepare", 16, batch_size=1)

    assert model.callers["embed_images"] == {"MainThread"}
    assert "MainThread" not in model.callers["prepare"]


def test_another_word_for_concurrency_is_refused(compute_with):
    message = "Watched: expected an attribute concurrency of nothing, prepare, all, got 'some'"
    with pytest.raises(ModelError, match=message):
        compute_with("some", 2)


def test_class_weights_are_made_once_for_each_set_of_prompts(loaded, monkeypatch):
    monkeypatch.setattr(classification, "KEPT_WEIGHTS", 2)
    first = weights_of(("cat", "dog"), loaded, templates=("a {}.",))
    monkeypatch.setattr(loaded.cache, "get", lambda _: pytest.fail("made anew"))

    assert weights_of(["cat", "dog"], loaded, templates=["a {}."]) is first

    monkeypatch.undo()
    monkeypatch.setattr(classification, "KEPT_WEIGHTS", 2)
    other = weights_of(("dog", "cat"), loaded, templates=("a {}.",))
    assert (other == first[::-1]).all()
    weights_of(("dog", "cow"), loaded, templates=("a {}.",))
    assert len(loaded.class_weights) == 1
