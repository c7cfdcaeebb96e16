from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from natadv.errors import StoreError
from natadv.evaluate.embeddings import SELECT_AT_ONCE, EmbeddingCache, key_of, space
from natadv.evaluate.units import Numerics

NUMERICS = Numerics("cpu", "float32", batch_size=4, threads=1, packages={"torch": "2"})

WRITER = """
import sys
from pathlib import Path
import numpy as np
from natadv.evaluate.embeddings import EmbeddingCache

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


@pytest.mark.parametrize("content", [b"not sqlite at all" * 100, b"", b"\x00" * 8192])
def test_a_damaged_file_is_replaced(cache, content):
    cache.put({"a": np.ones(2, np.float32)})
    cache.path.write_bytes(content)

    assert cache.get(["a"]) == {}

    cache.put({"a": np.ones(2, np.float32)})

    assert cache.get(["a"])["a"].tolist() == [1, 1]


@pytest.mark.parametrize("change", ["substr(vector, 1, 4)", "vector || x'00000000'", "zeroblob(8)"])
def test_a_file_in_which_a_vector_was_changed_is_given_up_and_filled_again(cache, change):
    cache.put({"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)})
    with closing(sqlite3.connect(cache.path)) as connection, connection:
        connection.execute(f"UPDATE embedding SET vector = {change} WHERE key = 'a'")

    assert cache.get(["a", "b"]) == {}

    cache.put({"a": np.full(2, 3, np.float32)})

    assert cache.get(["a"])["a"].tolist() == [3, 3]


def test_no_flipped_bit_changes_a_vector(cache):
    vectors = {key_of(bytes([i])): np.full(8, i, np.float32) for i in range(40)}
    cache.put(vectors)
    whole = cache.path.read_bytes()

    for bit in np.random.default_rng(1).integers(0, 8 * len(whole), 200).tolist():
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        cache.path.write_bytes(bytes(flipped))
        for _ in range(2):
            found = cache.get(vectors)
            assert all(np.array_equal(found[key], vectors[key]) for key in found), bit
            cache.put({key: vectors[key] for key in vectors.keys() - found.keys()})


def test_a_vector_under_another_key_is_not_found(cache):
    cache.put({"a": np.ones(2, np.float32)})
    with closing(sqlite3.connect(cache.path)) as connection, connection:
        connection.execute("UPDATE embedding SET key = 'b'")

    assert cache.get(["a", "b"]) == {}


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
        ("code", "other"),
        ("gpus_per_model", 2),
    ],
)
def test_vectors_of_other_arithmetic_are_never_mixed(name, value):
    assert {f.name for f in fields(Numerics)} == {
        "device",
        "dtype",
        "batch_size",
        "threads",
        "packages",
        "code",
        "gpus_per_model",
        "search_code",
    }
    assert space("w", replace(NUMERICS, **{name: value})) != space("w", NUMERICS)


def test_vectors_of_other_weights_are_never_mixed():
    assert space("v", NUMERICS) != space("w", NUMERICS)


def test_a_key_is_the_hash_of_the_content():
    assert key_of(b"pixels") == hashlib.sha256(b"pixels").hexdigest()
