from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from natadv.engine.embeddings import SELECT_AT_ONCE, EmbeddingCache, key_of, space
from natadv.engine.units import Numerics
from natadv.errors import StoreError

NUMERICS = Numerics("cpu", "float32", batch_size=4, threads=1, packages={"torch": "2"})

WRITER = """
import sys
from pathlib import Path
import numpy as np
from natadv.engine.embeddings import EmbeddingCache

folder, number = Path(sys.argv[1]), int(sys.argv[2])
cache = EmbeddingCache(folder, "space")
for a in range(0, 100, 10):
    cache.put({str(i): np.full(4, 100 * number + i, np.float32) for i in range(a, a + 10)})
"""


@pytest.fixture
def cache(tmp_path):
    return EmbeddingCache(tmp_path / "embeddings", "space")


@given(vector=arrays(np.float32, st.integers(1, 9)))
def test_a_vector_comes_back_bit_for_bit(tmp_path_factory, vector):
    cache = EmbeddingCache(tmp_path_factory.mktemp("cache"), "space")
    cache.put({"k": vector})

    assert cache.get(["k"])["k"].tobytes() == vector.tobytes()
    assert cache.get(["k"])["k"].dtype == np.float32


def test_only_what_is_there_is_found(cache):
    cache.put({"a": np.ones(2, np.float32)})

    assert cache.get(["a", "b", "a"]).keys() == {"a"}
    assert cache.get([]) == {}


def test_the_first_of_two_writers_wins(cache):
    cache.put({"a": np.ones(2, np.float32)})
    cache.put({"a": np.zeros(2, np.float32), "b": np.zeros(2, np.float32)})

    found = cache.get(["a", "b"])
    assert found["a"].tolist() == [1, 1]
    assert found["b"].tolist() == [0, 0]


def test_more_keys_than_one_query_holds(cache):
    count = 2 * SELECT_AT_ONCE + 1
    cache.put({str(i): np.full(1, i, np.float32) for i in range(count)})

    found = cache.get(map(str, range(count)))
    assert [found[str(i)][0] for i in range(count)] == list(range(count))


def test_two_processes_write_at_once_and_nothing_is_lost(tmp_path, cache):
    command = [sys.executable, "-c", WRITER, str(tmp_path / "embeddings")]
    writers = [subprocess.Popen([*command, str(n)]) for n in range(2)]
    assert [w.wait() for w in writers] == [0, 0]

    found = cache.get(map(str, range(100)))
    assert len(found) == 100
    assert all(found[str(i)][0] % 100 == i for i in range(100))


def test_a_view_is_stored_as_what_it_shows(cache):
    cache.put({"a": np.arange(6, dtype=np.float64)[::2]})

    assert cache.get(["a"])["a"].tolist() == [0, 2, 4]


def test_a_damaged_file_says_that_it_may_be_deleted(cache):
    cache.put({"a": np.ones(2, np.float32)})
    cache.path.write_bytes(b"not sqlite at all" * 100)

    with pytest.raises(StoreError, match=r"cannot read .*delete the file: it is only a cache"):
        cache.get(["a"])
    with pytest.raises(StoreError, match=r"cannot write .*delete the file: it is only a cache"):
        cache.put({"a": np.ones(2, np.float32)})


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path):
    (tmp_path / "embeddings").write_text("in the way")

    with pytest.raises(StoreError, match="cannot write the embedding cache"):
        EmbeddingCache(tmp_path / "embeddings", "space").put({"a": np.ones(2, np.float32)})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("device", "cuda"),
        ("dtype", "float16"),
        ("batch_size", 8),
        ("threads", 2),
        ("packages", {"torch": "3"}),
    ],
)
def test_vectors_of_other_arithmetic_are_never_mixed(name, value):
    assert {f.name for f in fields(Numerics)} == {
        "device",
        "dtype",
        "batch_size",
        "threads",
        "packages",
    }
    assert space("w", replace(NUMERICS, **{name: value})) != space("w", NUMERICS)


def test_vectors_of_other_weights_or_another_unit_version_are_never_mixed(monkeypatch):
    before = space("w", NUMERICS)
    assert space("v", NUMERICS) != before

    monkeypatch.setattr("natadv.engine.embeddings.UNIT_VERSION", "next")

    assert space("w", NUMERICS) != before


def test_a_key_is_the_hash_of_the_content():
    assert key_of(b"pixels") == hashlib.sha256(b"pixels").hexdigest()
